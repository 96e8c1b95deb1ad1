"""Suspect heights: undeclared voids and wrong cells are found, real terrain is left alone."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from rasterio.crs import CRS

from tests.scenes import landscape
from Utils.rasters.suspect_heights import Judgement, Suspects, find_fill_values, find_suspects, ground_limits
from Utils.rasters.wrong_cells import find_wrong_cells

Floats = NDArray[np.float64]
EARTH = (-11_000.0, 9_000.0)
ANYWHERE = (-np.inf, np.inf)


def judged(
    heights: Floats, cell: float = 30.0, dtype: str = "int16", limits: tuple[float, float] = EARTH, **known: frozenset
) -> Suspects:
    return find_suspects(heights, ~np.isnan(heights), heights, Judgement(dtype, cell, limits, **known))


@pytest.fixture
def mountains() -> Floats:
    return np.rint(700.0 + 900.0 * landscape(96, 96))


@pytest.mark.parametrize("limits", [EARTH, ANYWHERE])
@pytest.mark.parametrize("value", [-32768, -32767, -9999, -999, 0, 9999, 32767, 65535, 55537])
def test_usual_void_values_are_found_without_a_tag(
    mountains: Floats, value: float, limits: tuple[float, float]
) -> None:
    void = np.zeros(mountains.shape, bool)
    void[20:31, 40:60] = void[70, 80] = void[:5, :5] = True
    mountains[void] = value
    found = judged(mountains, limits=limits)
    np.testing.assert_array_equal(found.mask, void)
    np.testing.assert_array_equal(found.voids, void)


@pytest.mark.parametrize("value", [3.4e38, -3.4028235e38, 1e30, np.inf, -1.7e308])
def test_values_of_no_height_are_found_wherever_they_are(mountains: Floats, value: float) -> None:
    mountains[10, 10:12] = value
    assert judged(mountains, dtype="float64").voids.sum() == 2


def test_the_sea_is_no_void() -> None:
    land = 3000.0 * landscape(96, 96) - 1200.0
    assert not judged(np.maximum(np.rint(land), 0.0)).mask.any()
    assert not judged(np.maximum(np.rint(land), 0.0), cell=240.0).mask.any()


def test_heights_of_a_sea_floor_are_no_voids() -> None:
    """Real depths that happen to be the numbers of voids: -9999 in a trench, -999 on a slope."""
    depths = np.rint(np.linspace(-10_500.0, -300.0, 256))[None, :] + np.zeros((256, 1))
    depths[:, 60:70], depths[:, 200:204] = -9999.0, -999.0
    depths = np.sort(depths, axis=1)
    assert not judged(depths, cell=450.0).mask.any()


def test_a_void_as_wide_as_the_window_is_what_its_value_is_elsewhere() -> None:
    assert judged(np.full((20, 20), -9999.0)).voids.all()
    assert not judged(np.full((20, 20), 0.0)).voids.any()
    assert not judged(np.full((20, 20), -9999.0), ground=frozenset([-9999.0])).voids.any()
    assert judged(np.full((20, 20), 0.0), void=frozenset([0.0])).voids.all()


def test_heights_that_no_ground_has_depend_on_the_body(mountains: Floats) -> None:
    mountains[30:40, 30:40] = 15_000.0
    assert judged(mountains).impossible.sum() == 100
    assert not judged(mountains, limits=ANYWHERE).mask.any()
    assert ground_limits(CRS.from_epsg(32643)) == ground_limits(CRS.from_epsg(4326)) == EARTH
    assert ground_limits(CRS.from_proj4("+proj=longlat +R=3396190 +no_defs")) == ANYWHERE
    assert ground_limits(None) == ANYWHERE


@pytest.mark.parametrize("value", [0.0, 8000.0, -500.0])
@pytest.mark.parametrize("cells", [[(40, 30)], [(40, 30), (40, 31)], [(40, 30), (41, 31), (41, 30)], [(0, 0)]])
@pytest.mark.parametrize("cell", [5.0, 30.0, 240.0])
def test_wrong_cells_are_found(cell: float, cells: list[tuple[int, int]], value: float) -> None:
    heights = 1200.0 + 300.0 * landscape(96, 96, seed=2)
    wrong = np.zeros(heights.shape, bool)
    wrong[tuple(np.transpose(cells))] = True
    heights[wrong] = value
    np.testing.assert_array_equal(judged(heights, cell).mask, wrong)


def pyramids() -> Floats:
    """Summits of 45 degrees, one of them a single cell."""
    rows, columns = np.mgrid[:96, :96]
    slopes = [top - 30.0 * np.hypot(rows - r, columns - c) for top, r, c in ((900, 30, 30), (30, 80, 80), (95, 70, 20))]
    return np.maximum(np.maximum.reduce(slopes), 0.0)


def city() -> Floats:
    rng = np.random.default_rng(0)
    heights = 5.0 + rng.normal(0.0, 0.2, (128, 128))
    for row, column, side, top in zip(
        *rng.integers(2, 120, (2, 40)), rng.integers(2, 6, 40), rng.uniform(9, 250, 40), strict=True
    ):
        heights[row : row + side, column : column + side] = top
    return heights


def cliff() -> Floats:
    rows, columns = np.mgrid[:128, :128]
    return np.where(columns + 12 * np.sin(rows / 9.0) > 64, 900.0, 20.0) + landscape(128, 128)


TERRAINS = {
    "hills of 500 m": (lambda: 500.0 * landscape(128, 128), 30.0),
    "hills of 3000 m in coarse cells": (lambda: 3000.0 * landscape(64, 64), 240.0),
    "3000 m in fine cells": (lambda: 3000.0 * landscape(128, 128), 1.0),
    "noise of 30 m": (lambda: np.random.default_rng(0).normal(500.0, 30.0, (128, 128)), 10.0),
    "noise of 1000 m": (lambda: np.random.default_rng(0).normal(500.0, 1000.0, (128, 128)), 30.0),
    "pyramids": (pyramids, 30.0),
    "city": (city, 2.0),
    "cliff": (cliff, 30.0),
}


@pytest.mark.parametrize("name", TERRAINS)
def test_summits_cliffs_buildings_and_rough_ground_stay(name: str) -> None:
    make, cell = TERRAINS[name]
    heights = make()
    assert not judged(heights, cell, "float32").mask.any()
    assert not find_wrong_cells(heights, None).any()


@pytest.mark.parametrize("fill", [-9999.0, -32768.0, 3.4028235e38, 1e30, np.inf, 0.0, 9999.0])
def test_fill_values_among_heights_are_found(fill: float) -> None:
    heights = np.random.default_rng(0).uniform(700.0, 1300.0, 200)
    heights[::20] = fill
    np.testing.assert_array_equal(find_fill_values(heights), heights == fill)


def test_heights_at_the_sea_and_few_heights_are_no_fill_values() -> None:
    heights = np.random.default_rng(0).uniform(0.0, 300.0, 200)
    heights[::20] = 0.0
    assert not find_fill_values(heights).any()
    assert not find_fill_values(np.array([0.0, 700.0, 800.0])).any()


def test_fill_values_may_outnumber_the_heights() -> None:
    assert find_fill_values(np.array([-9999.0] * 20 + [700.0, 800.0])).sum() == 20
    assert find_fill_values(np.full(20, -9999.0)).all()
