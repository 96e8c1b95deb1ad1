"""How much a map varies within the cells of a DEM."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from rasterio.windows import Window

from Utils.rasters.geometry import Geometry
from Utils.scenes.fusion.cells import Cells, average_onto

_ROWS_AT_ONCE = 512


def roughness(mosaic: Path, cells: Geometry, scene: Geometry) -> Cells:
    """Standard deviation (h, w) of a map's first band within cells, in its unit; NaN where the map is unknown.

    Args:
        mosaic: the map, NaN where invalid. A file of its squares is made beside it, and removed.
        cells: where the (h, w) cells lie.
        scene: where the map's pixels lie.
    """
    path = mosaic.with_name(f"{mosaic.stem}_squares.tif")
    with rasterio.open(mosaic) as source:
        means = average_onto(cells, rasterio.band(source, 1), scene)
        # Squares of heights far from zero would drown the differences in rounding.
        level = float(np.nanmean(means)) if np.isfinite(means).any() else 0.0
        with rasterio.open(path, "w", **{**source.profile, "count": 1}) as target:
            for row in range(0, source.height, _ROWS_AT_ONCE):
                window = Window(0, row, source.width, min(_ROWS_AT_ONCE, source.height - row))
                target.write((source.read(1, window=window) - np.float32(level)) ** 2, 1, window=window)
    try:
        with rasterio.open(path) as squares:
            found = average_onto(cells, rasterio.band(squares, 1), scene)
    finally:
        path.unlink()
    return np.sqrt(np.maximum(found - (means - np.float32(level)) ** 2, 0.0))
