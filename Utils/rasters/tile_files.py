"""The one place where tiles are read and maps are written, PNG and TIFF alike, through rasterio (GDAL).

Georeferenced scenes, which may be larger than memory, are read and written window by window elsewhere.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import ArrayLike, NDArray
from rasterio._err import CPLE_BaseError
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import MemoryFile

from Utils.core.errors import RasterError
from Utils.core.files import atomic_write_bytes
from Utils.rasters.colours import named_colours, opaque_bands
from Utils.rasters.height_coding import AS_THE_FILE_SAYS, HeightCoding
from Utils.rasters.png import PNG_SIGNATURE, png_is_whole

__all__ = [
    "GDAL_ERRORS",
    "LOCAL_ONLY",
    "MAX_BLOCK_BYTES",
    "MAX_TILE_PIXELS",
    "HeightRaster",
    "check_blocks",
    "image_scale",
    "opened_tile",
    "raster_size",
    "raster_type",
    "read_height",
    "read_image",
    "read_prior",
    "write_map_16bit",
    "write_map_float",
]

MAX_TILE_PIXELS = 100_000_000
"""Most pixels (height x width) a tile may have: a damaged header must not ask for all the memory."""

MAX_BLOCK_BYTES = 2**30
"""Most bytes of one compressed block, which GDAL decodes as a whole: 1 GiB is a tile of the most pixels, RGB, 16 bits.

A header of a few bytes may say that a picture of 32 x 32 pixels lies in a block of 65,536 x 65,536.
"""

# The formats of tiles, by their first bytes. GDAL goes by these too, whatever the suffix, so a VRT, which names other
# files, or any other of its hundred formats could be named tile_1.tif.
_TILE_FORMATS = {
    PNG_SIGNATURE: "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"II*\0": "GTiff",
    b"MM\0*": "GTiff",
    b"II+\0": "GTiff",  # BigTIFF
    b"MM\0+": "GTiff",
}

GDAL_ERRORS = (RasterioError, CPLE_BaseError, OSError, UnicodeDecodeError)
"""All errors that rasterio raises when GDAL fails: some of GDAL's own come through unchanged, and a message that quotes
bytes of a damaged file may not be UTF-8."""

LOCAL_ONLY = {
    # A VRT, or a side file, may tell GDAL to read other files, also over a network. The one network address that is
    # allowed does not exist.
    "CPL_VSIL_CURL_ALLOWED_FILENAME": "none",
    # A VRT may hold Python code, which GDAL would run where an environment variable allows it.
    "GDAL_VRT_ENABLE_PYTHON": "NO",
    # What is read lies perhaps in a folder of somebody else: no note of a packed file's size is left beside it.
    "CPL_VSIL_GZIP_WRITE_PROPERTIES": "NO",
}
"""GDAL's options for everything that is read: files of this machine alone, and no code."""

# The formats that are web services. GDAL leaves them out if this is set before it starts. A program that needs them for
# other work in the same process sets GDAL_SKIP first.
_WEB_SERVICES = "HTTP,WMS,WCS,WMTS,EEDA,EEDAI,PLMOSAIC,STACIT,STACTA,DAAS"
os.environ.setdefault("GDAL_SKIP", _WEB_SERVICES)

_WHITE_16 = 65535.0
_FLOATS = ("float16", "float32", "float64")
_READ_OPTIONS = {
    **LOCAL_ONLY,
    # Listing a folder of 30,000 tiles for every tile opened takes longer than reading the tile.
    "GDAL_DISABLE_READDIR_ON_OPEN": "TRUE",
    # Without it a truncated JPEG gives a grey area and only a warning.
    "GDAL_ERROR_ON_LIBJPEG_WARNING": "TRUE",
}
# No .aux.xml beside what is written. Reading keeps side files: they may hold the nodata value.
_WRITE_OPTIONS = {"GDAL_PAM_ENABLED": "NO"}

# A TIFF has one for the raster, and one for each overview and each mask: some 20 for the largest scene.
_MOST_DIRECTORIES = 100


@dataclass(frozen=True)
class HeightRaster:
    """A height map with its valid pixels.

    Attributes:
        values: (H, W) float32 in the file's own unit, scale and offset tags applied; 0 at invalid pixels.
        valid: (H, W) bool; False where the file has no data.
    """

    values: NDArray[np.float32]
    valid: NDArray[np.bool_]


