"""Where a raster lies on the ground, and how large its pixels are there."""

from __future__ import annotations

import math
import re
from typing import Any

from affine import Affine

__all__ = ["ground_sample_distance", "has_transform"]

_WEB_MERCATOR = 3857
_WEB_MERCATOR_RADIUS = 6378137.0
# Semi-major axis in metres and inverse flattening, 0 for a sphere, as WKT of either version writes them.
_ELLIPSOID = re.compile(r'(?:SPHEROID|ELLIPSOID)\["[^"]*",\s*([\d.eE+]+),\s*([\d.eE+]+)')


def has_transform(transform: Affine) -> bool:
    """Say whether a transform from pixels to map coordinates exists: rasterio gives the identity where there is none.

    A transform that maps everything onto a line or point counts as none.
    """
    return not transform.is_degenerate and transform not in (Affine.identity(), Affine.scale(1.0, -1.0))


def ground_sample_distance(crs: Any, transform: Affine, height: int, width: int) -> tuple[float, float] | None:
    """Give the metres from one pixel to the next, for any rotation and on any planet.

    Distances in a projected CRS are taken as they are and converted to metres. Only Web Mercator, which most background
    imagery has and whose metres shrink with the latitude, is corrected at the raster's centre. Degrees are
    converted at the centre, on the CRS's own ellipsoid.

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
    centre_y = transform.d * width / 2 + transform.e * height / 2 + transform.f
    if crs.is_projected:
        east = north = crs.linear_units_factor[1]
        if crs.to_epsg() == _WEB_MERCATOR:
            east = north = 1.0 / math.cosh(centre_y / _WEB_MERCATOR_RADIUS)  # the cosine of the latitude
    elif crs.is_geographic:
        unit = crs.units_factor[1]  # radians
        north, east = (unit * radius for radius in _radii(crs.to_wkt(), centre_y * unit))
    else:
        return None
    return math.hypot(transform.b * east, transform.e * north), math.hypot(transform.a * east, transform.d * north)


def _radii(wkt: str, latitude: float) -> tuple[float, float]:
    """Metres a radian of latitude and a radian of longitude, at a latitude in radians (Snyder 1987, 4-18 to 4-21)."""
    match = _ELLIPSOID.search(wkt)
    assert match is not None, "every geographic CRS has an ellipsoid"
    semi_major, inverse_flattening = float(match[1]), float(match[2])
    flattening = 1.0 / inverse_flattening if inverse_flattening else 0.0
    eccentricity = flattening * (2.0 - flattening)  # squared
    # A centre beyond a pole comes from a wrong transform; no distance is negative.
    cosine = abs(math.cos(latitude))
    root = math.sqrt(1.0 - eccentricity * math.sin(latitude) ** 2)
    return semi_major * (1.0 - eccentricity) / root**3, semi_major / root * cosine
