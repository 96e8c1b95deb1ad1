"""Rasters seen on another grid, in any CRS and on either side of 180 degrees."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
from affine import Affine
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from Utils.rasters.coordinates import longitude_period, whole_turns
from Utils.scenes.accuracy.height_grid import Grid
from Utils.scenes.accuracy.scene_scores import FloatArray

__all__ = ["FirstKnown", "warped_view"]

# Tolerance of warping, in pixels of the warped map. GDAL's default, an eighth, is metres of height on a steep slope.
_TOLERANCE = 0.01
# Most pixels along a side that one step of averaging takes: it reads the square of this for each of its results.
_MOST_AVERAGED = 8


class FirstKnown:
    """Several views on one grid; each pixel is that of the first view that knows it."""

    def __init__(self, views: Sequence[Any]) -> None:
        self._views = views
        self.height: int = views[0].height
        self.width: int = views[0].width

    def read(self, band: int, window: Window) -> FloatArray:
        """(H, W), NaN where no view knows a value."""
        found: FloatArray = self._views[0].read(band, window=window)
        for view in self._views[1:]:
            found = np.where(np.isnan(found), view.read(band, window=window), found)
        return found


def _turns(grid: Grid, own: Grid) -> tuple[int, ...]:
    """By how many whole turns of longitude a raster must be moved so that warping finds all of it under the grid."""
    assert grid.crs is not None and own.crs is not None
    half = (longitude_period(own.crs) or 0.0) / 2
    left, _, right, _ = own.bounds()
    # A transformation gives longitudes within half a turn; between two geographic systems it may keep them as they are.
    low, high = -half, half
    if longitude_period(grid.crs) is not None:
        first, _, last, _ = grid.bounds()
        low, high = (first, last) if grid.crs == own.crs else (min(low, first), max(high, last))
    return whole_turns(own.crs, (left, right), (low, high)) or (0,)


def warped_view(
    stack: ExitStack, source: Any, grid: Grid, method: Resampling, finer: float, options: Mapping[str, Any]
) -> WarpedVRT | FirstKnown:
    """A view of a raster on a grid, NaN where it has no data.

    Args:
        stack: closes what is opened.
        source: the open raster, with a CRS.
        grid: the grid to see it on, with a CRS.
        method: how its values are interpolated, or ``average``.
        finer: how many of its pixels lie along a pixel of the grid.
        options: its type and nodata value, as a ``WarpedVRT`` takes them.
    """
    own = Grid.of(source)
    period = (longitude_period(own.crs) if own.crs is not None else None) or 0.0
    views = [
        _view(stack, source, grid, method, finer, {**options, "src_crs": own.crs, "src_transform": place})
        for place in (Affine.translation(turn * period, 0.0) @ own.transform for turn in _turns(grid, own))
    ]
    return views[0] if len(views) == 1 else FirstKnown(views)


def _view(
    stack: ExitStack, source: Any, grid: Grid, method: Resampling, finer: float, own: Mapping[str, Any]
) -> WarpedVRT:
    """A view of a raster, of which ``own`` tells place, type and nodata value."""
    options = {"crs": grid.crs, "tolerance": _TOLERANCE, "dtype": own["dtype"], "nodata": math.nan}
    # GDAL would guess the ratio from each block's size and so blur a little, differently in each.
    ratio = min(1.0, 1.0 / finer) if method == Resampling.cubic else 1.0
    options |= {"XSCALE": ratio, "YSCALE": ratio}
    told = {**options, **own}
    if method != Resampling.average:
        return stack.enter_context(WarpedVRT(source, resampling=method, **told, **grid.finer(1)))
    # GDAL averages correctly only between grids that are not rotated against each other. So the source is first
    # interpolated, at its own resolution, on grids that fit into this one, and then averaged, in steps that read little
    # at once.
    steps, needed = [1], math.ceil(finer - 0.01)
    while steps[-1] < needed:
        steps.append(steps[-1] * min(_MOST_AVERAGED, math.ceil(needed / steps[-1])))
    view = stack.enter_context(WarpedVRT(source, resampling=Resampling.bilinear, **told, **grid.finer(steps.pop())))
    for step in reversed(steps):
        view = stack.enter_context(WarpedVRT(view, resampling=method, **options, **grid.finer(step)))
    return view
