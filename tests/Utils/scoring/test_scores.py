"""What scorers say of their scores, and how pooled ones are added up."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from Utils.data.sample import IGNORED_LABEL
from Utils.scoring.height_scorer import HeightScorer
from Utils.scoring.labels import LabelScorer
from Utils.scoring.scores import Metric

CLASSES = ("water", "field", "town")


def batch_of(labels: list[list[int]], guesses: list[list[int]]) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Tiles of one row each: true labels, and predictions that are sure of a class."""
    truth = torch.tensor(labels)[:, None]
    drawn = torch.nn.functional.one_hot(torch.tensor(guesses), len(CLASSES)).permute(0, 2, 1)[:, :, None].float()
    return {"label": truth}, drawn


def test_headings_and_arrows() -> None:
    assert Metric("psnr", "PSNR", "higher", 2, unit="dB").heading == "PSNR (dB)"
    share = Metric("delta1", "delta1", "higher", 1, percent=True)
    assert (share.heading, share.format(0.5), share.arrow) == ("delta1 (%)", "50.0", "↑")
    assert (Metric("bias", "Bias", "zero", 1).arrow, Metric("mae", "MAE", "lower", 1).arrow) == ("", "↓")
    assert Metric("mae", "MAE", "lower", 1).format(math.nan) == "n/a"


def test_a_height_scorer_says_what_it_cannot_take() -> None:
    plain = HeightScorer()
    assert plain.absent == {"paper.lpips", "aligned.slope_error_degrees"}
    assert HeightScorer(ground_sample_distance=30.0).absent == {"paper.lpips"}
    batch = {"target": torch.rand(2, 1, 16, 16), "valid": torch.ones(2, 1, 16, 16, dtype=torch.bool)}
    batch["valid"][1] = False
    found, nothing = plain.score_batch(batch, torch.rand(2, 1, 16, 16))
    assert found is not None and nothing is None
    assert set(plain.keys) <= set(found) and plain.ranked_by in plain.keys
    assert plain.summarise([found, nothing])["paper.mae"]["count"] == 1
    assert math.isnan(plain.tile_scores(None)["paper.mae"])


def test_pooled_scores_are_those_of_all_pixels_together() -> None:
    scorer = LabelScorer(CLASSES)
    batch, drawn = batch_of([[0, 0, 0, 1], [1, 1, IGNORED_LABEL, 0]], [[0, 0, 1, 1], [1, 0, 2, 0]])
    rows = scorer.score_batch(batch, drawn)
    summary = scorer.summarise(rows)
    # Water: 3 hits of 4 true, 1 false; field: 2 hits of 3 true, 1 false; town nowhere that counts.
    assert summary["pooled.iou_water"]["mean"] == pytest.approx(3 / 5)
    assert summary["pooled.iou_field"]["mean"] == pytest.approx(2 / 4)
    assert math.isnan(summary["pooled.iou_town"]["mean"])
    assert summary["pooled.miou"]["mean"] == pytest.approx((3 / 5 + 2 / 4) / 2)
    assert summary["pooled.accuracy"]["mean"] == pytest.approx(5 / 7)
    assert summary["pooled.miou"]["count"] == 2
    mean_of_tiles = np.mean([scorer.tile_scores(row)["pooled.miou"] for row in rows])
    assert summary["pooled.miou"]["mean"] != pytest.approx(mean_of_tiles), "not the mean over tiles"
    assert scorer.protocols[0].pooled


def test_a_tile_without_a_label_counts_nowhere() -> None:
    scorer = LabelScorer(CLASSES)
    batch, drawn = batch_of([[IGNORED_LABEL] * 4, [0, 1, 2, 2]], [[0] * 4, [0, 1, 2, 2]])
    rows = scorer.score_batch(batch, drawn)
    assert rows[0] is None
    assert scorer.summarise(rows)["pooled.miou"] == {
        "mean": 1.0,
        "standard_error": pytest.approx(math.nan, nan_ok=True),
        "count": 1,
    }
    assert math.isnan(scorer.summarise([None])["pooled.miou"]["mean"])


def test_the_standard_error_of_a_pooled_score_shrinks_with_tiles() -> None:
    """Of independent tiles it is the spread of the score over sqrt(tiles): halved by four times as many."""
    random = np.random.default_rng(1)
    scorer = LabelScorer(CLASSES)

    def error(tiles: int) -> float:
        truth = torch.from_numpy(random.integers(0, 3, (tiles, 8, 8)))
        wrong = torch.from_numpy(random.random((tiles, 8, 8)) < random.random((tiles, 1, 1)) * 0.8)
        guess = torch.where(wrong, (truth + 1) % 3, truth)
        drawn = torch.nn.functional.one_hot(guess, 3).permute(0, 3, 1, 2).float()
        return scorer.summarise(scorer.score_batch({"label": truth}, drawn))["pooled.accuracy"]["standard_error"]

    few, many = error(40), error(160)
    # Each is known to about 5 per cent by its resamples, and to 10 by its tiles.
    assert few / many == pytest.approx(2.0, rel=0.4)
    # Shares of right pixels vary with 1 - 0.8 u, u uniform: 0.8 / sqrt(12) a tile.
    assert many == pytest.approx(0.8 / math.sqrt(12) / math.sqrt(160), rel=0.25)


def test_a_change_of_pooled_scores_is_paired() -> None:
    scorer = LabelScorer(CLASSES)
    batch, worse = batch_of([[0, 1, 2, 0], [1, 2, 0, 0], [2, 2, 1, 0]], [[0, 1, 1, 1], [1, 2, 1, 0], [2, 0, 1, 0]])
    _, better = batch_of([[0] * 4] * 3, [[0, 1, 2, 1], [1, 2, 0, 0], [2, 2, 1, 0]])
    before, after = scorer.score_batch(batch, worse), scorer.score_batch(batch, better)
    change = scorer.change(before, after)["pooled.accuracy"]
    assert change["mean"] == pytest.approx(11 / 12 - 8 / 12)
    assert scorer.change(before, before)["pooled.accuracy"] == {"mean": 0.0, "standard_error": 0.0, "count": 3}
    with pytest.raises(ValueError, match="3 tiles before and 2 after"):
        scorer.change(before, after[:2])
