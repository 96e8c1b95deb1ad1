"""Scores of depth in metres: the usual ones of depth from one image, on pixels with a truth above 0."""

from __future__ import annotations

import math

import numpy as np

from Utils.scoring.map_pairs import DELTAS, FloatArray, comparable, delta_shares
from Utils.scoring.scores import Metric

DEPTH: tuple[Metric, ...] = (
    *DELTAS,
    Metric("abs_rel", "AbsRel", "lower", digits=4),
    Metric("sq_rel", "SqRel", "lower", digits=4, unit="m"),
    Metric("rmse", "RMSE", "lower", digits=3, unit="m"),
    Metric("rmse_log", "RMSE log", "lower", digits=4),
    Metric("log10", "log10", "lower", digits=4),
    Metric("silog", "SILog", "lower", digits=2),
)
"""The scores of `depth_scores`, in the order of their table."""


def depth_scores(true: FloatArray, guess: FloatArray) -> dict[str, float]:
    """Score depth on the pixels that count.

    With t the truth, p the prediction and d = ln(p) - ln(t):

    `delta1..3`, the share (0..1) of pixels with max(t/p, p/t) < 1.25^k; `abs_rel` = mean(|t - p| / t);
    `sq_rel` = mean((t - p)^2 / t); `rmse` = sqrt(mean((t - p)^2)); `rmse_log` = sqrt(mean(d^2));
    `log10` = mean(|log10(t) - log10(p)|); `silog` = 100 sqrt(mean(d^2) - mean(d)^2), as KITTI's benchmark takes it.

    Args:
        true: (N,) depth in metres, above 0.
        guess: (N,) predicted depth in metres, above 0.

    Returns:
        The scores; all are NaN without pixels, or where a value is not finite or not above 0.
    """
    if not comparable(true, guess) or min(true.min(), guess.min()) <= 0:
        return {metric.key: math.nan for metric in DEPTH}
    error = np.abs(true - guess)
    logarithm = np.log(guess) - np.log(true)
    return {
        **delta_shares(true, guess),
        "abs_rel": float(np.mean(error / true)),
        "sq_rel": float(np.mean(error**2 / true)),
        "rmse": math.sqrt(float(np.mean(error**2))),
        "rmse_log": math.sqrt(float(np.mean(logarithm**2))),
        "log10": float(np.mean(np.abs(logarithm))) / math.log(10),
        "silog": 100 * float(np.std(logarithm)),
    }
