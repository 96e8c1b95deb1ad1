"""What a coarse DEM gives without image and model: its surface of least error, on the grid of a prediction."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.windows import Window

from Utils.core.errors import UserError, write_error
from Utils.rasters.geometry import Geometry
from Utils.rasters.tile_files import GDAL_ERRORS
from Utils.rasters.vertical_datum import UNKNOWN, VerticalDatum
from Utils.scenes.accuracy.fused_reference import FusedReference
from Utils.scenes.accuracy.height_grid import Grid
from Utils.scenes.fusion.correction import Correction
from Utils.scenes.fusion.detail_fusion import fuse
from Utils.scenes.fusion.reference import read_reference

__all__ = ["write_dem_alone"]

logger = logging.getLogger(__name__)

_ROWS = 256  # rows of a block of the file


def write_dem_alone(
    path: Path, reference: FusedReference, grid: Grid, prediction: Path, datum: VerticalDatum = UNKNOWN
) -> dict[str, Any]:
    """Write the surface of least error from a DEM alone, in constant memory; it is what ``--detail none`` gives.

    Args:
        path: the float32 GeoTIFF to write, in metres.
        reference: the DEM, and how it is read.
        grid: the prediction's.
        prediction: its name for messages.
        datum: what its heights refer to; those of the DEM are brought to it.

    Returns:
        Facts on the DEM, with the noise that was found in it, in metres.

    Raises:
        UserError: the prediction has no place on the ground, the DEM cannot be used, or the file cannot be written.
    """
    if grid.crs is None:
        raise UserError(f"'{prediction}' has no CRS (or no transform), so no --reference can be laid over it")
    scene = Geometry(grid.height, grid.width, grid.crs, grid.transform)
    dem = read_reference(reference.path, scene, reference.nodata, reference.keep_outliers, datum)
    logger.info("estimating the ground from the reference alone")
    try:
        with tempfile.TemporaryDirectory(prefix="maps-", dir=path.parent) as folder:
            fusion = fuse(dem, scene, folder=Path(folder))
            _write(path, fusion.correction, scene)
    except GDAL_ERRORS as error:
        raise write_error(path, error, "the reference alone is not scored") from error
    return {**dem.description, "noise": fusion.facts["noise"]}


def _write(path: Path, correction: Correction, scene: Geometry) -> None:
    size = {"height": scene.height, "width": scene.width, "count": 1, "dtype": "float32"}
    blocks = {"tiled": True, "blockxsize": _ROWS, "blockysize": _ROWS, "bigtiff": "IF_SAFER"}
    with rasterio.open(
        path, "w", driver="GTiff", nodata=np.nan, crs=scene.crs, transform=scene.transform, **size, **blocks
    ) as target:
        for row in range(0, scene.height, _ROWS):
            rows = min(_ROWS, scene.height - row)
            level = np.zeros((rows, scene.width), np.float32)
            heights = correction.apply(level, scene.window(row, 0, rows, scene.width))
            target.write(heights, 1, window=Window(0, row, scene.width, rows))
