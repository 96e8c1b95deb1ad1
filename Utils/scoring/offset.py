"""The protocol of heights in metres whose zero is unknown: each tile may be shifted, and never scaled."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from Utils.scoring.map_pairs import BoolArray, FloatArray, as_pair, check_positive, comparable
from Utils.scoring.scores import Metric, ScoreProtocol

OFFSET: tuple[Metric, ...] = (
    Metric("mae", "MAE", "lower", digits=3, unit="m"),
    Metric("rmse", "RMSE", "lower", digits=3, unit="m"),
)
OFFSET_PROTOCOL = ScoreProtocol(
    "offset", "metres as predicted, each tile shifted to the mean of its truth, and not scaled", OFFSET, ("mae", "rmse")
)


def by_offset(true: FloatArray, guess: FloatArray) -> FloatArray:
    """(N,) guess, shifted by the constant that fits (N,) true best in least squares."""
    return guess + (float(true.mean()) - float(guess.mean()))


def offset_scores(
    target: ArrayLike, prediction: ArrayLike, valid: BoolArray | None = None, metres_per_unit: float = 1.0
) -> dict[str, float]:
    """Score a prediction in metres after the best shift of this tile.

    Args:
        target: (H, W), any real dtype; ``metres_per_unit`` metres each.
        prediction: (H, W), in metres.
        valid: (H, W) bool; pixels outside it count nowhere.
        metres_per_unit: metres that one unit of the target stands for.

    Returns:
        `mae` and `rmse` in metres; NaN when no pixel is valid, or when a valid pixel is not finite.
    """
    check_positive(metres_per_unit, "metres_per_unit")
    true_map, guess_map, inside = as_pair(target, prediction, valid)
    true, guess = true_map[inside] * metres_per_unit, guess_map[inside]
    if not comparable(true, guess):
        return {metric.key: math.nan for metric in OFFSET}
    error = np.abs(true - by_offset(true, guess))
    return {"mae": float(np.mean(error)), "rmse": math.sqrt(float(np.mean(error**2)))}
