"""Tiles in metres, each with an offset (and a tilt) of its own, come back to one scene of 2304 x 1536 pixels."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom

from Utils.scenes.joining.overlaps import measure_overlap
from Utils.scenes.joining.tile_alignment import TileAlignment, align
from Utils.scenes.tiles.tile_grid import TileGrid
from Utils.scoring.control_maps import plane_of

HEIGHT, WIDTH = 1536, 2304
GRID = TileGrid(HEIGHT, WIDTH, 512, 128)
Maps = list[NDArray[np.float32]]


def smooth(rng: np.random.Generator, height: int, width: int, sigma: float) -> NDArray[np.float64]:
    """Waves (height, width) of mean size 1, about ``sigma`` pixels long."""
    values = gaussian_filter(rng.standard_normal((height // 8 + 1, width // 8 + 1)), sigma / 8)
    found = zoom(values, 8, order=1)[:height, :width]
    return np.asarray(found / np.abs(found).mean())


@pytest.fixture(scope="module")
def truth() -> NDArray[np.float64]:
    rng = np.random.default_rng(0)
    return sum(size * smooth(rng, HEIGHT, WIDTH, sigma) for sigma, size in ((192.0, 30.0), (64.0, 8.0), (16.0, 1.5)))


def drawn(truth: NDArray[np.float64], noise: float = 0.0, tilt: float = 0.0) -> Maps:
    """Metres below each tile's summit, upwards; ``noise`` is its mean size, ``tilt`` the most from edge to edge."""
    rng = np.random.default_rng(1)
    maps = []
    for tile in GRID.tiles:
        heights = truth[tile.rows, tile.columns] + noise * smooth(rng, tile.height, tile.width, 32.0)
        down, across = rng.uniform(-tilt, tilt, 2)
        heights += down * np.linspace(-0.5, 0.5, tile.height)[:, None]
        heights += across * np.linspace(-0.5, 0.5, tile.width)
        maps.append((heights - heights.max()).astype(np.float32))
    return maps


def joined(maps: Maps, tilted: bool) -> NDArray[np.float64]:
    found = (measure_overlap(a, b, maps[a.number], maps[b.number], tilted) for a, b in GRID.pairs())
    overlaps = [overlap for overlap in found if overlap is not None]
    return blended(maps, align(GRID.tiles, overlaps, tilt=tilted, scale_known=True))


def blended(maps: Maps, alignment: TileAlignment) -> NDArray[np.float64]:
    heights, weights = np.zeros((HEIGHT, WIDTH)), np.zeros((HEIGHT, WIDTH))
    for tile, values in zip(GRID.tiles, maps, strict=True):
        heights[tile.rows, tile.columns] += GRID.weights(tile) * alignment.apply(tile, values)
        weights[tile.rows, tile.columns] += GRID.weights(tile)
    return heights / weights


def mae(heights: NDArray[np.float64], truth: NDArray[np.float64]) -> float:
    """Mean error without the offset that no overlap tells."""
    error = heights - truth
    return float(np.abs(error - np.median(error)).mean())


def test_exact_tiles_come_back_exactly_with_a_plane_term_or_without(truth: NDArray[np.float64]) -> None:
    maps = drawn(truth)
    assert mae(joined(maps, tilted=False), truth) < 1e-3
    assert mae(joined(maps, tilted=True), truth) < 1e-3
    count = len(GRID)
    apart = TileAlignment(np.ones(count), np.zeros(count), np.zeros((count, 2)), np.zeros(count, np.int32))
    assert mae(blended(maps, apart), truth) > 10, "without offsets"


def test_smooth_noise_does_not_grow(truth: NDArray[np.float64]) -> None:
    maps = drawn(truth, noise=0.5)
    assert mae(joined(maps, tilted=False), truth) < 2 * 0.5
    assert mae(joined(maps, tilted=True), truth) < 2 * 0.5, "a plane term that nothing needs does little harm"


def without_plane(heights: NDArray[np.float64], truth: NDArray[np.float64]) -> NDArray[np.float64]:
    """Heights without the plane by which they differ from the truth: the mean tilt of all tiles is that of the scene,
    for all that overlaps tell. Known heights tell it."""
    plane = plane_of((heights - truth)[::8, ::8].astype(np.float32), np.ones((HEIGHT // 8, WIDTH // 8), bool))
    return np.asarray(heights - zoom(plane, 8, order=1, grid_mode=True, mode="grid-mirror"))


def test_tilts_of_five_metres_need_and_get_the_plane_term(truth: NDArray[np.float64]) -> None:
    maps = drawn(truth, tilt=5.0)
    level, tilted = joined(maps, tilted=False), joined(maps, tilted=True)
    assert mae(without_plane(tilted, truth), truth) < 2 * 0.3
    assert mae(without_plane(level, truth), truth) > 2 * 0.3
    assert mae(tilted, truth) < mae(level, truth)
