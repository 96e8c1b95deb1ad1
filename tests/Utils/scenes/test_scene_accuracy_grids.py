"""Slopes and aspects, and truths on other grids than the prediction: surfaces whose answer is known."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio import Affine
from rasterio.transform import from_origin
from rasterio.warp import transform
from scipy.ndimage import map_coordinates

from tests.Utils.scenes.accuracy_maps import (
    GRID,
    UTM,
    Floats,
    as_stored,
    score,
    terrain,
    write_dem,
    written_out,
)
from Utils.scenes.accuracy import warping
from Utils.scenes.accuracy.scene_scores import PREDICTION
from Utils.scenes.accuracy.scene_scoring import score_scene

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
