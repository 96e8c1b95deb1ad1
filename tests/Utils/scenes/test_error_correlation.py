"""Errors that are alike nearby are worth few: variogram, effective number; and what a map leaves unexplained."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from rasterio.windows import Window
from scipy.integrate import quad
from scipy.ndimage import gaussian_filter

from tests.Utils.scenes.accuracy_maps import terrain, write_dem
from Utils.core.errors import UserError
from Utils.scenes.accuracy.change_correlation import ChangeCorrelation
from Utils.scenes.accuracy.error_correlation import ErrorCorrelation
from Utils.scenes.accuracy.scene_scoring import score_scene
from Utils.scenes.accuracy.terrain_scores import roughness
from Utils.scenes.accuracy.variogram import effective_samples


def counted(errors: np.ndarray, metres: float = 10.0):
    found = ErrorCorrelation((metres, metres), errors.size)
    for row in range(0, errors.shape[0], 128):
        for column in range(0, errors.shape[1], 128):
            part = errors[row : row + 128, column : column + 128]
            found.add(Window(column, row, part.shape[1], part.shape[0]), part)
    return found.variogram()


def test_independent_errors_are_worth_as_many() -> None:
    errors = np.random.default_rng(0).normal(0.0, 2.0, (256, 256))
    found = counted(errors)
    assert sum(found.sills) == pytest.approx(4.0, rel=0.05)
    assert 0.3 * errors.size < found.effective <= 1.1 * errors.size * math.pi


def test_errors_that_are_alike_are_worth_few() -> None:
    rng = np.random.default_rng(1)
    found = []
    for _ in range(3):
        errors = gaussian_filter(rng.normal(size=(512, 512)), 12.0, mode="wrap")
        found.append(counted(errors / errors.std() * 3.0 + rng.normal(0.0, 1.0, errors.shape)))
        assert sum(found[-1].sills) == pytest.approx(10.0, rel=0.25)
        assert found[-1].effective < 0.002 * 512**2
    assert 200.0 < np.median([one.ranges[1] for one in found]) < 1000.0  # a Gaussian of 120 m is alike over some 400 m
    # The mean of such a field varies as theory says: its spectrum at zero. One field alone may look longer.
    expected = math.sqrt(9.0 * 4.0 * math.pi * 12.0**2) / 512
    assert np.mean([one.standard_error_of_mean for one in found]) == pytest.approx(expected, rel=0.35)


@pytest.mark.xfail(reason="on this one field the stated error is 1.75 times the true one", strict=True)
def test_the_stated_error_is_right_on_each_field() -> None:
    rng = np.random.default_rng(1)
    errors = gaussian_filter(rng.normal(size=(512, 512)), 12.0, mode="wrap")
    found = counted(errors / errors.std() * 3.0 + rng.normal(0.0, 1.0, errors.shape))
    expected = math.sqrt(9.0 * 4.0 * math.pi * 12.0**2) / 512
    assert found.standard_error_of_mean == pytest.approx(expected, rel=0.35)


def test_the_stated_error_of_a_change_is_how_changes_scatter() -> None:
    """Over scenes drawn alike, whose errors are alike over some 8 pixels, in parts in both maps."""
    rng = np.random.default_rng(2)
    everywhere, window = np.ones((128, 128), bool), Window(0, 0, 128, 128)
    changes, stated = [], []
    for _ in range(24):
        common, own, other = (gaussian_filter(rng.normal(size=(128, 128)), 2.5, mode="wrap") * 8.9 for _ in range(3))
        before, after = common + own, 0.5 * common + 0.7 * other
        found = ChangeCorrelation(None, 128 * 128)
        found.add(window, everywhere, after, before, after, before)
        rmse = [float(np.sqrt(np.mean(one**2))) for one in (after, before)]
        variograms = found.variograms(*rmse)
        changes.append((np.mean(np.abs(after)) - np.mean(np.abs(before)), rmse[0] - rmse[1]))
        stated.append([variograms[key].standard_error_of_mean for key in ("mae", "rmse")])
    # The deviation of 24 numbers is known to 15 %; two of those, and what the fits are wrong by.
    assert np.mean(stated, axis=0) == pytest.approx(np.std(changes, axis=0, ddof=1), rel=0.4)


def test_the_effective_number_is_the_integral_of_the_covariance() -> None:
    for area in (1e4, 1e6, 1e9):
        radius = math.sqrt(area / math.pi)

        def covariance(away: float) -> float:
            shares = [(min(away / reach, 1.0), sill) for reach, sill in ((150.0, 0.7), (4000.0, 0.3))]
            return away * sum(sill * (1.0 - 1.5 * share + 0.5 * share**3) for share, sill in shares)

        inside = [reach for reach in (150.0, 4000.0) if reach < radius]
        squared = 2.0 / radius**2 * quad(covariance, 0.0, radius, points=inside or None)[0]
        assert effective_samples(area, (150.0, 4000.0), (0.7, 0.3)) == pytest.approx(1.0 / squared, rel=1e-5)


def test_what_is_left_unexplained(tmp_path: Path) -> None:
    truth = write_dem(tmp_path / "truth.tif", terrain())
    smooth = write_dem(tmp_path / "smooth.tif", gaussian_filter(terrain(), 3.0))
    same = score_scene(write_dem(tmp_path / "same.tif", 2.0 * terrain()), truth, baseline=smooth).terrain
    assert same["prediction"]["slope"] == pytest.approx(0.0, abs=1e-4)  # twice as steep everywhere is explained
    assert 0.0 < same["baseline"]["slope"] < same["baseline"]["curvature"] <= 1.0
    heights = np.arange(25.0).reshape(5, 5) ** 2
    assert roughness(heights)[0, 0] == np.ptp(heights[:3, :3])


def test_classes_of_the_ground_get_their_rows(tmp_path: Path) -> None:
    truth = write_dem(tmp_path / "truth.tif", terrain())
    kinds = np.where(np.arange(50) < 20, 10.0, 42.0) + np.zeros(terrain().shape)
    error = np.where(kinds == 10.0, 1.0, -3.0)
    classes = write_dem(tmp_path / "cover.tif", kinds, dtype="uint8", nodata=None)
    prediction = write_dem(tmp_path / "dem.tif", terrain() + error)
    rows = score_scene(prediction, truth, classes=classes).ground
    assert [(row["class"], round(row["bias"], 2), round(row["rmse"], 2)) for row in rows] == [(10, 1, 1), (42, -3, 3)]
    assert rows[0]["share"] == pytest.approx(0.4)
    flags = {"names": ("height", "flag"), "tags": {"D3RSMDE_KIND": "metric"}}
    flagged = write_dem(tmp_path / "ours.tif", terrain() + error, np.where(kinds == 10.0, 2.0, 0.0), **flags)
    rows = score_scene(flagged, truth).ground
    assert [(row["class"], row["name"], round(row["bias"])) for row in rows] == [
        (0, "fitted", -3), (2, "no heights known", 1),
    ]  # fmt: skip
    write_dem(classes, kinds + 0.5, nodata=None)
    with pytest.raises(UserError, match="is no class"):
        score_scene(prediction, truth, classes=classes)
