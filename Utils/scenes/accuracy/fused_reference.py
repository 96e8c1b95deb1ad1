"""The coarse DEM that a prediction was fused with, as the JSON beside the prediction or the user names it."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from Utils.core.errors import UserError
from Utils.rasters.places import is_file, place_from, raster_place

__all__ = ["FusedReference", "find_reference"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FusedReference:
    """A coarse DEM that is scored beside a prediction, and how it is read.

    Attributes:
        path: its place.
        nodata: a value that means no data in it, in addition to what the file names.
        keep_outliers: whether undeclared void values, impossible heights and wrong cells are taken as heights.
        by_hand: whether the user named it: then a DEM that cannot be used is an error, and else one line.
    """

    path: Path
    nodata: float | None = None
    keep_outliers: bool = False
    by_hand: bool = True


def find_reference(prediction: Path, given: Path | None = None, keep_outliers: bool = False) -> FusedReference | None:
    """Find the DEM that a prediction was fused with; None where nothing names one, or, with a line, where it is gone.

    Args:
        prediction: a GeoTIFF; predict.py leaves a JSON beside it.
        given: the DEM that the user names, which counts for more than the JSON. How it is read is the JSON's all the
            same.
        keep_outliers: how it is read where no JSON tells.

    Raises:
        UserError: the user names a place that cannot be.
    """
    path = prediction.with_suffix(".json")
    document = _document(path)
    described, options = _part(document, "reference"), _part(document, "options")
    nodata, kept = options.get("reference_nodata"), options.get("keep_outliers", keep_outliers)
    named = described.get("place", described.get("file"))
    if given is not None:
        place = raster_place(given)
    elif isinstance(named, str):
        place = place_from(named, path.parent)
        if not is_file(place):
            logger.warning(
                "%s names the reference '%s', which is not there: it is not scored beside the prediction; "
                "--reference DEM says where it is now",
                path,
                place,
            )
            return None
    else:
        return None
    number = float(nodata) if isinstance(nodata, int | float) else None
    return FusedReference(place, number, kept is True, given is not None)


def _document(path: Path) -> dict[str, Any]:
    """The JSON beside a prediction; empty where there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, ValueError, RecursionError) as error:
        what = str(UserError(str(error)))
        logger.warning("%s cannot be read (%s): --reference DEM names the DEM of the prediction", path, what)
        return {}
    return found if isinstance(found, dict) else {}


def _part(document: dict[str, Any], name: str) -> dict[str, Any]:
    found = document.get(name)
    return found if isinstance(found, dict) else {}
