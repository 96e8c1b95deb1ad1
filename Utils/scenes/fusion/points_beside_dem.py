"""What points add to a DEM: a level and a surface around it, each as far as points that were left out bear it out.

What a DEM lacks near a point need not go on beside it, and points next to each other would not show that. So whole
blocks of points are left out, predicted by the others, and what they show is regressed on the prediction. The slope,
shrunk by its error, is the share that is kept: the guard that a model's maps pass as well.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RBFInterpolator

__all__ = ["Surface", "guarded_surface", "weighted_median"]

logger = logging.getLogger(__name__)

Floats = NDArray[np.float64]
Surface = Callable[[Floats], Floats]
"""Gives metres (N,) at places (N, 2)."""
Fit = Callable[[Floats, Floats, Floats], Surface]
"""Gives the surface through values (N,) at places (N, 2), which are doubted by shares (N,) of their mean variance."""

_BLOCKS = 8  # along the longer side
_FOLDS = 5
_FEWEST = 8  # points that a fold is predicted from
_MOST = 800  # points that choose
_NEIGHBOURS = 48
_RANGES = (1.0, 2.0, 4.0, 8.0)  # sides of a block over which what a DEM lacks may be alike
_NUGGETS = (0.03, 0.3, 3.0)  # variance of a point's own, in shares of that of the surface
_CAUTION = 4.0
_FEWEST_BLOCKS = 5  # that must bear a slope: their sum of powers, squared, over the sum of squares
_HIGHEST = 4.0  # robust standard deviations: what lies higher counts as if it were so high
_MAD_TO_SIGMA = 1.4826


@dataclass(frozen=True)
class _Crossing:
    """Points in blocks, and the blocks in folds that are left out one at a time."""

    places: Floats
    doubt: Floats
    blocks: NDArray[np.intp]
    folds: NDArray[np.intp]

    def predicted(self, values: Floats, fit: Fit) -> Floats:
        """(N,) what the other folds tell of each point; NaN where they are too few."""
        found = np.full(len(values), np.nan)
        for fold in np.unique(self.folds):
            known, asked = self.folds != fold, self.folds == fold
            if known.sum() >= _FEWEST:
                found[asked] = fit(self.places[known], values[known], self.doubt[known])(self.places[asked])
        return found

    def miss(self, values: Floats, predicted: Floats) -> float:
        """The mean distance of what is predicted, weighted; infinite if nothing is."""
        known = np.isfinite(predicted)
        if not known.any():
            return math.inf
        return float(np.average(np.abs(values - predicted)[known], weights=1.0 / self.doubt[known]))

    def gain(self, values: Floats, predicted: Floats) -> float:
        """The share (0..1) of what is predicted that is borne out: its slope, shrunk by its error over blocks."""
        known = np.isfinite(predicted)
        limit = _HIGHEST * max(_MAD_TO_SIGMA * float(np.median(np.abs(values))), 1e-12)
        weight = np.where(known, 1.0 / self.doubt, 0.0) * np.minimum(1.0, limit / np.maximum(np.abs(values), limit))
        drawn = np.where(known, predicted, 0.0)
        count = int(self.blocks.max()) + 1
        common, power = (np.bincount(self.blocks, weight * drawn * one, minlength=count) for one in (values, drawn))
        # Two points that lie close together say the same of each other, and may be all that is predicted at all.
        if power.sum() ** 2 <= _FEWEST_BLOCKS * (power**2).sum():
            return 0.0
        slope = float(common.sum() / power.sum())
        left = power.sum() - power
        without = (common.sum() - common)[left > 0.0] / left[left > 0.0]
        variance = (len(without) - 1) / len(without) * float(((without - without.mean()) ** 2).sum())
        sure = 1.0 - _CAUTION * variance / slope**2 if slope > 0.0 else 0.0
        return min(slope, 1.0) * max(sure, 0.0)


def guarded_surface(places: Floats, values: Floats, doubt: Floats) -> Surface:
    """The surface that mends a DEM: a level, and around it what is alike over some blocks; 0 where nothing is sure.

    Away from all points the surface falls to the level.

    Args:
        places: (N, 2) of the points, in any unit.
        values: (N,) what the DEM lacks there, in metres.
        doubt: (N,) variance of the values in shares of the mean one.
    """
    chosen = np.random.default_rng(0).permutation(len(places))[:_MOST]
    side = max(float(np.ptp(places, axis=0).max()), 1e-9) / _BLOCKS
    corner = places.min(axis=0)
    _, blocks = np.unique(np.floor((places[chosen] - corner) / side), axis=0, return_inverse=True)
    blocks = blocks.ravel()
    folds = np.random.default_rng(1).permutation(int(blocks.max()) + 1)[blocks] % _FOLDS
    crossing = _Crossing(places[chosen], doubt[chosen], blocks, folds)
    asked = values[chosen]

    flat = crossing.predicted(asked, _level)
    share = crossing.gain(asked, flat)
    level = share * float(_level(places, values, doubt)(places[:1])[0])
    rest = asked - share * np.nan_to_num(flat)
    fits = [partial(_kriged, side * reach, nugget) for reach in _RANGES for nugget in _NUGGETS]
    drawn = [crossing.predicted(rest, fit) for fit in fits]
    best = int(np.argmin([crossing.miss(rest, one) for one in drawn]))
    gain = crossing.gain(rest, drawn[best])
    found = asked - share * np.nan_to_num(flat) - gain * np.nan_to_num(drawn[best])
    zero = np.zeros(len(asked))
    logger.info(
        "--points mend the DEM by %+.2f m and by %.0f %% of a surface around that level: blocks of points that were "
        "left out are missed by %.2f m, and by %.2f m without",
        level,
        100.0 * gain,
        crossing.miss(found, zero),
        crossing.miss(asked, zero),
    )
    surface = fits[best](places, values - level, doubt) if gain > 0.0 else None

    def mended(at: Floats) -> Floats:
        return np.full(len(at), level) + (gain * surface(at) if surface is not None else 0.0)

    return mended


def weighted_median(values: Floats, weights: Floats) -> float:
    """The median, where each value counts by its weight; the usual one for equal weights."""
    if np.ptp(weights) == 0.0:
        return float(np.median(values))
    order = np.argsort(values)
    total = np.cumsum(weights[order]) - weights[order] / 2
    return float(np.interp(weights.sum() / 2, total, values[order]))


def _level(places: Floats, values: Floats, doubt: Floats) -> Surface:
    level = weighted_median(values, 1.0 / doubt)
    return lambda at: np.full(len(at), level)


def _kriged(reach: float, nugget: float, places: Floats, values: Floats, doubt: Floats) -> Surface:
    """Simple kriging with the covariance 1 / (1 + (distance / reach)^2), which falls to 0 away from all points."""
    found = RBFInterpolator(
        places, values, neighbors=min(_NEIGHBOURS, len(places)), smoothing=nugget * doubt,
        kernel="inverse_quadratic", epsilon=1.0 / reach, degree=-1,
    )  # fmt: skip
    return lambda at: np.asarray(found(at))
