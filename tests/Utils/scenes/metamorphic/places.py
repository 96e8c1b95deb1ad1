"""Disguises of the grid and of its coordinate reference system."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial

import numpy as np
from affine import Affine
from rasterio.crs import CRS

from tests.Utils.scenes.metamorphic.disguises import Disguise
from tests.Utils.scenes.metamorphic.landscape import (
    CELL,
    HOME,
    MARGIN,
    PIXEL,
    SIZE,
    Site,
    bounds_in,
    dem_of,
    heights_on,
)
from tests.Utils.scenes.metamorphic.rasters import Raster

ROUNDING = 0.02
_ROUNDING = "coordinates are transformed there and back, a millimetre off, on slopes of 45 degrees"

# The same cells in another order


def _upside_down(raster: Raster) -> Raster:
    height = raster.valid.shape[0]
    transform = raster.transform @ Affine.translation(0, height) @ Affine.scale(1, -1)
    parts = (part[..., ::-1, :] for part in (raster.values, raster.valid, raster.places))
    return _regrid(raster, transform, *parts)


def _mirrored(raster: Raster) -> Raster:
    width = raster.valid.shape[1]
    transform = raster.transform @ Affine.translation(width, 0) @ Affine.scale(-1, 1)
    parts = (part[..., ::-1] for part in (raster.values, raster.valid, raster.places))
    return _regrid(raster, transform, *parts)


def _transposed(raster: Raster) -> Raster:
    """Rows become columns: the rotation terms are all that is left of the transform."""
    parts = (part.swapaxes(-1, -2) for part in (raster.values, raster.valid, raster.places))
    return _regrid(raster, raster.transform @ Affine(0, 1, 0, 1, 0, 0), *parts)


def _regrid(raster: Raster, transform: Affine, values, valid, places) -> Raster:
    return replace(raster, transform=transform, values=values, valid=valid, places=places)


def _nearly_straight(raster: Raster, share: float) -> Raster:
    a, _, c, _, e, f = raster.transform[:6]
    return replace(raster, transform=Affine(a, share * a, c, share * e, e, f))


def _as_points(raster: Raster) -> Raster:
    return replace(raster, tags=raster.tags | {"AREA_OR_POINT": "Point"})


GRIDS = [
    Disguise("south-up", "grid", _upside_down),
    Disguise("west-left", "grid", _mirrored),
    Disguise("turned by 180 degrees", "grid", lambda raster: _mirrored(_upside_down(raster))),
    Disguise("transposed", "grid", _transposed),
    Disguise("turned by 90 degrees", "grid", lambda raster: _mirrored(_transposed(raster))),
    Disguise("rotation terms of 1e-17", "grid", partial(_nearly_straight, share=1e-17)),
    Disguise("rotation terms of 1e-12", "grid", partial(_nearly_straight, share=1e-12)),
    Disguise("pixel is point", "grid", _as_points),
    Disguise("south-up, pixel is point", "grid", lambda raster: _as_points(_upside_down(raster))),
]
TURNED_SLIGHTLY = [
    Disguise(
        f"rotation terms of {share:g}",
        "grid",
        partial(_nearly_straight, share=share),
        tolerance,
        f"{what} on slopes of 45 degrees, twice, because the model's cells move too",
    )
    for share, tolerance, what in ((1e-9, ROUNDING, "micrometres"), (1e-6, 0.05, "2 mm at the far end"))
]

# DEMs of the same ground on other grids: made anew from the heights that are known everywhere

_CELLS = "cells lie elsewhere, so details between them differ; heights are rounded to metres"


def dem_on(site: Site, transform: Affine, height: int, width: int, crs: str) -> Raster:
    """The DEM on any grid."""
    return dem_of(*heights_on(site, transform, height, width, None if crs == site.crs else crs), transform, crs)


def turned_dem(angle: float, site: Site = HOME) -> Raster:
    """Cells of the same size, on a grid that is turned around the scene's middle."""
    count = 2 * MARGIN + round(1.5 * SIZE * PIXEL / CELL)
    middle = Affine.translation(SIZE * PIXEL / 2, SIZE * PIXEL / 2)
    cells = middle @ Affine.rotation(angle) @ Affine.scale(CELL) @ Affine.translation(-count / 2, -count / 2)
    return dem_on(site, site.corner @ cells, count, count, site.crs)


