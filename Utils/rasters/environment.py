"""GDAL for scenes: a bounded cache, settings that find damage, and errors of one line that name the file."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import rasterio
from rasterio.errors import NotGeoreferencedWarning

from Utils.core.errors import RasterError
from Utils.rasters.tile_files import GDAL_ERRORS, LOCAL_ONLY

__all__ = ["CACHE_BYTES", "gdal_environment", "georeference_optional", "raster_errors", "root_cause"]

CACHE_BYTES = 256 * 2**20
"""Most memory for decoded blocks of all open rasters together: GDAL's default is a share of the whole memory."""

_OPTIONS = {
    **LOCAL_ONLY,
    "GDAL_CACHEMAX": CACHE_BYTES,
    # Side files are looked for by name; a folder of thousands of scenes is not listed for each of them.
    "GDAL_DISABLE_READDIR_ON_OPEN": "TRUE",
    # Without it a truncated JPEG gives a grey area and only a warning.
    "GDAL_ERROR_ON_LIBJPEG_WARNING": "TRUE",
    # The fast path for PNGs decodes all of the image at once, and gives zeros where the file is cut short.
    "GDAL_PNG_WHOLE_IMAGE_OPTIM": "NO",
}


def gdal_environment(**options: Any) -> rasterio.Env:
    """Give a context manager with GDAL's settings for scenes; ``options`` come on top.

    GDAL has one cache for the whole process, and leaving an outermost environment restores the former size. A program
    that works on scenes in several threads therefore enters one environment around all of its work.
    """
    return rasterio.Env(**{**_OPTIONS, **options})


@contextmanager
def raster_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Set GDAL up for scenes; whatever it finds wrong inside becomes a RasterError that names ``path``."""
    try:
        with gdal_environment():
            yield
    except GDAL_ERRORS as error:
        detail = root_cause(error).replace(f"'{os.fspath(path)}' ", "").rstrip(".;")
        remedy = "replace it by an undamaged copy in a format that GDAL reads, such as GeoTIFF"
        raise RasterError(path, f"cannot be read ({detail})", remedy) from error


def root_cause(error: BaseException) -> str:
    """Give the innermost message in one line: "Read failed. See previous exception for details." says nothing."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def georeference_optional() -> Iterator[None]:
    """Silence rasterio's warning about plain pictures; the scripts say themselves whether a scene is georeferenced."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=NotGeoreferencedWarning)
        yield
