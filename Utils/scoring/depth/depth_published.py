"""The protocols of Enc-Dec-IRv2's own tables (arXiv 2410.11610), to stand beside its numbers and beside no others.

What they rest on: the network learns depth that each image's extremes stretch to [0, 1], so it knows no metres; the
table for NYU makes them with one constant for all frames, 10 x 0.75 = 7.5 m. The table of agreement at one half is no
measure of depth; and the pictures that the paper's Cityscapes files name as depth are colours of a segmentation.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional

from Utils.data.sample import Batch
from Utils.scoring.depth.depth_metrics import depth_scores
from Utils.scoring.depth.depth_scorer import resized
from Utils.scoring.map_pairs import DELTAS, BoolArray, as_pair, comparable
from Utils.scoring.scores import Metric, Row, ScoreProtocol, TileScorer

PUBLISHED_NYU_FRAMES = range(654)
"""Indices of the frames of NYU's labelled file that the paper scores: its first 654, and not Eigen's test frames."""
PUBLISHED_NYU = {
    "published.delta1": 0.8932,
    "published.delta2": 0.9673,
    "published.delta3": 0.9851,
    "published.abs_rel": 0.0641,
    "published.rmse": 0.2281,
    "published.log10": 0.0317,
}
"""The paper's numbers in the protocol of ``PublishedNyuScorer``."""

_FRAME = (480, 640)
_FIRST_FACTOR, _SECOND_FACTOR = 10.0, 0.75
_CROP = np.s_[20:461, 24:617]
_PUBLISHED = ScoreProtocol(
    "published",
    "predictions in (0, 1), doubled in size, times 7.5 m for every frame; rows 20 to 460 and columns 24 to 616; mean "
    "over frames. The constant, not the network, makes the metres: not comparable to tables of metric depth",
    (
        *DELTAS,
        Metric("abs_rel", "AbsRel", "lower", digits=4),
        Metric("rmse", "RMSE", "lower", digits=4, unit="m"),
        Metric("log10", "log10", "lower", digits=4),
    ),
    ("abs_rel", "rmse", "log10", "delta1"),
)
_AGREEMENT = ScoreProtocol(
    "agreement",
    "truth stretched to 0..1 by each image's extremes; truth and prediction each cut at one half; mean over images. "
    "No measure of depth",
    (
        Metric("accuracy", "Accuracy", "higher", digits=2, percent=True),
        Metric("precision", "Precision", "higher", digits=2, percent=True),
        Metric("recall", "Recall", "higher", digits=2, percent=True),
        Metric("f1", "F1", "higher", digits=2, percent=True),
    ),
    ("accuracy", "f1"),
)


class PublishedNyuScorer(TileScorer):
    """Scores relative depth on NYU frames as the paper does.

    Predictions are made from images of 240 x 320 in [0, 1] that were neither stretched nor turned to blue first, as the
    paper's evaluation gives them (``EncDec.draw``), unlike its training. Truths are 480 x 640, in metres.

    Args:
        truth: the entry of a batch with the true depth (B, 1, 480, 640).
    """

    protocols = (_PUBLISHED,)
    ranked_by = "published.abs_rel"

    def __init__(self, truth: str = "target") -> None:
        self.truth = truth

    def score(self, target: ArrayLike, prediction: ArrayLike, valid: BoolArray | None = None) -> dict[str, float]:
        """Score one frame: target (480, 640) in metres, prediction (480, 640) in (0, 1), doubled already.

        Raises:
            ValueError: frames of another size.
        """
        true, guess, inside = as_pair(target, prediction, valid)
        if true.shape != _FRAME:
            size = f"{true.shape[1]} x {true.shape[0]}"
            raise ValueError(f"the published protocol is for NYU frames of 640 x 480 pixels, not {size}.")
        counted = inside[_CROP] & (true[_CROP] > 0)
        metres = guess[_CROP] * _FIRST_FACTOR * _SECOND_FACTOR
        found = depth_scores(true[_CROP][counted], metres[counted])
        return {_PUBLISHED.key(metric): found[metric.key] for metric in _PUBLISHED.metrics}

    def score_batch(self, batch: Batch, prediction: Tensor) -> list[Row | None]:
        """Score a batch's frames; ``prediction`` is (B, 1, 240, 320), or doubled already by ``doubled``."""
        full = prediction.float() if prediction.shape[-2:] == _FRAME else doubled(prediction)
        targets, valids = batch[self.truth][:, 0].cpu().numpy(), batch["valid"][:, 0].cpu().numpy()
        maps = full[:, 0].cpu().numpy()
        return [
            self.score(target, drawn, valid) if valid.any() else None
            for target, drawn, valid in zip(targets, maps, valids, strict=True)
        ]


class AgreementScorer(TileScorer):
    """Scores relative depth as the paper does for KITTI and Cityscapes: which half of its range a pixel is in."""

    protocols = (_AGREEMENT,)
    ranked_by = "agreement.accuracy"

    def score(self, target: ArrayLike, prediction: ArrayLike, valid: BoolArray | None = None) -> dict[str, float]:
        """Score one map, all (H, W): the target in any unit, the prediction in (0, 1).

        A truth without any range counts as 0. Precision, recall and F1 are NaN where they would divide by 0.
        """
        true_map, guess_map, inside = as_pair(target, prediction, valid)
        true, guess = true_map[inside], guess_map[inside]
        if not comparable(true, guess):
            return {_AGREEMENT.key(metric): math.nan for metric in _AGREEMENT.metrics}
        span = float(np.ptp(true))
        far = (true - true.min()) / span > 0.5 if span > 0 else np.zeros(true.shape, np.bool_)
        drawn_far = guess > 0.5
        hits, drawn, real = (int(np.count_nonzero(mask)) for mask in (far & drawn_far, drawn_far, far))
        return {
            "agreement.accuracy": float(np.mean(far == drawn_far)),
            "agreement.precision": _share(hits, drawn),
            "agreement.recall": _share(hits, real),
            "agreement.f1": _share(2 * hits, drawn + real),
        }

    def score_batch(self, batch: Batch, prediction: Tensor) -> list[Row | None]:
        """Score a batch's tiles; ``prediction`` is (B, 1, h, w)."""
        targets, valids = batch["target"][:, 0].cpu().numpy(), batch["valid"][:, 0].cpu().numpy()
        maps = resized(prediction, batch["target"].shape[-2:])[:, 0].cpu().numpy()
        return [
            self.score(target, drawn, valid) if valid.any() else None
            for target, drawn, valid in zip(targets, maps, valids, strict=True)
        ]


def doubled(prediction: Tensor) -> Tensor:
    """Maps (B, 1, h, w) as (B, 1, 2h, 2w) fp32, bilinearly, as the published protocol does."""
    return functional.interpolate(prediction.float(), scale_factor=2, mode="bilinear", align_corners=False)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