def shifted_dem(share: float, site: Site = HOME) -> Raster:
    """The grid moved by a share of a cell."""
    count = round(SIZE * PIXEL / CELL) + 2 * MARGIN
    cells = Affine.scale(CELL) @ Affine.translation(share - MARGIN, share - MARGIN)
    return dem_on(site, site.corner @ cells, count, count, site.crs)


def oblong_dem(site: Site = HOME) -> Raster:
    """Cells of 32 x 50 m."""
    cells = Affine.translation(-480.0, -500.0) @ Affine.scale(32.0, 50.0)
    return dem_on(site, site.corner @ cells, 40, 60, site.crs)


@cache
def warped_dem(crs: str, site: Site = HOME, cell: tuple[float, float] | None = None) -> Raster:
    """The DEM in another CRS, with cells of about the same size, or of a given one in that CRS."""
    west, south, east, north = bounds_in(site, crs)
    if cell is None:
        count = round(SIZE * PIXEL / CELL) + 2 * MARGIN
        cell = ((east - west) / count, (north - south) / count)
    width, height = (int(np.ceil(span / side)) for span, side in zip((east - west, north - south), cell, strict=True))
    return dem_on(site, Affine(cell[0], 0.0, west, 0.0, -cell[1], north), height, width, crs)


def _anew(make: Callable[[], Raster]) -> Callable[[Raster], Raster]:
    return lambda raster: make()


# Tolerances of heights, root mean square, between DEMs on different grids.
RESAMPLED = [
    Disguise(f"turned by {angle:g} degrees", "place", _anew(partial(turned_dem, angle)), 3.0, _CELLS)
    for angle in (0.01, 1.0, 20.0, 45.0, 110.0)
] + [
    Disguise("half a cell away", "place", _anew(partial(shifted_dem, 0.5)), 3.0, _CELLS),
    Disguise("oblong cells", "place", _anew(oblong_dem), 3.0, _CELLS),
    Disguise("in degrees", "place", _anew(partial(warped_dem, "EPSG:4326")), 3.0, _CELLS),
    Disguise("in the next UTM zone", "place", _anew(partial(warped_dem, "EPSG:32644")), 3.0, _CELLS),
    Disguise("in Web Mercator", "place", _anew(partial(warped_dem, "EPSG:3857")), 3.0, _CELLS),
    Disguise("in equal-area cones", "place", _anew(partial(warped_dem, "ESRI:102025")), 3.0, _CELLS),
    Disguise(
        "in degrees, twice as wide as high",
        "place",
        _anew(partial(warped_dem, "EPSG:4326", cell=(0.0006, 0.0003))),
        3.0,
        _CELLS,
    ),
]


def _larger(raster: Raster, cells: int) -> Raster:
    """A DEM of a wider area, of which the scene needs a part."""
    values, places = (
        np.pad(part, ((0, 0), (cells, cells), (cells, cells)), mode=mode)
        for part, mode in ((raster.values, "symmetric"), (raster.places, "edge"))
    )
    transform = raster.transform @ Affine.translation(-cells, -cells)
    return _regrid(raster, transform, values, np.pad(raster.valid, cells, constant_values=True), places)


LARGER = [
    Disguise("3 times as wide", "place", partial(_larger, cells=48)),
    Disguise("11 times as wide", "place", partial(_larger, cells=240)),
]

# The same CRS under other names


def _called(raster: Raster, crs: str) -> Raster:
    return replace(raster, crs=crs)


