"""The unit of a raster's heights: what its band or its vertical coordinate system says, in metres."""

from __future__ import annotations

from typing import Any

from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError

from Utils.core.errors import UserError

__all__ = ["UNITS", "height_unit", "unit_in_metres"]

_FOOT, _SURVEY_FOOT = 0.3048, 1200 / 3937
UNITS = {"m": 1.0, "dm": 0.1, "cm": 0.01, "mm": 0.001, "km": 1000.0, "ft": _FOOT, "us-ft": _SURVEY_FOOT}
"""Metres in the units that an option may name."""

_NAMES = {
    **UNITS,
    **dict.fromkeys(("metre", "metres", "meter", "meters"), 1.0),
    **dict.fromkeys(("decimetre", "decimetres", "decimeter", "decimeters"), 0.1),
    **dict.fromkeys(("centimetre", "centimetres", "centimeter", "centimeters"), 0.01),
    **dict.fromkeys(("foot", "feet", "international foot", "international feet"), _FOOT),
    **dict.fromkeys(("us survey foot", "us survey feet", "foot_us", "ftus", "us_ft", "ft_us"), _SURVEY_FOOT),
}


def unit_in_metres(name: str) -> float | None:
    """Metres in one unit of this name, in any case; None for an unknown name."""
    return _NAMES.get(name.strip().lower())


def height_unit(path: object, source: Any, band: int) -> tuple[str, float]:
    """The unit of a band's heights: that of the band itself, else that of the height axis of its system, else metres.

    Args:
        path: the raster's name, for the error.
        source: the open raster.
        band: its number, from 1.

    Returns:
        The name, "" where nothing names it, and the metres in one unit.

    Raises:
        UserError: a unit that is not a length.
    """
    name = (source.units[band - 1] or "").strip()
    if name:
        metres = unit_in_metres(name)
        if metres is None:
            raise UserError(f"'{path}' has heights in '{name}'; convert them to metres, or correct the band's unit")
        return name, metres
    return _vertical_axis(source.crs) or ("", 1.0)


def _vertical_axis(crs: Any) -> tuple[str, float] | None:
    """Name and metres of the unit of a system's height axis; None where it has no such axis."""
    try:
        described = {} if crs is None else crs.to_dict(projjson=True)
    except (RasterioError, CPLE_BaseError):
        return None
    parts = described.get("components", [described])
    for part in parts:
        axes = part.get("coordinate_system", {}).get("axis", [])
        for axis in axes:
            if axis.get("direction") in ("up", "down"):
                unit = axis.get("unit", "metre")
                if isinstance(unit, dict):
                    return str(unit.get("name", "")), float(unit.get("conversion_factor", 1.0))
                return (str(unit), 1.0) if unit == "metre" else None
    return None
