"""One stretch for a scene, and where it lies."""

from __future__ import annotations

import json
import logging
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.rpc import RPC

from tests.Utils.scenes.source_files import (
    NORTH_UP,
    UTM,
    logged,
    noise,
    open_all,
    read_all,
    write_scene,
)
from Utils.core.errors import UserError
from Utils.rasters.ground import ground_sample_distance
from Utils.rasters.source.scene_source import Stretch, open_scene
from Utils.rasters.source.stretch import percentile_stretch


@pytest.fixture(autouse=True)
def _hear_everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="Utils.rasters")


# The stretch


def test_full_range(tmp_path: Path) -> None:
    for dtype, options, full in (("uint8", {}, 255), ("uint16", {}, 65535), ("uint16", {"nbits": 12}, 4095)):
        bands = np.array([[[0, 1, full]]], dtype)
        with open_scene(write_scene(tmp_path / "scene.tif", bands, **options), stretch=None) as source:
            np.testing.assert_array_equal(read_all(source)[0][0, 0], np.array([0, 1 / full, 1], np.float32))
            assert source.stretch == Stretch((0.0,), (float(full),), None)
    floats = np.array([[[0.0, 0.25, 1.0]]], np.float32)
    np.testing.assert_array_equal(open_all(write_scene(tmp_path / "scene.tif", floats), stretch=None)[0][1], floats[0])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.array([[[0.5, 1.5]]], np.float32), "0.5 to 1.5"),
        (np.array([[[-0.5, 0.5]]], np.float64), "-0.5 to 0.5"),
        (np.array([[[1, 2]]], np.int16), "int16"),
        (np.array([[[1, 2]]], np.uint32), "uint32"),
    ],
)
def test_no_full_range(tmp_path: Path, values: NDArray[Any], words: str) -> None:
    with pytest.raises(UserError, match=f"{words}.*--stretch 2,98"):
        open_scene(write_scene(tmp_path / "scene.tif", values), stretch=None)


def test_flat_bands(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image, _ = open_all(write_scene(tmp_path / "flat.tif", np.full((3, 9, 9), 7, np.uint8)))
        assert np.isfinite(image).all() and image.min() >= 0 and image.max() <= 1
        # An island in a sea of one value: both percentiles are the sea, and the island must still be seen.
        sea = np.full((1, 100, 100), 3, np.uint16)
        sea[0, 50, 50:60] = np.arange(10, 20)
        caplog.clear()
        image, _ = open_all(write_scene(tmp_path / "sea.tif", sea))
    assert "band 1" in logged(caplog)
    np.testing.assert_allclose(image[0], (sea[0] - 3) / 16, atol=1e-7)


@pytest.mark.parametrize("percentiles", [(98.0, 2.0), (5.0, 5.0), (-1.0, 98.0), (2.0, 101.0), (math.nan, 98.0)])
def test_wrong_percentiles(tmp_path: Path, percentiles: tuple[float, float]) -> None:
    with pytest.raises(UserError, match="--stretch"):
        open_scene(write_scene(tmp_path / "scene.tif", noise(1)), stretch=percentiles)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    scale=st.floats(1e-3, 1e6),
    shift=st.floats(-1e6, 1e6),
    low=st.floats(0.0, 49.0),
    high=st.floats(51.0, 100.0),
)
def test_a_stretch_undoes_any_scale_and_shift(seed: int, scale: float, shift: float, low: float, high: float) -> None:
    """A sensor's gain and offset are no part of the picture."""
    values = np.random.default_rng(seed).random((2, 12, 12))
    valid = np.random.default_rng(seed + 1).random((12, 12)) < 0.8
    valid[0, :2] = True
    plain, _ = percentile_stretch(values, valid, (low, high))
    moved, _ = percentile_stretch(values * scale + shift, valid, (low, high))
    image = plain.apply(values)
    assert image.min() >= 0.0 and image.max() <= 1.0
    # Near 1e6 double precision has steps of 1.2e-10, and percentiles 49 and 51 of a range of 1e-3 lie 2e-5 apart: a
    # step is 6e-6 of what lies between them.
    np.testing.assert_allclose(image, moved.apply(values * scale + shift), atol=1e-5)


