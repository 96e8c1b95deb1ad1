"""The mean of true maps, and scores with standard errors over groups."""

from __future__ import annotations

import math

import numpy as np
import pytest

from Utils.scoring.grouped import paired_group_change, summarise_groups
from Utils.scoring.mean_map import MeanMap


def test_the_mean_counts_valid_pixels_alone() -> None:
    mean = MeanMap()
    mean.add(np.array([[1.0, 2.0], [9.0, 9.0]]), np.array([[True, True], [False, False]]))
    mean.add(np.array([[3.0, 8.0], [5.0, math.nan]]), np.array([[True, False], [True, False]]))
    np.testing.assert_allclose(mean.by_pixel(), [[2.0, 2.0], [5.0, 11.0 / 4.0]])
    assert mean.number() == pytest.approx((1 + 2 + 3 + 5) / 4)


def test_the_mean_map_has_the_least_squared_error_of_all_maps() -> None:
    rng = np.random.default_rng(0)
    truths = rng.normal(5.0, 1.0, (20, 4, 4)) + np.arange(4)
    mean = MeanMap()
    for truth in truths:
        mean.add(truth, np.ones((4, 4), bool))
    own = np.square(truths - mean.by_pixel()).mean()
    assert own < np.square(truths - mean.number()).mean()
    assert all(own < np.square(truths - mean.by_pixel() + rng.normal(0, 0.1, (4, 4))).mean() for _ in range(5))


def test_nothing_has_no_mean_and_sizes_must_agree() -> None:
    mean = MeanMap()
    assert math.isnan(mean.number())
    with pytest.raises(ValueError, match="0 sizes"):
        mean.by_pixel()
    mean.add(np.ones((2, 3)), np.ones((2, 3), bool))
    mean.add(np.full((3, 2), 2.0), np.ones((3, 2), bool))
    with pytest.raises(ValueError, match="2 sizes have no mean pixel by pixel"):
        mean.by_pixel()
    assert mean.number() == 1.5 and mean.pixels == 12


def test_groups_count_once_whatever_their_size() -> None:
    rows = [{"a": 1.0}, {"a": 3.0}, {"a": 8.0}, {"a": math.nan}]
    found = summarise_groups(rows, ["x", "x", "y", "y"])["a"]
    assert found["mean"] == pytest.approx(5.0) and found["count"] == 2
    assert found["standard_error"] == pytest.approx(np.std([2.0, 8.0], ddof=1) / math.sqrt(2))


def test_copies_of_a_tile_make_nothing_more_certain() -> None:
    rng = np.random.default_rng(1)
    rows = [{"a": float(value)} for value in rng.normal(size=12)]
    groups = [f"scene {place}" for place in range(12)]
    once, thrice = summarise_groups(rows, groups)["a"], summarise_groups(rows * 3, groups * 3)["a"]
    assert once["mean"] == pytest.approx(thrice["mean"])
    assert once["standard_error"] == pytest.approx(thrice["standard_error"])


def test_changes_are_paired_by_group() -> None:
    before, after = [{"a": 1.0}, {"a": 9.0}], [{"a": 2.0}, {"a": 10.0}]
    found = paired_group_change(before, after, ["x", "y"])["a"]
    assert found["mean"] == 1.0 and found["standard_error"] == 0.0
    with pytest.raises(ValueError, match="each tile needs one"):
        summarise_groups(before, ["x"])
