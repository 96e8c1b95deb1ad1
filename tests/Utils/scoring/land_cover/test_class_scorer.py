"""Scores of land cover: a hand case, absent classes, batch order, boundaries, calibration, and the published means."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from Utils.data.sample import IGNORED_LABEL
from Utils.scoring.land_cover.boundaries import boundary_counts, boundary_width
from Utils.scoring.land_cover.class_scorer import ClassScorer
from Utils.scoring.land_cover.published import MEANS_THAT_DIFFER, PUBLISHED_LOVEDA, published_rows

CLASSES = ("water", "field", "town", "road")
LABELS = torch.tensor([[[0, 0, 0, 1]], [[1, 1, IGNORED_LABEL, 0]]])
GUESSES = torch.tensor([[[0, 0, 1, 1]], [[1, 0, 2, 0]]])


def sure(guesses: torch.Tensor, confidence: float = 0.7) -> torch.Tensor:
    """Probabilities that give a class ``confidence`` and share the rest."""
    hot = torch.nn.functional.one_hot(guesses, len(CLASSES)).movedim(-1, 1).float()
    return hot * confidence + (1 - hot) * (1 - confidence) / (len(CLASSES) - 1)


def scores(labels: torch.Tensor, guesses: torch.Tensor, scorer: ClassScorer) -> dict[str, float]:
    rows = scorer.score_batch({"label": labels}, sure(guesses))
    return {key: each["mean"] for key, each in scorer.summarise(rows).items()}


def test_a_hand_case() -> None:
    """Water: 3 hits, 4 true, 4 guessed. Field: 2 hits, 3 true, 3 guessed. Town is guessed where nothing counts."""
    found = scores(LABELS, GUESSES, ClassScorer(CLASSES))
    assert found["classes.iou_water"] == pytest.approx(3 / 5) and found["classes.iou_field"] == pytest.approx(2 / 4)
    assert math.isnan(found["classes.iou_town"]) and math.isnan(found["classes.iou_road"])
    assert found["pooled.miou"] == pytest.approx((3 / 5 + 2 / 4) / 4), "absent classes count as 0 by default"
    assert found["pooled.f1"] == pytest.approx((6 / 8 + 4 / 6) / 4)
    assert found["pooled.accuracy"] == pytest.approx(5 / 7)
    assert found["pooled.calibration"] == pytest.approx(abs(0.7 - 5 / 7))
    left_out = scores(LABELS, GUESSES, ClassScorer(CLASSES, "left out"))
    assert left_out["pooled.miou"] == pytest.approx((3 / 5 + 2 / 4) / 2)
    assert "counts as 0" in ClassScorer(CLASSES).protocols[0].definition
    assert "leave out" in ClassScorer(CLASSES, "left out").protocols[0].definition


def test_the_order_of_batches_changes_nothing() -> None:
    random = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (6, 12, 10), generator=random)
    guesses = torch.where(torch.rand(6, 12, 10, generator=random) < 0.5, labels, (labels + 1) % 4)
    scorer = ClassScorer(CLASSES)
    whole = scores(labels, guesses, scorer)
    rows = [scorer.score_batch({"label": labels[p : p + 1]}, sure(guesses[p : p + 1]))[0] for p in (4, 1, 5, 0, 2, 3)]
    for key, value in scorer.summarise(rows).items():
        assert value["mean"] == pytest.approx(whole[key]), key
    assert scorer.summarise(rows)["pooled.miou"]["standard_error"] > 0


def test_boundaries_by_hand() -> None:
    """A square of 6 in 10 pixels, drawn one to the right; outlines one pixel wide: 20 pixels each."""
    label, guess = np.zeros((2, 10, 10), np.int64)
    label[2:8, 2:8], guess[2:8, 3:9] = 1, 1
    counted = np.ones((10, 10), bool)
    both, either = boundary_counts(label, guess, counted, 2, width=1)[1]
    # Rows 2 and 7 share columns 3 to 7; the upright sides lie apart.
    assert (both, either) == (10, 30)
    assert boundary_counts(label, label, counted, 2, 1)[1].tolist() == [20, 20]
    counted[:, :5] = False
    assert boundary_counts(label, guess, counted, 2, 1)[1, 0] == 6, "columns 5 to 7 of rows 2 and 7"
    assert boundary_width((1024, 1024)) == 29 and boundary_width((8, 8)) == 1
    assert boundary_counts(label, guess, counted, 3, 1)[2].tolist() == [0, 0]


def test_boundary_iou_is_harder_than_iou_and_can_be_left_out() -> None:
    label = torch.zeros(1, 64, 64, dtype=torch.long)
    label[:, 16:48, 16:48] = 1
    found = scores(label, label.roll(3, -1), ClassScorer(CLASSES, "left out"))
    assert found["pooled.boundary_iou"] < found["pooled.miou"] - 0.2
    without = ClassScorer(CLASSES, boundaries=False)
    assert "pooled.boundary_iou" not in scores(label, label, without) and "pooled.boundary_iou" not in without.keys


def test_calibration_tells_the_sure_from_the_right() -> None:
    labels = torch.zeros(1, 1, 100, dtype=torch.long)
    guesses = torch.zeros_like(labels)
    guesses[..., :40] = 1
    scorer = ClassScorer(CLASSES)
    for confidence, error in ((0.6, 0.0), (0.9, 0.3)):
        row = scorer.score_batch({"label": labels}, sure(guesses, confidence))[0]
        assert scorer.tile_scores(row)["pooled.calibration"] == pytest.approx(error, abs=1e-6)


def test_a_tile_without_labels_counts_nowhere() -> None:
    scorer = ClassScorer(CLASSES)
    rows = scorer.score_batch({"label": torch.full((1, 2, 2), IGNORED_LABEL)}, sure(torch.zeros(1, 2, 2).long()))
    assert rows == [None] and math.isnan(scorer.summarise(rows)["pooled.miou"]["mean"])


def test_published_means_are_those_of_their_columns_but_for_the_named_ones() -> None:
    assert all(row.differs is None for row in PUBLISHED_LOVEDA)
    assert all(row.ious is not None and len(row.ious) == 7 for row in PUBLISHED_LOVEDA)
    best = max(published_rows("Urban", "Rural"), key=lambda row: row.mean if row.source_only else 0)
    assert (best.method, best.mean) == ("ConvNeXt XL + B, depth", 49.71)
    assert published_rows("Rural", "Rural") == [] and len(MEANS_THAT_DIFFER) == 4