_UTM = CRS.from_epsg(32643)
_UTM_3D = """PROJCRS["UTM zone 43N on WGS 84, with ellipsoidal heights", BASEGEOGCRS["WGS 84",
DATUM["World Geodetic System 1984", ELLIPSOID["WGS 84", 6378137, 298.257223563, LENGTHUNIT["metre", 1]]]],
CONVERSION["UTM zone 43N", METHOD["Transverse Mercator", ID["EPSG", 9807]],
PARAMETER["Latitude of natural origin", 0, ANGLEUNIT["degree", 0.0174532925199433]],
PARAMETER["Longitude of natural origin", 75, ANGLEUNIT["degree", 0.0174532925199433]],
PARAMETER["Scale factor at natural origin", 0.9996, SCALEUNIT["unity", 1]],
PARAMETER["False easting", 500000, LENGTHUNIT["metre", 1]], PARAMETER["False northing", 0, LENGTHUNIT["metre", 1]]],
CS[Cartesian, 3], AXIS["(E)", east, ORDER[1], LENGTHUNIT["metre", 1]], AXIS["(N)", north, ORDER[2],
LENGTHUNIT["metre", 1]], AXIS["ellipsoidal height (h)", up, ORDER[3], LENGTHUNIT["metre", 1]]]"""
_CENTRAL = "+proj=tmerc +lat_0=0 +lon_0=75 +k=0.9996 +x_0=500000 +y_0=0 +datum=WGS84 +units=m +no_defs"
NAMES_OF_UTM = {
    "WKT1": _UTM.to_wkt(version="WKT1_GDAL"),
    "WKT2": _UTM.to_wkt(version="WKT2_2019"),
    "ESRI WKT": _UTM.to_wkt(version="WKT1_ESRI"),
    "PROJ string": "+proj=utm +zone=43 +datum=WGS84 +units=m +no_defs",
    "PROJ string, only the ellipsoid": "+proj=utm +zone=43 +ellps=WGS84 +units=m +no_defs",
    "transverse Mercator": _CENTRAL,
    "URN": "urn:ogc:def:crs:EPSG::32643",
    "PROJJSON": json.dumps(_UTM.to_dict(projjson=True)),
    "compound with EGM96": "EPSG:32643+5773",
    "compound with EGM2008": "EPSG:32643+3855",
    "3-D": _UTM_3D,
    "without authority": CRS.from_string(_CENTRAL).to_wkt(version="WKT2_2019"),
}
_WGS84 = CRS.from_epsg(4326)
NAMES_OF_DEGREES = {
    "WKT1": _WGS84.to_wkt(version="WKT1_GDAL"),
    "WKT2": _WGS84.to_wkt(version="WKT2_2019"),
    "ESRI WKT": _WGS84.to_wkt(version="WKT1_ESRI"),
    "PROJ string": "+proj=longlat +datum=WGS84 +no_defs",
    "CRS84": "OGC:CRS84",
    "URN, latitude first": "urn:ogc:def:crs:EPSG::4326",
    "3-D": "EPSG:4979",
    "compound with EGM96": "EPSG:4326+5773",
    "compound with EGM2008": "EPSG:9518",
}
CALLED = [
    Disguise(f"CRS as {name}", "crs", partial(_called, crs=crs), ROUNDING, _ROUNDING)
    for name, crs in NAMES_OF_UTM.items()
]
CALLED_IN_DEGREES = [
    Disguise(f"degrees as {name}", "crs", partial(_called, crs=crs), ROUNDING, _ROUNDING)
    for name, crs in NAMES_OF_DEGREES.items()
]


def _in_other_units(raster: Raster, unit: str, metres: float) -> Raster:
    """Coordinates, not heights, in feet or kilometres."""
    crs = f"+proj=utm +zone=43 +datum=WGS84 +units={unit} +no_defs"
    return replace(raster, crs=crs, transform=Affine.scale(1.0 / metres) @ raster.transform)


_EDGES = "edges of cells fall on edges of pixels, and rounding gives slivers of these to the neighbouring cell"
HORIZONTAL_UNITS = [
    Disguise(f"coordinates in {unit}", "crs", partial(_in_other_units, unit=unit, metres=metres), 0.15, _EDGES)
    for unit, metres in (("us-ft", 1200 / 3937), ("ft", 0.3048), ("km", 1000.0))
]


def _in_feet_by_its_crs(raster: Raster) -> Raster:
    """Heights in feet, which only the vertical part of the CRS says."""
    return replace(raster, values=raster.values / (1200 / 3937), crs="EPSG:32643+6360")


VERTICAL_UNITS = [
    Disguise("feet by a compound CRS", "crs", _in_feet_by_its_crs, ROUNDING, _ROUNDING),
]


def shifted_longitudes(raster: Raster, degrees: float) -> Raster:
    """The same meridians under other numbers: 0 to 360, or beyond 180."""
    return replace(raster, transform=Affine.translation(degrees, 0.0) @ raster.transform)
