"""The whole preparation: find pairs, check them, group them by ground, choose sides, cut, record, audit, map."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from Systems.mars.preparing.footprint_map import draw_footprints
from Systems.mars.preparing.footprints import Footprint, footprint_of, group_pairs
from Systems.mars.preparing.options import PrepareOptions
from Systems.mars.preparing.pair_reader import PairReader
from Systems.mars.preparing.pair_tiles import PairTiles, cut_pair, tile_places
from Systems.mars.preparing.product_checks import CheckedPair, check_pair
from Systems.mars.preparing.product_pairs import PairFiles, find_pairs
from Systems.mars.preparing.records import Prepared, summarise, write_records
from Systems.mars.preparing.sides import choose_sides
from Utils.core.errors import RasterError, UserError, write_error
from Utils.core.processes import progress_bar
from Utils.core.tables import read_csv, write_json
from Utils.rasters.environment import gdal_environment

__all__ = ["prepare"]

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

_SUMMARY = "prepare.json"
_LISTED = 5


def prepare(options: PrepareOptions, dry_run: bool = False) -> str:
    """Prepare a dataset from products.

    What a former run has cut is kept, so that a run that was interrupted goes on, and pairs can be added.

    Args:
        options: what is prepared, and how.
        dry_run: check and divide the pairs, write nothing.

    Returns:
        What was written, or would be, in words.

    Raises:
        UserError: options or products that do not fit together, or nothing to write.
        RasterError: a product that the user named cannot be read.
    """
    _check_output(options.output)
    files = find_pairs(options.products, options.dtms, options.orthos)
    with gdal_environment():
        looked, refused = _look_at(files, options)
        footprints = {pair.name: footprint for pair, footprint, _ in looked}
        groups = group_pairs(footprints, {pair.name: pair.sources for pair, _, _ in looked}, options.margin)
        sides = choose_sides(groups, options)
        _tell_moved(options.output, sides)
        prepared = [
            Prepared(pair, footprint, covered, groups[pair.name], sides[pair.name])
            for pair, footprint, covered in looked
        ]
        places = {pair.name: len(list(tile_places(pair.grid, options.size, options.step))) for pair, _, _ in looked}
        if dry_run:
            return f"{summarise(prepared, None, places)}\nnothing was written (dry run)"
        try:
            return _write(options, prepared, refused, places)
        except OSError as error:
            consequence = "the same command goes on from here"
            raise write_error(Path(error.filename or options.output), error, consequence) from error


def _check_output(output: Path) -> None:
    if output.is_dir() and any(output.iterdir()) and not (output / _SUMMARY).is_file():
        raise UserError(f"--output '{output}' holds something else; give a new folder, or that of a former run")
    if output.exists() and not output.is_dir():
        raise UserError(f"--output '{output}' is a file; give a folder")


def _look_at(
    files: Sequence[PairFiles], options: PrepareOptions
) -> tuple[list[tuple[CheckedPair, Footprint, float]], list[tuple[str, str]]]:
    """The pairs that can be used, and those found in folders that cannot, with the reasons."""

    def look(one: PairFiles) -> tuple[CheckedPair, Footprint, float] | str:
        try:
            pair = check_pair(one, options)
            if min(pair.grid.height, pair.grid.width) < options.size:
                raise UserError(
                    f"'{pair.dtm}' has {pair.grid.height} x {pair.grid.width} pixels, less than a tile of "
                    f"{options.size}; give a smaller --size"
                )
            with PairReader(pair) as reader:
                known = reader.known_places()
                return pair, footprint_of(pair.grid, known), reader.check_overlap(known)
        except (UserError, RasterError) as error:
            if one.named:
                raise
            return str(error)

    looked, refused = [], []
    for one, found in zip(files, _in_threads(look, files, options.workers, "checking"), strict=True):
        if isinstance(found, str):
            refused.append((one.name, found))
            logger.warning("left out %s: %s", one.name, found)
        else:
            looked.append(found)
    if not looked:
        raise UserError(f"none of {len(files)} pairs can be used; the first: {refused[0][1]}")
    if refused:
        logger.warning("%d of %d pairs are left out; left_out.csv lists them", len(refused), len(files))
    return looked, refused


def _write(
    options: PrepareOptions, prepared: Sequence[Prepared], refused: Sequence[tuple[str, str]], places: dict[str, int]
) -> str:
    options.output.mkdir(parents=True, exist_ok=True)
    # First, because it marks the folder as ours.
    write_json(options.output / _SUMMARY, {"options": options.describe(), "finished": False})

    def cut(one: Prepared) -> PairTiles:
        return cut_pair(one.pair, options)

    cuts = _in_threads(cut, prepared, options.workers, "cutting")
    tiles = {one.pair.name: found for one, found in zip(prepared, cuts, strict=True)}
    there = sum(found.was_there for found in cuts)
    if there:
        logger.info("%d of %d pairs were cut before and are kept as they are", there, len(cuts))
    empty = [name for name, found in tiles.items() if not found.kept]
    if len(empty) == len(tiles):
        most = options.most_void
        raise UserError(
            f"all {sum(places.values())} tiles are left out: more than --max-nodata {most:g} of each has no image or "
            "no height; raise it, or give smaller tiles with --size"
        )
    if empty:
        logger.warning(
            "%d of %d pairs give no tile, such as %s: more than --max-nodata %g of each tile is void",
            len(empty),
            len(tiles),
            ", ".join(empty[:_LISTED]),
            options.most_void,
        )
    write_records(options, prepared, tiles, refused)
    draw_footprints(options.output / "footprints.png", prepared)
    counts = {one.pair.name: len(tiles[one.pair.name].kept) for one in prepared}
    write_json(
        options.output / _SUMMARY,
        {
            "options": options.describe(),
            "finished": True,
            "pairs": len(prepared),
            "refused": len(refused),
            "tiles": sum(counts.values()),
            "height_references": sorted({one.pair.reference for one in prepared}),
            "audit": _audit(options.output),
        },
    )
    written = "tiles.csv, pairs.csv, left_out.csv, splits/, footprints.png, audit/ and prepare.json"
    return f"{summarise(prepared, tiles, places)}\n{options.output}: {written}"


def _tell_moved(output: Path, sides: dict[str, str]) -> None:
    """Say which pairs of a former run are on another side now."""
    try:
        before = {str(row["pair"]): str(row["side"]) for row in read_csv(output / "pairs.csv", ("pair", "side"))}
    except (OSError, ValueError, KeyError):
        return
    moved = [name for name, side in sides.items() if before.get(name, side) != side]
    if moved:
        logger.warning(
            "%d of %d pairs are on another side than in the former run, such as %s (%s, now %s): the options differ, "
            "or a new pair joins its ground to that of others. A model of the former split may have learnt from what "
            "is tested now",
            len(moved),
            len(sides),
            moved[0],
            before[moved[0]],
            sides[moved[0]],
        )


def _in_threads(work: Callable[[Item], Result], items: Sequence[Item], workers: int, what: str) -> list[Result]:
    """The results in order; reading and compressing release the interpreter's lock."""
    with ThreadPoolExecutor(max_workers=workers) as pool:
        try:
            return list(progress_bar(pool.map(work, items), total=len(items), desc=what, unit="pair"))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _audit(output: Path) -> dict[str, Any]:
    """Audit the finished tiles; its files go beside them."""
    from Utils.data.audit.any_training import any_training
    from Utils.data.audit.audit_report import describe, summarise, write_audit
    from Utils.data.audit.survey import audit

    table = output / "tiles.csv"
    found = audit(any_training(table), [], None, os.cpu_count() or 1)
    summary = summarise(table, found.inspections, found.findings)
    write_audit(output / "audit", summary, [item.row for item in found.inspections])
    logger.info("%s", describe(summary))
    return {name: summary[name] for name in ("training_would_start", "errors", "warnings")}
