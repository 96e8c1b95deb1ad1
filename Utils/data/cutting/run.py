"""The whole cut: pair, lay tiles, look, deal the blocks, write, audit."""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from Utils.core.command_line import each_line_once
from Utils.core.errors import UserError, write_error
from Utils.core.processes import progress_bar
from Utils.data.cutting.block_map import draw_map
from Utils.data.cutting.blocks import BlockLayout, BlockName, Place, deal, lay_tiles, wanted_sides
from Utils.data.cutting.coarse import CoarseReader
from Utils.data.cutting.heights import HeightReader, open_dem
from Utils.data.cutting.interrupted import Interrupted
from Utils.data.cutting.options import CutOptions
from Utils.data.cutting.pairs import Pairs, find_pairs
from Utils.data.cutting.records import Tile, part_of, summarise, write_records
from Utils.data.cutting.scene import SceneReader, read_header
from Utils.data.cutting.survey import KEPT, REASONS, Look, count_reasons, look
from Utils.data.cutting.tile_writer import TilePaths, make_folders, write_tile
from Utils.rasters.environment import gdal_environment
from Utils.rasters.places import container

__all__ = ["cut"]

logger = logging.getLogger(__name__)

_THUMBNAIL = 600
# Images that stay open from looking to writing.
_MOST_OPEN = 8


def cut(options: CutOptions, resume: bool = False, dry_run: bool = False) -> str:
    """Cut images and DEMs into the tiles of a dataset.

    Args:
        options: what is cut, and how.
        resume: go on with an interrupted cut.
        dry_run: look at everything, write nothing.

    Returns:
        What was written, or would be, in words.

    Raises:
        UserError: files or options that do not fit together, or nothing to write.
        RasterError: a file that cannot be read.
    """
    request = {**options.describe(), "files": _states(options)}
    if resume and Interrupted.is_finished(options.output, request):
        return f"{options.output} is finished; nothing was left to do"
    with gdal_environment(), each_line_once():
        pairs = _read_headers(options)
        places, layout = _lay(pairs, options)
        interrupted = Interrupted(options.output, request, resume, writes=not dry_run)
        with _Work(options, pairs, layout, interrupted) as work:
            looks = work.look_at(places)
            if not any(one.verdict == KEPT for one in looks):
                raise UserError(_nothing_kept(looks, options))
            kept = [place for place, one in zip(places, looks, strict=True) if one.verdict == KEPT]
            sides = deal(kept, wanted_sides(options.test, options.folds), options.seed)
            tiles = _number(places, looks, sides)
            summary = summarise(tiles, places, looks, layout, sides)
            if dry_run:
                return f"{summary}\nnothing was written (dry run)"
            try:
                work.write(tiles)
                result = write_records(options, pairs, tiles, places, looks, layout)
                draw_map(options.output / "map.png", pairs, layout, places, looks, sides, interrupted.thumbnail)
                interrupted.finish({**result, "audit": _audit(options)})
            except OSError as error:
                raise write_error(
                    Path(error.filename or options.output), error, "--resume goes on from here"
                ) from error
    return f"{summary}\n{options.output}: tiles, tiles.csv, left_out.csv, splits/, map.png, audit/ and cut.json"


def _states(options: CutOptions) -> list[list[Any]]:
    """Size and time of change of every input: another file under the same name is another cut."""
    paths = [*options.images, *options.heights, *options.coarse]
    files = [container(path) for path in paths]
    states = [file.stat() if file.exists() else None for file in files]
    return [
        [path.as_posix(), state.st_size if state else 0, state.st_mtime_ns if state else 0]
        for path, state in zip(paths, states, strict=True)
    ]


def _read_headers(options: CutOptions) -> Pairs:
    both = {path.resolve() for path in options.images} & {path.resolve() for path in options.heights}
    if both:
        raise UserError(f"'{min(both)}' is named by --image and by --height; name each raster once")
    crs = options.given_crs
    images = [read_header(path, crs, options.distance) for path in options.images]
    dems, coarse = (
        [open_dem(path, crs, options.height_nodata, options.height_unit, options.keep_outliers) for path in paths]
        for paths in (options.heights, options.coarse)
    )
    for image in images:
        _tell_shape(image.path, image.metres)
    return find_pairs(images, dems, coarse, options.strip)


def _tell_shape(path: Path, metres: tuple[float, float] | None) -> None:
    if metres is not None and max(metres) > 1.05 * min(metres):
        logger.info(
            "%s: pixels of %.4g x %.4g m (across x down) are not square, so slopes look steeper one way; "
            "--gsd %.3g makes them square",
            path,
            metres[1],
            metres[0],
            (metres[0] * metres[1]) ** 0.5,
        )


def _lay(pairs: Pairs, options: CutOptions) -> tuple[list[Place], BlockLayout]:
    grids = [image.grid for image in pairs.images]
    layout = BlockLayout(options.size, options.overlap, options.strip, options.block)
    places, layout = lay_tiles(pairs.areas, grids, layout, len(wanted_sides(options.test, options.folds)))
    if not places:
        largest = max(grids, key=lambda grid: min(grid.height, grid.width))
        raise UserError(
            f"no tile of {options.size} x {options.size} pixels fits into an image; the largest has {largest.width} x "
            f"{largest.height}; give a smaller --size"
        )
    return places, layout


