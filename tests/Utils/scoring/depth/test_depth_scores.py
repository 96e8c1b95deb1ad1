"""Scores of depth: hand-computed numbers, limits, alignments, and the published protocols."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from Utils.rasters.depth_files import METRES_PER_UNIT, read_depth
from Utils.rasters.tile_files import read_image
from Utils.scoring.depth.depth_limits import KITTI_LIMITS, NYU_LIMITS, DepthLimits
from Utils.scoring.depth.depth_metrics import DEPTH, depth_scores
from Utils.scoring.depth.depth_published import (
    PUBLISHED_NYU,
    PUBLISHED_NYU_FRAMES,
    AgreementScorer,
    PublishedNyuScorer,
)
from Utils.scoring.depth.depth_scorer import DepthScorer
from Utils.scoring.scores import Scorer

FRAMES = Path(__file__).parents[5] / "shared" / "real_data" / "depth_frames"
needs_frames = pytest.mark.skipif(not FRAMES.is_dir(), reason="the real frames are not here")


def depths(height: int = 48, width: int = 64, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).uniform(0.5, 9.5, (height, width))


def test_a_perfect_prediction() -> None:
    true = depths().ravel()
    found = depth_scores(true, true)
    assert found == {metric.key: 1.0 if metric.key.startswith("delta") else 0.0 for metric in DEPTH}


def test_a_prediction_that_is_thirty_per_cent_too_far() -> None:
    true = depths().ravel()
    found = depth_scores(true, 1.3 * true)
    assert (found["delta1"], found["delta2"], found["delta3"]) == (0, 1, 1)
    assert found["abs_rel"] == pytest.approx(0.3)
    assert found["log10"] == pytest.approx(0.1139, abs=1e-4)
    assert found["rmse_log"] == pytest.approx(math.log(1.3))
    assert found["silog"] == pytest.approx(0, abs=1e-6)


def test_two_pixels_by_hand() -> None:
    found = depth_scores(np.array([1.0, 4.0]), np.array([2.0, 4.0]))
    assert found["abs_rel"] == 0.5 and found["sq_rel"] == 0.5 and found["rmse"] == pytest.approx(math.sqrt(0.5))
    assert found["delta1"] == 0.5
    assert found["log10"] == pytest.approx(math.log10(2) / 2)
    assert found["rmse_log"] == pytest.approx(math.log(2) / math.sqrt(2))
    assert found["silog"] == pytest.approx(100 * math.log(2) / 2)


@pytest.mark.parametrize("guess", [math.nan, math.inf, 0.0, -1.0])
def test_what_has_no_score_is_nan(guess: float) -> None:
    assert all(math.isnan(value) for value in depth_scores(np.array([1.0, 2.0]), np.array([1.0, guess])).values())
    assert all(math.isnan(value) for value in depth_scores(np.empty(0), np.empty(0)).values())


def test_limits_count_what_the_tables_count() -> None:
    frame = np.full((480, 640), 5.0)
    frame[100, 100], frame[101, 101] = 10.0, 0.0
    counted = NYU_LIMITS.counted(frame, np.ones(frame.shape, np.bool_))
    assert counted.sum() == (471 - 45) * (601 - 41) - 2 and counted[45, 41] and not counted[44, 41]
    street = KITTI_LIMITS.counted(np.full((375, 1242), 79.0), np.ones((375, 1242), np.bool_))
    rows, columns = np.flatnonzero(street.any(1)), np.flatnonzero(street.any(0))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (153, 370, 44, 1196)
    assert DepthLimits().counted(np.array([[0.0, 1e9]]), np.array([[True, True]])).tolist() == [[False, True]]


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: DepthLimits(nearest=0), "nearest is 0"),
        (lambda: DepthLimits(farthest=1e-4), "farthest is 0.0001"),
        (lambda: DepthLimits(crop="kitti"), "known: none, eigen_nyu, garg"),
        (lambda: NYU_LIMITS.counted(np.ones((240, 320)), np.ones((240, 320), np.bool_)), "not 320 x 240"),
    ],
)
def test_limits_that_make_no_sense(build: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build()  # type: ignore[operator]


def test_alignments_forgive_what_they_say() -> None:
    true, scorer = depths(), DepthScorer(DepthLimits(farthest=10.0))
    scaled = scorer.score(true, 0.1 * true)
    assert scaled["median.abs_rel"] == pytest.approx(0, abs=1e-9)
    assert scaled["aligned.abs_rel"] == pytest.approx(0, abs=1e-9)
    assert scaled["metric.abs_rel"] == pytest.approx(0.9)
    shifted = scorer.score(true, 0.5 * true + 1)
    assert shifted["aligned.rmse"] == pytest.approx(0, abs=1e-9) and shifted["median.rmse"] > 0.1
    assert shifted["offset.rmse"] == pytest.approx(0.5 * true.std()), "a shift does not forgive a scale"
    moved = scorer.score(true, true + 40.0)
    assert moved["offset.rmse"] == pytest.approx(0, abs=1e-9) and moved["median.rmse"] > 0.1
    # Near for far gets the truth's mean, and no perfect score.
    assert scorer.score(true, -true)["aligned.rmse"] == pytest.approx(true.std())


def test_predictions_are_clipped_after_they_were_aligned() -> None:
    true = np.array([[1.0, 2.0, 9.0]])
    found = DepthScorer(DepthLimits(farthest=10.0)).score(true, np.array([[1.0, 2.0, 100.0]]))
    assert found["metric.rmse"] == pytest.approx(1 / math.sqrt(3))


def test_relative_predictions_have_no_metric_scores() -> None:
    scorer = DepthScorer(metric=False)
    assert [protocol.name for protocol in scorer.protocols] == ["aligned", "median"]
    assert scorer.ranked_by == "aligned.abs_rel"
    assert set(scorer.score(depths(), depths(seed=1))) == set(scorer.keys)


def test_protocols_describe_themselves() -> None:
    scorer = DepthScorer(KITTI_LIMITS)
    assert [protocol.name for protocol in scorer.protocols] == ["metric", "offset", "aligned", "median"]
    assert "Garg's crop" in scorer.protocols[0].definition and "80 m" in scorer.protocols[0].definition
    assert scorer.metric("metric.rmse").heading == "RMSE (m)" and scorer.metric("metric.delta1").arrow == "↑"
    assert "7.5 m" in PublishedNyuScorer.protocols[0].definition


def test_masked_pixels_change_nothing() -> None:
    true, guess = depths(), depths(seed=1)
    valid = np.random.default_rng(2).random(true.shape) < 0.5
    scorer = DepthScorer()
    expected = scorer.score(true, guess, valid)
    spoilt = scorer.score(np.where(valid, true, np.nan), np.where(valid, guess, np.inf), valid)
    assert spoilt == expected and not any(math.isnan(value) for value in expected.values())


def test_batches_with_empty_frames_and_smaller_predictions() -> None:
    true = torch.from_numpy(depths()).float().expand(3, 1, 48, 64).clone()
    valid = torch.ones(3, 1, 48, 64, dtype=torch.bool)
    valid[1] = False
    true[2] = 50.0  # beyond the limit
    scorer = DepthScorer(DepthLimits(farthest=10.0))
    rows = scorer.score_batch({"target": true, "valid": valid}, torch.full((3, 1, 24, 32), 5.0))
    assert rows[0] is not None and rows[1:] == [None, None]
    assert rows[0] == scorer.score(true[0, 0].numpy(), np.full((48, 64), 5.0))
    assert scorer.summarise(rows)["metric.abs_rel"]["count"] == 1
    assert math.isnan(scorer.score(depths(), np.full((48, 64), np.nan))["metric.abs_rel"])


def test_the_published_protocol() -> None:
    small = torch.rand(2, 1, 240, 320, generator=torch.Generator().manual_seed(0)) * 0.8 + 0.1
    doubled = torch.nn.functional.interpolate(small, scale_factor=2, mode="bilinear", align_corners=False)
    true = 7.5 * doubled
    true[:, :, :20], true[:, :, 461:], true[..., :24], true[..., 617:] = 100.0, 100.0, 100.0, 100.0
    scorer = PublishedNyuScorer()
    rows = scorer.score_batch({"target": true, "valid": torch.ones_like(true, dtype=torch.bool)}, small)
    for row in rows:
        assert row is not None and set(row) == set(PUBLISHED_NYU) == set(scorer.keys)
        assert row["published.abs_rel"] == pytest.approx(0, abs=1e-6) and row["published.delta1"] == 1
    true[0, 0, 20, 24] = 1000.0  # the first pixel that counts
    changed = scorer.score_batch({"target": true, "valid": torch.ones_like(true, dtype=torch.bool)}, small)
    assert changed[0] != rows[0] and changed[1] == rows[1]
    with pytest.raises(ValueError, match="not 64 x 48"):
        scorer.score(depths(), depths())
    assert (PUBLISHED_NYU_FRAMES[0], PUBLISHED_NYU_FRAMES[-1]) == (0, 653)


def test_agreement_at_one_half_by_hand() -> None:
    true = np.array([[0.0, 2.0, 6.0, 10.0]])  # near, near, far, far
    found = AgreementScorer().score(true, np.array([[0.1, 0.7, 0.9, 0.2]]))
    assert found == {
        "agreement.accuracy": 0.5,
        "agreement.precision": 0.5,
        "agreement.recall": 0.5,
        "agreement.f1": 0.5,
    }
    flat = AgreementScorer().score(np.full((2, 2), 3.0), np.full((2, 2), 0.1))
    assert flat["agreement.accuracy"] == 1 and math.isnan(flat["agreement.recall"])


@needs_frames
def test_real_frames_of_streets() -> None:
    for path in sorted((FRAMES / "kitti_demo" / "depth").glob("*.png")):
        found = read_depth(path, METRES_PER_UNIT["kitti"])
        image = read_image(FRAMES / "kitti_demo" / "rgb" / path.name)
        assert found.values.shape == image.shape[1:] == (375, 1242)
        assert 0.17 < found.valid.mean() < 0.22
        assert found.values[found.valid].min() > 5.0 and found.values.max() < 85.0
        # Every 256th of a metre is there: nothing was cut to 8 bits.
        assert np.unique(found.values).size > 3000
        every_protocol(found.values, found.valid, [DepthScorer(KITTI_LIMITS), AgreementScorer()])


@needs_frames
def test_real_frames_of_rooms() -> None:
    for path in sorted((FRAMES / "nyu_demo" / "depth").glob("*.png")):
        found = read_depth(path, METRES_PER_UNIT["nyu"])
        assert found.values.shape == (480, 640) and 0.66 < found.valid.mean() < 0.76
        assert found.values[found.valid].min() > 0.69 and found.values.max() < 8.4
        every_protocol(found.values, found.valid, [DepthScorer(NYU_LIMITS), AgreementScorer(), PublishedNyuScorer()])
    (small,) = (FRAMES / "nyu_small").glob("*_depth.png")
    assert read_depth(small, METRES_PER_UNIT["nyu"]).values.max() == 10.0


def every_protocol(true: NDArray[np.float32], valid: NDArray[np.bool_], scorers: list[Scorer]) -> None:
    """The truth itself has perfect scores; a plane of the truth's mean has scores too, and worse ones."""
    highest = float(true.max())
    batch = {"target": torch.from_numpy(true)[None, None], "valid": torch.from_numpy(valid)[None, None]}
    smooth = torch.full((1, 1, 240, 320), 0.5)
    for scorer in scorers:
        (row,) = scorer.score_batch(batch, smooth)
        assert row is not None and set(row) >= set(scorer.keys)
        if isinstance(scorer, DepthScorer):
            perfect = scorer.score(true, true, valid)
            for name in ("metric", "offset", "aligned", "median"):
                assert perfect[f"{name}.abs_rel"] == pytest.approx(0, abs=1e-6) and perfect[f"{name}.delta1"] == 1
            assert row["median.abs_rel"] > 0.1
        if isinstance(scorer, AgreementScorer):
            low = float(true[valid].min())
            stretched = (true - low) / (highest - low)
            assert scorer.score(true, stretched, valid)["agreement.accuracy"] > 0.999
