"""What a tile of a planetary terrain model says of itself: pixel size, sun, and what its heights refer to.

``prepareMars.py`` writes these tags. Tiles without them are read as well: their georeference tells the pixel size, and
the rest is unknown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import rasterio

from Utils.core.errors import UserError
from Utils.rasters.environment import gdal_environment
from Utils.rasters.ground import ground_sample_distance
from Utils.rasters.places import gdal_name
from Utils.rasters.tile_files import GDAL_ERRORS

UNKNOWN_REFERENCE = "unknown"


@dataclass(frozen=True)
class ReliefTags:
    """What one tile says.

    Attributes:
        pixel_size: metres from pixel to pixel; None where unknown.
        sun: azimuth, clockwise from the top towards the sun, and elevation, in degrees; None where no label told it.
        reference: what its heights are counted from: ``areoid``, ``radius`` or ``unknown``.
    """

    pixel_size: float | None = None
    sun: tuple[float, float] | None = None
    reference: str = UNKNOWN_REFERENCE


def read_relief_tags(path: Path) -> ReliefTags:
    """The tags of a height tile.

    Raises:
        UserError: it cannot be read.
    """
    if path.suffix == ".npy":
        return ReliefTags()
    try:
        with gdal_environment(), rasterio.open(gdal_name(path)) as source:
            tags = source.tags()
            found = ground_sample_distance(source.crs, source.transform, source.height, source.width)
    except GDAL_ERRORS as error:
        raise UserError(f"'{path}' cannot be read: {' '.join(str(error).split())}") from error
    size = _number(tags, "PIXEL_SIZE") or (math.sqrt(found[0] * found[1]) if found else None)
    azimuth, elevation = _number(tags, "SUN_AZIMUTH"), _number(tags, "SUN_ELEVATION")
    sun = (azimuth, elevation) if azimuth is not None and elevation is not None and 0 < elevation < 90 else None
    return ReliefTags(size, sun, tags.get("HEIGHT_REFERENCE", UNKNOWN_REFERENCE))


def _number(tags: Mapping[str, str], name: str) -> float | None:
    try:
        value = float(tags[name])
    except (KeyError, ValueError):
        return None
    return value if math.isfinite(value) else None
