"""The surface of least error: means kept, planes kept, noise and voids known, no seams."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.scenes import landscape
from Utils.core.errors import UserError
from Utils.scenes.fusion.least_error.joined_windows import SAMPLES_A_CELL, LeastErrorEstimate, averaged

Cells = NDArray[np.float32]


def cells_of(height: int = 40, width: int = 56, seed: int = 0) -> tuple[NDArray[np.float64], Cells]:
    """Ground at SAMPLES_A_CELL samples a cell, and its means over the cells."""
    ground = 500.0 + 300.0 * landscape(height * SAMPLES_A_CELL, width * SAMPLES_A_CELL, seed)
    return ground, averaged(ground, SAMPLES_A_CELL)


def surface(cells: Cells, aspect: float = 1.0, file: Path | None = None) -> NDArray[np.float32]:
    known = np.ones(cells.shape, bool)
    return LeastErrorEstimate(cells, known, aspect).surface(cells, known, file)[0]


def rms(values: NDArray) -> float:
    return float(np.sqrt(np.mean(np.asarray(values, np.float64) ** 2)))


def test_means_over_cells_are_kept_where_the_dem_is_clean() -> None:
    ground, cells = cells_of()
    found = surface(cells)
    assert rms(averaged(found, SAMPLES_A_CELL) - cells) < 0.02 * rms(found - np.kron(cells, np.ones((4, 4))))
    assert rms(found - ground) < 0.1 * ground.std()


@pytest.mark.parametrize("aspect", [0.5, 1.0, 3.0])
def test_a_plane_stays_a_plane(aspect: float) -> None:
    rows, columns = (np.arange(length * SAMPLES_A_CELL) for length in (20, 30))
    plane = 7.0 + 0.3 * rows[:, None] - 0.2 * columns
    found = surface(averaged(plane, SAMPLES_A_CELL), aspect)
    np.testing.assert_allclose(found, plane, atol=0.02)


def test_a_dem_on_its_side_gives_the_same_ground_on_its_side() -> None:
    _, cells = cells_of()
    turned = surface(np.ascontiguousarray(cells.T), aspect=0.5).T
    np.testing.assert_allclose(surface(cells, aspect=2.0), turned, atol=0.05 * cells.std())


def test_noise_is_found_and_removed() -> None:
    ground, cells = cells_of()
    ground, cells = ground / 20, cells / 20
    noisy = cells + np.random.default_rng(0).normal(0, 3.0, cells.shape).astype(np.float32)
    estimate = LeastErrorEstimate(noisy, np.ones(cells.shape, bool))
    assert estimate.noise == pytest.approx(3.0, rel=0.1)
    assert rms(surface(noisy) - ground) < 0.5 * 3.0


def test_the_standard_error_is_right_and_grows_in_voids() -> None:
    ground, cells = cells_of(seed=2)
    known = np.ones(cells.shape, bool)
    known[10:18, 20:29] = False
    guess = np.where(known, cells, cells[known].mean()).astype(np.float32)
    heights, error = LeastErrorEstimate(guess, known).surface(guess, known)
    wrong = averaged((heights - ground) ** 2, SAMPLES_A_CELL)
    for part in (known, ~known):
        assert 0.4 < np.sqrt(wrong[part].mean()) / np.sqrt((error[part] ** 2).mean()) < 2.0
    assert error[~known].mean() > 2.0 * error[known].mean()
    assert error[14, 24] > error[10, 20] > error[5, 10]


def test_windows_leave_no_seams() -> None:
    _, cells = cells_of(64, 64)
    bend = np.abs(np.diff(surface(cells).astype(np.float64), n=2, axis=1)).mean(axis=0)
    # Windows begin and end every eighth cell.
    at = np.zeros(len(bend), bool)
    for border in range(8, 64, 8):
        at[border * SAMPLES_A_CELL - 2 : border * SAMPLES_A_CELL + 1] = True
    # A border of two cells without windows is as it is.
    elsewhere = np.zeros(len(bend), bool)
    for place in range(12, 60, 8):
        elsewhere[place * SAMPLES_A_CELL - 2 : place * SAMPLES_A_CELL + 1] = True
    assert bend[at].mean() < 1.1 * bend[elsewhere].mean()


def test_a_surface_in_a_file_is_the_same(tmp_path: Path) -> None:
    _, cells = cells_of(24, 24)
    np.testing.assert_array_equal(surface(cells, file=tmp_path / "surface.npy"), surface(cells))
    assert (tmp_path / "surface.npy").stat().st_size > 96 * 96 * 4


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    _, cells = cells_of(24, 24)
    with pytest.raises(UserError, match=r"surface\.npy.*--resume"):
        surface(cells, file=tmp_path / "surface.npy")
