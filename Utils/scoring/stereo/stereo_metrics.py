"""Scores of depth or height in metres, by the errors of pixels; a pixel may have no estimate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from Utils.scoring.map_pairs import BoolArray, FloatArray
from Utils.scoring.scores import Metric, mean_of

CLIP = 250.0
"""Metres beyond which the published MAE leaves an error out."""
SHARES = (0.1, 0.2, 0.6, 1.0, 2.5, 7.5)
"""Metres below which the shares of errors are taken."""
INTERVALS = 3.0
"""Intervals of the file below which another share is taken; WHU's own code takes sampled intervals, twice as long."""
# From the median absolute deviation to the standard deviation of a normal distribution.
_NORMAL = 1.4826
# Steps of a sparsification curve.
_STEPS = 20


def _share(limit: float) -> Metric:
    return Metric(f"below_{limit:g}m".replace(".", "_"), f"< {limit:g} m", "higher", digits=1, percent=True)


MEANS: tuple[Metric, ...] = (
    Metric("mae", "MAE", "lower", digits=3, unit="m"),
    Metric("mae_250", "MAE of errors < 250 m", "lower", digits=3, unit="m"),
    Metric("rmse", "RMSE", "lower", digits=3, unit="m"),
)
MEDIANS: tuple[Metric, ...] = (
    Metric("median", "median", "lower", digits=3, unit="m"),
    Metric("nmad", "NMAD", "lower", digits=3, unit="m"),
)
ALL_SHARES: tuple[Metric, ...] = (
    *(_share(limit) for limit in SHARES),
    Metric("below_3_intervals", "< 3 intervals", "higher", digits=1, percent=True),
)
COMPLETENESS: tuple[Metric, ...] = (
    Metric("complete", "complete", "higher", digits=1, percent=True),
    Metric("complete_right", "complete and < 3 intervals", "higher", digits=1, percent=True),
)
CONFIDENCE: tuple[Metric, ...] = (
    Metric("mae_surest_half", "MAE of the surest half", "lower", digits=3, unit="m"),
    Metric("ause", "AUSE", "lower", digits=3),
)


@dataclass(frozen=True)
class Errors:
    """The errors of an image's pixels that have a truth, or of some of them, (N,) each.

    Attributes:
        error: estimate minus truth in metres; NaN where there is no estimate.
        confidence: 0 to 1; None where the method gives none.
        interval: metres, the file's own.
        least_confidence: from which on an estimate counts as given.
    """

    error: FloatArray
    confidence: FloatArray | None
    interval: float
    least_confidence: float

    def of(self, pixels: BoolArray) -> Errors:
        """The errors of some of the pixels, (N,) bool."""
        confidence = None if self.confidence is None else self.confidence[pixels]
        return Errors(self.error[pixels], confidence, self.interval, self.least_confidence)


def sums_of(errors: Errors) -> dict[str, float]:
    """What MEANS, ALL_SHARES and COMPLETENESS are made of, to be added up over images."""
    size = np.abs(errors.error)
    known = np.isfinite(size)
    given = known if errors.confidence is None else known & (errors.confidence >= errors.least_confidence)
    right = size < INTERVALS * errors.interval  # NaN is not
    sums = {
        "pixels": float(size.size),
        "known": float(known.sum()),
        "absolute": float(size[known].sum()),
        "squares": float(np.square(size[known]).sum()),
        "unclipped": float((size < CLIP).sum()),
        "absolute_unclipped": float(size[size < CLIP].sum()),
        "below_3_intervals": float(right.sum()),
        "complete": float(given.sum()),
        "complete_right": float((given & right).sum()),
    }
    return sums | {_share(limit).key: float((size < limit).sum()) for limit in SHARES}


def scores_of_sums(sums: Mapping[str, float]) -> dict[str, float]:
    """MEANS, ALL_SHARES and COMPLETENESS of sums.

    Means are over pixels with an estimate; shares are of all pixels with a truth, so that a pixel without an estimate
    counts against them. NaN where there are no pixels.
    """

    def over(value: str, count: str) -> float:
        return sums[value] / sums[count] if sums[count] else math.nan

    return {
        "mae": over("absolute", "known"),
        "mae_250": over("absolute_unclipped", "unclipped"),
        "rmse": math.sqrt(over("squares", "known")),
        **{metric.key: over(metric.key, "pixels") for metric in (*ALL_SHARES, *COMPLETENESS)},
    }


def image_scores(errors: Errors) -> dict[str, float]:
    """All scores of one image; those of confidence are NaN where there is none.

    ``median`` is that of the absolute error, ``nmad`` 1.4826 times the median absolute deviation of the signed error
    from its median. ``mae_surest_half`` is over the half of the pixels with the highest confidence. ``ause`` is the
    area between two curves, the MAE that is left when the least sure pixels are taken away, and when those with the
    largest errors are, as a share of the MAE (Ilg et al., ECCV 2018): 0 where confidence orders pixels as their errors
    do, and about 0.5 where it says nothing.
    """
    known = np.isfinite(errors.error)
    error = errors.error[known]
    median = float(np.median(np.abs(error))) if error.size else math.nan
    nmad = _NORMAL * float(np.median(np.abs(error - np.median(error)))) if error.size else math.nan
    half, area = math.nan, math.nan
    if errors.confidence is not None and error.size:
        half, area = _confidence_scores(np.abs(error), errors.confidence[known])
    return scores_of_sums(sums_of(errors)) | {"median": median, "nmad": nmad, "mae_surest_half": half, "ause": area}


def _confidence_scores(size: FloatArray, confidence: FloatArray) -> tuple[float, float]:
    """MAE of the surest half, and the area between the sparsification curve and the best one."""
    sure = size[np.argsort(-confidence, kind="stable")]
    best = np.sort(size)
    kept = [max(1, round(size.size * (1 - step / _STEPS))) for step in range(_STEPS)]
    sums, least = np.cumsum(sure), np.cumsum(best)
    mean = mean_of(size)
    area = float(np.mean([(sums[count - 1] - least[count - 1]) / count for count in kept])) / mean if mean else math.nan
    half = max(1, size.size // 2)
    return float(sums[half - 1] / half), area
