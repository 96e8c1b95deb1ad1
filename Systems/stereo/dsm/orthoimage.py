"""The first view as it lies on the ground: for the report, and the grey of points."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling

from Systems.stereo.dsm.ground import GEOGRAPHIC
from Systems.stereo.dsm.views import View
from Utils.rasters.coordinates import transformed
from Utils.rasters.geometry import Geometry

__all__ = ["grey_of", "orthoimage"]

Floats = NDArray[np.float64]


def orthoimage(views: Sequence[View], output: Path, longest_side: int) -> NDArray[np.float32]:
    """The views on the grid of a height raster, (3, h, w) in [0, 1], 0 where there is no height.

    Args:
        views: the views; the first that sees a cell gives its grey.
        output: the heights, above the ellipsoid or nearly so.
        longest_side: most pixels of the longer side.
    """
    with rasterio.open(output) as source:
        shrink = max(1.0, max(source.height, source.width) / longest_side)
        shape = (max(1, round(source.height / shrink)), max(1, round(source.width / shrink)))
        heights = source.read(1, out_shape=shape, resampling=Resampling.average, masked=True)
        transform = source.transform @ source.transform.scale(source.width / shape[1], source.height / shape[0])
        place = Geometry(*shape, source.crs, transform)
    known = ~np.ma.getmaskarray(heights)
    rows, columns = np.nonzero(known)
    x, y = place.coordinates(rows + 0.5, columns + 0.5)
    grey = np.zeros(shape, np.float32)
    if len(rows):
        found = grey_of(views, *transformed(place.crs, GEOGRAPHIC, x, y), heights.data[known].astype(np.float64))
        low, high = np.nanpercentile(found, (2, 98)) if np.isfinite(found).any() else (0.0, 1.0)
        grey[known] = np.nan_to_num(np.clip((found - low) / max(high - low, 1e-9), 0.0, 1.0))
    return np.repeat(grey[None], 3, axis=0)


def grey_of(views: Sequence[View], longitude: Floats, latitude: Floats, height: Floats) -> Floats:
    """The grey value (N,) that the first view shows which sees a point; NaN where none does."""
    grey = np.full(len(height), np.nan)
    for view in views:
        missing = np.nonzero(np.isnan(grey))[0]
        if not len(missing):
            break
        columns, rows = view.model.project(longitude[missing], latitude[missing], height[missing])
        inside = (columns >= 0) & (columns <= view.source.width - 1) & (rows >= 0) & (rows <= view.source.height - 1)
        if not inside.any():
            continue
        across, down = np.rint(columns[inside]).astype(int), np.rint(rows[inside]).astype(int)
        left, top = int(across.min()), int(down.min())
        crop = view.crop(top, left, int(down.max()) - top + 1, int(across.max()) - left + 1)
        grey[missing[inside]] = crop.pixels[down - top, across - left]
    return grey
