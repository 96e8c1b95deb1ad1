"""A file of heights: opened, checked to be a DEM, and what its numbers are in metres."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.enums import ColorInterp

from Utils.core.errors import RasterError
from Utils.rasters.environment import georeference_optional, raster_errors
from Utils.rasters.ground import ground_sample_distance
from Utils.rasters.height_units import height_unit
from Utils.rasters.places import gdal_name, is_file, raster_place

__all__ = ["KIND_TAG", "check_heights", "opened", "scaling_of"]

logger = logging.getLogger(__name__)

KIND_TAG = "D3RSMDE_KIND"
_KINDS = ("relative", "offset", "metric")


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The open raster at a place.

    Raises:
        RasterError: no such file, or none that can be read.
    """
    path = raster_place(path)
    if not (is_file(path) or os.path.isdir(path)):
        raise RasterError(path, "no such file", "check the path")
    with ExitStack() as stack:
        with raster_errors(path), georeference_optional():
            source = stack.enter_context(rasterio.open(gdal_name(path)))
        yield source


def check_heights(path: Path, source: Any) -> tuple[int, dict[str, Any]]:
    """The number of the band with heights, and facts on the file; a file that is not a DEM is refused."""
    bands = [band for band, use in zip(source.indexes, source.colorinterp, strict=True) if use != ColorInterp.alpha]
    tags = source.tags()
    if not bands:
        raise RasterError(path, "a container without bands of its own", "convert the layer you need to GeoTIFF")
    if len(bands) > 1 and KIND_TAG not in tags:
        raise RasterError(path, f"{len(bands)} bands", "a DEM has one; take it out with gdal_translate -b N")
    band = bands[0]
    dtype = source.dtypes[band - 1]
    if source.colorinterp[band - 1] == ColorInterp.palette:
        raise RasterError(path, "a colour palette, so no heights", "give the DEM itself")
    if np.issubdtype(np.dtype(dtype), np.complexfloating):
        raise RasterError(path, f"values of type {dtype}", "save it with real numbers")
    if source.crs is not None and source.transform.is_degenerate:
        raise RasterError(path, "its transform has pixels of no area", "georeference it anew (gdal_edit.py -a_ullr)")
    if source.crs is None and source.gcps[0]:
        raise RasterError(path, "georeferenced by control points only", "rectify it first (gdalwarp IN OUT)")
    kind = tags.get(KIND_TAG, "metric")
    if kind not in _KINDS:
        known = f"{', '.join(_KINDS[:-1])} or {_KINDS[-1]}"
        raise RasterError(path, f"tag {KIND_TAG} is '{kind}'", f"it must be {known}; correct or remove it")
    unit, metres = height_unit(path, source, band) if kind != "relative" else ("", 1.0)
    if metres != 1.0:
        logger.info("%s: heights in '%s' (%g m), converted to metres", path, unit, metres)
    distance = ground_sample_distance(source.crs, source.transform, source.height, source.width)
    return band, {
        "path": path.as_posix(),
        "kind": kind,
        "crs": None if source.crs is None else source.crs.to_string(),
        "height": source.height,
        "width": source.width,
        "metres_per_pixel": distance,
        "transform": list(source.transform[:6]),
        "type": dtype,
        "nodata": source.nodata,
        "metres_per_unit": metres,
    }


def scaling_of(source: Any, band: int, metres: float) -> tuple[float, float]:
    """Factor and summand that make metres of a band's numbers: its tags, and the metres in its unit."""
    return metres * float(source.scales[band - 1]), metres * float(source.offsets[band - 1])
