"""Where a raster lies on the ground, and how large its pixels are there."""

from __future__ import annotations

import json
import math
import re
from functools import lru_cache
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import ArrayLike, NDArray
from rasterio.crs import CRS

from Utils.rasters.coordinates import TRANSFORM_ERRORS, horizontal_crs, transformed

__all__ = ["ground_sample_distance", "has_transform", "metres_per_unit"]

Floats = NDArray[np.float64]

_WEB_MERCATOR = 3857
_WEB_MERCATOR_RADIUS = 6378137.0
_WEB_MERCATOR_METHOD = "Popular Visualisation Pseudo Mercator"
_MOST_STRETCH = 0.05
_PROBE = 50.0  # metres to both sides, over which the stretch is measured
# Semi-major axis in metres and inverse flattening, 0 for a sphere, as WKT of either version writes them.
_ELLIPSOID = re.compile(r'(?:SPHEROID|ELLIPSOID)\["[^"]*",\s*([\d.eE+]+),\s*([\d.eE+]+)')


def has_transform(transform: Affine) -> bool:
    """Say whether a transform from pixels to map coordinates exists: rasterio gives the identity where there is none.

    A transform that maps everything onto a line or point counts as none.
    """
    return not transform.is_degenerate and transform not in (Affine.identity(), Affine.scale(1.0, -1.0))


def ground_sample_distance(crs: Any, transform: Affine, height: int, width: int) -> tuple[float, float] | None:
    """Give the metres from one pixel to the next at a raster's centre, for any rotation and on any planet.

    Args:
        crs: a rasterio CRS, or None.
        transform: pixel (column, row) to map coordinates.
        height: rows of the raster.
        width: columns of the raster.

    Returns:
        (from row to row, from column to column), or None where either the CRS or the transform is missing, or the CRS
        is neither projected nor geographic.
    """
    if crs is None or not has_transform(transform):
        return None
    found = metres_per_unit(crs, *([value] for value in transform @ (width / 2, height / 2)))
    if found is None:
        return None
    east, north = (float(values[0]) for values in found)
    return math.hypot(transform.b * east, transform.e * north), math.hypot(transform.a * east, transform.d * north)


def metres_per_unit(crs: Any, xs: ArrayLike, ys: ArrayLike) -> tuple[Floats, Floats] | None:
    """Give the metres on the ground in one map unit along x and along y.

    Degrees are converted on the CRS's own ellipsoid. Distances in a projected CRS are taken as they are and converted
    to metres, but not where the projection stretches the ground by more than a twentieth at one of the places, as
    cylindrical ones do far from the equator: there the true ones are given. Those of Web Mercator, which most
    background imagery has, are always the true ones, on its sphere. A CRS with heights, or under another name, gives
    the same.

    Args:
        crs: a rasterio CRS.
        xs: (N,) eastings or longitudes.
        ys: (N,) northings or latitudes.

    Returns:
        Two arrays (N,), or None where the CRS is neither projected nor geographic.
    """
    crs = _horizontal(crs)
    xs, ys = np.asarray(xs, np.float64), np.asarray(ys, np.float64)
    if crs.is_geographic:
        unit = crs.units_factor[1]  # radians
        north, east = _radii(crs.to_wkt(), ys * unit)
        return east * unit, north * unit
    if not crs.is_projected:
        return None
    unit = float(crs.linear_units_factor[1])
    if _is_web_mercator(crs):
        shrunk = unit / np.cosh(ys * unit / _WEB_MERCATOR_RADIUS)  # the cosine of the latitude
        return shrunk, shrunk
    nominal = np.full(ys.shape, unit)
    try:
        true = _true_lengths(crs, xs, ys, _PROBE / unit)
    except TRANSFORM_ERRORS:
        return nominal, nominal
    stretched = [np.abs(lengths / unit - 1.0) > _MOST_STRETCH for lengths in true]
    return true if any(bool(one.any()) for one in stretched) else (nominal, nominal)


@lru_cache(maxsize=64)
def _horizontal(crs: Any) -> Any:
    return horizontal_crs(crs)


@lru_cache(maxsize=64)
def _is_web_mercator(crs: Any) -> bool:
    """Whether a projected CRS is Web Mercator, by its method: it has many names, and codes of several authorities."""
    described = crs.to_dict(projjson=True)
    described = described.get("source_crs", described)
    name = str(described.get("conversion", {}).get("method", {}).get("name", ""))
    return crs.to_epsg() == _WEB_MERCATOR or name == _WEB_MERCATOR_METHOD


def _true_lengths(crs: Any, xs: Floats, ys: Floats, step: float) -> tuple[Floats, Floats]:
    """Metres on the ground in one unit of x and of y (N,), by steps to both sides; NaN outside the projection."""
    base = CRS.from_wkt(_geographic_part(crs))
    unit = base.units_factor[1]

    def on_ground(x: Floats, y: Floats) -> Floats:
        longitudes, latitudes = transformed(crs, base, x, y)
        return _in_space(base.to_wkt(), longitudes * unit, latitudes * unit)

    across = np.linalg.norm(on_ground(xs + step, ys) - on_ground(xs - step, ys), axis=0)
    down = np.linalg.norm(on_ground(xs, ys + step) - on_ground(xs, ys - step), axis=0)
    return across / (2.0 * step), down / (2.0 * step)


@lru_cache(maxsize=64)
def _geographic_part(crs: Any) -> str:
    """The geographic CRS under a projected one, as WKT."""
    described = crs.to_dict(projjson=True)
    described = described.get("source_crs", described)
    base = {"type": "GeographicCRS", **described["base_crs"]}
    return str(_horizontal(CRS.from_string(json.dumps(base))).to_wkt())


def _ellipsoid(wkt: str) -> tuple[float, float]:
    """Semi-major axis in metres and squared eccentricity."""
    match = _ELLIPSOID.search(wkt)
    assert match is not None, "every geographic CRS has an ellipsoid"
    semi_major, inverse_flattening = float(match[1]), float(match[2])
    flattening = 1.0 / inverse_flattening if inverse_flattening else 0.0
    return semi_major, flattening * (2.0 - flattening)


def _in_space(wkt: str, longitudes: Floats, latitudes: Floats) -> Floats:
    """Places on an ellipsoid (3, N) in metres from its centre, from radians: distances there know no poles."""
    semi_major, eccentricity = _ellipsoid(wkt)
    normal = semi_major / np.sqrt(1.0 - eccentricity * np.sin(latitudes) ** 2)
    around = normal * np.cos(latitudes)
    up = normal * (1.0 - eccentricity) * np.sin(latitudes)
    return np.stack([around * np.cos(longitudes), around * np.sin(longitudes), up])


def _radii(wkt: str, latitudes: Floats) -> tuple[Floats, Floats]:
    """Metres a radian of latitude and a radian of longitude, at latitudes in radians (Snyder 1987, 4-18 to 4-21)."""
    semi_major, eccentricity = _ellipsoid(wkt)
    # A centre beyond a pole comes from a wrong transform; no distance is negative.
    cosine = np.abs(np.cos(latitudes))
    root = np.sqrt(1.0 - eccentricity * np.sin(latitudes) ** 2)
    return semi_major * (1.0 - eccentricity) / root**3, semi_major / root * cosine
