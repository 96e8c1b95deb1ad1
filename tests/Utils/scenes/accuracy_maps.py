"""Height maps on a grid, scores of them, and the same scores written out pixel by pixel."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio import Affine
from rasterio.transform import from_origin

from Utils.scenes.accuracy.scene_scores import SceneScores
from Utils.scenes.accuracy.scene_scoring import score_scene

Floats = NDArray[np.float64]

UTM = "EPSG:32643"
GRID = from_origin(452_400.0, 3_789_600.0, 10.0, 10.0)
NODATA = -9999.0
# Heights of some 3000 m are stored as float32: a rounding of 2^-12 m at most in each map.
STORED = 5e-4


def write_dem(
    path: Path,
    *bands: NDArray[Any],
    transform: Affine = GRID,
    crs: str | None = UTM,
    nodata: float | None = NODATA,
    names: tuple[str, ...] = (),
    tags: dict[str, str] | None = None,
    dtype: str = "float32",
    mask: NDArray[np.bool_] | None = None,
    **profile: Any,
) -> Path:
    """A GeoTIFF of these bands; NaN becomes ``nodata`` where there is one."""
    height, width = bands[0].shape
    georeference: dict[str, Any] = {} if crs is None else {"crs": crs}
    if not transform.is_identity:
        georeference["transform"] = transform
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            path, "w", driver="GTiff", height=height, width=width, count=len(bands), dtype=dtype, nodata=nodata,
            **georeference, **profile,
        ) as target,
    ):  # fmt: skip
        for number, band in enumerate(bands, start=1):
            target.write(band if nodata is None else np.where(np.isnan(band), nodata, band), number)
        for number, name in enumerate(names, start=1):
            target.set_band_description(number, name)
        if mask is not None:
            target.write_mask(mask)
        target.update_tags(**(tags or {}))
    return path


def terrain(height: int = 40, width: int = 50, seed: int = 0) -> Floats:
    """Hills of every slope up to some 40 degrees on pixels of 10 m, metres."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] * 10.0
    field = 3000.0 + 0.1 * x
    for length in (400.0, 190.0, 90.0):
        angle, phase = generator.uniform(0, 2 * math.pi, 2)
        field += 0.09 * length * np.sin((x * math.cos(angle) + y * math.sin(angle)) * 2 * math.pi / length + phase)
    return field


def score(tmp_path: Path, prediction: Floats, truth: Floats, **options: Any) -> SceneScores:
    """Score two arrays on the same grid."""
    return score_scene(
        write_dem(tmp_path / "prediction.tif", prediction), write_dem(tmp_path / "truth.tif", truth), **options
    )


def written_out(
    prediction: Floats, truth: Floats, bounds: tuple[float, ...] = (), chosen: int | None = None, pixel: float = 10.0
) -> dict[str, float]:
    """The scores, pixel by pixel, by the book's formulas; bearings for the aspect."""
    errors, slopes, gradients, aspects = [], [], [], []
    height, width = truth.shape
    for row in range(height):
        for column in range(width):
            if math.isnan(prediction[row, column]) or math.isnan(truth[row, column]):
                continue
            inner = 0 < row < height - 1 and 0 < column < width - 1
            true = predicted = (math.nan, math.nan)
            if inner:
                true, predicted = (
                    (
                        (z[row, column + 1] - z[row, column - 1]) / (2 * pixel),
                        (z[row - 1, column] - z[row + 1, column]) / (2 * pixel),
                    )
                    for z in (truth, prediction)
                )
            angle = math.degrees(math.atan(math.hypot(*true)))
            if chosen is not None:
                if math.isnan(angle):
                    continue
                if sum(angle >= bound for bound in bounds) != chosen:
                    continue
            errors.append(prediction[row, column] - truth[row, column])
            if math.isnan(angle) or math.isnan(predicted[0]) or math.isnan(predicted[1]):
                continue
            slopes.append(abs(math.degrees(math.atan(math.hypot(*predicted))) - angle))
            gradients.append(math.hypot(predicted[0] - true[0], predicted[1] - true[1]))
            if angle > 2.0 and predicted != (0.0, 0.0):
                bearings = [math.degrees(math.atan2(-east, -north)) % 360 for east, north in (true, predicted)]
                apart = abs(bearings[0] - bearings[1])
                aspects.append(min(apart, 360 - apart))
    found = np.array(errors)
    median = np.median(found)
    return {
        "bias": found.mean(),
        "median_error": median,
        "mae": np.abs(found).mean(),
        "rmse": math.sqrt((found**2).mean()),
        "nmad": 1.4826 * np.median(np.abs(found - median)),
        "le90": np.percentile(np.abs(found), 90),
        "slope_error_degrees": np.mean(slopes),
        "gradient_error": np.mean(gradients),
        "aspect_error_degrees": np.mean(aspects),
        "aspect_pixels": len(aspects),
    }


def as_stored(values: Floats) -> Floats:
    return values.astype(np.float32).astype(np.float64)