def _nothing_kept(looks: Sequence[Look], options: CutOptions) -> str:
    reasons = [
        f"{count} because {REASONS[reason]}"
        for reason, count in count_reasons(looks).items()
        if count and reason != KEPT
    ]
    return (
        f"all {len(looks)} tiles are left out: {', '.join(reasons)}; check where images and DEMs overlap, "
        f"--nodata and --height-nodata, or raise --max-nodata ({options.max_nodata:g})"
    )


def _number(places: Sequence[Place], looks: Sequence[Look], sides: dict[BlockName, str]) -> list[Tile]:
    kept = [(place, one) for place, one in zip(places, looks, strict=True) if one.verdict == KEPT]
    return [Tile(str(number), place, one, sides[place.block]) for number, (place, one) in enumerate(kept, start=1)]


@dataclass(frozen=True)
class _Readers:
    """What reads the tiles of an image."""

    scene: SceneReader
    heights: HeightReader
    coarse: CoarseReader | None


class _Work:
    """Reading and writing of all images, one after another. A context manager."""

    def __init__(self, options: CutOptions, pairs: Pairs, layout: BlockLayout, interrupted: Interrupted) -> None:
        self.options, self.pairs, self.layout, self.interrupted = options, pairs, layout, interrupted
        self._open: OrderedDict[int, tuple[ExitStack, _Readers]] = OrderedDict()

    def __enter__(self) -> _Work:
        return self

    def __exit__(self, *_: object) -> None:
        while self._open:
            self._open.popitem()[1][0].close()

    def _readers(self, number: int) -> _Readers:
        """Open an image and its DEMs; the last few stay open, because they are checked at length on opening."""
        if number not in self._open:
            if len(self._open) >= _MOST_OPEN:
                self._open.popitem(last=False)[1][0].close()
            options, pairs, grid = self.options, self.pairs, self.pairs.images[number].grid
            with ExitStack() as stack:
                scene = SceneReader(
                    pairs.images[number], options.bands, options.nodata, options.stretch, options.suspect_voids
                )
                stack.enter_context(scene)
                heights = stack.enter_context(HeightReader(pairs.dems[number], grid))
                coarse = None
                if options.coarse:
                    coarse = CoarseReader(stack.enter_context(HeightReader(pairs.coarse[number], grid)))
                elif options.coarsen:
                    coarse = CoarseReader(heights, options.coarsen)
                self._open[number] = stack.pop_all(), _Readers(scene, heights, coarse)
        self._open.move_to_end(number)
        return self._open[number][1]

    def look_at(self, places: Sequence[Place]) -> list[Look]:
        """Look at all places."""
        by_scene = _by_scene(places)
        found: dict[int, Look] = {}
        with progress_bar(total=len(places), desc="looking", unit="tile") as bar:
            for number, chosen in by_scene.items():
                looks = self.interrupted.looks(number, len(chosen))
                if looks is None:
                    looks = []
                    readers = self._readers(number)
                    size, most = self.layout.size, self.options.max_nodata
                    for place in chosen:
                        looks.append(look(places[place], size, most, readers.scene, readers.heights, readers.coarse))
                        bar.update()
                    self.interrupted.keep_thumbnail(number, readers.scene.thumbnail(_THUMBNAIL))
                    self.interrupted.keep_looks(number, looks)
                else:
                    bar.update(len(chosen))
                found.update(zip(chosen, looks, strict=True))
        return [found[place] for place in range(len(places))]

    def write(self, tiles: Sequence[Tile]) -> None:
        """Write all tiles that are not there yet."""
        output, has_coarse = self.options.output, self.options.has_coarse
        for part in {part_of(tile.side) for tile in tiles}:
            make_folders(output, part, has_coarse)
        places = [tile.place for tile in tiles]
        with progress_bar(total=len(tiles), desc="writing", unit="tile") as bar:
            for number, chosen in _by_scene(places).items():
                wanted = []
                for place in chosen:
                    paths = TilePaths.of(output, part_of(tiles[place].side), tiles[place].id, has_coarse)
                    if not all(path.is_file() for path in paths.all):
                        wanted.append((places[place], paths))
                bar.update(len(chosen) - len(wanted))
                if not wanted:
                    continue
                self._write_scene(number, wanted, bar)

    def _write_scene(self, number: int, wanted: Sequence[tuple[Place, TilePaths]], bar: Any) -> None:
        readers, size = self._readers(number), self.layout.size
        grid = readers.scene.header.grid
        for place, paths in wanted:
            image, valid = readers.scene.read(place.row, place.column, size)
            target = grid.window(place.row, place.column, size, size)
            coarse = None if readers.coarse is None else readers.coarse.read(grid, place, size)
            write_tile(paths, image, valid, readers.heights.read(target), coarse, target)
            bar.update()


def _by_scene(places: Sequence[Place]) -> dict[int, list[int]]:
    """Positions of the places of each scene."""
    found: dict[int, list[int]] = {}
    for position, place in enumerate(places):
        found.setdefault(place.scene, []).append(position)
    return found


def _audit(options: CutOptions) -> dict[str, Any]:
    """Audit the finished tiles; its files go beside them."""
    from Utils.data.audit.any_training import any_training
    from Utils.data.audit.audit_report import describe, summarise, write_audit
    from Utils.data.audit.survey import audit

    folds = [] if options.folds == 0 else sorted((options.output / "splits").glob("fold-*.txt"))
    found = audit(any_training(options.output, folds), [], None, os.cpu_count() or 1)
    summary = summarise(options.output, found.inspections, found.findings)
    write_audit(options.output / "audit", summary, [item.row for item in found.inspections])
    logger.info("%s", describe(summary))
    return {name: summary[name] for name in ("training_would_start", "errors", "warnings")}
