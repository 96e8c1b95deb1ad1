"""Scores of multi-view stereo, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from Utils.data.sample import Batch
from Utils.scoring.stereo.stereo_metrics import Errors, image_scores
from Utils.scoring.stereo.stereo_scorer import StereoScorer

NAN = math.nan


def batch(truth: list[list[float]], interval: float = 0.1) -> Batch:
    """Images of one row."""
    target = torch.tensor(truth)[:, None, None]
    return {"target": target, "mask": target.isfinite(), "interval": torch.full((len(truth), 1), interval)}


def maps(values: list[list[float]], confidence: list[list[float]] | None = None) -> Tensor:
    channels = [values] if confidence is None else [values, confidence]
    return torch.tensor(channels).movedim(0, 1)[:, :, None]


def test_scores_of_one_image_by_hand() -> None:
    """Errors -0.05, 0.15, 0.5 and 300 m, a pixel without an estimate, and one without a truth."""
    (row,) = StereoScorer().score_batch(batch([[10, 10, 10, 10, 10, NAN]]), maps([[9.95, 10.15, 10.5, 310, NAN, 7]]))
    scores = StereoScorer().tile_scores(row)
    expected = {
        "mae": (0.05 + 0.15 + 0.5 + 300) / 4,
        "mae_250": 0.7 / 3,
        "rmse": math.sqrt((0.0025 + 0.0225 + 0.25 + 90000) / 4),
        "median": 0.325,
        "nmad": 1.4826 * 0.275,  # deviations from the median 0.325: 0.375, 0.175, 0.175, 299.675
        "below_0_1m": 0.2,
        "below_0_2m": 0.4,
        "below_0_6m": 0.6,
        "below_7_5m": 0.6,
        "below_3_intervals": 0.4,
        "complete": 0.8,
        "complete_right": 0.4,
    }
    for key, value in expected.items():
        assert scores[f"stereo.{key}"] == pytest.approx(value, rel=1e-4), key
    assert math.isnan(scores["stereo.ause"]) and math.isnan(scores["stereo.mae_surest_half"])
    assert scores["pooled.mae"] == scores["stereo.mae"]


def test_three_intervals_are_those_of_the_file() -> None:
    scorer = StereoScorer()
    for interval, share in ((0.1, 0.0), (0.2, 1.0)):
        (row,) = scorer.score_batch(batch([[10.0]], interval), maps([[10.5]]))
        assert scorer.tile_scores(row)["stereo.below_3_intervals"] == share


def test_confidence_decides_what_is_complete_and_is_held_against_the_error() -> None:
    truth, drawn = [[10.0] * 4], [[10.0, 10.1, 11.0, 14.0]]
    scorer = StereoScorer(least_confidence=0.5)
    found = {}
    for name, confidence in (("right", [0.9, 0.8, 0.4, 0.1]), ("wrong", [0.1, 0.4, 0.8, 0.9])):
        (row,) = scorer.score_batch(batch(truth), maps(drawn, [confidence]))
        found[name] = scorer.tile_scores(row)
    assert found["right"]["stereo.ause"] == pytest.approx(0, abs=1e-6) and found["wrong"]["stereo.ause"] > 0.5
    assert found["right"]["stereo.mae_surest_half"] == pytest.approx(0.05, rel=1e-4)
    assert found["right"]["stereo.complete"] == found["wrong"]["stereo.complete"] == 0.5
    assert found["right"]["stereo.complete_right"] == 0.5 and found["wrong"]["stereo.complete_right"] == 0.0


def test_confidence_that_says_nothing_has_an_area_of_about_a_half() -> None:
    """Errors spread evenly from 0 to 1: of the smallest k of n the mean is k / 2 n, and k / n is 0.525 on average."""
    random = np.random.default_rng(0)
    errors = Errors(random.random(20000), random.random(20000), 0.1, 0.3)
    assert image_scores(errors)["ause"] == pytest.approx(1 - 0.525, abs=0.02)


def test_images_count_the_same_and_pooled_pixels_do() -> None:
    """One image of four pixels off by 1 m, one of a single pixel off by 6 m, one without a truth."""
    scorer = StereoScorer()
    truth = [[1.0, 1, 1, 1], [1, NAN, NAN, NAN], [NAN] * 4]
    rows = scorer.score_batch(batch(truth), maps([[2.0] * 4, [7.0] * 4, [0.0] * 4]))
    assert rows[2] is None
    summary = scorer.summarise(rows)
    assert summary["stereo.mae"]["mean"] == pytest.approx(3.5) and summary["stereo.mae"]["count"] == 2
    assert summary["pooled.mae"]["mean"] == pytest.approx(2.0)
    assert set(summary) == set(scorer.keys)
    better = scorer.score_batch(batch(truth), maps([[1.5] * 4, [7.0] * 4, [0.0] * 4]))
    change = scorer.change(rows, better)
    assert change["stereo.mae"]["mean"] == pytest.approx(-0.25)
    assert change["pooled.mae"]["mean"] == pytest.approx(-0.4)


def test_kinds_of_pixels_are_scored_apart_and_missing_kinds_are_left_out() -> None:
    here = torch.tensor([[True, False, False], [False, False, False]])[:, None, None]
    scorer = StereoScorer(kinds={"occluded": "pixels that no other view sees"}, pixels=lambda batch: {"occluded": here})
    rows = scorer.score_batch(batch([[1.0, 1, 1], [1, 1, 1]]), maps([[5.0, 1, 1], [1, 1, 1]]))
    summary = scorer.summarise(rows)
    assert summary["occluded.mae"]["mean"] == pytest.approx(4.0) and summary["occluded.mae"]["count"] == 1
    assert summary["stereo.mae"]["mean"] == pytest.approx(2 / 3)


def test_nothing_estimated_is_not_nothing_wrong() -> None:
    scorer = StereoScorer()
    (row,) = scorer.score_batch(batch([[1.0, 1]]), maps([[NAN, math.inf]]))
    scores = scorer.tile_scores(row)
    assert math.isnan(scores["stereo.mae"]) and scores["stereo.below_7_5m"] == 0 and scores["stereo.complete"] == 0
