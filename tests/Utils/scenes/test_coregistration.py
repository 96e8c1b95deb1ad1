"""Nuth and Kaab's coregistration before scoring: planted shifts come back, and what is no shift is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS
from rasterio.transform import from_origin
from scipy.ndimage import gaussian_filter

from tests.scenes import landscape
from tests.Utils.scenes.accuracy_maps import write_dem
from Utils.core import survey_library as libraries
from Utils.core.errors import UserError
from Utils.scenes.accuracy.coregistration import bilinear
from Utils.scenes.accuracy.scene_scoring import score_scene

PLACE = from_origin(452_400.0, 3_789_600.0, 10.0, 10.0)
MOVED = PLACE @ Affine.translation(0.6, -1.3)  # the file says that it lies so many pixels to the right and up


def ground() -> np.ndarray:
    return 60.0 * gaussian_filter(landscape(160, 180), 1.0) + 200.0


def changed(heights: np.ndarray) -> np.ndarray:
    """Trees and buildings on a fifth of the ground."""
    rng = np.random.default_rng(3)
    places = gaussian_filter(rng.standard_normal(heights.shape), 5.0)
    return np.where(places > np.quantile(places, 0.8), heights + rng.uniform(5.0, 25.0, heights.shape), heights)


@pytest.mark.parametrize("with_change", [False, True])
def test_a_planted_shift_comes_back(with_change: bool, tmp_path: Path) -> None:
    truth = write_dem(tmp_path / "truth.tif", ground(), transform=PLACE)
    noisy = ground() + 4.0 + np.random.default_rng(0).normal(0.0, 0.2, ground().shape)
    prediction = write_dem(tmp_path / "dem.tif", changed(noisy) if with_change else noisy, transform=MOVED)
    scores = score_scene(prediction, truth, coregister=True)
    shift = scores.shifts["prediction"]
    assert (shift.columns, shift.rows) == pytest.approx((-0.6, 1.3), abs=0.1)
    assert (shift.east, shift.north) == pytest.approx((-6.0, -13.0), abs=1.0)
    assert shift.metres == pytest.approx(-4.0, abs=0.2)
    assert scores.before is not None
    before, after = (one.overall.scores["prediction"] for one in (scores.before, scores))
    assert after["nmad"] < 0.5 * before["nmad"]
    assert abs(after["median_error"]) < 0.2 < abs(before["median_error"])
    document = scores.to_document()
    assert document["before_coregistration"]["scores"]["prediction"]["rmse"] == before["rmse"]
    assert json.dumps(document["coregistration"]["prediction"]["columns"])


def test_scores_are_those_of_xdem(tmp_path: Path) -> None:
    """The same shift applied by xdem's own command to the same arrays."""
    from xdem.coreg import NuthKaab

    heights = ground()
    other = bilinear(np.pad(heights, 1, mode="edge"), 0.3, 0.6)[:160, :180] + 2.0
    truth = write_dem(tmp_path / "truth.tif", heights, transform=PLACE)
    prediction = write_dem(tmp_path / "dem.tif", other, transform=PLACE)
    scores = score_scene(prediction, truth, coregister=True)
    method = NuthKaab()
    arrays = heights.astype(np.float32), other.astype(np.float32)
    kept = {"inlier_mask": np.ones(heights.shape, bool), "transform": PLACE, "crs": CRS.from_epsg(32643)}
    moved = method.fit(*arrays, random_state=0, **kept).apply(
        arrays[1], resample=True, transform=PLACE, crs=CRS.from_epsg(32643)
    )[0]
    found = method.meta["outputs"]["affine"]
    shift = scores.shifts["prediction"]
    assert (shift.east, shift.north) == pytest.approx((found["shift_x"], found["shift_y"]), abs=0.05)
    error = np.ma.filled(np.ma.masked_invalid(moved), np.nan) - arrays[0]
    error = error[np.isfinite(error)]
    assert scores.overall.scores["prediction"]["rmse"] == pytest.approx(np.sqrt(np.mean(error**2)), abs=0.01)
    assert scores.overall.scores["prediction"]["bias"] == pytest.approx(error.mean(), abs=0.01)


def test_other_ground_is_refused_with_the_numbers(tmp_path: Path) -> None:
    truth = write_dem(tmp_path / "truth.tif", ground(), transform=PLACE)
    prediction = write_dem(tmp_path / "dem.tif", ground()[::-1, ::-1].copy(), transform=PLACE)
    with pytest.raises(UserError, match=r"(runs away|does not converge|explains nothing) \(prediction: .*columns"):
        score_scene(prediction, truth, coregister=True)


def test_one_file_at_two_levels_is_only_raised(tmp_path: Path) -> None:
    truth = write_dem(tmp_path / "truth.tif", np.round(ground()), transform=PLACE)
    prediction = write_dem(tmp_path / "dem.tif", np.round(ground()) + 3.0, transform=PLACE)
    shift = score_scene(prediction, truth, coregister=True).shifts["prediction"]
    assert (shift.columns, shift.rows, shift.metres) == pytest.approx((0.0, 0.0, -3.0))


def test_level_ground_is_refused(tmp_path: Path) -> None:
    flat = np.full((160, 180), 100.0)
    truth = write_dem(tmp_path / "truth.tif", flat, transform=PLACE)
    rough = write_dem(tmp_path / "dem.tif", ground(), transform=PLACE)
    with pytest.raises(UserError, match="is there relief"):
        score_scene(rough, truth, coregister=True)


def test_a_mask_says_where_the_ground_is_stable(tmp_path: Path) -> None:
    truth = write_dem(tmp_path / "truth.tif", ground(), transform=PLACE)
    slid = ground()
    slid[:, 60:] += np.linspace(0.0, 40.0, 120)  # most of it moved, in no way that is an outlier
    prediction = write_dem(tmp_path / "dem.tif", slid + 4.0, transform=MOVED)
    stable = np.zeros((160, 180))
    stable[:, :58] = 1.0
    raster = write_dem(tmp_path / "mask.tif", stable, transform=PLACE, dtype="uint8", nodata=None)
    shift = score_scene(prediction, truth, coregister=True, stable_ground=raster).shifts["prediction"]
    assert (shift.columns, shift.rows, shift.metres) == pytest.approx((-0.6, 1.3, -4.0), abs=0.1)
    left, bottom, right, top = 452_400.0, 3_788_000.0, 452_980.0, 3_789_600.0
    ring = [[left, bottom], [right, bottom], [right, top], [left, top], [left, bottom]]
    polygon = {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [ring]}}
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32643"}}
    vector = tmp_path / "stable.geojson"
    vector.write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": [polygon]}))
    again = score_scene(prediction, truth, coregister=True, stable_ground=vector).shifts["prediction"]
    assert (again.columns, again.rows) == pytest.approx((shift.columns, shift.rows), abs=0.05)
    write_dem(raster, np.zeros((160, 180)), transform=PLACE, dtype="uint8", nodata=None)
    with pytest.raises(UserError, match="leaves no stable ground"):
        score_scene(prediction, truth, coregister=True, stable_ground=raster)


def test_without_the_library_the_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named '{name}'")

    monkeypatch.setattr(libraries.importlib, "import_module", missing)
    with pytest.raises(UserError, match=r"--coregister needs xdem .*pip install -r requirements-survey\.txt"):
        libraries.survey_library("xdem.coreg", "--coregister")