def read_image(path: str | os.PathLike[str], full_scale: float | None = None) -> NDArray[np.float32]:
    """Read an image of 8 or 16 bits or floats with 1 band (repeated) or 3 bands; a fourth (alpha, infrared) is dropped.

    Three bands that the file calls red, green and blue are these, whatever their order.

    Args:
        path: a PNG, TIFF or JPEG.
        full_scale: the value that counts as 1 in 16 bits, where the file does not say (NBITS), and in floats; None for
            65535, and for 1 in floats.

    Returns:
        (3, H, W) float32 in [0, 1]: 8-bit values / 255, 16-bit values and floats / ``full_scale``. Palettes are
        resolved.

    Raises:
        RasterError: missing, damaged or too large file, other band count, other data type, values below 0 or above
            ``full_scale``.
    """
    with opened_tile(path) as source:
        opaque = opaque_bands(source)
        if source.count > 4 or len(opaque) not in (1, 3, 4):
            raise RasterError(path, f"an image with {source.count} bands", "give a file with 1, 3 or 4 bands")
        scale = _full_scale(source)
        if scale is None and source.dtypes[0] not in _FLOATS:
            remedy = "save it with 8 or 16 bits (unsigned), or as floats"
            raise RasterError(path, f"an image of type {source.dtypes[0]}", remedy)
        if scale in (None, _WHITE_16) and full_scale is not None:
            scale = full_scale
        bands = source.read(indexes=list(named_colours(source) or opaque[:3]))  # (1 or 3, H, W)
        if source.colorinterp[0] == ColorInterp.palette:
            bands, scale = _resolve_palette(source, bands[0]), 255.0
    if np.issubdtype(bands.dtype, np.floating):
        _check_float_image(path, bands, full_scale)
    scale = 1.0 if scale is None else scale
    if scale == full_scale and bands.max() > scale:
        problem = f"a value of {bands.max()}, more than image_full_scale, {scale:g}"
        raise RasterError(path, problem, "set image_full_scale to the largest value that the images can have")
    image = bands.astype(np.float32) / np.float32(scale)
    return np.repeat(image, 3, axis=0) if len(image) == 1 else image


def _check_float_image(path: str | os.PathLike[str], bands: NDArray[Any], full_scale: float | None) -> None:
    """Refuse an image of floats that has no value somewhere, or whose values do not lie in [0, white]."""
    unknown = int(np.count_nonzero(~np.isfinite(bands)))
    if unknown:
        raise RasterError(path, f"an image with {unknown} NaN or infinite values", "fill them, or leave the tile out")
    low, high = float(bands.min()), float(bands.max())
    if low < 0.0 or (full_scale is None and high > 1.0):
        remedy = "floats go from 0 to 1, or to image_full_scale: set it, or stretch the image"
        raise RasterError(path, f"an image with values from {low:g} to {high:g}", remedy)


def read_height(path: str | os.PathLike[str], coding: HeightCoding = AS_THE_FILE_SAYS) -> HeightRaster:
    """Read a height map of any real data type: one band, or 3 or 4 bands of which the first three are equal.

    A pixel is invalid where the file says so (nodata tag, mask band, alpha), where its value is NaN or infinite, and
    where the stored number is the coding's ``nodata``; of disparities, where they are not above 0.

    Args:
        path: a PNG, TIFF, JPEG or NPY file.
        coding: what the numbers mean, where something else than the file says it.

    Raises:
        RasterError: missing, damaged or too large file, several different bands, palette, complex numbers.
    """
    band: NDArray[Any]
    valid: NDArray[np.bool_] | bool
    if _is_npy(path):
        band, valid, own_scale, own_offset = _load_npy(path), True, 1.0, 0.0
    else:
        with opened_tile(path) as source:
            band = _single_band(path, source)
            valid = source.read_masks(1) > 0
            own_scale, own_offset = source.scales[0], source.offsets[0]
    if coding.nodata is not None:
        # As the file stores it: -9999.9 is another number in float32 than in float64.
        with np.errstate(over="ignore"):
            void = band.dtype.type(coding.nodata) if band.dtype.kind == "f" else coding.nodata
        valid = valid & (band != void)
    scale = own_scale if coding.scale is None else coding.scale
    offset = own_offset if coding.offset is None else coding.offset
    if (scale, offset) != (1.0, 0.0):
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is invalid, as below
            band = band * np.float64(scale) + np.float64(offset)
    if coding.disparity is not None:
        valid = valid & (band > 0)  # no disparity is infinitely far
        band = coding.disparity / np.where(band > 0, band, 1.0)
    return _with_mask(band, valid)


