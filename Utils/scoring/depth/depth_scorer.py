"""The scorer of depth in metres: as it is predicted, and with each tile aligned to its truth in two ways."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional

from Utils.data.sample import Batch
from Utils.scoring.aligned import fit_scale_and_shift
from Utils.scoring.depth.depth_limits import DepthLimits
from Utils.scoring.depth.depth_metrics import DEPTH, depth_scores
from Utils.scoring.map_pairs import BoolArray, FloatArray, as_pair, comparable
from Utils.scoring.offset import by_offset
from Utils.scoring.scores import Row, ScoreProtocol, TileScorer

Align = Callable[[FloatArray, FloatArray], FloatArray]
_IN_METRES = ("metric", "offset")
_SHOWN = ("abs_rel", "rmse", "log10", "delta1")


def as_predicted(true: FloatArray, guess: FloatArray) -> FloatArray:
    """The prediction itself."""
    return guess


def by_scale_and_shift(true: FloatArray, guess: FloatArray) -> FloatArray:
    """(N,) guess, fitted to (N,) true by least squares with a scale that is not negative."""
    return fit_scale_and_shift(true, guess)[2]


def by_median(true: FloatArray, guess: FloatArray) -> FloatArray:
    """(N,) guess, scaled so that its median is that of (N,) true; NaN where its median is not above 0."""
    median = float(np.median(guess))
    return guess * (float(np.median(true)) / median if median > 0 else math.nan)


_WAYS: dict[str, tuple[Align, str]] = {
    "metric": (as_predicted, "metres as predicted"),
    "offset": (by_offset, "metres as predicted, shifted per frame to the mean of the truth, and not scaled"),
    "aligned": (by_scale_and_shift, "prediction fitted to the truth by least-squares scale (>= 0) and shift per frame"),
    "median": (by_median, "prediction scaled per frame so that its median is the truth's"),
}


class DepthScorer(TileScorer):
    """Scores predicted depth against ``target`` and ``valid`` of a batch.

    A prediction of another size than the truth is brought to it bilinearly, because networks see smaller frames.

    Args:
        limits: which pixels count.
        metric: whether predictions are in metres; relative ones have no scores in ``metric`` and ``offset``.
        truth: the entry of a batch with the true depth (B, 1, H, W).
    """

    def __init__(self, limits: DepthLimits | None = None, metric: bool = True, truth: str = "target") -> None:
        self.limits = limits or DepthLimits()
        self.truth = truth
        self._ways = {name: align for name, (align, _) in _WAYS.items() if metric or name not in _IN_METRES}
        self.protocols = tuple(
            ScoreProtocol(name, f"{_WAYS[name][1]}; {self.limits.describe()}; mean over frames", DEPTH, _SHOWN)
            for name in self._ways
        )
        self.ranked_by = f"{next(iter(self._ways))}.abs_rel"

    def score(self, target: ArrayLike, prediction: ArrayLike, valid: BoolArray | None = None) -> dict[str, float]:
        """Score one map, all (H, W): the target in metres, the prediction in metres or of any scale.

        All scores are NaN where no pixel counts, or where a prediction is not finite.
        """
        true_map, guess_map, inside = as_pair(target, prediction, valid)
        counted = self.limits.counted(true_map, inside)
        true, guess = true_map[counted], guess_map[counted]
        if not comparable(true, guess):
            return {f"{name}.{metric.key}": math.nan for name in self._ways for metric in DEPTH}
        return {
            f"{name}.{key}": value
            for name, align in self._ways.items()
            for key, value in depth_scores(true, self.limits.clip(align(true, guess))).items()
        }

    def score_batch(self, batch: Batch, prediction: Tensor) -> list[Row | None]:
        """Score a batch's tiles; ``prediction`` is (B, 1, h, w). A tile without a pixel that counts has no row."""
        targets, valids = batch[self.truth][:, 0].cpu().numpy(), batch["valid"][:, 0].cpu().numpy()
        maps = resized(prediction, batch[self.truth].shape[-2:])
        rows: list[Row | None] = []
        for target, drawn, valid in zip(targets, maps[:, 0].cpu().numpy(), valids, strict=True):
            row = self.score(target, drawn, valid) if self.limits.counted(target, valid).any() else None
            rows.append(row)
        return rows


def resized(prediction: Tensor, size: tuple[int, ...]) -> Tensor:
    """Maps (B, 1, h, w) in fp32, brought bilinearly to a size (H, W)."""
    maps = prediction.float()
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return functional.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)
