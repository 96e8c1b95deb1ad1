"""Maps that know nothing of the image: planes and low-pass maps of the truth."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from Utils.scoring.control_maps import low_pass, plane_of


def test_a_plane_is_its_own_whatever_is_not_valid() -> None:
    rows, columns = np.indices((9, 14))
    truth = (3.0 * rows - 0.5 * columns + 700.0).astype(np.float32)
    valid = np.ones(truth.shape, dtype=bool)
    valid[2:5, 3:9] = False
    holed = np.where(valid, truth, np.nan).astype(np.float32)
    assert plane_of(holed, valid) == pytest.approx(truth, abs=1e-3)  # 1e-3 of 700: float32


def test_a_plane_leaves_what_is_not_plane() -> None:
    truth = np.zeros((8, 8), np.float32)
    truth[:, ::2] = 1.0
    # Columns 0, 2, 4, 6 lie left of the middle by half a pixel on the average.
    slope = np.polyfit(np.arange(8), truth[0], 1)
    assert plane_of(truth, np.ones((8, 8), dtype=bool))[5] == pytest.approx(np.polyval(slope, np.arange(8)), abs=1e-6)


def test_a_low_pass_has_the_means_of_cells_at_their_centres() -> None:
    truth = np.random.default_rng(0).normal(50.0, 9.0, (15, 20)).astype(np.float32)
    drawn = low_pass(truth, np.ones(truth.shape, dtype=bool), 5)
    means = truth.reshape(3, 5, 4, 5).mean(axis=(1, 3))
    assert drawn[2::5, 2::5] == pytest.approx(means, rel=1e-5)
    between = drawn[2, 2] + (drawn[2, 7] - drawn[2, 2]) * np.arange(6) / 5
    assert drawn[2, 2:8] == pytest.approx(between, rel=1e-5)
    assert drawn[0, 0] == pytest.approx(means[0, 0], rel=1e-5)  # nothing is extrapolated


def test_a_low_pass_takes_voids_from_what_is_known() -> None:
    truth = np.full((12, 12), 7.0, np.float32)
    truth[:4] = 90.0
    valid = np.ones(truth.shape, dtype=bool)
    valid[4:8] = False
    valid[9, 9] = False
    drawn = low_pass(np.where(valid, truth, np.nan).astype(np.float32), valid, 4)
    assert np.isfinite(drawn).all()
    assert drawn[10:] == pytest.approx(np.full((2, 12), 7.0)) and drawn[:2] == pytest.approx(np.full((2, 12), 90.0))
    # The cells without a valid pixel are as their neighbours above or below.
    assert drawn[5] == pytest.approx(drawn[5, 0] * np.ones(12)) and 7.0 <= drawn[5, 0] <= 90.0


def test_cells_at_the_edge_are_means_of_what_they_hold() -> None:
    truth = np.arange(7, dtype=np.float32)[None].repeat(2, axis=0)
    drawn = low_pass(truth, np.ones(truth.shape, dtype=bool), 4)
    assert drawn[0, 0] == pytest.approx(1.5) and drawn[0, -1] == pytest.approx(1.5 + 3.5 * min(1.0, (6 - 1.5) / 4))


@pytest.mark.parametrize("make", [plane_of, lambda truth, valid: low_pass(truth, valid, 4)])
def test_without_a_valid_pixel_there_is_a_map_of_zeros(make: Callable[..., np.ndarray]) -> None:
    truth = np.full((5, 6), np.nan, np.float32)
    assert (make(truth, np.zeros((5, 6), dtype=bool)) == 0.0).all()
