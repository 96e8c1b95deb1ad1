"""Disguises of numbers: types, scales, units, the ways to say that a pixel has no data, and the order of bands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from rasterio.enums import ColorInterp

from tests.Utils.scenes.metamorphic import rasters
from tests.Utils.scenes.metamorphic.disguises import Disguise
from tests.Utils.scenes.metamorphic.landscape import RGB
from tests.Utils.scenes.metamorphic.rasters import Raster

_FEET, _SURVEY_FEET = 0.3048, 1200 / 3937


def _set(**changes: Any) -> Callable[[Raster], Raster]:
    return lambda raster: replace(raster, **changes)


def _rescaled(raster: Raster, factor: float, shift: float = 0.0, **changes: Any) -> Raster:
    """Other numbers for the same picture; only for images, whose stretch undoes it."""
    return replace(raster, values=factor * raster.values + shift, **changes)


def _in_unit(raster: Raster, metres: float, unit: str) -> Raster:
    return replace(raster, values=raster.values / metres, unit=unit)


def _fits(raster: Raster, nodata: float) -> Raster:
    """The tag, with a value that the raster's type holds: its smallest where the wanted one does not fit."""
    kind = np.dtype(raster.dtype)
    if kind.kind in "iu" and not np.iinfo(kind).min <= nodata <= np.iinfo(kind).max:
        nodata = float(np.iinfo(kind).max)
    return replace(raster, void=rasters.TAG, nodata=nodata)


_LEVELS = "uint8 with offset", "uint8", 1.0, 500.0, 255.0
HEIGHT_TYPES = [
    Disguise(name, "type", _set(dtype=dtype, scale=scale, offset=offset, nodata=nodata))
    for name, dtype, scale, offset, nodata in (
        _LEVELS,
        ("int16", "int16", 1.0, 0.0, -32768.0),
        ("uint16", "uint16", 1.0, 0.0, 0.0),
        ("uint16 in tenths", "uint16", 0.1, 0.0, 65535.0),
        ("int16 with scale and offset", "int16", 0.02, 600.0, -32768.0),
        ("int16 upside down", "int16", -1.0, 1000.0, -32768.0),
        ("int32 in millimetres", "int32", 0.001, 0.0, -2147483648.0),
        ("uint32", "uint32", 1.0, 0.0, 4294967295.0),
        ("float64", "float64", 1.0, 0.0, -1.7976931348623157e308),
        ("float64 with scale", "float64", 0.25, -100.0, -9999.0),
    )
]

UNITS = [
    Disguise(name, "unit", partial(_in_unit, metres=metres, unit=unit))
    for name, metres, unit in (
        ("feet", _FEET, "ft"),
        ("Foot in capitals", _FEET, "Foot"),
        ("US survey feet", _SURVEY_FEET, "US survey foot"),
        ("us-ft", _SURVEY_FEET, "us-ft"),
        ("ftUS", _SURVEY_FEET, "ftUS"),
        ("centimetres", 0.01, "cm"),
        ("metre in full", 1.0, "metre"),
        ("kilometres", 1000.0, "km"),
    )
]


def _held(raster: Raster, void: str) -> Raster:
    return replace(raster, void=void)


VOIDS = [
    Disguise("voids NaN", "void", partial(_held, void=rasters.NAN)),
    Disguise("voids NaN, tagged", "void", _set(void=rasters.TAG, nodata=float("nan"))),
    Disguise("voids in an internal mask", "void", partial(_held, void=rasters.INTERNAL)),
    Disguise("voids in a .msk beside", "void", partial(_held, void=rasters.EXTERNAL)),
    Disguise("voids in alpha", "void", partial(_held, void=rasters.ALPHA)),
    Disguise("voids -32768", "void", partial(_fits, nodata=-32768.0)),
    Disguise("voids 0", "void", partial(_fits, nodata=0.0)),
    Disguise("voids 3.4e38", "void", partial(_fits, nodata=float(np.finfo(np.float32).max))),
    Disguise("voids -3.4e38", "void", partial(_fits, nodata=float(np.finfo(np.float32).min))),
]

OWN_NODATA = {"image": "--nodata", "dem": "--reference-nodata"}


