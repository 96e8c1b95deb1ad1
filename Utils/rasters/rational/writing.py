"""Rational polynomial cameras written as text, with the inverse, as WHU-TLC has them."""

from __future__ import annotations

import os

from Utils.core.files import atomic_write_bytes
from Utils.rasters.rational.model import RationalModel
from Utils.rasters.rational.reading import DATUM_KEY, UNKNOWN_DATUM

__all__ = ["write_rational"]

_OFFSETS = ("LINE", "SAMP", "LAT", "LONG", "HEIGHT")
_UNITS = ("pixels", "pixels", "degrees", "degrees", "meters")
_POLYNOMIALS = [f"{name}_{part}" for name in ("LINE", "SAMP", "LAT", "LONG") for part in ("NUM_COEFF", "DEN_COEFF")]


def write_rational(path: str | os.PathLike[str], model: RationalModel, datum: str | None = None) -> None:
    """Write a camera as 170 lines ``KEY: value``; the file is whole or absent.

    Args:
        path: the file.
        model: the camera.
        datum: the code of what its heights refer to, written in a line of its own; "" where it is unknown. None for the
            WGS 84 ellipsoid, which is what readers of RPCs expect.

    Raises:
        OSError: the file cannot be written.
    """
    keys = [f"{name}_{what}" for what in ("OFF", "SCALE") for name in _OFFSETS]
    keys += [f"{name}_{number}" for name in _POLYNOMIALS for number in range(1, 21)]
    units = [f" {unit}" for _ in range(2) for unit in _UNITS] + [""] * 160
    lines = [
        f"{key}: {value!r}{unit}\n" for key, value, unit in zip(keys, map(float, model.parameters), units, strict=True)
    ]
    lines += [] if datum is None else [f"{DATUM_KEY}: {datum or UNKNOWN_DATUM}\n"]
    atomic_write_bytes(path, "".join(lines).encode("utf-8"))
