"""Files from strangers: kept under names of our own, of four raster formats and two of points, within the limits.

What counts is the content. GDAL goes by it too, so a raster is taken only where the driver that GDAL would choose is
one of the four: a VRT, which names other files, is refused whatever it is called.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import rasterio

from Systems.app.limits import MEGABYTE, Limits, Refusal
from Utils.core.errors import RasterError
from Utils.rasters.environment import georeference_optional, raster_errors
from Utils.rasters.tile_files import check_blocks

__all__ = ["keep_points", "keep_raster"]

# The first bytes of the formats, by GDAL's name of their driver; and the suffix under which they are kept.
_FORMATS = {
    "GTiff": ((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), ".tif"),
    "PNG": ((b"\x89PNG\r\n\x1a\n",), ".png"),
    "JPEG": ((b"\xff\xd8\xff",), ".jpg"),
    "JP2OpenJPEG": ((b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"), ".jp2"),
}
_HEAD = 4096
# GDAL takes a file for a VRT where its head has this anywhere, even behind the first bytes of another format.
_NAMES_FILES = b"<VRTDataset"
_MOST_BANDS = 64
# A block is decoded as a whole: this is one of 8192 x 8192 pixels, RGB, 8 bits.
_MOST_BLOCK_BYTES = 210 * MEGABYTE
_MOST_POINT_BYTES = 50 * MEGABYTE
# Whoever sends one of these as --points would have GDAL look for other files or places.
_GEOJSON = ("FeatureCollection", "Feature", "Point", "MultiPoint", "GeometryCollection")
_COLLECTION_KEYS = {"type", "features", "name", "crs", "bbox", "xy_coordinate_resolution", "geometry", "properties"}


def keep_raster(uploaded: Path, what: str, limits: Limits) -> Path:
    """Check an uploaded raster, and give it its suffix.

    Args:
        uploaded: where its bytes are, under a name of ours without a suffix.
        what: what it is, for messages: "image" or "reference".
        limits: most pixels.

    Returns:
        The same file under its new name.

    Raises:
        Refusal: 415 for another format, 413 for too many pixels, 422 for a damaged file.
    """
    with uploaded.open("rb") as file:
        head = file.read(_HEAD)
    if not head:
        raise Refusal(422, f"{what}: the file is empty")
    driver = next((name for name, (marks, _) in _FORMATS.items() if head.startswith(marks)), None)
    if driver is None or _NAMES_FILES in head:
        raise Refusal(415, f"{what}: neither GeoTIFF, JPEG 2000, PNG nor JPEG, by its content; convert it to GeoTIFF")
    path = uploaded.rename(uploaded.with_suffix(_FORMATS[driver][1]))
    try:
        with raster_errors(path), georeference_optional(), rasterio.open(path, driver=driver) as dataset:
            _check_size(dataset, what, limits)
            check_blocks(path, dataset)
        with raster_errors(path), georeference_optional(), rasterio.open(path) as dataset:
            if dataset.driver != driver:
                raise Refusal(415, f"{what}: its content is also that of a {dataset.driver} file; write it again")
    except RasterError as error:
        raise Refusal(422, f"{what}: {error}") from error
    return path


def _check_size(dataset: rasterio.DatasetReader, what: str, limits: Limits) -> None:
    pixels = dataset.height * dataset.width
    if pixels > limits.pixels:
        raise Refusal(
            413,
            f"{what}: {dataset.width} x {dataset.height} pixels by its header, where {limits.pixels:,} are allowed; "
            "cut it up, or use predict.py, which has no limit",
        )
    if dataset.count > _MOST_BANDS:
        raise Refusal(413, f"{what}: {dataset.count} bands, where {_MOST_BANDS} are allowed; leave some out")
    interleaved = dataset.tags(ns="IMAGE_STRUCTURE").get("INTERLEAVE") == "PIXEL"
    # GDAL has types that numpy lacks; none is larger than 16 bytes.
    wide = np.dtype(dataset.dtypes[0]).itemsize if dataset.dtypes[0] in np.sctypeDict else 16
    for height, width in dataset.block_shapes:
        if height * width * wide * (dataset.count if interleaved else 1) > _MOST_BLOCK_BYTES:
            raise Refusal(
                413, f"{what}: its pixels lie in blocks of {width} x {height}, too large to decode; write it in tiles"
            )


def keep_points(uploaded: Path, limits: Limits) -> Path:
    """Check an uploaded table of points, and give it its suffix.

    Args:
        uploaded: where its bytes are, under a name of ours without a suffix.
        limits: of the request.

    Raises:
        Refusal: 415 for what is neither a text table nor GeoJSON, 413 for one that is too large.
    """
    size = uploaded.stat().st_size
    if size > min(_MOST_POINT_BYTES, limits.upload_bytes):
        raise Refusal(
            413, f"points: {size / 1e6:.0f} MB, where {_MOST_POINT_BYTES / 1e6:.0f} are allowed; thin them out"
        )
    try:
        text = uploaded.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Refusal(415, "points: neither a text table (CSV) nor GeoJSON in UTF-8; convert them") from error
    if "\0" in text or not text.strip():
        raise Refusal(415, "points: the file is empty or no text; give a table (CSV) or GeoJSON")
    start = text.lstrip()[:1]
    if start == "<":
        raise Refusal(415, "points: XML is not read here; give a table (CSV) or GeoJSON")
    if start not in ("{", "["):
        return uploaded.rename(uploaded.with_suffix(".csv"))
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Refusal(422, f"points: damaged JSON ({str(error)[:100]})") from error
    if not isinstance(document, dict) or document.get("type") not in _GEOJSON or set(document) - _COLLECTION_KEYS:
        raise Refusal(415, "points: JSON, but no plain GeoJSON; export the points anew, or as CSV")
    return uploaded.rename(uploaded.with_suffix(".geojson"))
