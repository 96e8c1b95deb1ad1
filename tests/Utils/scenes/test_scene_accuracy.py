"""Scores of whole scenes, against sums written out pixel by pixel and surfaces whose answer is known."""

from __future__ import annotations

import json
import math
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from rasterio import Affine
from rasterio.enums import ColorInterp, Resampling
from rasterio.transform import from_origin
from rasterio.warp import reproject, transform
from scipy.ndimage import map_coordinates

from Utils.core.tables import read_csv
from Utils.scenes.accuracy import error_statistics as statistics
from Utils.scenes.accuracy import height_grid, warping
from Utils.scenes.accuracy.accuracy_figure import save_accuracy_figure
from Utils.scenes.accuracy.accuracy_tables import write_tables
from Utils.scenes.accuracy.scene_scores import BASELINE, PREDICTION, SceneScores
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


# One grid


@pytest.fixture
def pair() -> tuple[Floats, Floats]:
    """A prediction and its truth, (40, 50), each with holes of its own."""
    truth = terrain()
    generator = np.random.default_rng(1)
    prediction = truth + 2.0 + generator.normal(0.0, 3.0, truth.shape)
    truth[5:9, 10:14] = np.nan
    prediction[30, :7] = np.nan
    prediction[0, 0] = np.nan
    return as_stored(prediction), as_stored(truth)


def test_every_score_is_what_the_formulas_say(tmp_path: Path, pair: tuple[Floats, Floats]) -> None:
    found = score(tmp_path, *pair)
    # Sums in float64, order statistics over errors rounded to float32.
    assert found.overall.scores[PREDICTION] == pytest.approx(written_out(*pair), rel=1e-6)
    assert found.pixels == {"grid": 2000, "truth": 1984, "prediction": 1992, "scored": 1976}
    assert found.valid_share == 1976 / 2000
    assert found.sampling["exact"] and found.sampling["sampled"] == 1976


def test_slope_classes_are_those_of_the_truth(tmp_path: Path, pair: tuple[Floats, Floats]) -> None:
    bounds = (5.0, 15.0, 30.0)
    found = score(tmp_path, *pair, slope_classes=bounds)
    assert [one.label for one in found.classes] == ["0-5", "5-15", "15-30", ">30"]
    for number, stratum in enumerate(found.classes):
        assert stratum.pixels > 20, "the terrain has slopes of every class"
        assert stratum.scores[PREDICTION] == pytest.approx(written_out(*pair, bounds, number), rel=1e-6)
        assert stratum.share == stratum.pixels / 1976
    # The rim, and the neighbours of holes in the truth, have no slope.
    assert sum(one.pixels for one in found.classes) < 1976 - 2 * (40 + 50) + 20


def test_a_slope_on_a_bound_is_in_the_class_above(tmp_path: Path) -> None:
    # 45 degrees exactly, in numbers that floats hold.
    plane = np.broadcast_to(np.arange(12) * 10.0, (9, 12))
    found = score(tmp_path, plane, plane, slope_classes=(45.0,))
    assert [one.pixels for one in found.classes] == [0, 7 * 10]
    assert math.isnan(found.classes[0].scores[PREDICTION]["rmse"])


def test_windows_and_blocks_change_no_score(
    tmp_path: Path, pair: tuple[Floats, Floats], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"baseline": write_dem(tmp_path / "baseline.tif", terrain(seed=4))}
    monkeypatch.setattr(statistics, "BLOCK", 8)
    monkeypatch.setattr(statistics, "_THUMBNAIL", 17)  # cells of 3 pixels, which windows of 16 cut
    whole = score(tmp_path, *pair, **options)
    monkeypatch.setattr(height_grid, "WINDOW", 16)
    parts = score(tmp_path, *pair, **options)
    for one, other in zip(whole.strata, parts.strata, strict=True):
        assert (one.pixels, one.label) == (other.pixels, other.label)
        for name in (BASELINE, PREDICTION):
            assert one.scores[name] == pytest.approx(other.scores[name], rel=1e-9)
        for key, change in one.change.items():
            assert change == pytest.approx(other.change[key], rel=1e-9, nan_ok=True)
    assert whole.blocks == parts.blocks == 5 * 7
    assert whole.views.step == 3
    for name, values in whole.views.maps.items():
        np.testing.assert_allclose(values, parts.views.maps[name], rtol=1e-12, err_msg=name)


def test_reduced_maps_are_means_of_the_scored_pixels(
    tmp_path: Path, pair: tuple[Floats, Floats], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "_THUMBNAIL", 10)
    found = score(tmp_path, *pair).views
    error = pair[0] - pair[1]
    assert found.step == 5
    assert found.maps["truth"].shape == (8, 10)
    expected = [[np.nanmean(error[r : r + 5, c : c + 5]) for c in range(0, 50, 5)] for r in range(0, 40, 5)]
    # Differences of means of heights of 3000 m.
    np.testing.assert_allclose(found.maps["error of prediction"], expected, atol=1e-9)


def test_a_prediction_that_is_the_truth_has_no_error(tmp_path: Path) -> None:
    path = write_dem(tmp_path / "dem.tif", terrain())
    found = score_scene(path, path)
    scores = found.overall.scores[PREDICTION]
    assert scores.pop("aspect_pixels") > 1000
    assert set(scores.values()) == {0.0}
    assert found.valid_share == 1.0


@pytest.mark.parametrize(("bias", "spread"), [(0.0, 1.0), (-7.5, 4.0), (120.0, 0.25)])
def test_known_bias_and_noise_are_found(tmp_path: Path, bias: float, spread: float) -> None:
    truth = terrain(300, 300)
    noise = np.random.default_rng(2).normal(bias, spread, truth.shape)
    scores = score(tmp_path, truth + noise, truth).overall.scores[PREDICTION]
    n = truth.size
    # Four standard errors each, of normal noise: s/sqrt(n) of the mean; the median's is 1.2533 of that, that of the
    # NMAD, 37 % efficient, 1.1664; that of the 90th percentile of |e| sqrt(0.9 * 0.1) / density, 0.2063 each side.
    unit = 4.0 * spread / math.sqrt(n)
    assert scores["bias"] == pytest.approx(bias, abs=unit + STORED)
    assert scores["median_error"] == pytest.approx(bias, abs=1.2533 * unit + STORED)
    assert scores["nmad"] == pytest.approx(spread, abs=1.1664 * unit + STORED)
    if bias == 0.0:
        assert scores["rmse"] == pytest.approx(spread, abs=unit / math.sqrt(2) + STORED)
        assert scores["le90"] == pytest.approx(1.64485 * spread, abs=0.3 / 0.2063 * unit + STORED)
        assert scores["mae"] == pytest.approx(math.sqrt(2 / math.pi) * spread, abs=unit + STORED)