def read_prior(path: str | os.PathLike[str]) -> NDArray[np.float32]:
    """Read a coarse height map as stage 1 writes it, or an 8-bit one as it was published.

    Returns:
        (H, W) float32 in [0, 1]: 8-bit values / 255, 16-bit values / 65535, floats as they are.

    Raises:
        RasterError: missing, damaged or too large file, several different bands, floats outside [0, 1] or not finite.
    """
    full_scale: float | None
    if _is_npy(path):
        band, full_scale = _load_npy(path), None
    else:
        with opened_tile(path) as source:
            band, full_scale = _single_band(path, source), _full_scale(source)
    if full_scale is not None:
        return band.astype(np.float32) / np.float32(full_scale)
    if not np.issubdtype(band.dtype, np.floating):
        raise RasterError(path, f"a coarse map of type {band.dtype}", "save it with 8 or 16 bits (unsigned) or floats")
    if not np.isfinite(band).all():
        raise RasterError(path, "a coarse map with NaN or infinite values", "write it again with every pixel set")
    low, high = float(band.min()), float(band.max())
    if low < 0.0 or high > 1.0:
        raise RasterError(path, f"a coarse map with values from {low:g} to {high:g}", "float maps must lie in [0, 1]")
    return band.astype(np.float32)


def raster_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Give (height, width) in pixels from the file's header; no pixel is read, so damage further on goes unseen.

    Raises:
        RasterError: the file is missing or its header cannot be read.
    """
    if _is_npy(path):
        height, width = _load_npy(path).shape
        return height, width
    with opened_tile(path, header_only=True) as source:
        return source.height, source.width


def raster_type(path: str | os.PathLike[str]) -> tuple[int, str]:
    """Number of bands and number format of a PNG, TIFF or JPEG, from its header.

    Raises:
        RasterError: the file is missing or its header cannot be read.
    """
    with opened_tile(path, header_only=True) as source:
        return source.count, source.dtypes[0]


def image_scale(path: str | os.PathLike[str]) -> float | None:
    """The value that counts as 1 in an image, from its header: 255, 65535 or fewer bits where the file says so.

    Raises:
        RasterError: the file is missing or its header cannot be read.
    """
    with opened_tile(path, header_only=True) as source:
        return _full_scale(source)


def write_map_16bit(path: str | os.PathLike[str], values01: ArrayLike) -> None:
    """Write a map as a 16-bit PNG: ``round(clip(values, 0, 1) * 65535)``; the file is whole or absent.

    Args:
        path: name ending in ``.png``, in an existing folder.
        values01: (H, W), meant to lie in [0, 1].

    Raises:
        ValueError: values not finite or not two-dimensional, or another suffix.
        OSError: the file cannot be written.
    """
    if Path(path).suffix.lower() != ".png":
        raise ValueError(f"{os.fspath(path)}: a 16-bit map is written as PNG; give a name ending in .png")
    values = _checked_map(path, values01, np.float64)
    levels = np.rint(np.clip(values, 0.0, 1.0) * 65535.0).astype(np.uint16)
    atomic_write_bytes(path, _encode(levels, driver="PNG"))


def write_map_float(path: str | os.PathLike[str], values: ArrayLike, holes: bool = False) -> None:
    """Write a map as float32: a deflated GeoTIFF (``.tif``, ``.tiff``) or ``.npy``; the file is whole or absent.

    Args:
        path: name with one of these suffixes, in an existing folder.
        values: (H, W), in any unit.
        holes: whether pixels may be NaN, which a GeoTIFF then declares to be its nodata.

    Raises:
        ValueError: values not finite (in float32), but for NaN where there are holes, or not two-dimensional, or
            another suffix.
        OSError: the file cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (".tif", ".tiff", ".npy"):
        raise ValueError(f"{os.fspath(path)}: a float map is written as .tif, .tiff or .npy, not {suffix or 'bare'!r}")
    array = _checked_map(path, values, np.float32, holes)
    if suffix == ".npy":
        buffer = io.BytesIO()
        np.save(buffer, array)
        atomic_write_bytes(path, buffer.getvalue())
    else:
        # Predictor 3 is made for floats: neighbouring heights share their high bytes.
        declared = {"nodata": np.nan} if holes else {}
        atomic_write_bytes(path, _encode(array, driver="GTiff", compress="deflate", predictor=3, **declared))


