"""Tiles with a scale and shift of their own come back to one scene: exactly, with noise, with outliers, with tilts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.scenes import disturbed_tiles, keep, landscape, without_affine
from Utils.scenes.joining.mosaic import blend
from Utils.scenes.joining.overlaps import Overlap, measure_overlap
from Utils.scenes.joining.tile_alignment import Anchor, TileAlignment, align
from Utils.scenes.tiles.tile_grid import TileGrid

HEIGHT, WIDTH = 330, 420


def measure(grid: TileGrid, maps: list[NDArray[np.float32]], tilted: bool = False) -> list[Overlap]:
    found = (measure_overlap(a, b, maps[a.number], maps[b.number], tilted) for a, b in grid.pairs())
    return [overlap for overlap in found if overlap is not None]


def blended(
    tmp_path: Path, grid: TileGrid, maps: list[NDArray[np.float32]], alignment: TileAlignment
) -> NDArray[np.float32]:
    strips = [strip for _, strip in blend(grid, keep(tmp_path / "work", grid, maps), alignment)]
    return np.concatenate(strips, axis=1)[0]


@pytest.fixture
def grid() -> TileGrid:
    return TileGrid(HEIGHT, WIDTH, 96, 24)


@pytest.fixture
def truth() -> NDArray[np.float64]:
    return landscape(HEIGHT, WIDTH)


@pytest.mark.parametrize("seed", range(3))
def test_exact_tiles_come_back_to_a_thousandth_of_the_range(
    tmp_path: Path, grid: TileGrid, truth: NDArray[np.float64], seed: int
) -> None:
    maps = disturbed_tiles(grid, truth, seed)
    found = blended(tmp_path, grid, maps, align(grid.tiles, measure(grid, maps)))
    assert np.abs(without_affine(found, truth)).max() < 1e-3


def test_without_alignment_the_same_tiles_are_far_off(
    tmp_path: Path, grid: TileGrid, truth: NDArray[np.float64]
) -> None:
    maps = disturbed_tiles(grid, truth)
    count = len(grid)
    none = TileAlignment(np.ones(count), np.zeros(count), np.zeros((count, 2)), np.zeros(count, np.int32))
    assert np.abs(without_affine(blended(tmp_path, grid, maps, none), truth)).max() > 0.3


@pytest.mark.parametrize("seed", range(3))
def test_tiles_with_two_per_cent_noise_come_back_to_a_hundredth(
    tmp_path: Path, grid: TileGrid, truth: NDArray[np.float64], seed: int
) -> None:
    noisy = disturbed_tiles(grid, truth, seed, noise=0.02)
    alignment = align(grid.tiles, measure(grid, noisy))
    # The same scales and shifts on clean tiles: what is left is the alignment's own error.
    clean = _without_noise(grid, truth, seed)
    found = blended(tmp_path, grid, clean, alignment)
    assert np.abs(without_affine(found, truth)).max() < 1e-2


def _without_noise(grid: TileGrid, truth: NDArray[np.float64], seed: int) -> list[NDArray[np.float32]]:
    """The same draws as with noise, and the noise not added."""
    rng = np.random.default_rng(seed)
    maps = []
    for tile in grid.tiles:
        rng.standard_normal((tile.height, tile.width))
        rng.uniform(-1, 1), rng.uniform(-1, 1)
        values = truth[tile.rows, tile.columns]
        maps.append((np.exp(rng.uniform(-0.7, 0.7)) * values + rng.uniform(-1, 1)).astype(np.float32))
    return maps


def test_no_step_at_the_tiles_borders(tmp_path: Path, grid: TileGrid, truth: NDArray[np.float64]) -> None:
    maps = disturbed_tiles(grid, truth, noise=0.02)
    found = blended(tmp_path, grid, maps, align(grid.tiles, measure(grid, maps))).astype(np.float64)
    steps = np.abs(np.diff(found, axis=1))
    borders = [edge - 1 for start in grid.column_starts for edge in (start, start + 96) if 0 < edge < WIDTH]
    inside = np.setdiff1d(np.arange(WIDTH - 1), borders)
    at_borders, elsewhere = steps[:, borders].mean(), steps[:, inside].mean()
    assert at_borders < 1.05 * elsewhere


def test_tilted_tiles_need_and_get_a_tilt(tmp_path: Path, grid: TileGrid, truth: NDArray[np.float64]) -> None:
    maps = disturbed_tiles(grid, truth, tilt=0.2)
    level = blended(tmp_path / "a", grid, maps, align(grid.tiles, measure(grid, maps)))
    tilted = blended(tmp_path / "b", grid, maps, align(grid.tiles, measure(grid, maps, tilted=True), tilt=True))

    def error(found: NDArray[np.float32]) -> float:
        # A tilt that all tiles share cannot be seen in their overlaps: it may stay.
        rows, columns = np.mgrid[:HEIGHT, :WIDTH]
        basis = np.stack([found.ravel(), np.ones(found.size), rows.ravel(), columns.ravel()], axis=1)
        fitted = basis @ np.linalg.lstsq(basis, truth.ravel(), rcond=None)[0]
        return float(np.sqrt(np.mean((fitted - truth.ravel()) ** 2)))

    assert error(tilted) < 5e-3
    assert error(level) > 4 * error(tilted)


def test_one_wrong_tile_does_not_spoil_its_neighbours(
    tmp_path: Path, grid: TileGrid, truth: NDArray[np.float64]
) -> None:
    maps = disturbed_tiles(grid, truth)
    wrong = len(grid) // 2
    maps[wrong] = np.random.default_rng(5).standard_normal(maps[wrong].shape).astype(np.float32)
    alignment = align(grid.tiles, measure(grid, maps))
    maps = [np.where(number == wrong, np.float32(np.nan), values) for number, values in enumerate(maps)]
    assert np.nanmax(np.abs(without_affine(blended(tmp_path, grid, maps, alignment), truth))) < 1e-2


def test_an_upside_down_tile_gets_no_negative_scale(grid: TileGrid, truth: NDArray[np.float64]) -> None:
    maps = disturbed_tiles(grid, truth)
    maps[3] = -maps[3]
    assert (align(grid.tiles, measure(grid, maps)).scale > 0).all()


def test_outliers_in_an_overlap_do_not_move_it(grid: TileGrid, truth: NDArray[np.float64]) -> None:
    maps = disturbed_tiles(grid, truth)
    first, second = next(grid.pairs())
    clean = measure_overlap(first, second, maps[first.number], maps[second.number])
    spoilt = maps[second.number].copy()
    rng = np.random.default_rng(0)
    spoilt[rng.random(spoilt.shape) < 0.2] += 5.0
    found = measure_overlap(first, second, maps[first.number], spoilt)
    assert clean is not None and found is not None
    assert found.log_ratio == pytest.approx(clean.log_ratio, abs=0.01)


def test_holes_are_left_out_and_islands_are_groups_of_their_own(
    tmp_path: Path, grid: TileGrid, truth: NDArray[np.float64]
) -> None:
    land = truth.copy()
    land[:, 190:240] = np.nan  # wider than any overlap: two islands
    land[40:80, 20:70] = np.nan
    maps = disturbed_tiles(grid, land)
    alignment = align(grid.tiles, measure(grid, maps))
    found = blended(tmp_path, grid, maps, alignment)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(land))
    for part in (slice(0, 190), slice(240, None)):
        assert np.nanmax(np.abs(without_affine(found[:, part], land[:, part]))) < 1e-3
    groups = {alignment.component[tile.number] for tile in grid.tiles if tile.column + tile.width <= 190}
    others = {alignment.component[tile.number] for tile in grid.tiles if tile.column >= 240}
    assert len(groups) == len(others) == 1 and groups != others


def test_heights_in_metres_fix_scale_and_level(grid: TileGrid, truth: NDArray[np.float64]) -> None:
    """Two tiles that know metres are enough for all."""
    metres = 2000.0 + 800.0 * truth
    maps = disturbed_tiles(grid, truth)
    anchors = []
    for number in (0, len(grid) - 1):
        tile = grid.tiles[number]
        rows, columns = np.mgrid[10:80:20, 10:80:20].reshape(2, -1)
        values = maps[number][rows, columns].astype(np.float64)
        heights = metres[tile.rows, tile.columns][rows, columns]
        scale = np.polyfit(values, heights, 1)[0]
        anchors.append(
            Anchor(
                number, float(np.log(scale)), 0.01, rows + 0.5 + tile.row, columns + 0.5 + tile.column, values, heights,
                correlation=1.0, residual=0.0, count=len(values),
            )
        )  # fmt: skip
    alignment = align(grid.tiles, measure(grid, maps), anchors)
    for tile in grid.tiles:
        heights = alignment.apply(tile, maps[tile.number])
        np.testing.assert_allclose(heights, metres[tile.rows, tile.columns], atol=0.01 * 800)


def test_a_scene_smaller_than_a_tile(tmp_path: Path) -> None:
    grid, truth = TileGrid(40, 70, 96, 24), landscape(40, 70)
    maps = disturbed_tiles(grid, truth)
    found = blended(tmp_path, grid, maps, align(grid.tiles, measure(grid, maps)))
    assert np.abs(without_affine(found, truth)).max() < 1e-5


def test_flat_tiles_do_not_break_the_solution(grid: TileGrid) -> None:
    maps = [np.full((tile.height, tile.width), 0.25, np.float32) for tile in grid.tiles]
    alignment = align(grid.tiles, measure(grid, maps))
    assert np.isfinite(alignment.scale).all() and np.isfinite(alignment.shift).all()
    np.testing.assert_allclose(alignment.scale, 1.0, rtol=1e-6)


def test_spread_between_tiles_is_measured_where_they_disagree(tmp_path: Path) -> None:
    grid = TileGrid(64, 112, 64, 16)
    maps = [np.full((64, 64), 3000.0, np.float32), np.full((64, 64), 3002.0, np.float32)]
    store = keep(tmp_path / "work", grid, maps)
    for tile in grid.tiles:
        store.save(tile, np.stack([maps[tile.number], np.full((64, 64), 0.5, np.float32)]))
    none = TileAlignment(np.ones(2), np.zeros(2), np.zeros((2, 2)), np.zeros(2, np.int32))
    layers = np.concatenate([strip for _, strip in blend(grid, store, none, with_spread=True)], axis=1)
    # Alone: the tile's own 0.5. In the middle of the overlap: half of 2 metres apart, and that.
    np.testing.assert_allclose(layers[1][:, :40], 0.5, atol=1e-3)
    np.testing.assert_allclose(layers[1][:, 55:57], np.hypot(0.5, 1.0), rtol=0.02)
