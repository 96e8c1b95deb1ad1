"""Shape from shading in its simplest form: brightness along the sun's direction, integrated; a control beside models.

Of ground that reflects light evenly in all directions (Lambert), under a sun of elevation e, a slope s towards the sun
(rise over run) has the brightness of flat ground times 1 - s / tan(e), to first order. So the slope along the sun is
known from brightness, and heights along each line towards the sun by adding it up. What the lines' offsets and tilts
are, and whether dark ground is steep or dark, nobody knows: here lines are level on average and at one mean height,
which of four simple choices met the training tiles of the demo best, and albedo is even.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

Floats = NDArray[np.float64]


def shading_map(
    image: NDArray[np.floating],
    valid: NDArray[np.bool_],
    sun_azimuth: float,
    sun_elevation: float,
    ground_sample_distance: float,
) -> NDArray[np.float32]:
    """Heights that explain an image's brightness along the sun's direction.

    Args:
        image: (H, W) brightness in any unit.
        valid: (H, W) pixels that are known.
        sun_azimuth: direction to the sun in degrees, clockwise from the image's top.
        sun_elevation: degrees above the horizon, above 0.
        ground_sample_distance: metres from pixel to pixel.

    Returns:
        (H, W) metres about an unknown level, 0 outside ``valid``; all 0 where nothing is valid or lit.
    """
    known = image[valid].astype(np.float64)
    if not known.size or not known.mean() > 0:
        return np.zeros(image.shape, np.float32)
    relative = np.where(valid, image / known.mean(), 1.0)
    rise = (1.0 - relative) * math.tan(math.radians(sun_elevation)) * ground_sample_distance
    lines, back = _lines_to_the_sun(image.shape, math.radians(sun_azimuth))
    along = map_coordinates(rise, lines, order=1, mode="constant")
    inside = map_coordinates(valid.astype(np.float64), lines, order=1, mode="constant") > 0.5
    # Each line for itself: its pixels towards the sun are to the right.
    count = np.maximum(inside.sum(axis=1, keepdims=True), 1)
    level = (along * inside).sum(axis=1, keepdims=True) / count
    heights = np.cumsum(np.where(inside, along - level, 0.0), axis=1)
    heights -= (heights * inside).sum(axis=1, keepdims=True) / count
    found = map_coordinates(heights, back, order=1, mode="nearest")
    return np.where(valid, found, 0.0).astype(np.float32)


def _lines_to_the_sun(shape: tuple[int, ...], azimuth: float) -> tuple[Floats, Floats]:
    """Where the pixels of a grid whose rows run towards the sun lie in the image, and the image's in that grid."""
    height, width = shape
    side = math.ceil(math.hypot(height, width)) + 2
    middle, own = (side - 1) / 2, ((height - 1) / 2, (width - 1) / 2)
    # One step towards the sun, and one across, as (row, column); rows run downwards.
    sun, across = (-math.cos(azimuth), math.sin(azimuth)), (math.sin(azimuth), math.cos(azimuth))
    lines, steps = (values - middle for values in np.indices((side, side), dtype=np.float64))
    into = np.stack([own[axis] + steps * sun[axis] + lines * across[axis] for axis in (0, 1)])
    rows, columns = (values - centre for values, centre in zip(np.indices(shape, dtype=np.float64), own, strict=True))
    back = np.stack([middle + rows * way[0] + columns * way[1] for way in (across, sun)])
    return into, back
