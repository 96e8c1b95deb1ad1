"""Blocks: tiles on two sides are at least the gap apart, whatever shows the ground."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS
from rasterio.warp import transform

from tests.Utils.data.cutting.ground import ORIGIN, UTM
from Utils.core.errors import UserError
from Utils.data.cutting.blocks import TEST, BlockLayout, Place, deal, lay_tiles, wanted_sides
from Utils.rasters.geometry import Geometry

FIRST = Geometry(180, 160, UTM, ORIGIN)
# The same ground, seen again: shifted by whole pixels, turned, in finer pixels, in the next zone, and upside down.
SHIFTED = Geometry(120, 120, UTM, ORIGIN @ Affine.translation(-40, 33))
TURNED = Geometry(130, 130, UTM, ORIGIN @ Affine.translation(80, -20) @ Affine.rotation(30.0))
FINER = Geometry(220, 220, UTM, ORIGIN @ Affine.scale(0.5))
ON_ITS_HEAD = Geometry(180, 160, UTM, ORIGIN @ Affine.translation(160, 180) @ Affine.rotation(180.0))


def next_zone() -> Geometry:
    crs = CRS.from_epsg(32631)
    xs, ys = transform(UTM, crs, [ORIGIN.c], [ORIGIN.f])
    return Geometry(180, 160, crs, Affine(10.0, 0.0, xs[0] + 3.3, 0.0, -10.0, ys[0] - 4.4))


def distance(first: np.ndarray, second: np.ndarray) -> float:
    """The least distance between two convex outlines (N, 2); 0 where they overlap."""
    from scipy.spatial.distance import cdist

    for one in (first, second):
        for start, end in itertools.pairwise(one):
            normal = np.array([end[1] - start[1], start[0] - end[0]])
            a, b = first @ normal, second @ normal
            if a.max() <= b.min() + 1e-6 or b.max() <= a.min() + 1e-6:
                return float(cdist(_dense(first), _dense(second)).min())
    return 0.0


def _dense(outline: np.ndarray) -> np.ndarray:
    share = np.linspace(0.0, 1.0, 17)[:, None]
    return np.concatenate([start + share * (end - start) for start, end in itertools.pairwise(outline)])


@pytest.mark.parametrize("overlap", [0, 8])
@pytest.mark.parametrize("gap", [0, 5])
@pytest.mark.parametrize(
    "grids",
    [[FIRST], [FIRST, SHIFTED], [FIRST, TURNED], [FIRST, FINER], [FIRST, ON_ITS_HEAD], [FIRST, next_zone()]],
    ids=["one", "shifted", "turned", "finer", "on its head", "next zone"],
)
def test_tiles_on_two_sides_are_a_gap_apart(grids: list[Geometry], gap: int, overlap: int) -> None:
    layout = BlockLayout(16, overlap, gap, 3)
    places, _ = lay_tiles([list(range(len(grids)))], grids, layout, 4)
    assert {place.scene for place in places} == set(range(len(grids)))
    assert len(set(places)) == len(places)
    sides = deal(places, wanted_sides(0.25, 3), seed=1)
    outlines = []
    for place in places:
        grid = grids[place.scene]
        assert 0 <= place.row <= grid.height - 16 and 0 <= place.column <= grid.width - 16
        rows, columns = grids[0].outline_of(grid.window(place.row, place.column, 16, 16), points=2)
        outlines.append(np.column_stack([rows, columns]))
    boxes = np.array([[*outline.min(axis=0), *outline.max(axis=0)] for outline in outlines])  # (N, 4)
    low, high = boxes[:, None, :2], boxes[:, None, 2:]
    apart = np.maximum(low - boxes[:, 2:], boxes[:, :2] - high).max(axis=-1)  # (N, N), between the boxes
    own = np.array([sides[place.block] for place in places])
    others = own[:, None] != own
    assert others.any()
    # Boxes may meet where turned tiles do not.
    for first, second in np.argwhere(others & (apart < gap - 0.02)):
        assert distance(outlines[first], outlines[second]) >= gap - 0.02


def test_overlapping_tiles_lie_as_asked_and_one_image_loses_no_block() -> None:
    places, _ = lay_tiles([[0]], [FIRST], BlockLayout(16, 4, 8, 3), 1)
    block = sorted((place.row, place.column) for place in places if place.block == (0, 0, 0))
    assert block == [(row, column) for row in (0, 12, 24) for column in (0, 12, 24)]
    # The next block begins after the side of three overlapping tiles, 40, and the gap.
    assert min(place.column for place in places if place.block == (0, 0, 1)) == 48


def test_another_image_of_the_same_grid_loses_no_tile() -> None:
    layout = BlockLayout(16, 0, 4, 2)
    alone, _ = lay_tiles([[0]], [FIRST], layout, 1)
    both, _ = lay_tiles([[0, 1]], [FIRST, Geometry(180, 160, UTM, ORIGIN)], layout, 1)
    assert len(both) == 2 * len(alone)


def test_blocks_are_as_large_as_leaves_enough_of_them() -> None:
    sizes = [lay_tiles([[0]], [FIRST], BlockLayout(16, 0, 4, 0), sides)[1].tiles for sides in (1, 6, 30)]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] > sizes[-1] == 1


def test_shares_are_kept_and_the_draw_follows_the_seed() -> None:
    places = [Place(0, row, column, (0, row // 4, column // 4)) for row in range(40) for column in range(40)]
    wanted = wanted_sides(0.2, 4)
    assert wanted == pytest.approx({TEST: 0.2, "1": 0.2, "2": 0.2, "3": 0.2, "4": 0.2})
    sides = deal(places, wanted, 1)
    assert set(Counter(sides[place.block] for place in places).values()) == {320}
    assert deal(places, wanted, 1) == sides != deal(places, wanted, 2)


def test_too_few_blocks_are_refused() -> None:
    places = [Place(0, 0, column, (0, 0, column)) for column in range(3)]
    with pytest.raises(UserError, match=r"3 tiles lie in 3 blocks, too few for 4 sides"):
        deal(places, wanted_sides(0.2, 3), 1)
    assert set(deal(places, wanted_sides(0.2, 2), 1).values()) == {TEST, "1", "2"}
    assert wanted_sides(0.0, 0) == {"1": 1.0}
