"""A height raster in numbers, as the API answers them in JSON."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rasterio

from Utils.rasters.environment import georeference_optional, raster_errors
from Utils.rasters.ground import ground_sample_distance

__all__ = ["raster_statistics"]

_PERCENTILES = (2, 25, 50, 75, 98)


def raster_statistics(path: Path, document: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers of a result.

    Args:
        path: the raster that a scene's run wrote.
        document: the content of the JSON beside it.

    Returns:
        What JSON can hold: size, place, statistics of each band over its valid pixels, the model, and how well known
        heights are met.
    """
    with raster_errors(path), georeference_optional(), rasterio.open(path) as dataset:
        ground = ground_sample_distance(dataset.crs, dataset.transform, dataset.height, dataset.width)
        found: dict[str, Any] = {
            "kind": document["kind"],
            "width": dataset.width,
            "height": dataset.height,
            "crs": dataset.crs.to_string() if dataset.crs else None,
            "bounds": list(dataset.bounds) if dataset.crs else None,
            "metres_a_pixel": None if ground is None else [round(ground[1], 4), round(ground[0], 4)],
            "bands": {}
            if document["kind"] == "classes"
            else {
                dataset.descriptions[number - 1] or str(number): {
                    "unit": dataset.units[number - 1] or None,
                    **_band(dataset.read(number, masked=True), dataset.descriptions[number - 1] == "flag"),
                }
                for number in dataset.indexes
            },
        }
    if document["kind"] == "classes":
        found |= {name: _plain(document[name]) for name in ("classes", "without_class", "mean_entropy")}
    found["model"] = {key: value for key, value in document["model"].items() if key in ("name", "predicts", "weights")}
    found["seconds"] = document["seconds"]
    if "reference" in document:
        reference = document["reference"]
        found["reference"] = {key: _plain(reference[key]) for key in ("noise", "gain", "explained", "agreement")}
    if "points" in document:
        found["points"] = _plain(document["points"])
    return found


def _band(values: np.ma.MaskedArray[Any, Any], is_flag: bool) -> dict[str, Any]:
    known = values.compressed()
    found: dict[str, Any] = {"valid_share": round(known.size / max(values.size, 1), 6)}
    if not known.size:
        return found
    if is_flag:
        numbers, counts = np.unique(known, return_counts=True)
        return found | {"counts": {f"{number:g}": int(count) for number, count in zip(numbers, counts, strict=True)}}
    found |= {name: _rounded(function(known)) for name, function in _FUNCTIONS.items()}
    found["percentiles"] = {
        str(percent): _rounded(value)
        for percent, value in zip(_PERCENTILES, np.percentile(known, _PERCENTILES), strict=True)
    }
    return found


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "min": np.min,
    "max": np.max,
    "mean": lambda values: np.mean(values, dtype=np.float64),
    "std": np.std,
}


def _rounded(value: Any) -> float:
    return float(f"{float(value):.7g}")


def _plain(value: Any) -> Any:
    """What JSON can hold: no NaN."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
