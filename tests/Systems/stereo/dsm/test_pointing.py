from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from Systems.stereo.dsm.pointing import Tracks, solve_pointing
from Systems.stereo.dsm.views import View
from tests.rational_cameras import camera
from tests.rational_views import TILTS


def views(count: int) -> list[View]:
    source = SimpleNamespace(path=SimpleNamespace(name="a.tif"), width=160, height=150)
    return [View(i, source, camera(tilt, (150, 160))) for i, tilt in enumerate(TILTS[:count])]  # type: ignore[arg-type]


def tracks(cameras: list[View], shifts: np.ndarray, noise: float = 0.05, count: int = 80) -> Tracks:
    """Points of the ground as seen by views whose images lie so many pixels further right and down than they say."""
    drawn = np.random.default_rng(0)
    longitude, latitude = 10.0 + drawn.uniform(-5e-4, 5e-4, count), drawn.uniform(-5e-4, 5e-4, count)
    height = drawn.uniform(0.0, 80.0, count)
    seen = np.stack([np.stack(view.model.project(longitude, latitude, height), axis=-1) for view in cameras], axis=1)
    places = np.stack([longitude, latitude, height + drawn.normal(0, 3, count)], axis=-1)
    return Tracks(seen + shifts + drawn.normal(0, noise, seen.shape), places)


def missed(cameras: list[View], given: Tracks) -> np.ndarray:
    return solve_pointing(cameras, given).before


def test_rays_meet_after_the_correction() -> None:
    cameras, shifts = views(2), np.array([[1.0, -2.0], [-1.5, 1.0]])
    found = solve_pointing(cameras, tracks(cameras, shifts))
    assert np.median(found.before) > 1.5 and np.median(found.after) < 0.1
    assert found.counts.tolist() == [80, 80]
    assert missed(found.views, tracks(cameras, shifts)) == pytest.approx(found.after, abs=0.02)


def test_of_a_pair_only_what_lies_across_the_way_of_height_is_moved() -> None:
    cameras = views(2)
    # Points move along samples for the most part as they rise; so does this shift.
    way = np.array([TILTS[1][1] - TILTS[0][1], TILTS[1][0] - TILTS[0][0]])
    found = solve_pointing(cameras, tracks(cameras, np.stack([way * 0, 3 * way / np.hypot(*way)])))
    assert np.abs(found.shifts).max() < 0.3


def test_three_views_that_are_right_stay_where_they_are() -> None:
    cameras = views(3)
    found = solve_pointing(cameras, tracks(cameras, np.zeros((3, 2))))
    assert np.abs(found.shifts).max() < 0.1


def test_wrong_matches_do_not_move_a_view() -> None:
    cameras, shifts = views(2), np.array([[0.0, -1.0], [0.0, 1.0]])
    given = tracks(cameras, shifts)
    exact = solve_pointing(cameras, given).shifts
    given.seen[:12, 1] += np.random.default_rng(1).uniform(-30, 30, (12, 2))
    assert np.abs(solve_pointing(cameras, given).shifts - exact).max() < 0.3


def test_views_without_matches_stay() -> None:
    cameras = views(3)
    given = tracks(cameras, np.array([[0.0, 2.0], [0.0, -2.0], [5.0, 5.0]]))
    given.seen[:, 2] = np.nan
    found = solve_pointing(cameras, given)
    assert found.counts.tolist() == [80, 80, 0] and not found.shifts[2].any()
    none = solve_pointing(cameras, Tracks(np.zeros((0, 3, 2)), np.zeros((0, 3))))
    assert not none.shifts.any() and none.describe()["residual_before"] == {"median": None, "p90": None}
    assert none.kept == "no match is clear"


@pytest.mark.parametrize("count", [4, 9])
def test_a_few_matches_move_nothing(count: int) -> None:
    cameras = views(2)
    given = tracks(cameras, np.array([[0.0, -2.0], [0.0, 2.0]]), count=count)
    found = solve_pointing(cameras, given)
    assert not found.shifts.any() and f"{count} clear matches are too few" in found.kept
    assert np.array_equal(found.before, found.after) and found.describe()["kept"] == found.kept
    assert [view.name for view in found.views] == [view.name for view in found.too_few()]
    assert not solve_pointing(cameras, tracks(cameras, np.array([[0.0, -2.0], [0.0, 2.0]]), count=10)).kept


def test_a_view_that_a_few_tracks_see_stays_and_does_not_move_the_others() -> None:
    cameras, shifts = views(3), np.array([[0.0, 2.0], [0.0, -2.0], [0.0, 0.0]])
    given = tracks(cameras, shifts)
    given.seen[4:, 2] = np.nan
    given.seen[:4, 2] += 9.0  # wrong, all in the same way
    found = solve_pointing(cameras, given)
    assert found.counts.tolist() == [80, 80, 4] and [view.number for view in found.too_few()] == [2]
    assert not found.shifts[2].any()
    given.seen[:, 2] = np.nan
    assert found.shifts == pytest.approx(solve_pointing(cameras, given).shifts, abs=1e-6)


def test_shifts_that_bring_rays_no_nearer_are_not_taken() -> None:
    cameras = views(2)
    given = tracks(cameras, np.zeros((2, 2)), noise=0.0, count=21)
    # Ten of 21 matches are wrong in one direction: they pull, and the eleven others would fit worse.
    given.seen[:10, 1, 1] += 6.0
    given.seen[:10, 1, 0] += 6.0
    found = solve_pointing(cameras, given)
    assert not found.shifts.any() and "no shift brings them nearer" in found.kept