@contextmanager
def opened_tile(path: str | os.PathLike[str], header_only: bool = False) -> Iterator[Any]:
    """Open a raster; whatever GDAL finds wrong on the way becomes a RasterError that names the file."""
    if not Path(path).is_file():
        raise RasterError(path, "no such file", "check the path and the tile id")
    try:
        with (
            rasterio.Env(**_READ_OPTIONS),
            _georeference_optional(),
            rasterio.open(path, driver=_driver(path)) as source,
        ):
            if not header_only:
                _check_before_decoding(path, source)
            yield source
    except GDAL_ERRORS as error:
        # The message is only "Read failed. See previous exception"; the cause says what happened.
        detail = " ".join(str(error.__cause__ or error).replace(f"'{os.fspath(path)}' ", "").split()).rstrip(".;")
        raise RasterError(path, f"cannot be read ({detail})", "replace it by an undamaged PNG or TIFF file") from error


def _driver(path: str | os.PathLike[str]) -> str:
    """GDAL's name for the format of a tile."""
    with Path(path).open("rb") as stream:
        start = stream.read(len(PNG_SIGNATURE))
    for signature, driver in _TILE_FORMATS.items():
        if start.startswith(signature):
            return driver
    raise RasterError(path, "is neither PNG nor TIFF nor JPEG, or is damaged", "replace it by such a file")


def _check_before_decoding(path: str | os.PathLike[str], source: Any) -> None:
    if source.height * source.width > MAX_TILE_PIXELS:
        size = f"{source.width} x {source.height} pixels"
        raise RasterError(path, f"the header gives {size}", f"a tile may have {MAX_TILE_PIXELS:,} pixels; cut it up")
    check_blocks(path, source)
    if source.driver == "PNG" and not png_is_whole(Path(path)):
        raise RasterError(path, "the PNG is damaged or cut off", "copy or write it again")
    if source.count == 0:
        raise RasterError(path, "a container without bands of its own", "convert the layer you need to GeoTIFF")


def check_blocks(path: str | os.PathLike[str], source: Any) -> None:
    """Refuse an open raster whose blocks would take all the memory, however few of their pixels are wanted.

    Raises:
        RasterError: the blocks are too large.
    """
    _check_bands(path, source)
    if source.count and MaskFlags.per_dataset in source.mask_flag_enums[0]:
        for driver, name in _mask_files(path, source):
            try:
                with rasterio.open(name, driver=driver) as directory:
                    # Its bands only. GDAL gives an overview the mask of the whole file, which would lead back here.
                    _check_bands(path, directory)
            except RasterioError:
                return  # beyond the last directory


def _check_bands(path: str | os.PathLike[str], source: Any) -> None:
    """Check the blocks of an open raster's own bands, as ``check_blocks`` does."""
    # Where bands are interleaved, a block holds all of them.
    interleaved = source.tags(ns="IMAGE_STRUCTURE").get("INTERLEAVE") == "PIXEL"
    for (height, width), dtype in zip(source.block_shapes, source.dtypes, strict=True):
        # GDAL has types that numpy lacks, such as complex integers; none is larger than 16 bytes.
        size = np.dtype(dtype).itemsize if dtype in np.sctypeDict else 16
        if height * width * size * (source.count if interleaved else 1) > MAX_BLOCK_BYTES:
            raise RasterError(
                path,
                f"its pixels lie in blocks of {width} x {height}, too large to decode",
                "write it again in tiles, for example with gdal_translate -co TILED=YES",
            )


def _mask_files(path: str | os.PathLike[str], source: Any) -> Iterator[tuple[str, str]]:
    """Driver and name of each file or directory that may be the mask of an open raster; a mask has separate blocks."""
    side = Path(f"{os.fspath(path)}.msk")
    if side.is_file():
        yield _driver(side), str(side)
    elif source.driver == "GTiff":
        # A directory of the same file; the first is the raster itself.
        yield from (("GTiff", f"GTIFF_DIR:{number}:{os.fspath(path)}") for number in range(2, _MOST_DIRECTORIES))
        raise RasterError(
            path, f"more than {_MOST_DIRECTORIES} directories, one of which is its mask", "write it again"
        )