def test_stretch_of_nan_and_infinity() -> None:
    stretch = Stretch((10.0, 5.0), (20.0, 5.0), None)
    bands = np.array([[[np.nan, np.inf, -np.inf, 15.0]], [[np.nan, np.inf, 5.0, 6.0]]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = stretch.apply(bands)
    np.testing.assert_array_equal(image[:, 0], [[0, 1, 0, 0.5], [0, 1, 0, 1]])
    assert json.loads(json.dumps(stretch.describe())) == {"low": [10.0, 5.0], "high": [20.0, 5.0], "percentiles": None}
    for ends in (((1.0,), (0.0,)), ((math.nan,), (1.0,)), ((), ()), ((1.0,), (2.0, 3.0))):
        with pytest.raises(ValueError, match="stretch"):
            Stretch(*ends, None)
    with pytest.raises(ValueError, match="shape"):
        stretch.apply(np.zeros((3, 2, 2)))


# Where it lies


def test_ground_sample_distance_of_projected_scenes() -> None:
    feet = CRS.from_epsg(2263)  # New York, US survey feet
    turn = Affine.rotation(30.0) * Affine.scale(2.0, -3.0)
    for crs, transform, expected in (
        (UTM, NORTH_UP, (30.0, 30.0)),
        (UTM, Affine(0.5, 0, 0, 0, -2.0, 0), (2.0, 0.5)),
        (UTM, turn, (3.0, 2.0)),
        (feet, Affine(1.0, 0, 0, 0, -2.0, 0), (2 * 1200 / 3937, 1200 / 3937)),
    ):
        assert ground_sample_distance(crs, transform, 100, 200) == pytest.approx(expected, rel=1e-9)


def test_ground_sample_distance_of_degrees() -> None:
    # WGS 84: lengths of a degree at the equator and at 60 degrees, from tables (110.574, 111.320; 111.412, 55.800 km).
    wgs84 = CRS.from_epsg(4326)
    for latitude, expected in ((0.0, (110_574, 111_320)), (60.0, (111_412, 55_800))):
        transform = Affine(1.0, 0, 10.0, 0, -1.0, latitude + 0.5)
        assert ground_sample_distance(wgs84, transform, 1, 1) == pytest.approx(expected, abs=1)
    moon = CRS.from_wkt(
        'GEOGCS["Moon",DATUM["Moon",SPHEROID["Moon",1737400,0]],PRIMEM["Reference",0],UNIT["degree",0.0174532925199433]]'
    )
    degree = math.radians(1) * 1_737_400
    assert ground_sample_distance(moon, Affine(1.0, 0, 0, 0, -1.0, 60.5), 1, 1) == pytest.approx((degree, degree / 2))


def test_ground_sample_distance_of_web_mercator() -> None:
    # At 60 degrees a metre of the map is half a metre on the ground.
    mercator = CRS.from_epsg(3857)
    y = 6378137.0 * math.log(math.tan(math.radians(45 + 30)))
    assert ground_sample_distance(mercator, Affine(10, 0, 0, 0, -10, y), 0, 0) == pytest.approx((5, 5))


def test_ground_sample_distance_is_unknown_without_map() -> None:
    assert ground_sample_distance(None, NORTH_UP, 10, 10) is None
    assert ground_sample_distance(UTM, Affine.identity(), 10, 10) is None
    assert ground_sample_distance(UTM, Affine(1, 1, 0, 1, 1, 0), 10, 10) is None


def test_rotated_scene_keeps_its_transform(tmp_path: Path) -> None:
    turned = NORTH_UP * Affine.rotation(25.0)
    with open_scene(write_scene(tmp_path / "scene.tif", noise(1), transform=turned)) as source:
        assert source.georeferenced and source.transform.almost_equals(turned)
        assert source.ground_sample_distance() == pytest.approx((30.0, 30.0))


def test_transform_without_crs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_scene(tmp_path / "scene.png", noise(1))
    (tmp_path / "scene.pgw").write_text("30\n0\n0\n-30\n500015\n3799985\n")
    with open_scene(path) as source:
        assert source.crs is None and source.georeferenced and source.transform == NORTH_UP
        assert source.ground_sample_distance() is None
    assert "no CRS" in logged(caplog)


def test_control_points_and_polynomials_are_no_map(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    points = [GroundControlPoint(r, c, 5e5 + 30 * c, 38e5 - 30 * r) for r, c in ((0, 0), (0, 9), (9, 0), (9, 9))]
    polynomial = RPC(
        height_off=100.0, height_scale=50.0, lat_off=34.0, lat_scale=1.0, line_off=30.0, line_scale=30.0,
        long_off=75.0, long_scale=1.0, samp_off=45.0, samp_scale=45.0, line_num_coeff=[0.0] * 20,
        line_den_coeff=[1.0] + [0.0] * 19, samp_num_coeff=[0.0] * 20, samp_den_coeff=[1.0] + [0.0] * 19,
    )  # fmt: skip
    for extra, words in (({"gcps": (points, UTM)}, "control points"), ({"rpcs": polynomial}, "RPC")):
        with open_scene(write_scene(tmp_path / "scene.tif", noise(1), **extra)) as source:
            assert source.crs is None and not source.georeferenced
        assert words in logged(caplog)