def test_the_sign_of_the_error_is_prediction_minus_truth(tmp_path: Path) -> None:
    truth = terrain()
    path = tmp_path / "results" / "errors.tif"
    found = score(tmp_path, truth + 3.0, truth, error_map=path)
    assert found.overall.scores[PREDICTION]["bias"] == pytest.approx(3.0, abs=STORED)
    with rasterio.open(path) as written:
        np.testing.assert_allclose(written.read(1), 3.0, atol=STORED)
    assert np.median(found.views.maps["error of prediction"]) == pytest.approx(3.0, abs=STORED)


# Slopes and aspects


def plane(east: float, north: float, grid: Affine = GRID, height: int = 12, width: int = 15) -> Floats:
    """Heights that rise by so much for each map unit to the east and north of the grid's origin."""
    rows, columns = np.mgrid[:height, :width] + 0.5
    x, y = grid @ (columns.ravel(), rows.ravel())
    heights: Floats = east * (np.asarray(x) - grid.c) + north * (np.asarray(y) - grid.f)
    return heights.reshape(height, width)


def facing(bearing: float, slope: float, grid: Affine = GRID) -> Floats:
    """A plane that falls towards a bearing, both in degrees."""
    fall = math.tan(math.radians(slope))
    return plane(-fall * math.sin(math.radians(bearing)), -fall * math.cos(math.radians(bearing)), grid)


@pytest.mark.parametrize(
    ("one", "other", "apart"), [(359.0, 1.0, 2.0), (1.0, 359.0, 2.0), (90.0, 270.0, 180.0), (350.0, 80.0, 90.0)]
)
def test_aspects_are_compared_around_the_circle(tmp_path: Path, one: float, other: float, apart: float) -> None:
    scores = score(tmp_path, facing(one, 20.0), facing(other, 20.0)).overall.scores[PREDICTION]
    # Heights of up to 100 m in float32 over steps of 20 m: gradients to 1e-6, angles to 1e-4 degrees.
    assert scores["aspect_error_degrees"] == pytest.approx(apart, abs=1e-3)
    assert scores["slope_error_degrees"] == pytest.approx(0.0, abs=1e-3)
    chord = 2 * math.tan(math.radians(20.0)) * math.sin(math.radians(apart / 2))
    assert scores["gradient_error"] == pytest.approx(chord, abs=1e-5)


def test_level_ground_has_no_aspect(tmp_path: Path) -> None:
    scores = score(tmp_path, facing(0.0, 20.0), facing(180.0, 1.9)).overall.scores[PREDICTION]
    assert math.isnan(scores["aspect_error_degrees"])
    assert scores["aspect_pixels"] == 0
    assert scores["slope_error_degrees"] == pytest.approx(18.1, abs=1e-3)
    level = score(tmp_path, np.zeros((12, 15)), facing(180.0, 20.0)).overall.scores[PREDICTION]
    assert math.isnan(level["aspect_error_degrees"])
    assert level["slope_error_degrees"] == pytest.approx(20.0, abs=1e-3)


@pytest.mark.parametrize(
    ("crs", "grid", "metres_east", "metres_north"),
    [
        # A degree at 60 degrees north on WGS84, as tables give it: 55.800 and 111.412 km.
        ("EPSG:4326", from_origin(20.0, 60.006, 0.001, 0.001), 55_800.0, 111_412.0),
        # On the equator: 111.320 and 110.574 km.
        ("EPSG:4326", from_origin(20.0, 0.006, 0.001, 0.001), 111_320.0, 110_574.0),
        # New York in feet of the US survey.
        ("EPSG:2263", from_origin(980_000.0, 200_000.0, 30.0, 30.0), 1200 / 3937, 1200 / 3937),
        # Web Mercator stretches 60 degrees north to twice its length: y = 6378137 asinh(tan 60).
        ("EPSG:3857", from_origin(0.0, 8_399_737.9 + 60, 10.0, 10.0), 0.5, 0.5),
        (UTM, GRID, 1.0, 1.0),
        (UTM, GRID @ Affine.rotation(33.0), 1.0, 1.0),
        (UTM, Affine(10.0, 0.0, 452_400.0, 0.0, 10.0, 3_700_000.0), 1.0, 1.0),  # south up
        (UTM, Affine(10.0, 0.0, 452_400.0, 0.0, -4.0, 3_700_000.0), 1.0, 1.0),  # oblong pixels
    ],
)
def test_slopes_are_in_metres_on_the_ground(
    tmp_path: Path, crs: str, grid: Affine, metres_east: float, metres_north: float
) -> None:
    east, north = 0.3, -0.2
    truth = plane(east * metres_east, north * metres_north, grid)
    options = {"transform": grid, "crs": crs}
    turned = plane(-north * metres_east, east * metres_north, grid)
    found = score_scene(
        write_dem(tmp_path / "turned.tif", turned, **options), write_dem(tmp_path / "truth.tif", truth, **options)
    )
    level = score_scene(
        write_dem(tmp_path / "level.tif", np.zeros_like(truth), **options), tmp_path / "truth.tif"
    ).overall.scores[PREDICTION]
    # The tables' five digits; within the scene the lengths change in the fourth decimal.
    assert level["gradient_error"] == pytest.approx(math.hypot(east, north), rel=3e-4)
    assert level["slope_error_degrees"] == pytest.approx(math.degrees(math.atan(math.hypot(east, north))), rel=3e-4)
    scores = found.overall.scores[PREDICTION]
    assert scores["aspect_error_degrees"] == pytest.approx(90.0, abs=0.05)
    assert scores["slope_error_degrees"] == pytest.approx(0.0, abs=0.01)


