"""Whether two height maps can be laid over each other, and how many pixels of one lie along a pixel of the other."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from rasterio.warp import transform_bounds

from Utils.core.errors import UserError
from Utils.rasters.coordinates import longitude_period, nearest_turn, on_earth, transformed, whole_turns
from Utils.rasters.environment import root_cause
from Utils.scenes.accuracy.height_grid import Grid

__all__ = ["check_georeference", "check_overlap", "pixels_per_pixel"]


def check_georeference(grid: Grid, other: Grid, prediction: Path, path: Path, role: str) -> None:
    """Refuse two rasters of which one has no place, or a local one; without places both must be of one size."""
    if (grid.crs is None) != (other.crs is None):
        without, with_crs = (prediction, path) if grid.crs is None else (path, prediction)
        raise UserError(
            f"'{without}' has no CRS (or no transform), but '{with_crs}' has: they cannot be laid over each other; "
            "georeference the first (gdal_edit.py -a_srs EPSG:N -a_ullr WEST NORTH EAST SOUTH FILE)"
        )
    if grid.crs is not None and other.crs is not None and grid.crs != other.crs:
        for one, crs in ((prediction, grid.crs), (path, other.crs)):
            if not on_earth(crs):
                raise UserError(
                    f"'{one}' has a local CRS ({crs.to_wkt()[:60]}), of which nobody knows where on Earth it lies; "
                    "give both rasters one that does (gdal_edit.py -a_srs EPSG:N FILE)"
                )
    if grid.crs is None and (grid.height, grid.width) != (other.height, other.width):
        raise UserError(
            f"prediction '{prediction}' ({grid.width} x {grid.height}) and {role} '{path}' "
            f"({other.width} x {other.height}) have no CRS, so they are compared pixel by pixel and must be of one "
            "size; cut them alike, or georeference both"
        )


def check_overlap(grid: Grid, other: Grid, prediction: Path, path: Path, role: str) -> None:
    """Refuse rasters of different places. Doubtful cases pass; they fail later, if no common pixel is found."""
    try:
        transformed(grid.crs, other.crs, *grid.middle)
        left, bottom, right, top = transform_bounds(grid.crs, other.crs, *grid.bounds())
    except Exception as error:  # GDAL's own errors come through here, and share no public base
        raise UserError(
            f"{role} '{path}': no way from the prediction's CRS ({grid.crs}) to its own ({other.crs}): "
            f"{root_cause(error)}; reproject one of them first"
        ) from error
    box = other.bounds()
    # Left beyond right: the scene crosses the antimeridian.
    known = np.isfinite([left, bottom, right, top]).all() and left <= right
    beside = (
        not whole_turns(other.crs, (box[0], box[2]), (left, right))
        if longitude_period(other.crs)
        else (right <= box[0] or left >= box[2])
    )
    if known and (beside or top <= box[1] or bottom >= box[3]):
        theirs, mine = (", ".join(f"{value:.6g}" for value in one) for one in (box, (left, bottom, right, top)))
        raise UserError(
            f"{role} '{path}' ({theirs}) does not overlap the prediction '{prediction}' ({mine} in the same CRS); "
            "give a DEM of the same place, or check both CRSs"
        )


def pixels_per_pixel(grid: Grid, other: Grid) -> float:
    """How many pixels of another raster lie along the side of a pixel in the middle of the grid."""
    middle, *around = (
        _pixels_at(grid, other, grid.width * across, grid.height * down)
        for across, down in ((0.5, 0.5), (0.2, 0.3), (0.8, 0.3), (0.2, 0.7), (0.8, 0.7))
    )
    # In a pole all longitudes meet, so that a pixel there spans any number of them.
    known = [side for side in around if math.isfinite(side)]
    usual = float(np.median(known)) if known else middle
    side = middle if not known or 0.5 * usual < middle < 2.0 * usual else usual
    # Outside the other raster's map projection there is no answer, and there are no common pixels either.
    return side if math.isfinite(side) else 1.0


def _pixels_at(grid: Grid, other: Grid, column: float, row: float) -> float:
    """The same for a pixel anywhere; NaN where it is unknown."""
    points = [(column, row), (column + 1, row), (column, row + 1)]
    x, y = zip(*(grid.transform @ point for point in points), strict=True)
    xs, ys = transformed(grid.crs, other.crs, x, y)
    xs = nearest_turn(other.crs, xs, float(xs[0]))
    places = np.array([~other.transform @ place for place in zip(xs, ys, strict=True)])
    return math.sqrt(abs(float(np.linalg.det(places[1:] - places[0]))))
