"""Values of planetary products that are no measurements: ISIS' null and saturation values, and their like in PDS3.

ISIS reserves, of 32-bit floats, the five values from 16#FF7FFFFB# (null) to 16#FF7FFFFF# (high saturation), which are
near -3.4e38; of signed 16 bits those up to -32752; of 8 bits 0 (null, low saturation) and 255 (high saturation).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["NULL", "PLANETARY_DRIVERS", "SATURATED_8_BITS", "UNREAL", "is_special"]

NULL = np.uint32(0xFF7FFFFB).view(np.float32)
"""ISIS' null of 32-bit floats, -3.4028226550889045e+38; it is not the lowest float32, and GDAL may declare either."""

UNREAL = 1e30
"""No measurement is of this size: null and saturation values are told by it, never by equality."""

PLANETARY_DRIVERS = ("ISIS2", "ISIS3", "PDS", "PDS4", "VICAR")
"""GDAL's names of the formats that reserve these values."""

SATURATED_8_BITS = (1, 255)
"""8-bit images of HiRISE: saturated in the dark and in the light; 0 is null."""

_LOWEST_16 = -32752


def is_special(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Where values (any shape) are null, saturated, or not finite, by their type.

    Floats are special from ``UNREAL`` on, signed 16 bits up to ISIS' highest reserved value. Of 8 bits only 0 is: a
    saturated pixel of an image is bright or dark, though it is not known how much.
    """
    if values.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            return np.asarray(~(np.abs(values) < UNREAL))
    if values.dtype == np.int16:
        return np.asarray(values <= _LOWEST_16)
    if values.dtype == np.uint8:
        return np.asarray(values == 0)
    return np.zeros(values.shape, bool)
