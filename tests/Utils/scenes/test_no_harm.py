"""No harm: whatever the map, the result is not worse than the DEM alone; and that is not worse than bicubic."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import Resampling
from scipy.ndimage import gaussian_filter

from tests.paths import SHARED
from tests.scenes import ORIGIN, UTM, interpolate, landscape, write_raster
from Utils.scenes.fusion.detail_fusion import fuse
from Utils.scenes.fusion.reference import CoarseHeights, Geometry
from Utils.synthetic.terrain import make_scene

Floats = NDArray[np.float64]

SIZE = 240
SCENE = Geometry(SIZE, SIZE, UTM, ORIGIN)
INSIDE = np.s_[8:-8, 8:-8]
GROUNDS = SHARED / "real_data" / "dem_optical"


@cache
def ground(name: str) -> Floats:
    """True heights (SIZE, SIZE) in metres."""
    if name == "hills":
        return 800.0 + 400.0 * landscape(SIZE, SIZE, seed=5)
    if name == "plain":
        return 100.0 + 15.0 * landscape(SIZE, SIZE, seed=6)
    if name == "eroded":
        return np.asarray(make_scene(256, 17, 30.0).height[:SIZE, :SIZE], np.float64)
    files = {
        "Landsat": GROUNDS / "landsat5_para_30m" / "srtm_1arc.tif",
        "Zion": GROUNDS / "dem_only" / "zion_srtm_3arc.tif",
        "lidar": GROUNDS / "alexandria_lidar_2m" / "dtm.tif",
    }
    if not files[name].exists():
        pytest.skip("needs ../shared")
    with rasterio.open(files[name]) as source:
        values = source.read(1, masked=True).astype(np.float64).filled(np.nan)[:SIZE, :SIZE]
    return np.where(np.isfinite(values), values, np.nanmean(values))


def coarse(truth: Floats, factor: int, noise: float, correlated: float = 0.0, void: bool = False) -> CoarseHeights:
    """The mean of the truth in each cell, plus noise."""
    count = SIZE // factor
    cells = truth[: count * factor, : count * factor].reshape(count, factor, count, factor).mean(axis=(1, 3))
    error = np.random.default_rng(3).standard_normal(cells.shape)
    if correlated:
        error = gaussian_filter(error, correlated, mode="wrap")
        error /= error.std()
    cells = cells + noise * error
    if void:
        cells[count // 2 : count // 2 + count // 6, count // 3 : count // 2] = np.nan
    place = Geometry(count, count, UTM, ORIGIN @ Affine.scale(factor))
    return CoarseHeights(cells.astype(np.float32), place, float(factor), {})


def errors(heights: Floats, truth: Floats, where: NDArray[np.bool_] | None = None) -> tuple[float, float]:
    """Root mean square errors of height and of slope, on known pixels of the inside."""
    steep, true = (np.hypot(*np.gradient(values)) for values in (heights, truth))
    known = np.isfinite(steep)[INSIDE] if where is None else (where & np.isfinite(steep))[INSIDE]
    return tuple(float(np.sqrt(((a - b)[INSIDE][known] ** 2).mean())) for a, b in ((heights, truth), (steep, true)))


def alone(dem: CoarseHeights) -> Floats:
    return fuse(dem, SCENE).correction.apply(np.zeros((SIZE, SIZE), np.float32), SCENE).astype(np.float64)


def bicubic(dem: CoarseHeights) -> Floats:
    return interpolate(dem.heights, dem.geometry, SCENE, Resampling.cubic).astype(np.float64)


@pytest.mark.parametrize("name", ["hills", "plain", "eroded", "Landsat", "Zion", "lidar"])
@pytest.mark.parametrize(
    ("factor", "noise", "correlated", "void"),
    [
        (2, 0.0, 0.0, False),
        (3, 3.0, 0.0, False),
        (4, 1.0, 1.5, False),
        (8, 0.0, 0.0, True),
        (8, 3.0, 0.0, False),
        (8, 10.0, 0.0, False),
        (8, 10.0, 1.5, True),
        (15, 3.0, 0.0, False),
        (30, 10.0, 0.0, False),
    ],
)
def test_the_dem_alone_is_not_worse_than_bicubic(
    name: str, factor: int, noise: float, correlated: float, void: bool
) -> None:
    truth = ground(name)
    dem = coarse(truth, factor, noise, correlated, void)
    there = np.kron(np.isfinite(dem.heights), np.ones((factor, factor), bool))
    found, usual = errors(alone(dem), truth, there), errors(bicubic(dem), truth, there)
    # Noise that is correlated over cells looks like ground, and few cells do not tell rough ground from noise.
    limit = 1.1 if correlated else 1.06 if noise >= 10.0 or len(dem.heights) <= 16 else 1.01
    assert found[0] <= limit * usual[0]
    assert found[1] <= limit * usual[1]


def _patches(truth: Floats) -> Floats:
    holed = truth.mean() + 400.0 * gaussian_filter(np.random.default_rng(1).standard_normal(truth.shape), 3.0)
    holed[40:90, 60:130] = np.nan
    return holed


MAPS: dict[str, Callable[[Floats], Floats]] = {
    "constant": lambda truth: np.full_like(truth, truth.mean()),
    "a plane": lambda truth: truth.mean() + np.arange(SIZE)[:, None] + np.zeros_like(truth),
    "noise of pixels": lambda truth: truth.mean() + 50.0 * np.random.default_rng(2).standard_normal(truth.shape),
    "noise of cells": lambda truth: (
        truth.mean() + 400.0 * gaussian_filter(np.random.default_rng(4).standard_normal(truth.shape), 3.0)
    ),
    "upside down": lambda truth: 2 * truth.mean() - truth,
    "another scene": lambda truth: truth[::-1, ::-1],
    "large shapes alone": lambda truth: gaussian_filter(truth, 20.0),
    "NaN patches": _patches,
}


@pytest.mark.parametrize("name", ["hills", "eroded", "Zion"])
@pytest.mark.parametrize("noise", [0.0, 5.0])
@pytest.mark.parametrize("what", MAPS)
def test_a_map_that_knows_nothing_does_no_harm(tmp_path: Path, what: str, noise: float, name: str) -> None:
    truth = ground(name)
    dem = coarse(truth, 8, noise)
    model = MAPS[what](truth).astype(np.float32)
    mosaic = write_raster(tmp_path / "mosaic.tif", model, nodata=np.nan)
    fused = fuse(dem, SCENE, mosaic).correction.apply(model, SCENE).astype(np.float64)
    found, usual = errors(fused, truth, np.isfinite(model)), errors(alone(dem), truth, np.isfinite(fused))
    assert found[0] <= 1.01 * usual[0]
    assert found[1] <= 1.01 * usual[1]


@pytest.mark.parametrize(("seed", "blur"), [(13, 20.0), (16, 5.0), (17, 5.0), (17, 10.0)])
def test_a_blurred_truth_does_no_harm(tmp_path: Path, seed: int, blur: float) -> None:
    """It is right in all large shapes, and what it leaves of the DEM looks like noise."""
    truth = np.asarray(make_scene(256, seed, 30.0).height[:SIZE, :SIZE], np.float64)
    dem, model = coarse(truth, 8, 0.0), gaussian_filter(truth, blur).astype(np.float32)
    mosaic = write_raster(tmp_path / "mosaic.tif", model, nodata=np.nan)
    found = errors(fuse(dem, SCENE, mosaic).correction.apply(model, SCENE).astype(np.float64), truth)
    usual = errors(alone(dem), truth)
    assert found[0] <= 1.01 * usual[0]
    assert found[1] <= 1.01 * usual[1]


def samples_of(image: Floats, dem: CoarseHeights) -> NDArray[np.float32]:
    """An image (bands, SIZE, SIZE) at the samples of cells of 8 pixels."""
    return image.reshape(len(image), SIZE // 2, 2, SIZE // 2, 2).mean(axis=(2, 4)).astype(np.float32)


def shaded(truth: Floats) -> Floats:
    """Bands lit from the north-west, with land cover and grain that slopes do not explain."""
    rng = np.random.default_rng(7)
    down, across = np.gradient(truth)
    cover = gaussian_filter(rng.standard_normal(truth.shape), 6.0)
    light = 0.02 * (down + across) + 0.8 * cover / cover.std() * 0.1
    return np.stack([light + 0.02 * rng.standard_normal(truth.shape) for _ in range(3)])


@pytest.mark.parametrize("name", ["hills", "eroded"])
def test_shading_helps_where_the_image_shows_the_ground_and_does_no_harm_elsewhere(name: str) -> None:
    truth = ground(name)
    dem = coarse(truth, 8, 3.0)
    image = shaded(truth)

    def with_image(bands: Floats) -> tuple[float, float]:
        correction = fuse(dem, SCENE, image=samples_of(bands, dem)).correction
        return errors(correction.apply(np.zeros((SIZE, SIZE), np.float32), SCENE).astype(np.float64), truth)

    usual = errors(alone(dem), truth)
    helped = with_image(image)
    assert helped[0] < 0.9 * usual[0] and helped[1] < 0.95 * usual[1]
    dark = np.zeros_like(image)
    grain = np.random.default_rng(8).standard_normal(image.shape)
    holed = image[:, ::-1, ::-1].copy()
    holed[:, 50:120, 80:200] = np.nan
    for bands in (dark, grain, image[:, ::-1, ::-1], holed):
        found = with_image(bands)
        assert found[0] <= 1.01 * usual[0] and found[1] <= 1.01 * usual[1]


def test_a_bright_sky_is_as_good_as_a_dark_one() -> None:
    """Brightness has no unit: scale, level and sign of the bands change nothing."""
    truth = ground("hills")
    dem, image = coarse(truth, 8, 3.0), shaded(truth)
    nothing = np.zeros((SIZE, SIZE), np.float32)
    plain = fuse(dem, SCENE, image=samples_of(image, dem)).correction.apply(nothing, SCENE)
    other = fuse(dem, SCENE, image=samples_of(5000.0 - 300.0 * image, dem)).correction.apply(nothing, SCENE)
    assert np.abs(plain - other).max() < 0.01 * plain.std()
