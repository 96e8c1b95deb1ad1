"""Values of one grid on another: averaged where the source is finer, cubic where it is coarser, voids as they are."""

from __future__ import annotations

import math

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.warp import reproject

from Utils.rasters.coordinates import transformed
from Utils.rasters.geometry import Geometry

__all__ = ["near_longitude", "pixels_along", "resampled"]

Values = NDArray[np.float32]

# Tolerance of GDAL's approximate transformation, in pixels of the target. Its default, an eighth, is metres of height
# on a steep slope.
_TOLERANCE = 0.01
# A source that is finer by less than this is interpolated, not averaged.
_HARDLY_FINER = 0.01
# So large a share of a pixel must be known for its mean to be.
_LEAST_KNOWN = 0.5


def pixels_along(source: Geometry, target: Geometry) -> tuple[float, float]:
    """How many pixels of a grid lie along the two sides of a pixel in the middle of another: down and across.

    Returns:
        Two numbers above 0; 1 and 1 where the source's system cannot express the place.
    """
    centre = target.window(target.height // 2, target.width // 2, 1, 1)
    change = source.steps(centre, points=1, near=near_longitude(source, target))[0, 0]  # (2, 2)
    if not np.isfinite(change).all():
        return 1.0, 1.0
    down, across = np.linalg.norm(change, axis=0)
    return float(down), float(across)


def resampled(values: Values, source: Geometry, target: Geometry) -> Values:
    """Bring values onto another grid, in any system and at any angle.

    Where the source is finer, each pixel is the mean of what lies in it, and known where half of that is. Where it is
    coarser, values are interpolated by cubic convolution; a pixel is known where the source's pixel under it is, so
    nothing is interpolated across a void.

    Args:
        values: (C, h, w), NaN in voids.
        source: the grid of the values.
        target: the wanted grid, of H x W pixels.

    Returns:
        (C, H, W) float32; NaN in voids and outside the source.
    """
    down, across = (max(1, math.ceil(ratio - _HARDLY_FINER)) for ratio in pixels_along(source, target))
    # GDAL averages correctly only between grids that are not rotated against each other. So the source is first
    # interpolated at about its own resolution on a grid that fits into the target, and averaged there.
    fine = Geometry(
        target.height * down, target.width * across, target.crs, target.transform @ Affine.scale(1 / across, 1 / down)
    )
    method = Resampling.cubic if down == across == 1 else Resampling.bilinear
    found = _warped(values, source, fine, method)
    if np.isnan(values).any():
        # What is unknown in the nearest pixel stays so, whatever the interpolation makes of its neighbours.
        found[np.isnan(_warped(values, source, fine, Resampling.nearest))] = np.nan
    return found if down == across == 1 else _means(found, down, across)


def _warped(values: Values, source: Geometry, target: Geometry, method: Resampling) -> Values:
    found = np.full((len(values), target.height, target.width), np.nan, np.float32)
    reproject(
        values,
        found,
        src_transform=source.transform,
        src_crs=source.crs,
        src_nodata=math.nan,
        dst_transform=target.transform,
        dst_crs=target.crs,
        dst_nodata=math.nan,
        resampling=method,
        tolerance=_TOLERANCE,
        # GDAL would guess the ratio of the grids from each window's size, and blur a little, differently in each.
        XSCALE=1,
        YSCALE=1,
    )
    return found


def _means(values: Values, down: int, across: int) -> Values:
    """Means of blocks of ``down`` x ``across`` pixels; NaN where less than half is known."""
    count, height, width = values.shape
    blocks = values.reshape(count, height // down, down, width // across, across)
    known = np.isfinite(blocks)
    counts = known.sum(axis=(2, 4))
    sums = np.where(known, blocks, 0.0).sum(axis=(2, 4), dtype=np.float64)
    means = sums / np.maximum(counts, 1)
    return np.where(counts >= _LEAST_KNOWN * down * across, means, np.nan).astype(np.float32)


def near_longitude(source: Geometry, target: Geometry) -> float | None:
    """The longitude in the source's system around which the target lies; None where it has no place there."""
    x = float(transformed(target.crs, source.crs, *target.centre)[0][0])
    return x if math.isfinite(x) else None