# Other grids


def test_a_shifted_grid_is_interpolated(tmp_path: Path) -> None:
    """A truth 0.3 columns and 0.45 rows off: bilinear between its pixels, by another library."""
    truth, prediction = as_stored(terrain(60, 70)), as_stored(terrain(40, 50, seed=3))
    there = GRID @ Affine.translation(-8.3, -7.45)
    found = score_scene(
        write_dem(tmp_path / "p.tif", prediction), write_dem(tmp_path / "t.tif", truth, transform=there)
    )
    rows, columns = np.mgrid[:40, :50].astype(float)
    expected = written_out(prediction, map_coordinates(truth, [rows + 7.45, columns + 8.3], order=1))
    # GDAL's weights are floats of 32 bits: 1e-6 of a height of 3000 m at the worst.
    assert found.overall.scores[PREDICTION] == pytest.approx(expected, rel=1e-5, abs=1e-3)
    assert found.inputs["truth"]["resampling"] == "bilinear"
    assert found.pixels["scored"] == 2000


def surface(x: Floats, y: Floats) -> Floats:
    """Smooth heights anywhere in UTM, wave lengths of 1.5 km and slopes of up to some 25 degrees."""
    return 2000.0 + 60.0 * np.sin(x * 2 * math.pi / 1500.0) * np.cos(y * 2 * math.pi / 1700.0) + 0.1 * (x - 452_400.0)


def test_a_truth_in_degrees_lands_where_it_belongs(tmp_path: Path) -> None:
    """The same surface, computed at the pixels of a UTM grid and at those of one in degrees."""
    rows, columns = np.mgrid[:80, :90] + 0.5
    x, y = GRID @ (columns.ravel(), rows.ravel())
    prediction = surface(np.asarray(x), np.asarray(y)).reshape(80, 90)
    west, north = transform(UTM, "EPSG:4326", [GRID.c - 100], [GRID.f + 100])
    step = 0.0002  # 18 m by 22 m
    degrees = from_origin(west[0], north[0], step, step)
    rows, columns = np.mgrid[:60, :70] + 0.5
    longitude, latitude = degrees @ (columns.ravel(), rows.ravel())
    x, y = transform("EPSG:4326", UTM, longitude, latitude)
    truth = surface(np.asarray(x), np.asarray(y)).reshape(60, 70)
    found = score_scene(
        write_dem(tmp_path / "p.tif", prediction),
        write_dem(tmp_path / "t.tif", truth, transform=degrees, crs="EPSG:4326", dtype="float64"),
    )
    scores = found.overall.scores[PREDICTION]
    assert found.pixels["scored"] == 80 * 90
    # Linear interpolation errs by at most h^2 / 8 of the curvature, both ways: 60 m (2 pi / 1500 m)^2 (22 m)^2 / 4.
    # A shift of a tenth of a pixel would cost several times that on slopes of this kind.
    bound = 60.0 * (2 * math.pi / 1500.0) ** 2 * 22.0**2 / 4
    assert abs(scores["bias"]) < bound
    assert scores["rmse"] < bound
    assert scores["rmse"] < 0.1 * 10 * 0.2 / 2
    assert scores["slope_error_degrees"] < 0.6
    assert found.inputs["truth"]["crs"] == "EPSG:4326"


