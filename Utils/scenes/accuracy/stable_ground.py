"""Where the ground did not change: a mask, from a raster or a vector file, on the grid of a prediction."""

from __future__ import annotations

import math
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.features import geometry_mask
from rasterio.windows import Window
from rasterio.windows import transform as window_transform

from Utils.core.errors import UserError
from Utils.core.survey_library import survey_library
from Utils.rasters.environment import raster_errors
from Utils.scenes.accuracy.grid_overlap import check_georeference, check_overlap
from Utils.scenes.accuracy.height_file import opened
from Utils.scenes.accuracy.height_grid import Grid
from Utils.scenes.accuracy.warping import warped_view

__all__ = ["VECTORS", "StableGround"]

BoolArray = NDArray[np.bool_]

VECTORS = (".geojson", ".json", ".gpkg", ".shp", ".fgb", ".kml")
"""Suffixes of vector files."""


class StableGround:
    """A mask that is read window by window: a raster's pixels other than 0 and no data, or a vector file's polygons.

    Args:
        stack: closes what is opened.
        path: the file.
        grid: the prediction's.
        prediction: its name, for messages.

    Raises:
        UserError: unreadable, without polygons, or of another place.
    """

    def __init__(self, stack: ExitStack, path: Path, grid: Grid, prediction: Path) -> None:
        self.path, self._grid = path, grid
        self._shapes = self._view = None
        if path.suffix.lower() in VECTORS:
            self._shapes = _polygons(path, grid)
            return
        source = stack.enter_context(opened(path))
        own = Grid.of(source)
        check_georeference(grid, own, prediction, path, "mask")
        self._view = source
        if grid.crs is not None and not grid.same_as(own):
            check_overlap(grid, own, prediction, path, "mask")
            self._view = warped_view(stack, source, grid, Resampling.nearest, 1.0, {"dtype": "float64"})

    def read(self, window: Window) -> BoolArray:
        """(H, W): where the ground is stable."""
        if self._shapes is not None:
            place = window_transform(window, self._grid.transform)
            shape = (int(window.height), int(window.width))
            inside: BoolArray = geometry_mask(self._shapes, shape, place, invert=True)
            return inside
        assert self._view is not None
        with raster_errors(self.path):
            values = self._view.read(1, window=window).astype(np.float64)
            known = self._view.read_masks(1, window=window) > 0 if hasattr(self._view, "read_masks") else True
        return np.asarray(np.isfinite(values) & known & (values != 0.0))


def _polygons(path: Path, grid: Grid) -> list[object]:
    """The polygons of a vector file in the grid's CRS."""
    geopandas = survey_library("geopandas", f"mask '{path}'")
    if not path.is_file():
        raise UserError(f"mask '{path}': no such file; check the path")
    if grid.crs is None:
        raise UserError(f"mask '{path}': the prediction has no CRS, so no polygons can be laid over it")
    try:
        frame = geopandas.read_file(path)
    except Exception as error:  # GDAL's own errors come through here, and share no public base
        raise UserError(f"mask '{path}' cannot be read: {' '.join(str(error).split())}") from error
    if frame.crs is None:
        raise UserError(f"mask '{path}' has no CRS, so nobody knows where it lies")
    shapes = frame.to_crs(grid.crs.to_wkt()).geometry
    found = [shape for shape in shapes if shape is not None and not shape.is_empty and math.isfinite(shape.area)]
    if not any(shape.area > 0 for shape in found):
        raise UserError(f"mask '{path}' holds no polygon; give the outlines of stable ground")
    return [shape for shape in found if shape.area > 0]
