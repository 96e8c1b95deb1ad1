"""A height raster as a regular grid of places in metres, coarse enough for a bound of triangles; holes stay holes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling

from Utils.core.errors import UserError
from Utils.rasters.environment import georeference_optional, raster_errors
from Utils.rasters.ground import has_transform, metres_per_unit

__all__ = ["ReliefGrid", "read_relief_grid"]

# Heights without a unit are drawn as a relief of this share of the longer side.
_RELATIVE_SHARE = 0.1
_METRES = ("metre", "meter", "metres", "meters", "m")


@dataclass(frozen=True)
class ReliefGrid:
    """Where the places of a surface lie; true to scale where ground and heights are known in metres.

    Attributes:
        east: (h, w) to the east of the raster's centre, in metres or, without a georeference, in pixels.
        north: (h, w) to the north of it.
        heights: (h, w) above ``lowest``, in the same unit as ``east``; NaN at holes.
        lowest: the least height of the grid, in the raster's own unit.
        highest: the greatest.
        on_ground: whether ``east`` and ``north`` are metres.
        in_metres: whether heights are metres too, so that the surface has its true aspect.
        crs: name of the raster's system; empty without one.
        pixels_a_step: pixels of the raster from one place of the grid to the next, along the longer side.
    """

    east: NDArray[np.float64]
    north: NDArray[np.float64]
    heights: NDArray[np.float64]
    lowest: float
    highest: float
    on_ground: bool
    in_metres: bool
    crs: str
    pixels_a_step: float

    @property
    def side(self) -> float:
        """The longer side, in the unit of ``east``."""
        return float(max(np.ptp(self.east), np.ptp(self.north)))


def read_relief_grid(path: Path, most_triangles: int) -> ReliefGrid:
    """Read the first band of a height raster, averaged onto the finest grid of at most so many triangles.

    Args:
        path: the raster; its unit says whether heights are metres.
        most_triangles: bound of the triangles, two for every cell between four places; at least 2.

    Raises:
        RasterError: the raster cannot be read.
        UserError: it has no valid height, or is a single row or column.
    """
    with raster_errors(path), georeference_optional(), rasterio.open(path) as dataset:
        rows, columns = _size(dataset.height, dataset.width, most_triangles)
        if min(rows, columns) < 2:
            raise UserError(f"'{path}' has {dataset.height} x {dataset.width} pixels: too few for a surface")
        shape = (rows, columns)
        band = dataset.read(1, out_shape=shape, resampling=Resampling.average, masked=True)
        # GDAL's average knows a cell with a single valid pixel, and would close small holes.
        known = dataset.read_masks(1, out_shape=shape, resampling=Resampling.nearest) > 0
        transform, crs, unit = dataset.transform, dataset.crs, (dataset.units[0] or "").lower()
        height, width = dataset.height, dataset.width
    heights = band.astype(np.float64).filled(np.nan)
    heights[~known | ~np.isfinite(heights)] = np.nan
    if not np.isfinite(heights).any():
        raise UserError(f"'{path}' has no valid height to draw in three dimensions")
    across = (np.arange(columns) + 0.5) * width / columns
    down = (np.arange(rows) + 0.5) * height / rows
    scale = None
    if crs is not None and has_transform(transform):
        scale = metres_per_unit(crs, *([value] for value in transform @ (width / 2, height / 2)))
    x, y = across[None, :] - width / 2, down[:, None] - height / 2
    if scale is None:
        east, north = np.broadcast_to(x, shape).copy(), np.broadcast_to(-y, shape).copy()
    else:
        east = (transform.a * x + transform.b * y) * float(scale[0][0])
        north = (transform.d * x + transform.e * y) * float(scale[1][0])
    in_metres = scale is not None and unit in _METRES
    lowest, highest = float(np.nanmin(heights)), float(np.nanmax(heights))
    longest = float(max(np.ptp(east), np.ptp(north)))
    factor = 1.0 if in_metres else _RELATIVE_SHARE * longest / max(highest - lowest, 1e-12)
    return ReliefGrid(
        east,
        north,
        (heights - lowest) * factor,
        lowest,
        highest,
        scale is not None,
        in_metres,
        "" if scale is None else crs.to_string()[:200],
        max(height / rows, width / columns),
    )


def _size(height: int, width: int, most_triangles: int) -> tuple[int, int]:
    """Rows and columns of the grid: those of the raster, or as many of its shape as the bound allows."""
    shrink = max(1.0, math.sqrt(2.0 * height * width / most_triangles))
    rows, columns = max(2, math.floor(height / shrink)), max(2, math.floor(width / shrink))
    # A long and narrow raster keeps two rows, or columns, and fewer of the others.
    cells = most_triangles // 2
    columns = min(columns, cells // (rows - 1) + 1)
    rows = min(rows, cells // (columns - 1) + 1)
    return min(rows, height), min(columns, width)
