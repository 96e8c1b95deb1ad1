"""A tile of one band as the bytes of a GeoTIFF that knows where it lies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import rasterio
from numpy.typing import NDArray
from rasterio.io import MemoryFile

from Utils.rasters.geometry import Geometry

__all__ = ["encode_tile"]


def encode_tile(
    band: NDArray[Any],
    place: Geometry,
    nodata: float,
    unit: str | None = None,
    tags: Mapping[str, object] | None = None,
) -> bytes:
    """Encode a band (H, W), deflated; floats with the predictor that is made for them.

    GDAL reports a full disk at closing at best; encoded in memory, the bytes meet the disk through Python, which
    reports every failed write.

    Args:
        band: its values.
        place: where its pixels lie.
        nodata: the value that means no data.
        unit: of its values, such as "m"; None for none.
        tags: what else the file tells of itself.
    """
    predictor = 3 if band.dtype.kind == "f" else 2
    profile = {"driver": "GTiff", "count": 1, "dtype": band.dtype, "nodata": nodata, "compress": "deflate"}
    where = {"crs": place.crs, "transform": place.transform, "height": place.height, "width": place.width}
    with rasterio.Env(GDAL_PAM_ENABLED="NO"), MemoryFile() as memory:
        with memory.open(predictor=predictor, **profile, **where) as target:
            target.write(band, 1)
            if unit is not None:
                target.units = (unit,)
            if tags:
                target.update_tags(**tags)
        return bytes(memory.getbuffer())
