"""Where images and DEMs lie on the ground, and which of them overlap."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS

from Utils.core.errors import UserError
from Utils.rasters.coordinates import TRANSFORM_ERRORS, horizontal_crs, longitude_period, nearest_turn
from Utils.rasters.geometry import Geometry
from Utils.rasters.grids import straightened
from Utils.rasters.ground import has_transform

__all__ = ["overlaps", "own_grid", "spans"]

logger = logging.getLogger(__name__)

Boxes = NDArray[np.float64]


def own_grid(what: str, path: Path, source: Any, crs: CRS | None = None) -> Geometry:
    """The grid of an open raster.

    Args:
        what: the raster's role, for the errors.
        path: its name, for the errors.
        source: a rasterio dataset, or a scene that was opened.
        crs: the system of a file that names none.

    Raises:
        UserError: no transform, or no system.
    """
    if not has_transform(source.transform):
        raise UserError(
            f"{what} '{path}' is not georeferenced, so nobody knows where it lies; rectify it (gdalwarp IN OUT), or "
            "set its place (gdal_edit.py -a_ullr WEST NORTH EAST SOUTH -a_srs EPSG:N FILE)"
        )
    own = horizontal_crs(source.crs or crs)
    if own is None:
        raise UserError(
            f"{what} '{path}' has no CRS, so nobody knows where it lies; give --crs EPSG:N for all files without one, "
            "or set it (gdal_edit.py -a_srs EPSG:N FILE)"
        )
    return Geometry(source.height, source.width, own, straightened(source.transform, source.height, source.width))


def overlaps(first: Sequence[Geometry], second: Sequence[Geometry], margin: float = 0.0) -> NDArray[np.bool_]:
    """Which rasters of one list lie over which of another.

    They are compared as boxes in the systems of both, so rasters that are rotated against each other may be said to
    overlap where only their boxes do.

    Args:
        first: N grids.
        second: M grids.
        margin: pixels by which each of the first is grown.

    Returns:
        (N, M) bool.
    """
    grown = [grid.grown(round(margin)) for grid in first] if margin else list(first)
    found = np.ones((len(grown), len(second)), bool)
    for crs in {grid.crs.to_wkt(): grid.crs for grid in [*grown, *second]}.values():
        mine, theirs = (np.array([grid.crs == crs for grid in grids], bool) for grids in (grown, second))
        found &= ~(mine[:, None] | theirs) | _meet(_boxes(grown, crs), _boxes(second, crs), crs)
    return found


def _boxes(grids: Sequence[Geometry], crs: CRS) -> Boxes:
    """West, south, east and north of grids in a system, (N, 4); NaN where it cannot express them."""
    boxes = np.full((len(grids), 4), np.nan)
    for place, grid in enumerate(grids):
        try:
            xs, ys = grid.outline(crs)
        except TRANSFORM_ERRORS:
            continue  # no way leads there, as from Earth to Mars
        if np.isfinite(xs).any():
            xs = nearest_turn(crs, xs[np.isfinite(xs)], float(xs[np.isfinite(xs)][0]))
            boxes[place] = xs.min(), np.nanmin(ys), xs.max(), np.nanmax(ys)
    return boxes


def _meet(mine: Boxes, theirs: Boxes, crs: CRS) -> NDArray[np.bool_]:
    """Which boxes meet, (N, M), longitudes of either sense being the same place."""
    period = longitude_period(crs)
    west, south, east, north = (mine[:, None, side] for side in range(4))
    found = np.zeros((len(mine), len(theirs)), bool)
    for turn in (0.0,) if period is None else (0.0, -period, period):
        beside = (west >= theirs[:, 2] + turn) | (east <= theirs[:, 0] + turn)
        found |= ~beside & ~np.isnan(west) & ~np.isnan(theirs[:, 0])
    return found & (south < theirs[:, 3]) & (north > theirs[:, 1])


def spans(grids: Sequence[Geometry]) -> str:
    """What some rasters span, for an error: the box around the first few, with their system."""
    parts = []
    for grid in grids[:2]:
        west, south, east, north = _boxes([grid], grid.crs)[0]
        parts.append(f"x {west:.8g} to {east:.8g}, y {south:.8g} to {north:.8g} ({grid.crs.to_string()[:60]})")
    return "; ".join(parts) + ("; ..." if len(grids) > 2 else "")
