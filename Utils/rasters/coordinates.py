"""Coordinate systems: what of them says where a place lies, and how points go from one to another."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from rasterio._err import CPLE_AppDefinedError, CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.warp import transform

__all__ = [
    "TRANSFORM_ERRORS",
    "horizontal_crs",
    "longitude_period",
    "nearest_turn",
    "on_earth",
    "transformed",
    "vertical_system",
    "whole_turns",
]

Floats = NDArray[np.float64]

TRANSFORM_ERRORS = (RasterioError, CPLE_BaseError)
"""What :func:`transformed` raises where no way leads from one system to the other."""


def horizontal_crs(crs: CRS | None) -> CRS | None:
    """Give the part of a coordinate reference system that says where, without the part that says how high.

    The same system has many names: EPSG:3857 with heights above the geoid is EPSG:3857+5773, and WGS 84 with heights is
    EPSG:4979. Heights are never converted here, so the height axis must not change any path that is taken.

    Args:
        crs: any system, or None.

    Returns:
        A two-dimensional system; ``crs`` itself where it has two dimensions, or where nothing can be taken off.
    """
    if crs is None:
        return None
    try:
        described = crs.to_dict(projjson=True)
        flat = _without_heights(described)
        return crs if flat == described else CRS.from_string(json.dumps(flat))
    except (RasterioError, CPLE_BaseError, KeyError, TypeError):
        return crs  # an exotic system; whether it serves shows where it is used


def _without_heights(described: dict[str, Any]) -> dict[str, Any]:
    """A system in PROJJSON, flattened; the same where it is flat."""
    kind = described.get("type")
    if kind == "CompoundCRS":
        return _without_heights(described["components"][0])
    if kind == "BoundCRS":
        return described | {"source_crs": _without_heights(described["source_crs"])}
    axes = described.get("coordinate_system", {}).get("axis", [])
    if len(axes) < 3 or kind not in ("GeographicCRS", "GeodeticCRS", "ProjectedCRS", "DerivedGeographicCRS"):
        return described
    if described["coordinate_system"].get("subtype") not in ("ellipsoidal", "Cartesian") or kind == "GeodeticCRS":
        return described  # geocentric: its third axis is no height
    # The codes belong to the system with heights.
    flat = {key: value for key, value in described.items() if key not in ("id", "ids")}
    flat["coordinate_system"] = described["coordinate_system"] | {"axis": axes[:2]}
    if "base_crs" in described:
        flat["base_crs"] = _without_heights({"type": "GeographicCRS", **described["base_crs"]})
    return flat


def vertical_system(crs: CRS | None) -> str | None:
    """Give the text of a system that has heights, which says what they refer to; None for a flat or local one."""
    if crs is None or horizontal_crs(crs) == crs:
        return None
    try:
        return str(crs.to_wkt(version="WKT2_2019"))
    except (RasterioError, CPLE_BaseError, ValueError):
        return None


def on_earth(crs: CRS) -> bool:
    """Say whether a system ties coordinates to a planet: local (engineering) and vertical ones do not."""
    return bool(crs.is_projected or crs.is_geographic)


def longitude_period(crs: CRS) -> float | None:
    """Give the length of a whole turn in the units of a geographic system, such as 360; None for all others."""
    return 2.0 * math.pi / float(crs.units_factor[1]) if crs.is_geographic else None


def nearest_turn(crs: CRS, xs: ArrayLike, centre: float) -> Floats:
    """Bring longitudes to within half a turn of a place by whole turns; other coordinates are returned as they are."""
    values = np.asarray(xs, np.float64)
    period = longitude_period(crs)
    if period is None:
        return values
    return values - period * np.rint((values - centre) / period)


def whole_turns(crs: CRS, span: tuple[float, float], wanted: tuple[float, float]) -> tuple[int, ...]:
    """By how many whole turns of longitude a raster must be moved to meet a range of longitudes.

    Args:
        crs: the raster's system.
        span: its least and greatest x.
        wanted: the range.

    Returns:
        The numbers, the least move first; (0,) for systems without longitudes; () where no move helps.
    """
    period = longitude_period(crs)
    if period is None:
        return (0,)
    turns = (0, -1, 1, -2, 2)
    return tuple(turn for turn in turns if span[0] + turn * period < wanted[1] and span[1] + turn * period > wanted[0])


def transformed(source: CRS, target: CRS, xs: ArrayLike, ys: ArrayLike) -> tuple[Floats, Floats]:
    """Bring points from one system to another; NaN for points that the other cannot express.

    Args:
        source: their system.
        target: the other one.
        xs: (N,) eastings or longitudes, in this order whatever the order of the system's axes is.
        ys: (N,) northings or latitudes.

    Raises:
        RasterioError, CPLE_BaseError: no way leads from one system to the other; see ``TRANSFORM_ERRORS``.
    """
    xs, ys = np.atleast_1d(np.asarray(xs, np.float64)), np.atleast_1d(np.asarray(ys, np.float64))
    if source == target or not len(xs):
        return xs, ys
    try:
        there = transform(source, target, xs, ys)
    except CPLE_AppDefinedError:
        # One point outside the domain of a projection raises for all of them.
        if len(xs) == 1:
            return np.array([np.nan]), np.array([np.nan])
        half = len(xs) // 2
        parts = [transformed(source, target, xs[part], ys[part]) for part in (slice(half), slice(half, None))]
        return np.concatenate([parts[0][0], parts[1][0]]), np.concatenate([parts[0][1], parts[1][1]])
    found = np.asarray(there[0], np.float64), np.asarray(there[1], np.float64)
    lost = ~(np.isfinite(found[0]) & np.isfinite(found[1]))
    return np.where(lost, np.nan, found[0]), np.where(lost, np.nan, found[1])
