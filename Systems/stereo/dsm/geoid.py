"""Heights above the ellipsoid to heights above a geoid, through a raster of undulations or pyproj."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.crs import CRS

from Utils.core.errors import UserError
from Utils.rasters.coordinates import nearest_turn, transformed
from Utils.rasters.environment import raster_errors

__all__ = ["Undulations", "undulations_of"]

Floats = NDArray[np.float64]
Undulations = Callable[[Floats, Floats], Floats]
"""Metres from the ellipsoid up to the geoid (N,) at longitudes and latitudes (N,) in degrees."""

_GEOGRAPHIC = CRS.from_epsg(4326)


def undulations_of(geoid: str) -> Undulations | None:
    """How far a geoid lies above the ellipsoid.

    Args:
        geoid: a raster of undulations in metres, such as ``us_nga_egm96_15.tif`` of PROJ-data, in any coordinate
            system; or a vertical one that pyproj knows, such as EPSG:5773 (EGM96) or EPSG:3855 (EGM2008); "" for none.

    Raises:
        UserError: the file cannot be read, pyproj or its grid are missing, or the system is not known.
    """
    if not geoid:
        return None
    if Path(geoid).is_file():
        return _from_raster(Path(geoid))
    return _from_pyproj(geoid)


def _from_raster(path: Path) -> Undulations:
    with raster_errors(path), rasterio.open(path) as source:
        values = source.read(1, masked=True).astype(np.float64).filled(np.nan)
        crs, back = source.crs or _GEOGRAPHIC, ~source.transform
        middle = source.transform @ (source.width / 2, source.height / 2)

    def undulations(longitude: Floats, latitude: Floats) -> Floats:
        x, y = transformed(_GEOGRAPHIC, crs, longitude, latitude)
        columns, rows = back @ (nearest_turn(crs, x, middle[0]), y)
        return _bilinear(values, rows - 0.5, columns - 0.5)

    return undulations


def _bilinear(values: Floats, rows: Floats, columns: Floats) -> Floats:
    """Values at fractional rows and columns (N,), those of the border half a cell beyond it; NaN further out."""
    height, width = values.shape
    inside = (rows >= -0.51) & (rows <= height - 0.49) & (columns >= -0.51) & (columns <= width - 0.49)
    rows, columns = np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)
    top, left = np.minimum(rows.astype(int), max(height - 2, 0)), np.minimum(columns.astype(int), max(width - 2, 0))
    down, across = rows - top, columns - left
    below, right = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
    upper = values[top, left] * (1 - across) + values[top, right] * across
    lower = values[below, left] * (1 - across) + values[below, right] * across
    return np.where(inside, upper * (1 - down) + lower * down, np.nan)


def _from_pyproj(name: str) -> Undulations:
    try:
        import pyproj
        from pyproj.transformer import TransformerGroup
    except ImportError as error:
        raise UserError(
            f"--geoid '{name}': is no file, and other names need pyproj (pip install pyproj); or give a raster of "
            "undulations, such as us_nga_egm96_15.tif of PROJ-data"
        ) from error
    try:
        if not pyproj.CRS.from_user_input(name).is_vertical:
            raise pyproj.exceptions.CRSError(f"{name} is no vertical system")
        target = pyproj.CRS.from_user_input(f"EPSG:4326+{name.upper().removeprefix('EPSG:')}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a missing grid is said below
            group = TransformerGroup(pyproj.CRS.from_epsg(4979), target, always_xy=True)
    except pyproj.exceptions.CRSError as error:
        raise UserError(f"--geoid '{name}': pyproj knows no such vertical system; give one like EPSG:5773") from error
    if not group.best_available:
        needed = ", ".join(grid.short_name for found in group.unavailable_operations for grid in found.grids)
        raise UserError(
            f"--geoid '{name}': PROJ lacks its grid ({needed}); fetch it with 'pyproj sync', or give the file itself"
        )
    chosen = group.transformers[0]

    def undulations(longitude: Floats, latitude: Floats) -> Floats:
        heights = chosen.transform(longitude, latitude, np.zeros_like(longitude))[2]
        return -np.asarray(heights, np.float64)

    return undulations
