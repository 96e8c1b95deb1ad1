"""Which heights are searched: what the user says, what a DEM says, what the cameras say, and a first look at a tile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

from Systems.stereo.dsm.cell_fusion import fuse_points, unsupported
from Systems.stereo.dsm.geoid import undulations_of
from Systems.stereo.dsm.ground import GEOGRAPHIC
from Systems.stereo.dsm.matchers import Matcher
from Systems.stereo.dsm.options import DsmOptions
from Systems.stereo.dsm.tile_heights import TilePoints, tile_points
from Systems.stereo.dsm.views import View
from Utils.core.errors import UserError
from Utils.rasters.coordinates import transformed
from Utils.rasters.environment import raster_errors
from Utils.rasters.geometry import Geometry

__all__ = ["CoarseCells", "Narrowed", "first_range", "narrowed", "reference_range"]

Floats = NDArray[np.float64]

# Pixels taken together for the first look, and for the second within what that found; none that leave an image with
# fewer pixels along a side.
_REDUCTIONS, _LEAST_SIDE = (8, 4), 60
# Of the heights found, the lowest and highest percent that count; and what is added on both sides, steps of the look
# and a share of the range found: gorges and towers are too narrow for reduced images.
_PERCENTILES = (0.2, 99.8)
_MARGIN_STEPS, _MARGIN_SHARE = 5.0, 0.1
# Cells from which a look is believed, and the share of matches that must agree: of wrong ones a tenth does.
_LEAST_CELLS, _LEAST_AGREEMENT = 50, 0.2
# Share of the cells around one that must have about its height.
_LEAST_SUPPORT = 0.25
# So many times more best matches at the ends of the range than chance puts there are worth a word.
_MANY = 1.5
# Metres around a DEM's heights: trees, buildings, and what a coarse cell rounds off.
_REFERENCE_MARGIN = 60.0


@dataclass(frozen=True)
class CoarseCells:
    """Coarse cells of a tile whose heights fit those around them.

    Attributes:
        x: eastings of their middles (N,).
        y: northings.
        height: metres.
    """

    x: Floats
    y: Floats
    height: Floats


@dataclass(frozen=True)
class Narrowed:
    """What a first look at a tile found.

    Attributes:
        heights: lowest and highest height to search; None where nothing agrees.
        cells: what was found, coarse cells with their heights.
        at_ends: the share of best matches at the ends of the range, many times what would be there by chance; 0 where
            it is not.
    """

    heights: tuple[float, float] | None
    cells: CoarseCells = field(repr=False)
    at_ends: float = 0.0


def first_range(views: Sequence[View], options: DsmOptions) -> tuple[float, float]:
    """The range of the whole run without a DEM: what the user says, or what all cameras were made for.

    Raises:
        UserError: a range that does not rise, or cameras without a height in common.
    """
    if options.heights is not None:
        low, high = options.heights
        if not (np.isfinite([low, high]).all() and low < high):
            raise UserError(f"--heights {low:g},{high:g}: give the lowest and the highest height in metres")
        return low, high
    ranges = [view.model.height_range for view in views]
    low, high = max(each[0] for each in ranges), min(each[1] for each in ranges)
    if low >= high:
        told = ", ".join(
            f"'{view.name}' {each[0]:g} to {each[1]:g} m" for view, each in zip(views, ranges, strict=True)
        )
        raise UserError(f"the RPCs were made for heights that do not meet ({told}); do they belong together?")
    return low, high


def reference_range(path: Path, place: Geometry, geoid: str) -> tuple[float, float] | None:
    """Lowest and highest height of a DEM over a tile, with a margin; None where it has none there.

    Args:
        path: the DEM, in any coordinate system.
        place: the tile.
        geoid: what its heights refer to, as for ``undulations_of``; "" for the ellipsoid.
    """
    shape = (min(256, place.height), min(256, place.width))
    transform = place.transform @ Affine.scale(place.width / shape[1], place.height / shape[0])
    with raster_errors(path), rasterio.open(path) as source:
        if source.crs is None:
            raise UserError(f"--reference '{path}': has no coordinate system; give a georeferenced DEM")
        grid = {"crs": place.crs, "transform": transform, "height": shape[0], "width": shape[1]}
        with WarpedVRT(source, **grid, resampling=Resampling.nearest) as warped:
            values = warped.read(1, masked=True)
    known = values.compressed().astype(np.float64)
    known = known[np.isfinite(known)]
    if not len(known):
        return None
    undulations = undulations_of(geoid)
    if undulations is not None:
        longitude, latitude = transformed(place.crs, GEOGRAPHIC, *([value] for value in place.centre))
        known = known + float(undulations(longitude, latitude)[0])
    return float(known.min()) - _REFERENCE_MARGIN, float(known.max()) + _REFERENCE_MARGIN


def narrowed(
    views: Sequence[View],
    place: Geometry,
    heights: tuple[float, float],
    matcher: Matcher,
    options: DsmOptions,
    pixel: float,
) -> Narrowed | None:
    """The part of a range in which a tile's heights lie, found with reduced images; None where no two views show it.

    Args:
        views: all views.
        place: the tile.
        heights: lowest and highest height.
        matcher: finds heights.
        options: as for the tile itself.
        pixel: metres of the images' pixels on the ground.
    """
    low, high = heights
    all_views = replace(options, references=None)
    cells = None
    side = min(min(view.source.height, view.source.width) for view in views)
    reductions = [reduction for reduction in _REDUCTIONS if side >= _LEAST_SIDE * reduction]
    for reduction in reductions or (2 if side >= 2 * _LEAST_SIDE else 1,):
        found = tile_points(views, place, (low, high), matcher, all_views, reduction)
        if found is None:
            return None
        cells = _supported_cells(found, place, reduction * pixel)
        if len(cells.height) < _LEAST_CELLS or found.agree < _LEAST_AGREEMENT:
            share, by_chance = found.at_ends((low, high)), 3 * found.step / (high - low)
            return Narrowed(None, cells, share if share > _MANY * by_chance else 0.0)
        ends = np.percentile(cells.height, _PERCENTILES)
        margin = _MARGIN_STEPS * found.step + _MARGIN_SHARE * float(ends[1] - ends[0])
        low, high = max(low, float(ends[0]) - margin), min(high, float(ends[1]) + margin)
    assert cells is not None
    return Narrowed((low, high), cells)


def _supported_cells(found: TilePoints, place: Geometry, side: float) -> CoarseCells:
    """What was matched as cells of a side in metres, without those that stand alone."""
    shrink = max(side / abs(place.transform.a), 1.0)
    rows, columns = int(np.ceil(place.height / shrink)), int(np.ceil(place.width / shrink))
    coarse = Geometry(rows, columns, place.crs, place.transform @ Affine.scale(shrink))
    height = fuse_points(found.points, coarse, reach=1, apart=4 * found.tolerance).height
    height[unsupported(height, 2 * found.tolerance, _LEAST_SUPPORT)] = np.nan
    down, across = np.nonzero(np.isfinite(height))
    x, y = coarse.coordinates(down + 0.5, across + 0.5)
    return CoarseCells(x, y, height[down, across])
