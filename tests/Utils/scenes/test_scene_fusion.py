"""Metres: a coarse DEM gives the low frequencies, the model the detail that the DEM supports; points give a level."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import Resampling
from scipy.ndimage import gaussian_filter

from tests.scenes import ORIGIN, UTM, interpolate, landscape, write_raster
from Utils.core.errors import UserError
from Utils.scenes.fusion.anchors import Points, anchor_to_points, anchor_to_reference, fit_line
from Utils.scenes.fusion.crossed_gain import crossed_gains
from Utils.scenes.fusion.detail_fusion import fuse
from Utils.scenes.fusion.points import correct_to_points
from Utils.scenes.fusion.points_on_scene import read_points
from Utils.scenes.fusion.reference import CoarseHeights, Geometry, average_onto, border_cells, read_reference
from Utils.scenes.fusion.void_filling import fill_smoothly
from Utils.scenes.tiles.tile_grid import Tile

SIZE, FACTOR = 256, 8
SCENE = Geometry(SIZE, SIZE, UTM, ORIGIN)
COARSE = ORIGIN @ Affine.scale(FACTOR)


@pytest.fixture
def truth() -> NDArray[np.float64]:
    return 1000.0 + 500.0 * landscape(SIZE, SIZE)


def averaged(truth: NDArray[np.float64], factor: int = FACTOR) -> NDArray[np.float32]:
    size = truth.shape[0] // factor
    return truth.reshape(size, factor, size, factor).mean(axis=(1, 3)).astype(np.float32)


def rms(values: NDArray) -> float:
    return float(np.sqrt(np.nanmean(np.asarray(values, np.float64) ** 2)))


# Reading a reference


def test_a_reference_on_the_scenes_grid_is_read_as_it_is(tmp_path: Path, truth: NDArray[np.float64]) -> None:
    coarse = averaged(truth)
    coarse[3, 5] = -32768
    path = write_raster(tmp_path / "dem.tif", coarse, COARSE, nodata=-32768)
    found = read_reference(path, SCENE)
    assert found.pixels_a_cell == pytest.approx(FACTOR, rel=1e-6)
    inner = found.part(SCENE)
    assert inner is not None
    top, left = (round(value) for value in (~found.geometry.transform @ (ORIGIN.c, ORIGIN.f))[::-1])
    under = found.heights[top : top + 32, left : left + 32]
    np.testing.assert_array_equal(np.isnan(under), coarse == -32768)
    np.testing.assert_allclose(under[np.isfinite(under)], coarse[coarse != -32768])


def test_a_reference_in_another_system_lies_where_it_should(tmp_path: Path) -> None:
    """A plane in UTM, given in degrees: read on its own grid, and brought back by interpolation."""
    wgs84 = CRS.from_epsg(4326)
    xs, ys = SCENE.outline(wgs84)
    step = 0.002
    west, north = xs.min() - 0.02, ys.max() + 0.02
    size = int(0.13 / step)
    place = Geometry(size, size, wgs84, Affine(step, 0, west, 0, -step, north))
    rows, columns = np.mgrid[:SIZE, :SIZE] + 0.5
    plane = (1000 + 2.0 * columns + 1.0 * rows).astype(np.float32)
    wide = Geometry(SIZE + 400, SIZE + 400, UTM, ORIGIN @ Affine.translation(-200, -200))
    rows, columns = np.mgrid[: SIZE + 400, : SIZE + 400] + 0.5 - 200
    cells = average_onto(place, (1000 + 2.0 * columns + 1.0 * rows).astype(np.float32), wide)
    path = write_raster(tmp_path / "dem.tif", np.nan_to_num(cells, nan=-9999.0), place.transform, wgs84, nodata=-9999.0)
    found = read_reference(path, SCENE)
    back = interpolate(found.heights, found.geometry, SCENE, Resampling.cubic)
    # GDAL's own tolerance for reprojection is an eighth of a pixel, here of a cell of about 7 pixels.
    np.testing.assert_allclose(back, plane, atol=3.0 * found.pixels_a_cell / 8 + 0.5)


def test_a_reference_as_fine_as_the_scene_is_averaged(tmp_path: Path, truth: NDArray[np.float64]) -> None:
    path = write_raster(tmp_path / "dem.tif", truth.astype(np.float32))
    found = read_reference(path, SCENE)
    assert found.pixels_a_cell == pytest.approx(2.0, rel=0.01)
    back = interpolate(found.heights, found.geometry, SCENE, Resampling.cubic)
    assert rms(back - truth) < 0.1 * truth.std()


def test_feet_become_metres_and_scale_tags_are_applied(tmp_path: Path) -> None:
    import rasterio

    path = write_raster(tmp_path / "dem.tif", np.full((32, 32), 1000, np.int16), COARSE)
    with rasterio.open(path, "r+") as target:
        target.units, target.scales, target.offsets = ("ft",), (0.5,), (10.0,)
    found = read_reference(path, SCENE)
    np.testing.assert_allclose(np.nanmedian(found.heights), (1000 * 0.5 + 10) * 0.3048, rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"crs": None}, "no CRS"),
        ({"transform": COARSE @ Affine.translation(500, 0)}, "does not overlap"),
        ({"bands": 3}, "3 bands"),
        ({"void": True}, "nothing but voids"),
    ],
)
def test_an_unusable_reference_is_refused(tmp_path: Path, change: dict, says: str) -> None:
    values = np.full((change.get("bands", 1), 32, 32), -9999.0 if change.get("void") else 5.0, np.float32)
    path = tmp_path / "dem.tif"
    write_raster(path, values, change.get("transform", COARSE), change.get("crs", UTM), nodata=-9999.0)
    with pytest.raises(UserError, match=says):
        read_reference(path, SCENE)


def test_a_reference_that_is_missing_or_no_raster_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.tif").write_text("heights")
    for name in ("absent.tif", "text.tif"):
        with pytest.raises(UserError, match="cannot be read"):
            read_reference(tmp_path / name, SCENE)


def test_cells_on_the_border_are_known(tmp_path: Path) -> None:
    shifted = Geometry(33, 33, UTM, COARSE @ Affine.translation(-0.5, -0.5))
    halved = border_cells(CoarseHeights(np.zeros((33, 33), np.float32), shifted, 8.0, {}), SCENE)
    assert halved[0].all() and halved[-1].all() and halved[:, 0].all() and halved[:, -1].all()
    assert not halved[1:-1, 1:-1].any()
    whole = Geometry(32, 32, UTM, COARSE)
    assert not border_cells(CoarseHeights(np.zeros((32, 32), np.float32), whole, 8.0, {}), SCENE).any()


# Lines


def test_a_line_is_not_moved_by_outliers() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 1, 400)
    y = 300 * x + 50 + rng.normal(0, 5, 400)
    y[:80] += 400
    line = fit_line(x, y)
    assert line.scale == pytest.approx(300, rel=0.03)
    assert line.residual == pytest.approx(5, rel=0.5)
    assert line.inside[80:].mean() > 0.95 and not line.inside[:80].any()


def test_a_tile_is_fitted_to_the_reference(tmp_path: Path, truth: NDArray[np.float64]) -> None:
    reference = read_reference(write_raster(tmp_path / "dem.tif", averaged(truth), COARSE), SCENE)
    tile = Tile(7, 60, 90, 96, 96)
    values = ((truth[tile.rows, tile.columns] - 800.0) / 400.0).astype(np.float32)
    anchor = anchor_to_reference(tile, values, SCENE, reference)
    assert anchor is not None and anchor.supports and anchor.tile == 7
    assert np.exp(anchor.log_scale) == pytest.approx(400.0, rel=1e-3)
    np.testing.assert_allclose(400.0 * anchor.values + 800.0, anchor.heights, atol=0.5)
    # Cells that reach beyond the tile or into a hole would have another mean: none is used.
    values[30:60, 30:60] = np.nan
    anchor = anchor_to_reference(tile, values, SCENE, reference)
    assert anchor is not None
    assert np.exp(anchor.log_scale) == pytest.approx(400.0, rel=1e-3)


@pytest.mark.parametrize("what", ["upside down", "noise", "flat"])
def test_a_tile_that_does_not_go_with_the_heights_is_not_supported(
    tmp_path: Path, truth: NDArray[np.float64], what: str
) -> None:
    reference = read_reference(write_raster(tmp_path / "dem.tif", averaged(truth), COARSE), SCENE)
    tile = Tile(0, 0, 0, 128, 128)
    values = {
        "upside down": -truth[:128, :128],
        "noise": np.random.default_rng(3).standard_normal((128, 128)),
        "flat": np.full((128, 128), 0.5),
    }[what]
    anchor = anchor_to_reference(tile, values.astype(np.float32), SCENE, reference)
    assert anchor is None or not anchor.supports


# Fusion


def test_supported_detail_is_kept_and_invented_detail_is_not() -> None:
    rng = np.random.default_rng(0)
    left_open = rng.standard_normal((48, 48)).astype(np.float32)
    noise = rng.normal(0, 0.5, (48, 48)).astype(np.float32)
    for strength in (1.0, 0.5):
        found = crossed_gains(left_open + noise, [strength * left_open])
        assert np.median(found.gains[0]) == pytest.approx(1 / strength, rel=0.15)
        assert found.explained_of_all == pytest.approx(0.8, abs=0.05)
    invented = rng.standard_normal((48, 48)).astype(np.float32)
    for wrong in (invented, -left_open, np.zeros_like(invented)):
        found = crossed_gains(left_open, [wrong])
        assert np.median(found.gains[0]) < 0.1 and found.explained_of_all < 0.02


def test_of_two_maps_each_gets_its_own_share() -> None:
    rng = np.random.default_rng(1)
    one, other, invented = (rng.standard_normal((48, 48)).astype(np.float32) for _ in range(3))
    found = crossed_gains(one + 0.5 * other, [one, other, invented])
    assert [float(np.median(gain)) for gain in found.gains] == pytest.approx([1.0, 0.5, 0.0], abs=0.08)


@pytest.mark.parametrize("noise", [0.0, 3.0])
def test_a_fused_scene_agrees_with_its_reference_and_beats_its_interpolation(
    tmp_path: Path, truth: NDArray[np.float64], noise: float
) -> None:
    rng = np.random.default_rng(0)
    coarse = averaged(truth) + rng.normal(0, noise, (32, 32)).astype(np.float32)
    reference = read_reference(write_raster(tmp_path / "dem.tif", coarse, COARSE), SCENE)
    # A model whose detail is right and whose large shapes are wrong, as such models' are.
    rows, columns = np.mgrid[:SIZE, :SIZE] / SIZE
    model = (0.9 * truth + 300 * np.sin(2 * rows) * columns).astype(np.float32)
    mosaic = write_raster(tmp_path / "mosaic.tif", model, nodata=np.nan)
    correction = fuse(reference, SCENE, mosaic).correction
    fused = correction.apply(model, SCENE)
    cubic = interpolate(reference.heights, reference.geometry, SCENE, Resampling.cubic)
    assert rms(fused - truth) < 0.6 * rms(cubic - truth)
    seen = averaged(fused.astype(np.float64)) - coarse
    assert rms(seen[2:-2, 2:-2]) < 0.1 * rms(averaged(truth - truth.mean()))
    # Strip by strip is the same as at once.
    strip = correction.apply(model[64:128], SCENE.window(64, 0, 64, SIZE))
    np.testing.assert_allclose(strip, fused[64:128], atol=0.05)


def test_a_model_that_knows_nothing_leaves_the_reference(tmp_path: Path, truth: NDArray[np.float64]) -> None:
    reference = read_reference(write_raster(tmp_path / "dem.tif", averaged(truth), COARSE), SCENE)
    model = (1000 + 100 * np.random.default_rng(1).standard_normal((SIZE, SIZE))).astype(np.float32)
    mosaic = write_raster(tmp_path / "mosaic.tif", model, nodata=np.nan)
    fused = fuse(reference, SCENE, mosaic).correction.apply(model, SCENE)
    cubic = interpolate(reference.heights, reference.geometry, SCENE, Resampling.cubic)
    assert rms(fused - truth) < 1.05 * rms(cubic - truth)


def test_a_void_is_filled_from_the_model_without_a_step(tmp_path: Path, truth: NDArray[np.float64]) -> None:
    coarse = averaged(truth)
    coarse[10:18, 12:22] = -9999
    reference = read_reference(write_raster(tmp_path / "dem.tif", coarse, COARSE, nodata=-9999), SCENE)
    model = (truth + 200.0).astype(np.float32)
    mosaic = write_raster(tmp_path / "mosaic.tif", model, nodata=np.nan)
    correction = fuse(reference, SCENE, mosaic).correction
    fused = correction.apply(model, SCENE)
    void = np.zeros((SIZE, SIZE), bool)
    void[80:144, 96:176] = True
    assert rms((fused - truth)[void]) < 10.0  # of a range of 500, though the model is 200 off
    np.testing.assert_array_equal(correction.filled(SCENE), void)


def test_a_membrane_is_harmonic_and_keeps_what_is_known() -> None:
    rows, columns = np.mgrid[:40, :50].astype(np.float32)
    plane = 3 * rows - 2 * columns + 7
    holed = plane.copy()
    holed[10:30, 15:40] = np.nan
    filled = fill_smoothly(holed)
    np.testing.assert_allclose(filled, plane, atol=1e-2)
    np.testing.assert_array_equal(filled[np.isfinite(holed)], plane[np.isfinite(holed)])


# Points


def test_points_are_read_and_those_beside_the_scene_left_out(tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    lines = [f"{500_000 + 30 * (column + 0.5)};{3_800_000 - 30 * 10.5};{column}" for column in range(12)]
    path.write_text("X;y;Height;track\n" + "\n".join(f"{line};a" for line in lines) + "\n0;0;5;b\n", encoding="utf-8")
    found = read_points(path, "EPSG:32643", SCENE)
    np.testing.assert_allclose(found.columns, np.arange(12) + 0.5, atol=1e-6)
    np.testing.assert_allclose(found.rows, 10.5, atol=1e-6)
    np.testing.assert_allclose(found.heights, np.arange(12))


@pytest.mark.parametrize(
    ("text", "crs", "says"),
    [
        ("lon,lat,h\n1,2,3\n", "EPSG:4326", "no column x"),
        ("x,y,height\n1,2,high\n", "EPSG:4326", "line 2: 'high' is no number"),
        ("x,y,height\n", "EPSG:4326", "holds no points"),
        ("x,y,height\n1,2,3\n", "EPSG:4326", "0 of 1 points lie on the scene"),
        ("x,y,height\n1,2,3\n", "nowhere", "nowhere"),
    ],
)
def test_unusable_points_are_refused(tmp_path: Path, text: str, crs: str, says: str) -> None:
    path = tmp_path / "points.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=says):
        read_points(path, crs, SCENE)


def some_points(truth: NDArray[np.float64], count: int = 600, seed: int = 0) -> Points:
    rng = np.random.default_rng(seed)
    rows, columns = rng.uniform(1, SIZE - 1, (2, count))
    heights = truth[rows.astype(int), columns.astype(int)] + rng.normal(0, 0.3, count)
    heights[::50] += 300  # clouds
    return Points(rows.astype(int) + 0.5, columns.astype(int) + 0.5, heights)


def test_a_tile_is_fitted_to_points(truth: NDArray[np.float64]) -> None:
    tile = Tile(2, 50, 60, 128, 128)
    values = ((truth[tile.rows, tile.columns] - 800.0) / 400.0).astype(np.float32)
    anchor = anchor_to_points(tile, values, some_points(truth))
    assert anchor is not None and anchor.supports
    assert np.exp(anchor.log_scale) == pytest.approx(400.0, rel=0.01)


def test_a_smooth_correction_carries_a_mosaic_to_points(tmp_path: Path, truth: NDArray[np.float64]) -> None:
    rows, columns = np.mgrid[:SIZE, :SIZE] / SIZE
    model = (truth + 80 * np.sin(3 * rows) + 60 * columns**2 - 40).astype(np.float32)
    mosaic = write_raster(tmp_path / "mosaic.tif", model, nodata=np.nan)
    found = correct_to_points(some_points(truth), mosaic, SCENE, spacing=16)
    correction, before = found.correction, found.before
    after = correction.apply(model, SCENE) - truth
    assert rms(after) < 2.0 < 0.1 * rms(model - truth)
    assert np.isfinite(before).all()


def test_the_spread_is_brought_to_what_the_reference_shows(tmp_path: Path, truth: NDArray[np.float64]) -> None:
    """A model whose stated spread is ten times too large: where the reference can check it, it is cut back."""
    rng = np.random.default_rng(1)
    error = gaussian_filter(rng.standard_normal((SIZE, SIZE)), 3.0) * 150.0  # some 14 m
    coarse = averaged(truth)
    coarse[12:20, 12:20] = -9999
    reference = read_reference(write_raster(tmp_path / "dem.tif", coarse, COARSE, nodata=-9999), SCENE)
    model = (truth + error).astype(np.float32)
    spread = np.full((SIZE, SIZE), 140.0, np.float32)
    mosaic = write_raster(tmp_path / "mosaic.tif", np.stack([model, spread]), nodata=np.nan)
    correction = fuse(reference, SCENE, mosaic, with_spread=True).correction
    sigma = correction.uncertainty(spread, SCENE)
    outside = ~correction.filled(SCENE)
    wrong = rms((correction.apply(model, SCENE) - truth)[outside])
    assert 0.5 * wrong < np.median(sigma[outside]) < 2.5 * wrong
    assert np.median(sigma[~outside]) > 60.0  # in the void nothing speaks against it
