"""The null value of planetary images that no file declares: 0 of 8 bits, for which JPEG 2000 has no tag."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from Utils.rasters.planetary.hirise_names import read_ortho_name
from Utils.rasters.planetary.product_label import read_label
from Utils.rasters.suspect_heights import is_other_body

__all__ = ["undeclared_null"]

_REMEDY = "--nodata none takes it as an image"


def undeclared_null(path: Path, dataset: Any, log: logging.Logger) -> float | None:
    """0 where an open raster of 8 bits shows another body than Earth, or is a HiRISE product, and declares no null.

    Args:
        path: the file, whose name and label may tell.
        dataset: an open rasterio dataset.
        log: where one line goes if 0 is taken as null.
    """
    declared = any(value is not None for value in dataset.nodatavals)
    if declared or set(dataset.dtypes) != {"uint8"} or not path.is_file():
        return None
    label = read_label(path)
    if is_other_body(dataset.crs):
        why = "the map is of another body than Earth"
    elif read_ortho_name(path.name) is not None:
        why = "by its name this is a HiRISE orthoimage"
    elif label is not None and label.number("CORE_NULL") == 0:
        why = "its label says so"
    else:
        return None
    log.info("%s: 0 is taken as null, because %s; %s", path, why, _REMEDY)
    return 0.0
