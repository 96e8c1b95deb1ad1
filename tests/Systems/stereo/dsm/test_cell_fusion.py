from __future__ import annotations

import numpy as np
from affine import Affine
from rasterio.crs import CRS

from Systems.stereo.dsm.cell_fusion import Points, fuse_points, islands, unsupported
from Utils.rasters.geometry import Geometry

GRID = Geometry(20, 30, CRS.from_epsg(32632), Affine(1.0, 0.0, 500_000.0, 0.0, -1.0, 20.0))


def points(x: np.ndarray, y: np.ndarray, height: np.ndarray, weight: float = 1.0) -> Points:
    count = len(x)
    return Points(500_000.0 + x, y, height, np.full(count, weight), np.full(count, 2, np.intp))


def test_a_slope_comes_back_from_points_between_the_cells() -> None:
    drawn = np.random.default_rng(0).uniform(0, 1, (2, 6000))
    x, y = drawn[0] * 30, drawn[1] * 20
    cells = fuse_points(points(x, y, 0.3 * x), GRID, reach=1, apart=10.0)
    columns = np.arange(30) + 0.5
    assert np.abs(cells.height[1:-1, 1:-1] - 0.3 * columns[1:-1]).max() < 0.15
    assert (cells.views == 2).all()


def test_a_cell_at_the_edge_of_a_roof_is_roof_or_ground() -> None:
    drawn = np.random.default_rng(1).uniform(0, 1, (2, 8000))
    x, y = drawn[0] * 30, drawn[1] * 20
    roof = np.where(x < 15.3, 10.0, 0.0)
    cells = fuse_points(points(x, y, roof), GRID, reach=1, apart=4.0)
    assert set(np.unique(cells.height.round(6))) <= {0.0, 10.0}
    assert cells.spread.max() < 1e-6


def test_a_point_counts_in_its_own_cell_alone_without_reach() -> None:
    cells = fuse_points(points(np.array([3.2]), np.array([19.9]), np.array([7.0])), GRID, reach=0, apart=1.0)
    assert np.argwhere(np.isfinite(cells.height)).tolist() == [[0, 3]]
    assert cells.views.sum() == 2 and cells.height[0, 3] == 7.0
    outside = fuse_points(points(np.array([-3.0]), np.array([5.0]), np.array([7.0])), GRID, reach=1, apart=1.0)
    assert np.isnan(outside.height).all()


def test_what_stands_alone_is_found() -> None:
    height = np.zeros((20, 30))
    height[10, 10] = 50.0  # a spike
    height[4:14, 14:26] = np.nan
    height[9, 20] = 0.0  # a cell in a hole
    alone = unsupported(height, apart=2.0, least=0.25)
    assert np.argwhere(alone).tolist() == [[9, 20], [10, 10]]


def test_small_areas_that_touch_nothing_are_islands() -> None:
    known = np.zeros((40, 60), bool)
    known[5:10, 5:10] = True  # 25 cells
    known[20:32, 20:32] = True  # 144 cells
    known[36:, 50:53] = True  # at the border: it may go on
    found = islands(known)
    assert found.sum() == 25 and found[5:10, 5:10].all()