@contextmanager
def _georeference_optional() -> Iterator[None]:
    """PNG tiles have no georeference, which rasterio warns about at every file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=NotGeoreferencedWarning)
        yield


def _full_scale(source: Any) -> float | None:
    """Give the value that stands for 1 in an unsigned integer raster of up to 16 bits; None for other data types."""
    if source.dtypes[0] not in ("uint8", "uint16"):
        return None
    # 1, 2 and 4-bit PNGs and 12-bit TIFFs come in wider types, with the bits in use named here.
    default_bits = 8 if source.dtypes[0] == "uint8" else 16
    bits = int(source.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", default_bits))
    return float(2**bits - 1)


def _single_band(path: str | os.PathLike[str], source: Any) -> NDArray[Any]:
    """Read the one band of a map, (H, W); grey maps saved as RGB or RGBA count as one band."""
    if source.colorinterp[0] == ColorInterp.palette:
        raise RasterError(path, "a map with a colour palette", "save it as a plain single-band file")
    if np.issubdtype(np.dtype(source.dtypes[0]), np.complexfloating):
        raise RasterError(path, f"a map of type {source.dtypes[0]}", "save it with real numbers")
    opaque = opaque_bands(source)
    if source.count <= 4 and len(opaque) in (1, 3, 4):
        bands: NDArray[Any] = source.read(indexes=opaque[:3])  # (1 or 3, H, W)
        band: NDArray[Any] = bands[0]
        if all(np.array_equal(band, other) for other in bands[1:]):
            return band
        raise RasterError(
            path,
            "a map with three different bands",
            "is this the image, or a picture of classes? give the single-band map",
        )
    raise RasterError(path, f"a map with {source.count} bands", "save it as a single-band file")


def _resolve_palette(source: Any, indices: NDArray[Any]) -> NDArray[np.uint8]:
    """Palette indices (H, W) to colours (3, H, W), 0..255."""
    table = np.zeros((int(np.iinfo(indices.dtype).max) + 1, 3), np.uint8)
    for index, colour in source.colormap(1).items():
        table[index] = colour[:3]
    return np.moveaxis(table[indices], -1, 0)


def _with_mask(values: NDArray[Any], valid: NDArray[np.bool_] | bool) -> HeightRaster:
    # A float64 beyond the range of float32 becomes infinite here, and thereby invalid.
    with np.errstate(over="ignore", invalid="ignore"):
        narrowed = values.astype(np.float32)
    usable = np.isfinite(narrowed) & valid
    return HeightRaster(np.where(usable, narrowed, np.float32(0.0)), usable)


def _is_npy(path: str | os.PathLike[str]) -> bool:
    return Path(path).suffix.lower() == ".npy"


def _load_npy(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Map a two-dimensional array of real numbers into memory; only what is used is read."""
    if not Path(path).is_file():
        raise RasterError(path, "no such file", "check the path and the tile id")
    try:
        array = np.asarray(np.lib.format.open_memmap(path, mode="r"))
    except Exception as error:  # its header is Python text: a damaged one raises nearly anything
        raise RasterError(path, f"cannot be read ({error})", "write it again with numpy.save") from error
    if array.ndim != 2 or array.dtype.kind not in "uif":
        raise RasterError(path, f"an array of shape {array.shape}, {array.dtype}", "a map is (height, width), real")
    if array.size == 0 or array.size > MAX_TILE_PIXELS:
        raise RasterError(path, f"an array of shape {array.shape}", f"a tile may have {MAX_TILE_PIXELS:,} pixels")
    return array


def _checked_map(
    path: str | os.PathLike[str], values: ArrayLike, dtype: type[np.floating[Any]], holes: bool = False
) -> NDArray[Any]:
    with np.errstate(over="ignore"):
        array = np.asarray(values).astype(dtype)
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"{os.fspath(path)}: a map is (height, width); got shape {array.shape}")
    unusable = np.isinf(array) if holes else ~np.isfinite(array)
    if unusable.any():
        count = int(np.count_nonzero(unusable))
        raise ValueError(f"{os.fspath(path)}: {count} of {array.size} values are NaN or infinite; not written")
    return array


def _encode(band: NDArray[Any], **profile: Any) -> bytes:
    """One band (H, W) as the bytes of a file.

    GDAL reports a full disk at closing at best; encoded in memory, the bytes meet the disk through Python, which
    reports every failed write.
    """
    height, width = band.shape
    with rasterio.Env(**_WRITE_OPTIONS), _georeference_optional(), MemoryFile() as memory:
        with memory.open(height=height, width=width, count=1, dtype=band.dtype, **profile) as target:
            target.write(band, 1)
        return bytes(memory.getbuffer())