@pytest.mark.parametrize("most", [8, 3])
def test_a_finer_truth_is_averaged(tmp_path: Path, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six truth pixels along a side; holes among them are left out of the mean. In two steps as well as in one."""
    monkeypatch.setattr(warping, "_MOST_AVERAGED", most)
    fine = as_stored(terrain(60, 90))
    fine[:12, :12] = np.nan
    fine[30:34, 30:36] = np.nan  # two of three rows of 2 x 2: in two steps the mean is still that of all
    blocks = fine.reshape(10, 6, 15, 6)
    with np.errstate(invalid="ignore"):
        means = np.nansum(blocks, axis=(1, 3)) / np.isfinite(blocks).sum(axis=(1, 3))
    coarse = GRID @ Affine.scale(6)
    path = tmp_path / "errors.tif"
    found = score_scene(
        write_dem(tmp_path / "p.tif", np.zeros((10, 15)), transform=coarse),
        write_dem(tmp_path / "t.tif", fine),
        error_map=path,
    )
    assert found.inputs["truth"]["resampling"] == "average"
    with rasterio.open(path) as written:
        errors = written.read(1, masked=True)
    assert np.array_equal(np.ma.getmaskarray(errors), np.isnan(means))
    known = np.isfinite(means)
    np.testing.assert_allclose(-errors.data[known], means[known], rtol=1e-6)


def test_a_rotated_grid_on_either_side(tmp_path: Path) -> None:
    """A plane read through a turned grid is the same plane; two turned grids meet only where both reach."""
    turned = GRID @ Affine.translation(30, -30) @ Affine.rotation(30.0) @ Affine.scale(0.7)
    upright, other = plane(0.3, 0.1, GRID, 60, 60), None
    rows, columns = np.mgrid[:160, :170] + 0.5
    x, y = turned @ (columns.ravel(), rows.ravel())
    other = (0.3 * (np.asarray(x) - GRID.c) + 0.1 * (np.asarray(y) - GRID.f)).reshape(160, 170)
    paths = write_dem(tmp_path / "u.tif", upright), write_dem(tmp_path / "t.tif", other, transform=turned)
    for prediction, truth in (paths, paths[::-1]):
        found = score_scene(prediction, truth)
        assert 500 < found.pixels["scored"] < found.pixels["grid"]
        # At the edge of a grid the outermost half pixel repeats the last value: up to 0.32 * 7 m off.
        assert found.overall.scores[PREDICTION]["nmad"] < 1e-3
        assert found.overall.scores[PREDICTION]["rmse"] < 0.3


def test_whole_numbers_are_interpolated_between(tmp_path: Path) -> None:
    """A 16-bit truth on another grid must not be rounded to metres again."""
    ramp = np.broadcast_to(np.arange(30), (20, 30))
    truth = write_dem(tmp_path / "t.tif", ramp, dtype="int16", nodata=-32768)
    half = GRID @ Affine.translation(5.5, 5.0)
    prediction = write_dem(tmp_path / "p.tif", np.broadcast_to(np.arange(10) + 5.5, (10, 10)), transform=half)
    assert score_scene(prediction, truth).overall.scores[PREDICTION]["le90"] < 1e-4


def test_scale_and_offset_tags_are_applied(tmp_path: Path) -> None:
    truth = terrain()
    path = write_dem(tmp_path / "t.tif", np.rint((truth - 3000.0) * 100), dtype="int32", nodata=-(2**31))
    with rasterio.open(path, "r+") as source:
        source.scales, source.offsets = (0.01,), (3000.0,)
    for grid in (GRID, GRID @ Affine.translation(5, 5)):
        part = truth if grid == GRID else truth[5:35, 5:45]
        prediction = write_dem(tmp_path / "p.tif", part, transform=grid)
        assert score_scene(prediction, path).overall.scores[PREDICTION]["rmse"] < 0.005


# What has no data


def nodata_cases() -> dict[str, dict[str, Any]]:
    """Ways to say that a pixel has no data: how the truth is written, and how it is scored."""
    return {
        "tag": {"write": {"nodata": -32768.0}},
        "tag of 16 bits": {"write": {"nodata": -32768.0, "dtype": "int16"}},
        "tag of 64 bits": {"write": {"nodata": -1.7976931348623157e308, "dtype": "float64"}},
        "NaN tag": {"write": {"nodata": math.nan}},
        "NaN alone": {"write": {"nodata": None}},
        "given": {"write": {"nodata": None}, "value": -500.0, "score": {"truth_nodata": -500.0}},
        "given against a wrong tag": {"write": {"nodata": 0.0}, "value": -500.0, "score": {"truth_nodata": -500.0}},
        "given, 16 bits": {
            "write": {"nodata": None, "dtype": "int16"}, "value": -500.0, "score": {"truth_nodata": -500.0},
        },
        "mask": {"write": {"nodata": None}, "value": 9000.0, "mask": True},
        "alpha": {"write": {"nodata": None, "alpha": "yes"}, "value": 9000.0, "alpha": True},
        "alpha, named later": {"write": {"nodata": None}, "value": 9000.0, "alpha": True},
        "mask, and a value given": {
            "write": {"nodata": None}, "value": 9000.0, "mask": True, "score": {"truth_nodata": -500.0},
        },
    }  # fmt: skip


@pytest.mark.parametrize("case", nodata_cases())
@pytest.mark.parametrize(
    "shift", [(0.0, 0.0), (4.0, 4.0), (3.5, 2.5)], ids=["same grid", "whole pixels", "half pixels"]
)
def test_pixels_without_data_never_count(tmp_path: Path, case: str, shift: tuple[float, float]) -> None:
    how = nodata_cases()[case]
    # Flat along the rows, so that a half pixel at a void's edge keeps its height.
    truth = np.repeat(np.rint(terrain(30, 1)), 40, axis=1) - 2900.0
    hole = np.zeros(truth.shape, bool)
    hole[10:16, 12:20] = True
    value = how.get("value", math.nan)
    bands = [np.where(hole, value, truth)]
    write = dict(how["write"])
    if how.get("mask"):
        write["mask"] = ~hole
    if how.get("alpha"):
        bands.append(np.where(hole, 0.0, 255.0))
    path = tmp_path / "t.tif"
    write_dem(path, *bands, **write)
    if how.get("alpha"):
        with rasterio.open(path, "r+") as source:
            source.colorinterp = [ColorInterp.gray, ColorInterp.alpha]
    columns, rows = shift
    grid = GRID @ Affine.translation(columns, rows)
    height, width = (30, 40) if shift == (0.0, 0.0) else (22, 32)
    prediction = np.zeros((height, width))
    found = score_scene(
        write_dem(tmp_path / "p.tif", prediction, transform=grid), path, **how.get("score", {}),
        error_map=tmp_path / "errors.tif",
    )  # fmt: skip
    with rasterio.open(tmp_path / "errors.tif") as written:
        known = ~np.ma.getmaskarray(written.read(1, masked=True))
    inside = [(hole.shape[0], rows), (hole.shape[1], columns)]
    places = [np.arange(n) + offset for n, (_, offset) in zip((height, width), inside, strict=True)]
    # Four pixels around a half-way place: all must be void for it to have none; GDAL goes by the nearest.
    top, left = (np.floor(place).astype(int) for place in places)
    bottom, right = (np.ceil(place).astype(int) for place in places)
    around = [hole[np.ix_(row, column)] for row in (top, bottom) for column in (left, right)]
    surely, maybe = np.logical_and.reduce(around), np.logical_or.reduce(around)
    assert not known[surely].any()
    assert known[~maybe].all()
    # Nothing of the filling value seeps into a neighbour.
    errors = -found.views.errors[PREDICTION]
    assert errors.min() >= truth.min() - 0.01
    assert errors.max() <= truth.max() + 0.01


def test_all_maps_are_scored_over_the_same_pixels(tmp_path: Path) -> None:
    truth, prediction, baseline = terrain(), terrain() + 1.0, terrain() + 2.0
    truth[0], prediction[1], baseline[2] = np.nan, np.nan, np.nan
    found = score(tmp_path, prediction, truth, baseline=write_dem(tmp_path / "b.tif", baseline))
    assert found.pixels == {"grid": 2000, "truth": 1950, "baseline": 1950, "prediction": 1950, "scored": 1850}
    assert found.overall.scores[BASELINE]["bias"] == pytest.approx(2.0, abs=STORED)


def test_a_truth_that_covers_a_part(tmp_path: Path) -> None:
    part = GRID @ Affine.translation(30, 10)
    found = score_scene(
        write_dem(tmp_path / "p.tif", terrain()), write_dem(tmp_path / "t.tif", terrain()[10:40, 30:50], transform=part)
    )
    assert found.pixels["scored"] == 30 * 20
    assert found.overall.scores[PREDICTION]["rmse"] == 0.0


# HeightFit


def test_relative_heights_are_fitted_and_it_is_said(tmp_path: Path) -> None:
    truth = terrain()
    relative = (truth - truth.min()) / np.ptp(truth)
    path = write_dem(tmp_path / "p.tif", relative, tags={"D3RSMDE_KIND": "relative"})
    found = score_scene(path, write_dem(tmp_path / "t.tif", truth))
    line = found.alignments[PREDICTION]
    assert line.fitted
    # 24 bits of [0, 1] over some 100 m.
    assert line.scale == pytest.approx(np.ptp(truth), rel=1e-5)
    assert line.shift == pytest.approx(truth.min(), abs=1e-2)
    assert found.overall.scores[PREDICTION]["rmse"] < STORED
    document = found.to_document()
    assert document["prediction"]["kind"] == "relative"
    assert document["alignments"][PREDICTION]["aligned"] is True
    assert "aligned" in document["alignments"][PREDICTION]["how"]
    table = write_tables(found, tmp_path)
    assert table.startswith("prediction: aligned to the truth by one least-squares scale (>= 0) and shift")
    assert "| prediction, aligned |" in table


def test_metres_of_unknown_level_get_a_shift_alone(tmp_path: Path) -> None:
    truth = terrain()
    path = write_dem(tmp_path / "p.tif", 0.5 * (truth - truth.min()), tags={"D3RSMDE_KIND": "offset"})
    found = score_scene(path, write_dem(tmp_path / "t.tif", truth))
    line = found.alignments[PREDICTION]
    assert line.fitted and line.scale == 1.0
    # Half of the relief is missing, and no scale may hide it.
    assert found.overall.scores[PREDICTION]["rmse"] == pytest.approx(0.5 * truth.std(), rel=1e-3)
    assert found.overall.scores[PREDICTION]["bias"] == pytest.approx(0.0, abs=1e-3)
    assert "one shift" in found.to_document()["alignments"][PREDICTION]["how"]


def test_metric_heights_are_taken_as_they_are_unless_asked(tmp_path: Path) -> None:
    truth = terrain()
    prediction = 0.8 * truth + 500.0
    alone = score(tmp_path, prediction, truth)
    assert not alone.alignments[PREDICTION].fitted
    assert alone.overall.scores[PREDICTION]["bias"] == pytest.approx((prediction - truth).mean(), abs=STORED)
    fitted = score(tmp_path, prediction, truth, align="affine")
    assert fitted.alignments[PREDICTION].scale == pytest.approx(1.25, rel=1e-5)
    assert fitted.overall.scores[PREDICTION]["rmse"] < 2 * STORED
    path = write_dem(tmp_path / "r.tif", prediction, tags={"D3RSMDE_KIND": "relative"})
    none = score_scene(path, tmp_path / "truth.tif", align="none")
    assert none.overall.scores[PREDICTION] == alone.overall.scores[PREDICTION]


def test_hills_for_valleys_get_scale_zero(tmp_path: Path) -> None:
    truth = terrain()
    line = score(tmp_path, -truth, truth, align="affine").alignments[PREDICTION]
    assert (line.scale, line.shift) == (0.0, pytest.approx(truth.mean(), abs=STORED))
    flat = score(tmp_path, np.full(truth.shape, 7.0), truth, align="affine").alignments[PREDICTION]
    assert (flat.scale, flat.shift) == (0.0, pytest.approx(truth.mean(), abs=STORED))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 300), min_size=1, max_size=6), st.floats(-1e5, 1e5))
def test_a_line_fitted_in_parts_is_that_of_the_whole(seed: int, sizes: list[int], far: float) -> None:
    generator = np.random.default_rng(seed)
    parts = [generator.normal(far, 3.0, size) for size in sizes]
    truths = [0.7 * part + generator.normal(5.0, 1.0, part.size) for part in parts]
    fit = statistics.LineFit()
    for part, truth in zip(parts, truths, strict=True):
        fit.add(part, truth)
    heights, truth = np.concatenate(parts), np.concatenate(truths)
    assert fit.count == heights.size
    if heights.size < 3:
        return
    centred = heights - heights.mean()
    scale = max(float((centred * (truth - truth.mean())).sum() / (centred**2).sum()), 0.0)
    line = fit.line()
    # 1e5 off zero costs five digits of sixteen, squared in the moments about a mean.
    assert line.scale == pytest.approx(scale, rel=1e-7, abs=1e-7)
    assert line.scale * heights.mean() + line.shift == pytest.approx(truth.mean(), rel=1e-12, abs=1e-9)


# Uncertainty


def uncertain(tmp_path: Path, stated: float, **tags: str) -> SceneScores:
    """A prediction with normal errors whose true deviation is 1 to 5 m; the band states ``stated`` times that."""
    truth = terrain(300, 400)
    generator = np.random.default_rng(5)
    sigma = generator.uniform(1.0, 5.0, truth.shape)
    prediction = truth + generator.normal(0.0, 1.0, truth.shape) * sigma
    path = write_dem(
        tmp_path / "p.tif", prediction, stated * sigma, names=("height", "uncertainty"),
        tags={"D3RSMDE_KIND": "metric"},
    )  # fmt: skip
    return score_scene(path, write_dem(tmp_path / "t.tif", truth))


def test_a_calibrated_uncertainty_covers_what_it_should(tmp_path: Path) -> None:
    coverage = uncertain(tmp_path, 1.0).coverage
    assert coverage is not None
    n = coverage.pixels
    assert n == 300 * 400
    # Four binomial standard errors.
    assert coverage.within_68 == pytest.approx(0.6827, abs=4 * math.sqrt(0.6827 * 0.3173 / n))
    assert coverage.within_95 == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / n))
    assert coverage.mean_sigma == pytest.approx(3.0, abs=4 * 4 / math.sqrt(12 * n))
    assert coverage.rms_sigma == pytest.approx(coverage.rmse, rel=0.02)
    assert coverage.factor_68 == pytest.approx(1.0, abs=0.02)
    assert len(coverage.deciles) == 10
    for row in coverage.deciles:
        assert row["share"] == pytest.approx(0.1, abs=1e-4)
        assert row["sigma_low"] <= row["rms_sigma"] <= row["sigma_high"]
        # Four standard errors of the deviation of 12,000 normal errors.
        assert row["rmse"] == pytest.approx(row["rms_sigma"], rel=4 / math.sqrt(2 * 12_000))
    # Over the whole range, 1 to 5 m, not one part of it.
    assert coverage.deciles[0]["rms_sigma"] < 1.4
    assert coverage.deciles[-1]["rms_sigma"] > 4.6


def test_a_boastful_uncertainty_is_found_out(tmp_path: Path) -> None:
    coverage = uncertain(tmp_path, 0.5).coverage
    assert coverage is not None
    # P(|z| < 0.5) and P(|z| < 0.98) of a normal variable.
    assert coverage.within_68 == pytest.approx(0.3829, abs=0.006)
    assert coverage.within_95 == pytest.approx(0.6729, abs=0.006)
    assert coverage.factor_68 == pytest.approx(2.0, abs=0.03)


def test_uncertainty_is_scaled_with_the_heights(tmp_path: Path) -> None:
    truth = terrain(120, 120)
    generator = np.random.default_rng(6)
    relative = (truth + generator.normal(0.0, 2.0, truth.shape) - 3000.0) / 400.0
    path = write_dem(
        tmp_path / "p.tif", relative, np.full(truth.shape, 2.0 / 400.0), names=("height", "uncertainty"),
        tags={"D3RSMDE_KIND": "relative"},
    )  # fmt: skip
    coverage = score_scene(path, write_dem(tmp_path / "t.tif", truth)).coverage
    assert coverage is not None
    # Noise in the regressor draws the fitted scale a little below 400.
    assert coverage.mean_sigma == pytest.approx(2.0, rel=0.02)
    assert coverage.within_68 == pytest.approx(0.6827, abs=0.03)
    assert len(coverage.deciles) == 1, "one sigma everywhere is one part"


def test_pixels_without_an_uncertainty_are_left_out_of_its_shares(tmp_path: Path) -> None:
    truth = terrain()
    sigma = np.full(truth.shape, 2.0)
    sigma[:10], sigma[10] = np.nan, -1.0
    prediction = truth + np.where(np.arange(50) % 2 == 0, 1.0, 3.0)
    path = write_dem(
        tmp_path / "p.tif", prediction, sigma, names=("height", "Uncertainty"), tags={"D3RSMDE_KIND": "metric"}
    )
    found = score_scene(path, write_dem(tmp_path / "t.tif", truth))
    assert found.coverage is not None
    assert found.coverage.pixels == 29 * 50
    assert found.coverage.within_68 == 0.5
    assert found.coverage.within_95 == 1.0
    assert found.pixels["scored"] == 2000


# Beside a baseline


def test_the_baseline_is_brought_on_bicubically(tmp_path: Path) -> None:
    """It scores as GDAL's own cubic resampling of all of it at once does."""
    truth = as_stored(terrain(48, 64))
    coarse = truth.reshape(12, 4, 16, 4).mean(axis=(1, 3)).astype(np.float32)
    grid = GRID @ Affine.scale(4)
    baseline = write_dem(tmp_path / "b.tif", coarse, transform=grid)
    found = score(tmp_path, truth + 1.0, truth, baseline=baseline)
    cubic = np.full(truth.shape, np.nan, np.float32)
    options = {"src_crs": UTM, "dst_crs": UTM, "src_transform": grid, "dst_transform": GRID, "dst_nodata": np.nan}
    # Unless told, GDAL guesses the ratio of the grids from the windows' sizes.
    reproject(coarse, cubic, resampling=Resampling.cubic, XSCALE=1, YSCALE=1, **options)
    expected = written_out(cubic.astype(np.float64), truth)
    assert found.overall.scores[BASELINE] == pytest.approx(expected, rel=1e-4, abs=STORED)
    assert found.inputs[BASELINE]["resampling"] == "cubic"


def test_changes_and_their_paired_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over blocks of one size the jackknife of a mean is the textbook's standard error of paired differences."""
    monkeypatch.setattr(statistics, "BLOCK", 16)
    monkeypatch.setattr(height_grid, "WINDOW", 32)
    truth = as_stored(terrain(64, 80))
    generator = np.random.default_rng(8)
    blocks = np.kron(generator.normal(0.0, 2.0, (4, 5)), np.ones((16, 16)))
    prediction = as_stored(truth + blocks + generator.normal(0.0, 1.0, truth.shape))
    baseline = as_stored(truth + 1.5 * blocks + generator.normal(0.0, 2.0, truth.shape))
    found = score(tmp_path, prediction, truth, baseline=write_dem(tmp_path / "b.tif", baseline))
    before, after = found.overall.scores[BASELINE], found.overall.scores[PREDICTION]
    change = found.overall.change
    for key in ("mae", "rmse", "nmad", "le90", "slope_error_degrees", "gradient_error", "aspect_error_degrees"):
        assert change[key]["change"] == pytest.approx(after[key] - before[key])
        assert change[key]["percent"] == pytest.approx(100 * (after[key] / before[key] - 1))
    assert "bias" not in change

    def cut(values: Floats) -> Floats:
        return values.reshape(4, 16, 5, 16).swapaxes(1, 2).reshape(20, 256)

    assert found.blocks == 20
    differences = (np.abs(cut(prediction - truth)) - np.abs(cut(baseline - truth))).mean(axis=1)
    assert change["mae"]["standard_error"] == pytest.approx(differences.std(ddof=1) / math.sqrt(20), rel=1e-9)
    # Of a root, the same with one block left out at a time.
    squares = [(cut(values - truth) ** 2).sum(axis=1) for values in (prediction, baseline)]
    left = np.array([np.subtract(*(math.sqrt((s.sum() - s[k]) / (19 * 256)) for s in squares)) for k in range(20)])
    expected = math.sqrt(19 / 20 * ((left - left.mean()) ** 2).sum())
    assert change["rmse"]["standard_error"] == pytest.approx(expected, rel=1e-9)
    assert change["slope_error_degrees"]["standard_error"] > 0
    assert math.isnan(change["nmad"]["standard_error"])


def test_the_standard_error_tells_how_much_changes_scatter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over many scenes drawn alike the changes of RMSE scatter by about what each scene states."""
    monkeypatch.setattr(statistics, "BLOCK", 8)
    monkeypatch.setattr(height_grid, "WINDOW", 64)
    generator = np.random.default_rng(9)
    truth = terrain(64, 64)
    changes, stated = [], []
    for _ in range(60):
        # Errors of a block go together, as neighbours' do.
        common = np.kron(generator.normal(0.0, 1.0, (8, 8)), np.ones((8, 8)))
        own = generator.normal(0.0, 1.0, (2, 64, 64))
        baseline = write_dem(tmp_path / "b.tif", truth + 2 * common + own[0])
        found = score(tmp_path, truth + common + own[1], truth, baseline=baseline).overall.change["rmse"]
        changes.append(found["change"])
        stated.append(found["standard_error"])
    # The deviation of 60 numbers is known to 9 %; three of those.
    assert np.std(changes, ddof=1) == pytest.approx(np.mean(stated), rel=0.28)


def test_one_block_has_no_standard_error(tmp_path: Path) -> None:
    found = score(tmp_path, terrain() + 1, terrain(), baseline=write_dem(tmp_path / "b.tif", terrain() + 2))
    assert math.isnan(found.overall.change["rmse"]["standard_error"])
    assert found.overall.change["rmse"]["percent"] == pytest.approx(-50.0, abs=0.1)


# Constant memory


def test_a_sample_keeps_everything_until_it_is_full() -> None:
    sample = statistics.Sample({"a": np.float32}, 100, seed=0)
    for start in range(0, 100, 25):
        sample.add({"a": np.arange(start, start + 25)})
    assert sample.rate == 1.0
    assert np.array_equal(sample["a"], np.arange(100))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 900), min_size=1, max_size=12), st.integers(1, 400), st.integers(0, 1000))
def test_a_sample_never_outgrows_its_limit(sizes: list[int], limit: int, seed: int) -> None:
    sample = statistics.Sample({"a": np.float64, "b": np.int64}, limit, seed)
    place = 0
    for size in sizes:
        sample.add({"a": np.arange(place, place + size) * 2.0, "b": np.arange(place, place + size)})
        place += size
    assert sample.count <= limit
    assert sample.count == place or sample.rate < 1.0
    # Columns stay together, and no pixel comes twice.
    assert np.array_equal(sample["a"], sample["b"] * 2.0)
    assert len(np.unique(sample["b"])) == sample.count


def test_a_full_sample_favours_no_place() -> None:
    sample = statistics.Sample({"a": np.int64}, 20_000, seed=3)
    for start in range(0, 1_000_000, 10_000):
        sample.add({"a": np.arange(start, start + 10_000)})
    assert 10_000 <= sample.count <= 20_000
    shares = np.histogram(sample["a"], bins=20, range=(0, 1_000_000))[0]
    # Binomial counts: five standard deviations.
    expected = sample.count / 20
    assert np.abs(shares - expected).max() < 5 * math.sqrt(expected)
    assert sample.count / 1_000_000 == pytest.approx(sample.rate, rel=0.05)


def test_sampled_medians_are_near_the_exact_ones_and_it_is_said(tmp_path: Path) -> None:
    truth = terrain(200, 200)
    prediction = truth + np.random.default_rng(4).normal(1.0, 2.0, truth.shape)
    exact = score(tmp_path, prediction, truth)
    sampled = score(tmp_path, prediction, truth, sample_limit=4000)
    again = score(tmp_path, prediction, truth, sample_limit=4000)
    one, other = (found.overall.scores[PREDICTION] for found in (exact, sampled))
    assert again.overall.scores == sampled.overall.scores
    assert 2000 <= sampled.sampling["sampled"] <= 4000
    assert not sampled.sampling["exact"]
    assert "sample" in sampled.sampling["method"]
    # What is a sum stays exact.
    for key in ("bias", "mae", "rmse", "slope_error_degrees"):
        assert other[key] == one[key]
    # Four standard errors of 2000 and more normal errors of 2 m.
    for key in ("median_error", "nmad", "le90"):
        assert other[key] == pytest.approx(one[key], abs=4 * 1.5 * 2.0 / math.sqrt(2000))
        assert other[key] != one[key]


def test_memory_does_not_grow_with_the_scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(height_grid, "WINDOW", 256)
    peaks = []
    for size in (512, 1536):
        heights = np.broadcast_to(np.arange(size, dtype=np.float32), (size, size))
        profile = {"tiled": True, "blockxsize": 256, "blockysize": 256}
        path = write_dem(tmp_path / "p.tif", heights, heights * 0 + 1, names=("height", "uncertainty"),
                         tags={"D3RSMDE_KIND": "metric"}, **profile)  # fmt: skip
        truth = write_dem(tmp_path / "t.tif", heights, transform=GRID @ Affine.translation(0.5, 0.5), **profile)
        score_scene(path, truth, sample_limit=10_000)
        tracemalloc.start()
        score_scene(path, truth, sample_limit=10_000)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # Nine times the pixels; sums by block and the reduced maps grow a little.
    assert peaks[1] < 1.5 * peaks[0]


# What is written


@pytest.fixture
def full(tmp_path: Path) -> SceneScores:
    """All that can be asked for at once."""
    truth = terrain(90, 120)
    generator = np.random.default_rng(3)
    path = write_dem(
        tmp_path / "p.tif", truth + generator.normal(0.0, 2.0, truth.shape), np.full(truth.shape, 2.0),
        names=("height", "uncertainty"), tags={"D3RSMDE_KIND": "metric", "D3RSMDE_MODEL": "toy"},
    )  # fmt: skip
    baseline = write_dem(tmp_path / "b.tif", truth + 3.0)
    return score_scene(path, write_dem(tmp_path / "t.tif", truth), baseline=baseline)


def test_json_holds_all_that_was_measured(full: SceneScores, tmp_path: Path) -> None:
    write_tables(full, tmp_path)
    document = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert document["scores"] == {name: pytest.approx(row) for name, row in full.overall.scores.items()}
    assert document["prediction"]["tags"]["D3RSMDE_MODEL"] == "toy"
    assert document["prediction"]["metres_per_pixel"] == [10.0, 10.0]
    assert {document[role]["path"].rsplit("/", 1)[-1] for role in ("prediction", "truth", "baseline")} == {
        "p.tif", "t.tif", "b.tif",
    }  # fmt: skip
    assert document["pixels"]["valid_share"] == 1.0
    assert [one["label"] for one in document["slope_classes"]] == ["0-5", "5-15", "15-30", ">30"]
    assert document["slope_classes"][-1]["high_degrees"] is None
    assert document["uncertainty"]["within_68"] == full.coverage.within_68  # type: ignore[union-attr]
    assert document["order_statistics"]["exact"] is True
    assert {"rasterio", "gdal", "numpy"} <= set(document["software"])
    assert document["date"].startswith("20")


def test_csv_has_a_row_for_every_class_and_map(full: SceneScores, tmp_path: Path) -> None:
    write_tables(full, tmp_path)
    rows = read_csv(tmp_path / "classes.csv", text_columns=["slope_class"])
    assert [row["map"] for row in rows[:5]] == ["baseline", "prediction", "change", "percent", "standard_error"]
    assert [row["slope_class"] for row in rows[::5]] == ["all", "0-5", "5-15", "15-30", ">30"]
    assert rows[1]["rmse"] == full.overall.scores[PREDICTION]["rmse"]
    assert rows[2]["rmse"] == pytest.approx(rows[1]["rmse"] - rows[0]["rmse"])  # type: ignore[operator]


def test_the_table_shows_both_maps_their_change_and_the_coverage(full: SceneScores, tmp_path: Path) -> None:
    table = write_tables(full, tmp_path)
    assert (tmp_path / "table.md").read_text(encoding="utf-8") == table + "\n"
    lines = [line for line in table.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    first = {row[0]: row for row in cells[2:7]}
    assert list(first) == ["baseline", "prediction", "change", "change (%)", "± standard error, 1 blocks"]
    rmse = [heading.startswith("RMSE") for heading in cells[0]].index(True)
    assert first["baseline"][rmse] == "3.000"
    assert float(first["prediction"][rmse]) == pytest.approx(2.0, abs=0.1)
    assert float(first["change"][rmse]) == pytest.approx(-1.0, abs=0.1)
    assert first["± standard error, 1 blocks"][rmse] == "—"
    assert "compared as it is" in table
    assert "inside 1 sigma (%)" in table
    assert ">30" in table


def red_and_blue(path: Path) -> tuple[int, int]:
    """Pixels of the strong colours at the two ends of the error scale."""
    with Image.open(path) as picture:
        assert picture.mode == "RGB"
        pixels = np.asarray(picture).astype(int)
    red = (pixels[..., 0] > 90) & (pixels[..., 1] < 40) & (pixels[..., 2] < 60)
    blue = (pixels[..., 2] > 90) & (pixels[..., 0] < 30) & (pixels[..., 1] < 80)
    return int(red.sum()), int(blue.sum())


def test_the_figure_shows_too_high_in_red(tmp_path: Path) -> None:
    truth = terrain(90, 120)
    truth_path = write_dem(tmp_path / "t.tif", truth)
    for sign in (1.0, -1.0):
        found = score_scene(write_dem(tmp_path / "p.tif", truth + sign * 5), truth_path)
        save_accuracy_figure(tmp_path / "f.png", found)
        red, blue = red_and_blue(tmp_path / "f.png")
        # The map's whole panel against the end of the colour bar.
        assert (red > 20 * blue) if sign > 0 else (blue > 20 * red)
        assert max(red, blue) > 20_000


@pytest.mark.parametrize("shape", [(3, 200), (200, 3), (1, 1)])
def test_a_figure_of_every_shape(tmp_path: Path, shape: tuple[int, int]) -> None:
    truth = terrain(*shape)
    save_accuracy_figure(tmp_path / "f.png", score(tmp_path, truth + 1.0, truth))
    save_accuracy_figure(tmp_path / "f.png", score(tmp_path, truth, truth))
    with Image.open(tmp_path / "f.png") as picture:
        assert 800 < picture.width < 3000
        assert 500 < picture.height < 2000


def test_the_figure_takes_baseline_and_uncertainty(full: SceneScores, tmp_path: Path) -> None:
    save_accuracy_figure(tmp_path / "f.png", full)
    with Image.open(tmp_path / "f.png") as picture:
        assert picture.width > 1600


# Heights that cannot be


@pytest.mark.parametrize("shift", [0.0, 0.5])
@pytest.mark.parametrize("value", [-32768, -9999, 32767, 0])
@pytest.mark.parametrize("role", ["truth", "baseline", "prediction"])
def test_voids_that_no_tag_declares_are_not_scored(
    tmp_path: Path, role: str, value: float, shift: float, caplog: pytest.LogCaptureFixture
) -> None:
    heights = np.rint(terrain(64, 64))
    spoilt = heights.copy()
    spoilt[20:30, 20:30] = value
    place = GRID @ Affine.translation(shift, shift)
    files = {
        name: write_dem(
            tmp_path / f"{name}.tif", spoilt if name == role else heights, dtype="int16", nodata=None,
            transform=GRID if name == "prediction" else place,
        )
        for name in ("truth", "baseline", "prediction")
    }  # fmt: skip
    found = score_scene(files["prediction"], files["truth"], baseline=files["baseline"])
    assert max(found.overall.scores[name]["rmse"] for name in ("prediction", "baseline")) < 20.0
    (warning,) = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert f"100 cells of {value}" in warning and role in warning and "--keep-outliers" in warning
    assert found.inputs[role]["left_out"] == {"undeclared_voids": {f"{value}": 100}}


def test_errors_of_a_prediction_are_scored_and_those_of_the_truth_are_not(tmp_path: Path) -> None:
    heights = np.rint(terrain(64, 64))
    spiked = heights.copy()
    spiked[40, 40] = 8000.0
    good, bad = (write_dem(tmp_path / f"{name}.tif", one) for name, one in (("good", heights), ("bad", spiked)))
    assert score_scene(bad, good).overall.scores["prediction"]["mae"] > 1.0
    assert score_scene(good, bad).overall.scores["prediction"]["mae"] == 0.0
    assert score_scene(good, bad, keep_outliers=True).overall.scores["prediction"]["mae"] > 1.0
