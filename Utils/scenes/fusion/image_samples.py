"""A scene's image at the samples of a DEM's cells."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window

from Utils.core.errors import RasterError
from Utils.core.watching import note_step
from Utils.rasters.environment import root_cause
from Utils.rasters.geometry import Geometry
from Utils.rasters.source.scene_source import SceneSource
from Utils.rasters.tile_files import GDAL_ERRORS
from Utils.scenes.fusion.cells import average_onto
from Utils.scenes.fusion.least_error.joined_windows import SAMPLES_A_CELL, new_map

_ROWS_AT_ONCE = 512
_SAMPLES_AT_ONCE = 2**25


def image_samples(source: SceneSource, scene: Geometry, cells: Geometry, folder: Path) -> NDArray[np.float32]:
    """Average a scene's image onto samples of cells.

    Args:
        source: the scene.
        scene: where its pixels lie.
        cells: where the (h, w) cells lie.
        folder: where large maps are kept, for the caller to remove.

    Returns:
        Brightness (3, h * SAMPLES_A_CELL, w * SAMPLES_A_CELL) in [0, 1], NaN where there is no valid pixel.

    Raises:
        RasterError: the image cannot be read, or the disk is full.
    """
    path = folder / "image.tif"
    _copy(source, scene, path)
    grid = cells.finer(SAMPLES_A_CELL)
    samples = new_map(folder / "image.npy", (3, grid.height, grid.width))
    rows = max(1, _SAMPLES_AT_ONCE // grid.width)
    with rasterio.open(path) as image:
        for first in range(0, grid.height, rows):
            note_step("rows of the image that are averaged", first, grid.height)
            part = grid.window(first, 0, min(rows, grid.height - first), grid.width)
            for band in range(3):
                samples[band, first : first + part.height] = average_onto(part, rasterio.band(image, band + 1), scene)
    path.unlink()
    return samples


def _copy(source: SceneSource, scene: Geometry, path: Path) -> None:
    """Write the image as it is read, stretched and turned, so that GDAL can average it."""
    profile = {
        "driver": "GTiff",
        "dtype": "float32",
        "nodata": np.nan,
        "height": source.height,
        "width": source.width,
        "count": 3,
        "tiled": True,
        "bigtiff": "IF_SAFER",
        "interleave": "band",
        "crs": scene.crs,
        "transform": scene.transform,
    }
    try:
        with rasterio.open(path, "w", **profile) as target:
            for row in range(0, source.height, _ROWS_AT_ONCE):
                rows = min(_ROWS_AT_ONCE, source.height - row)
                image, valid = source.read(row, 0, rows, source.width)
                image[:, ~valid] = np.nan
                target.write(image, window=Window(0, row, source.width, rows))
    except GDAL_ERRORS as error:
        why = f"cannot be written ({root_cause(error)})"
        raise RasterError(path, why, "go on with --resume once it can") from error