def undeclared(option: str) -> list[Disguise]:
    """Voids that no tag declares: given by the user with an option, or suspected."""
    found = []
    for value in (-32768.0, -9999.0, 32767.0, 0.0):
        change = _set(void=rasters.UNDECLARED, nodata=value, given={option: f"{value:g}"})
        found.append(Disguise(f"voids {value:g}, given with {option}", "void", change))
    return found


def suspected(option: str) -> list[Disguise]:
    """Voids that no tag declares and no option names: left out with a line, or refused with one."""
    found = []
    for value, dtype in (
        (-32768.0, "int16"),
        (-9999.0, "int16"),
        (0.0, "int16"),
        (32767.0, "int16"),
        (-9999.0, "float32"),
        (float(np.finfo(np.float32).max), "float32"),
        (float(np.finfo(np.float32).min), "float64"),
        (65535.0, "uint16"),
        (-99999.0, "float32"),
    ):
        text = f"{value:g}"
        change = _set(void=rasters.UNDECLARED, nodata=value, dtype=dtype)
        line = rf"(?s)({text.replace('+', '[+]')}|{value:.0f}|void|nodata).*{option}"
        found.append(Disguise(f"voids {text} in {dtype}, untold", "void", change, says=line, refusal=line))
    return found


# Of images


IMAGE_TYPES = [
    Disguise("uint16", "type", partial(_rescaled, factor=257.0, dtype="uint16")),
    Disguise("12 bits", "type", partial(_rescaled, factor=16.0, dtype="uint16", creation={"nbits": 12})),
    Disguise(
        "int16 around 0", "type", partial(_rescaled, factor=100.0, shift=-12000.0, dtype="int16", nodata=-32768.0)
    ),
    Disguise("int32", "type", partial(_rescaled, factor=1000.0, dtype="int32", nodata=-1.0)),
    Disguise("float32 reflectance", "type", partial(_rescaled, factor=1 / 255.0, dtype="float32", nodata=-9999.0)),
    Disguise("float64", "type", partial(_rescaled, factor=1e4, dtype="float64", nodata=-9999.0)),
    Disguise("uint16 with scale and offset", "type", _set(dtype="uint16", scale=0.5, offset=-10.0, nodata=65535.0)),
]

IMAGE_VOIDS = [
    *VOIDS[:6],
    Disguise("void white", "void", partial(_fits, nodata=255.0)),
    Disguise("void given with --nodata", "void", _set(void=rasters.UNDECLARED, nodata=0.0, given={"--nodata": "0"})),
]


def _ordered(raster: Raster, order: tuple[int, ...], given: bool = False) -> Raster:
    """Bands in another order, tagged with their colours, or untagged and asked for by the user."""
    values = raster.values[list(order)]
    if not given:
        return replace(raster, values=values, colours=tuple(RGB[number] for number in order))
    numbers = ",".join(str(order.index(number) + 1) for number in range(3))
    return replace(raster, values=values, colours=None, given=raster.given | {"--bands": numbers})


def with_infrared(raster: Raster, first: bool, kind: ColorInterp, given: bool = False) -> Raster:
    """A fourth band, which is 0 over dark water."""
    infrared = np.clip(2.0 * (raster.values[:1] - 60.0), 0.0, 255.0).round()
    parts = (infrared, raster.values) if first else (raster.values, infrared)
    colours = (kind, *RGB) if first else (*RGB, kind)
    options = {"--bands": "2,3,4" if first else "1,2,3"} if given else {}
    return replace(raster, values=np.concatenate(parts), colours=colours, given=raster.given | options)


BANDS = [
    Disguise("bands tagged blue green red", "bands", partial(_ordered, order=(2, 1, 0))),
    Disguise("bands tagged green red blue", "bands", partial(_ordered, order=(1, 0, 2))),
    Disguise("bands untagged", "bands", _set(colours=None)),
    Disguise("--bands 3,2,1", "bands", partial(_ordered, order=(2, 1, 0), given=True)),
    Disguise("--bands 2,3,1", "bands", partial(_ordered, order=(2, 0, 1), given=True)),
    Disguise("infrared last", "bands", partial(with_infrared, first=False, kind=ColorInterp.undefined)),
    Disguise("infrared first", "bands", partial(with_infrared, first=True, kind=ColorInterp.undefined)),
    Disguise(
        "infrared first, --bands 2,3,4",
        "bands",
        partial(with_infrared, first=True, kind=ColorInterp.undefined, given=True),
    ),
]
