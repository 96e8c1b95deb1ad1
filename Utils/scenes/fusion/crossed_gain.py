"""How much of a map's detail is right, found by crossing one octave, where the DEM itself is the truth.

The DEM is averaged over two by two cells, and all is done again with these wider cells. What its own cells show beyond
that result is regressed on the detail that the maps add there, in a window around each cell. A map that knows nothing
gets no share.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

Floats = NDArray[np.float64]
Cells = NDArray[np.float32]

# Size of the window that decides a cell's gain: standard deviation of a Gaussian, in cells.
_WINDOW = 12.0
# Weight of the scene's mean evidence, relative to that of a window with average contrast.
_TRUST_IN_SCENE = 0.25
_HIGHEST_GAIN = 2.0
# Number of cells in the window, and how many of them count as one beyond the averaged cells.
_WINDOW_CELLS = 4.0 * math.pi * _WINDOW**2
_CELLS_AN_OBSERVATION = 4.0
_MAD_TO_SIGMA = 1.4826
# A slope whose square is not so many times its variance counts as chance.
_CAUTION = 2.0
# Cliffs and artefacts count as if they were so many standard deviations high.
_HIGHEST = 4.0


@dataclass(frozen=True)
class CrossedGains:
    """Shares of the detail of maps.

    Attributes:
        gains: for each map (h, w), 0 where it is not supported.
        explained: (h, w) share of the variance of what the averaged cells left open that the maps explain, 0 to 1.
        explained_of_all: the same share for the whole scene.
    """

    gains: list[Cells]
    explained: Cells
    explained_of_all: float


def crossed_gains(left_open: Cells, details: Sequence[Cells]) -> CrossedGains:
    """Find the shares of maps' details.

    Args:
        left_open: (h, w) what the DEM's cells show beyond the estimate from cells twice as wide, in metres; NaN where
            unknown.
        details: for each map (h, w) what it adds to that estimate; NaN where unknown.
    """
    shape = left_open.shape
    zeros = [np.zeros(shape, np.float32) for _ in details]
    known = np.isfinite(left_open) & np.all([np.isfinite(one) for one in details], axis=0)
    if not known.any() or not details:
        return CrossedGains(zeros, np.zeros(shape, np.float32), 0.0)
    true = np.where(known, left_open, 0.0).astype(np.float64)
    drawn = [np.where(known, one, 0.0).astype(np.float64) for one in details]
    limit = _HIGHEST * max(_MAD_TO_SIGMA * float(np.median(np.abs(true[known]))), 1e-12)
    weight = known * np.minimum(1.0, limit / np.maximum(np.abs(true), limit))
    total, count = weight.sum(), len(details)
    density = over_window(weight)
    power, common = np.zeros((*shape, count, count)), np.zeros((*shape, count))
    usual_power, usual_common = np.zeros((count, count)), np.zeros(count)
    for i in range(count):
        common[..., i] = over_window(weight * true * drawn[i])
        usual_common[i] = (weight * true * drawn[i]).sum() / total
        for j in range(count):
            power[..., i, j] = over_window(weight * drawn[i] * drawn[j])
            usual_power[i, j] = (weight * drawn[i] * drawn[j]).sum() / total
    together = power + _TRUST_IN_SCENE * usual_power
    # A map without any detail has a gain of 0, not of anything.
    together = together + 1e-9 * (np.trace(usual_power) + 1e-12) * np.eye(count)
    slopes = np.linalg.solve(together, (common + _TRUST_IN_SCENE * usual_common)[..., None])[..., 0]
    fitted = sum(slopes[..., i] * drawn[i] for i in range(count))
    unexplained = over_window(weight * (true - fitted) ** 2) / np.maximum(density, 1e-9)
    # The slopes' variances: a chance correlation is no support (positive-part James-Stein).
    observations = (density * _WINDOW_CELLS + _TRUST_IN_SCENE * total) / _CELLS_AN_OBSERVATION
    inverse = np.linalg.inv(together)
    gains = []
    for i in range(count):
        variance = unexplained * inverse[..., i, i] * (density + _TRUST_IN_SCENE) / observations
        shrunk = slopes[..., i] - _CAUTION * variance / np.maximum(slopes[..., i], 1e-12)
        gains.append(np.clip(shrunk, 0.0, _HIGHEST_GAIN).astype(np.float32))
    left = true - sum(gain * one for gain, one in zip(gains, drawn, strict=True))
    before, after = weight * true**2, weight * left**2
    usual = max(before.sum() / total, 1e-12)
    explained = 1.0 - (over_window(after) + _TRUST_IN_SCENE * after.sum() / total) / (
        over_window(before) + _TRUST_IN_SCENE * usual
    )
    of_all = 1.0 - after.sum() / total / usual
    return CrossedGains(gains, np.clip(explained, 0.0, 1.0).astype(np.float32), float(np.clip(of_all, 0.0, 1.0)))


def over_window(values: NDArray) -> Floats:
    """Weighted mean of values (h, w) in the window around each cell, where those beyond the border count as 0."""
    return np.asarray(gaussian_filter(values.astype(np.float64), _WINDOW, mode="constant"))
