"""Images in, a height raster out: the order of the work of predictStereo.py, and what is kept to go on with."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from Systems.stereo.dsm.dsm_files import datum_of, write_files
from Systems.stereo.dsm.dsm_mosaic import Coverage, write_mosaic
from Systems.stereo.dsm.geoid import undulations_of
from Systems.stereo.dsm.ground import common_ground, ground_pixel, projected_crs, round_number, utm_crs
from Systems.stereo.dsm.height_range import first_range, narrowed, reference_range
from Systems.stereo.dsm.matchers import Matcher
from Systems.stereo.dsm.options import DsmOptions
from Systems.stereo.dsm.point_cloud import check_points
from Systems.stereo.dsm.pointing import Pointing, solve_pointing
from Systems.stereo.dsm.survey import survey
from Systems.stereo.dsm.tie_tracks import tracks_of
from Systems.stereo.dsm.tile_heights import LAYERS, UNSEEN, dsm_tile
from Systems.stereo.dsm.views import View, opened_views
from Utils.core.errors import UserError
from Utils.core.tables import write_json
from Utils.rasters.environment import gdal_environment
from Utils.rasters.geometry import Geometry
from Utils.scenes.output.output_checks import check_output, space_needed
from Utils.scenes.tiles.tile_grid import Tile, even_tiles
from Utils.scenes.tiles.tile_store import TileStore, remove_unfinished, working_folder

__all__ = ["check_coverage", "predict_dsm"]

logger = logging.getLogger(__name__)

# Cells of a run: a wrong resolution must not start one that takes years.
_MOST_CELLS = 4_000_000_000
# Cells around a tile in which heights are looked for too, before its range is narrowed.
_BESIDE = 64
# Pixels of a correction beyond which a camera is suspected to be another image's.
_FAR_OFF = 20.0
# Share of best matches at the ends of a range from which the range is suspected.
_MANY_AT_ENDS = 0.1


@dataclass(frozen=True)
class _Plan:
    """What is made: the views as they are used, the grid, its tiles, and where heights are searched."""

    views: list[View]
    ground: Geometry
    tiles: list[Tile]
    limits: tuple[float, float]
    expected: tuple[float, float]
    pixel: float
    pointing: Pointing | None


def predict_dsm(options: DsmOptions, matcher: Matcher, looker: Matcher) -> dict[str, Any]:
    """Make the height raster and the files beside it; gives the content of the JSON.

    Args:
        options: what is made.
        matcher: finds the heights.
        looker: finds rough ones first, with reduced images and over wide ranges, which networks have not learnt.

    Raises:
        UserError: a mistake in options or files, a disk that is full, or images that do not match.
        RasterError: an image that cannot be read.
    """
    started = time.monotonic()
    with gdal_environment(), opened_views(options) as views:
        _check_options(options, views)
        plan = _planned(views, options, looker)
        remove_unfinished(options.output)
        store = _opened_store(plan, options, matcher)
        with store.kept_for_resuming():
            tiles = _made(plan, store, options, matcher, looker)
            mosaic = store.scratch("mosaic.tif")
            cover = write_mosaic(mosaic, plan.ground, plan.tiles, store)
            document = _document(plan, tiles, options, matcher, cover) | {
                "seconds": round(time.monotonic() - started, 1)
            }
            if not cover.found:
                raise UserError(
                    f"nothing matched: no cell has a height on which enough views agree. Nothing was written. "
                    f"{_advice(document)}"
                )
            _tell_ends(document)
            write_files(mosaic, plan.views, document, options)
        store.remove()
    return document


def check_coverage(options: DsmOptions, document: dict[str, Any]) -> None:
    """Refuse to call a holed raster done.

    Raises:
        UserError: less of the ground that two views see has a height than ``least_coverage``.
    """
    share = document["coverage"]["share"]
    if share < options.least_coverage:
        raise UserError(
            f"'{options.output}' was written, but only {100 * share:.1f} % of the ground that two views see has a "
            f"height, and --min-coverage asks for {100 * options.least_coverage:.0f} %. {_advice(document)}"
        )


def _tell_ends(document: dict[str, Any]) -> None:
    ends, (low, high) = document["coverage"]["at_ends"], document["limits"]
    if ends > _MANY_AT_ENDS:
        logger.warning(
            "%.0f %% of the best matches lie at the ends of the range %g to %g m: it seems to miss ground; give other "
            "--heights",
            100 * ends,
            low,
            high,
        )


def _advice(document: dict[str, Any]) -> str:
    """What may be wrong where little was found."""
    ends = document["coverage"]["at_ends"]
    low, high = document["limits"]
    if ends > _MANY_AT_ENDS:
        return (
            f"{100 * ends:.0f} % of the best matches lie at the ends of the range {low:g} to {high:g} m: it seems to "
            "miss the ground; give other --heights"
        )
    return (
        "Clouds, water, seasons apart, an RPC of another image, or a range of heights that misses the ground "
        f"({low:g} to {high:g} m were searched) leave such holes"
    )


def _planned(views: list[View], options: DsmOptions, looker: Matcher) -> _Plan:
    limits = first_range(views, options)
    middle = sum(limits) / 2
    crs = projected_crs(options.crs) if options.crs else utm_crs(*views[0].centre(middle))
    pixel = float(np.median([ground_pixel(view, middle) for view in views]))
    resolution = _resolution(options, pixel)
    ground = common_ground(views, limits, crs, resolution, options.aoi, options.aoi_crs)
    if options.reference is not None:
        limits = _range_of_reference(options, ground, limits)
        ground = common_ground(views, limits, crs, resolution, options.aoi, options.aoi_crs)
    found = survey(views, limits, crs, pixel, looker, options)
    pointing = None
    if options.correct_pointing:
        pointing = solve_pointing(views, tracks_of(views, found.samples))
        _tell_pointing(pointing)
        views = pointing.views
    ground = common_ground(views, found.heights, crs, resolution, options.aoi, options.aoi_crs)
    cells = ground.height * ground.width
    if cells > _MOST_CELLS:
        raise UserError(f"--resolution {resolution:g} m makes {cells:,} cells; give a coarser one, or an --aoi")
    inputs = [file for view in views for file in view.source.files]
    needed = 4 * len(LAYERS) * 3 * cells + space_needed(ground.height, ground.width, len(LAYERS))
    check_output(options.output, inputs, needed, options.overwrite or options.resume)
    tiles = even_tiles(ground.height, ground.width, options.tile_size)
    return _Plan(views, ground, tiles, limits, found.heights, pixel, pointing)


def _check_options(options: DsmOptions, views: list[View]) -> None:
    """Find mistakes before the long work."""
    for number in options.references or ():
        if not 0 <= number < len(views):
            raise UserError(f"--references {number + 1}: there are images 1 to {len(views)}")
    if not 1 <= options.agreeing < len(views):
        raise UserError(
            f"--agreeing {options.agreeing}: of {len(views)} images, 1 to {len(views) - 1} others can agree"
        )
    if not 64 <= options.tile_size <= 4096:
        raise UserError(f"--tile-size {options.tile_size}: give 64 to 4096 cells")
    if options.window < 3 or options.window % 2 == 0:
        raise UserError(f"--window {options.window}: give an odd number of pixels, 3 or more")
    if not 0 <= options.least_coverage <= 1:
        raise UserError(f"--min-coverage {options.least_coverage:g}: give a share from 0 to 1")
    if not options.tolerance > 0:
        raise UserError(f"--tolerance {options.tolerance:g}: give pixels above 0")
    if options.heights is not None and options.reference is not None:
        raise UserError("--heights and --reference exclude each other; give one of them")
    if options.points is not None:
        check_points(options.points)
    undulations_of(options.geoid)
    undulations_of(options.reference_geoid)
    inputs = [file for view in views for file in view.source.files]
    check_output(options.output, inputs, 0, options.overwrite or options.resume)
    if not (options.overwrite or options.resume):
        TileStore.check_unused(working_folder(options.output))


def _resolution(options: DsmOptions, pixel: float) -> float:
    if options.resolution is None:
        return round_number(pixel)
    if not options.resolution > 0:
        raise UserError(f"--resolution {options.resolution:g}: give metres above 0")
    if options.resolution < pixel / 4:
        raise UserError(
            f"--resolution {options.resolution:g}: the images' pixels are {pixel:.2g} m on the ground; give "
            f"{pixel / 4:.2g} m or more"
        )
    return options.resolution


def _range_of_reference(options: DsmOptions, ground: Geometry, limits: tuple[float, float]) -> tuple[float, float]:
    assert options.reference is not None
    found = reference_range(options.reference, ground, options.reference_geoid)
    if found is None:
        raise UserError(f"--reference '{options.reference}': has no heights on the ground of the images; give another")
    low, high = max(limits[0], found[0]), min(limits[1], found[1])
    if low >= high:
        raise UserError(
            f"--reference '{options.reference}': heights from {found[0]:.0f} to {found[1]:.0f} m, margin included, and "
            f"the RPCs were made for {limits[0]:g} to {limits[1]:g} m; is it in metres?"
        )
    logger.info("heights between %.0f and %.0f m, from %s", low, high, options.reference)
    return low, high


def _tell_pointing(pointing: Pointing) -> None:
    if pointing.kept:
        logger.warning("the pointing is not corrected: %s; the RPCs are used as they are", pointing.kept)
        return
    logger.info(
        "pointing: rays missed by %.2f pixels (median of %d matches), after the correction by %.2f",
        np.median(pointing.before),
        len(pointing.before),
        np.median(pointing.after),
    )
    few = [view.name for view in pointing.too_few()]
    if few:
        logger.warning(
            "too few points of %s were found in another image; its pointing was not corrected", ", ".join(few)
        )
    if (largest := float(np.abs(pointing.shifts).max())) > _FAR_OFF:
        logger.warning("a view was moved by %.1f pixels; do all RPCs belong to their images?", largest)


def _opened_store(plan: _Plan, options: DsmOptions, matcher: Matcher) -> TileStore:
    folder = working_folder(options.output)
    shifts = None if plan.pointing is None else np.round(plan.pointing.shifts, 2).tolist()
    key = {
        "images": [view.source.fingerprint() for view in plan.views],
        "cameras": None if options.rpcs is None else [str(path) for path in options.rpcs],
        "matcher": dict(matcher.describe()),
        "grid": _described(plan.ground),
        "limits": [round(value, 2) for value in plan.limits],
        "pointing": shifts,
        "options": {
            name: getattr(options, name)
            for name in ("tile_size", "sources", "agreeing", "tolerance", "correct_pointing")
        }
        | {"references": None if options.references is None else list(options.references)},
    }
    if options.overwrite and not options.resume:
        TileStore.clear(folder)
    return TileStore(folder, key, options.resume)


def _made(
    plan: _Plan, store: TileStore, options: DsmOptions, matcher: Matcher, looker: Matcher
) -> list[dict[str, Any]]:
    """Make the tiles that are missing; gives facts about all."""
    facts = []
    for tile in tqdm(plan.tiles, desc="tiles", unit="tile", mininterval=1.0):
        beside = store.scratch(f"tile_{tile.row}_{tile.column}.json")
        if not (store.holds(tile) and beside.is_file()):
            found, layers = _tile(plan, tile, options, matcher, looker)
            write_json(beside, found)
            store.save(tile, layers)
        facts.append(json.loads(beside.read_text(encoding="utf-8")))
    return facts


def _tile(
    plan: _Plan, tile: Tile, options: DsmOptions, matcher: Matcher, looker: Matcher
) -> tuple[dict[str, Any], NDArray[np.float32]]:
    started = time.monotonic()
    place = plan.ground.window(tile.row, tile.column, tile.height, tile.width)
    searched = plan.expected
    if options.reference is not None:
        under = reference_range(options.reference, place, options.reference_geoid)
        if under is not None and max(under[0], searched[0]) < min(under[1], searched[1]):
            searched = max(under[0], searched[0]), min(under[1], searched[1])
    closer = narrowed(plan.views, place.grown(_BESIDE), searched, looker, options, plan.pixel)
    if closer is not None and closer.heights is not None:
        searched = closer.heights
    layers, found = dsm_tile(plan.views, place, searched, plan.limits, matcher, options, plan.pixel)
    seen, known = layers[3] != UNSEEN, np.isfinite(layers[0])
    cells = int(np.count_nonzero(seen))
    return {
        "row": tile.row,
        "column": tile.column,
        "searched": [round(float(value), 1) for value in searched],
        "matched": len(found.best) if found is not None else 0,
        "agree": round(found.agree, 4) if found is not None else 0.0,
        "cells": cells,
        "covered": round(int(np.count_nonzero(known & seen)) / max(cells, 1), 4),
        "at_ends": round(found.at_ends(plan.limits), 4) if found is not None else 0.0,
        "seconds": round(time.monotonic() - started, 1),
    }, layers


def _document(
    plan: _Plan, tiles: list[dict[str, Any]], options: DsmOptions, matcher: Matcher, cover: Coverage
) -> dict[str, Any]:
    """All facts about the run, as plain JSON."""
    matched = sum(tile["matched"] for tile in tiles)
    ends = sum(tile["matched"] * tile["at_ends"] for tile in tiles) / max(matched, 1)
    return {
        "kind": "dsm",
        "images": [
            {"name": view.name, "rows": view.source.height, "columns": view.source.width} for view in plan.views
        ],
        "matcher": dict(matcher.describe()),
        "grid": _described(plan.ground),
        "datum": datum_of(options, plan.views),
        "pixel": round(plan.pixel, 3),
        "limits": [round(float(value), 1) for value in plan.limits],
        "coverage": {
            "cells": cover.cells,
            "found": cover.found,
            "share": round(cover.share, 4),
            "at_ends": round(ends, 4),
        },
        "heights": {"low": round(cover.low, 2), "high": round(cover.high, 2)} if cover.found else None,
        "pointing": None if plan.pointing is None else plan.pointing.describe(),
        "tiles": tiles,
        "options": {name: _plain(value) for name, value in asdict(options).items()},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "software": {name: version(name) for name in ("torch", "rasterio", "numpy", "scipy")},
    }


def _described(ground: Geometry) -> dict[str, Any]:
    return {
        "crs": ground.crs.to_string(),
        "resolution": abs(float(ground.transform.a)),
        "left": ground.transform.c,
        "top": ground.transform.f,
        "width": ground.width,
        "height": ground.height,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return [_plain(each) for each in value] if isinstance(value, tuple) else value
