"""The grid on the ground: its system, its cells, and which of them two views or more can see."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import CRSError

from Systems.stereo.dsm.views import View
from Utils.core.errors import UserError
from Utils.rasters.coordinates import TRANSFORM_ERRORS, transformed
from Utils.rasters.geometry import Geometry

__all__ = ["GEOGRAPHIC", "common_ground", "ground_pixel", "projected_crs", "round_number", "seen_by", "utm_crs"]

Floats = NDArray[np.float64]

GEOGRAPHIC = CRS.from_epsg(4326)
"""Longitude and latitude of rational polynomials."""

# Nodes along a side of the ground at which views are asked.
_NODES = 120


def utm_crs(longitude: float, latitude: float) -> CRS:
    """The UTM zone of a place, on WGS 84."""
    zone = int((longitude + 180.0) % 360.0 // 6.0) + 1
    return CRS.from_epsg((32600 if latitude >= 0 else 32700) + zone)


def projected_crs(name: str) -> CRS:
    """A projected system in metres.

    Raises:
        UserError: it is not known, or not projected, or not in metres.
    """
    try:
        crs = CRS.from_user_input(name)
    except CRSError as error:
        raise UserError(f"--crs '{name}': not known; give one like EPSG:32740") from error
    if not crs.is_projected or abs(crs.linear_units_factor[1] - 1.0) > 1e-9:
        raise UserError(f"--crs '{name}': heights in metres need a projected system in metres, such as a UTM zone")
    return crs


def round_number(metres: float) -> float:
    """The nearest of 1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, and those times powers of ten."""
    power = 10.0 ** np.floor(np.log10(metres))
    nearest = min((1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10), key=lambda number: abs(np.log(number * power / metres)))
    return float(f"{nearest * power:.3g}")


def ground_pixel(view: View, height: float) -> float:
    """Metres of a pixel of a view on the ground at a height: the square root of its area."""
    column, row = view.source.width / 2, view.source.height / 2
    longitude, latitude = view.model.locate([column, column + 1, column], [row, row, row + 1], height)
    x, y = transformed(GEOGRAPHIC, utm_crs(float(longitude[0]), float(latitude[0])), longitude, latitude)
    area = abs((x[1] - x[0]) * (y[2] - y[0]) - (x[2] - x[0]) * (y[1] - y[0]))
    return math.sqrt(area)


def seen_by(view: View, longitude: Floats, latitude: Floats, height: float | Floats) -> NDArray[np.bool_]:
    """Whether places at a height lie inside a view's image."""
    columns, rows = view.model.project(longitude, latitude, height)
    inside = (columns >= -0.5) & (columns <= view.source.width - 0.5)
    return inside & (rows >= -0.5) & (rows <= view.source.height - 0.5)


def common_ground(
    views: Sequence[View],
    heights: tuple[float, float],
    crs: CRS,
    resolution: float,
    aoi: tuple[float, float, float, float] | None = None,
    aoi_crs: str = "EPSG:4326",
) -> Geometry:
    """The grid over all ground that two views or more see at some height of a range; cells lie on whole multiples.

    Args:
        views: the images.
        heights: lowest and highest height, in metres above the ellipsoid.
        crs: the grid's system, in metres.
        resolution: metres of a cell.
        aoi: west, south, east and north; the grid is cut to it.
        aoi_crs: its system.

    Raises:
        UserError: the views see no ground together, or nothing of the area asked for.
    """
    outlines = [_outline(view, heights, crs) for view in views]
    lows = np.min([outline.min(axis=1) for outline in outlines], axis=0)
    highs = np.max([outline.max(axis=1) for outline in outlines], axis=0)
    xs, ys = (axis.ravel() for axis in np.meshgrid(*(np.linspace(lows[i], highs[i], _NODES) for i in (0, 1))))
    longitude, latitude = transformed(crs, GEOGRAPHIC, xs, ys)
    shared = np.zeros(len(xs), bool)
    for height in np.linspace(*heights, 3):
        shared |= sum(seen_by(view, longitude, latitude, height).astype(int) for view in views) >= 2
    if not shared.any():
        raise UserError(_apart(views, heights))
    step = (highs - lows) / (_NODES - 1)
    west, south = xs[shared].min() - step[0], ys[shared].min() - step[1]
    east, north = xs[shared].max() + step[0], ys[shared].max() + step[1]
    if aoi is not None:
        box = _box(aoi, aoi_crs, crs)
        west, south, east, north = max(west, box[0]), max(south, box[1]), min(east, box[2]), min(north, box[3])
        if west >= east or south >= north:
            raise UserError(f"--aoi {','.join(f'{value:g}' for value in aoi)}: no two images see anything of it")
    left, top = math.floor(west / resolution), math.ceil(north / resolution)
    width, height = math.ceil(east / resolution) - left, top - math.floor(south / resolution)
    transform = Affine(resolution, 0.0, left * resolution, 0.0, -resolution, top * resolution)
    return Geometry(height, width, crs, transform)


def _outline(view: View, heights: tuple[float, float], crs: CRS) -> Floats:
    """Coordinates (2, N) of the border of an image on the ground at the lowest and the highest height."""
    share = np.linspace(0.0, 1.0, 17)
    columns = np.concatenate([share, share, np.zeros(17), np.ones(17)]) * (view.source.width - 1)
    rows = np.concatenate([np.zeros(17), np.ones(17), share, share]) * (view.source.height - 1)
    found = [view.model.locate(columns, rows, height) for height in heights]
    longitude, latitude = (np.concatenate([each[i] for each in found]) for i in (0, 1))
    outline = np.stack(transformed(GEOGRAPHIC, crs, longitude, latitude))
    if not np.isfinite(outline).all():
        raise UserError(
            f"'{view.name}': its RPC places its border nowhere on the ground of {crs.to_string()}; does it belong to "
            "this image?"
        )
    return outline


def _box(aoi: tuple[float, float, float, float], aoi_crs: str, crs: CRS) -> tuple[float, float, float, float]:
    """West, south, east and north in another system."""
    west, south, east, north = aoi
    if not (west < east and south < north):
        raise UserError(f"--aoi {west:g},{south:g},{east:g},{north:g}: give west,south,east,north, each pair rising")
    share = np.linspace(0.0, 1.0, 17)
    xs = west + (east - west) * np.concatenate([share, share, 0 * share, 0 * share + 1])
    ys = south + (north - south) * np.concatenate([0 * share, 0 * share + 1, share, share])
    try:
        x, y = transformed(CRS.from_user_input(aoi_crs), crs, xs, ys)
    except (CRSError, *TRANSFORM_ERRORS) as error:
        raise UserError(f"--aoi-crs '{aoi_crs}': no way leads from it to {crs.to_string()}") from error
    if not (np.isfinite(x).any() and np.isfinite(y).any()):
        raise UserError(f"--aoi: lies outside of {crs.to_string()}; is it in {aoi_crs}?")
    return float(np.nanmin(x)), float(np.nanmin(y)), float(np.nanmax(x)), float(np.nanmax(y))


def _apart(views: Sequence[View], heights: tuple[float, float]) -> str:
    middle = sum(heights) / 2
    places = [f"'{view.name}' at {place[0]:.4f}, {place[1]:.4f}" for view in views for place in [view.centre(middle)]]
    return (
        f"no two images see the same ground between {heights[0]:g} and {heights[1]:g} m: {'; '.join(places)} "
        "(longitude, latitude of their middles); do the RPCs belong to these images?"
    )
