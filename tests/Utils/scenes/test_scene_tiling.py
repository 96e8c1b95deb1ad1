"""Tiles cover a scene, share pixels with their neighbours, and their weights blend without a step."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from Utils.scenes.tiles.tile_grid import TileGrid, even_tiles


@settings(deadline=None)
@given(height=st.integers(1, 300), width=st.integers(1, 300), most=st.integers(8, 90))
def test_even_tiles_cover_every_pixel_once_and_are_about_equal(height: int, width: int, most: int) -> None:
    tiles = even_tiles(height, width, most)
    covered = np.zeros((height, width), int)
    for tile in tiles:
        covered[tile.rows, tile.columns] += 1
    assert (covered == 1).all()
    assert [tile.number for tile in tiles] == list(range(len(tiles)))
    for sides in ({tile.height for tile in tiles}, {tile.width for tile in tiles}):
        assert max(sides) <= most and max(sides) - min(sides) <= 1


@settings(deadline=None)
@given(height=st.integers(1, 300), width=st.integers(1, 300), size=st.integers(8, 90), share=st.floats(0.0, 0.9))
def test_tiles_cover_every_pixel_and_share_what_was_asked(height: int, width: int, size: int, share: float) -> None:
    overlap = min(int(share * size), size - 1)
    grid = TileGrid(height, width, size, overlap)
    covered = np.zeros((height, width), int)
    for tile in grid.tiles:
        assert tile.row >= 0 and tile.row + tile.height <= height
        assert tile.column >= 0 and tile.column + tile.width <= width
        assert (tile.height, tile.width) == (min(size, height), min(size, width))
        covered[tile.rows, tile.columns] += 1
    assert covered.min() >= 1
    assert len(grid.tiles) == len(grid)
    for starts, length in ((grid.row_starts, height), (grid.column_starts, width)):
        steps = np.diff(starts)
        assert (steps > 0).all()
        assert (size - steps >= overlap).all()
        assert length <= size or starts[-1] + size == length


@settings(deadline=None)
@given(height=st.integers(1, 90), width=st.integers(1, 90), size=st.integers(12, 50), share=st.floats(0.05, 0.7))
def test_pairs_are_all_tiles_that_meet_and_each_once(height: int, width: int, size: int, share: float) -> None:
    grid = TileGrid(height, width, size, min(max(1, int(share * size)), size - 1))
    found = [(first.number, second.number) for first, second in grid.pairs()]
    tiles = grid.tiles
    wanted = {(a.number, b.number) for a in tiles for b in tiles if a.number < b.number and a.common(b) is not None}
    assert len(found) == len(set(found))
    assert set(found) == wanted


def test_common_pixels_are_the_same_pixels() -> None:
    grid = TileGrid(100, 130, 64, 16)
    scene = np.arange(100 * 130).reshape(100, 130)
    for first, second in grid.pairs():
        mine, theirs = first.common(second)
        np.testing.assert_array_equal(
            scene[first.rows, first.columns][mine], scene[second.rows, second.columns][theirs]
        )


def test_weights_are_positive_smooth_and_whole_at_the_border_of_the_scene() -> None:
    grid = TileGrid(200, 200, 64, 24)
    total = np.zeros((200, 200))
    for tile in grid.tiles:
        weights = grid.weights(tile)
        assert weights.min() > 0 and weights.max() <= 1
        total[tile.rows, tile.columns] += weights
    corner = grid.weights(grid.tiles[0])
    assert corner[0, 0] == 1  # nobody else knows this pixel
    # sin^2 and cos^2: evenly spread ramps that face each other add up to about 1.
    assert total.min() > 0.9 and total.max() < 1.1


@pytest.mark.parametrize(("size", "overlap"), [(64, 64), (64, 70), (64, -1), (0, 0)])
def test_an_overlap_that_is_not_below_the_size_is_refused(size: int, overlap: int) -> None:
    with pytest.raises(ValueError, match="cover"):
        TileGrid(100, 100, size, overlap)
