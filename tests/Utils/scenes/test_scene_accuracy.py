"""Scores of whole scenes on one grid, against sums written out pixel by pixel; and which pixels count."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio import Affine
from rasterio.enums import ColorInterp

from tests.Utils.scenes.accuracy_maps import (
    GRID,
    STORED,
    Floats,
    as_stored,
    score,
    terrain,
    write_dem,
    written_out,
)
from Utils.scenes.accuracy import error_statistics as statistics
from Utils.scenes.accuracy import height_grid
from Utils.scenes.accuracy.scene_scores import BASELINE, PREDICTION
from Utils.scenes.accuracy.scene_scoring import score_scene

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
            for what in ("change", "percent", "standard_error"):  # pairs across windows are not counted
                assert change[what] == pytest.approx(other.change[key][what], rel=1e-9, nan_ok=True)
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
