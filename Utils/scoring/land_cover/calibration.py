"""Calibration: whether a model that is sure at 80 per cent is right in 80 of 100 pixels (Guo et al., 2017)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["BINS", "calibration_counts", "expected_calibration_error"]

BINS = 15
"""Equal bins of confidence from 0 to 1, as in the paper (arXiv 1706.04599)."""


def calibration_counts(confidence: NDArray[np.floating], right: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Sums by bin of the confidence in the predicted class.

    Args:
        confidence: (N,) in [0, 1].
        right: (N,) whether the predicted class is true.

    Returns:
        (BINS, 3): pixels, their confidence added up, and how many of them are right.
    """
    place = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    sums = [np.bincount(place, weights, BINS) for weights in (None, confidence, right)]
    return np.stack(sums, axis=1).astype(np.float64)


def expected_calibration_error(counts: NDArray[np.float64]) -> float:
    """Mean difference of confidence and accuracy over the bins, weighted by their pixels; NaN without pixels."""
    total = counts[:, 0].sum()
    return float(np.abs(counts[:, 1] - counts[:, 2]).sum() / total) if total else float("nan")
