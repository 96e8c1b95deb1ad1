"""How errors vary with distance: a variogram, the model that fits it, and the independent errors that they are worth.

A sum of a short and a long spherical range is fitted (Rolstad et al., 2009; Hugonnet et al., 2022).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import curve_fit

__all__ = ["Variogram", "effective_samples", "fit_variogram"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Variogram:
    """Errors against distance.

    Attributes:
        distances: (K,) metres; pixels where a pixel's size is unknown.
        values: (K,) half the mean squared difference, square metres.
        pairs: (K,) how many pairs are behind them.
        ranges: short and long range of the fitted model, in the unit of the distances.
        sills: what each of them contributes, square metres.
        area: of the scored pixels, in that unit squared.
        effective: number of independent errors that they are worth; NaN where nothing could be fitted.
    """

    distances: FloatArray
    values: FloatArray
    pairs: FloatArray
    ranges: tuple[float, float]
    sills: tuple[float, float]
    area: float
    effective: float

    def model(self, distances: FloatArray) -> FloatArray:
        """The fitted variogram at distances (N,)."""
        parts = [_spherical(distances, *pair) for pair in zip(self.ranges, self.sills, strict=True)]
        return np.asarray(sum(parts))

    @property
    def standard_error_of_mean(self) -> float:
        """Of the mean error over the scored area, metres."""
        return math.sqrt(sum(self.sills) / self.effective) if self.effective > 0.0 else math.nan

    def describe(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "distances": self.distances.tolist(),
            "values": self.values.tolist(),
            "pairs": self.pairs.tolist(),
            "ranges": list(self.ranges),
            "sills": list(self.sills),
            "effective_samples": self.effective,
            "standard_error_of_mean": self.standard_error_of_mean,
        }


def _spherical(distances: FloatArray, reach: float, sill: float) -> FloatArray:
    share = np.minimum(distances / reach, 1.0)
    return np.asarray(sill * (1.5 * share - 0.5 * share**3))


def fit_variogram(distances: FloatArray, values: FloatArray, pairs: FloatArray, area: float, least: float) -> Variogram:
    """Fit a short and a long spherical range, by least squares over distances that grow by factors.

    The short range is a pixel, which is noise of its own, unless another one is worth its parameter. Relative residuals
    would ask the model to meet the smallest values near the origin, where smooth errors are parabolic and no spherical
    model is: ranges come out too long.

    Args:
        distances: (K,).
        values: (K,) of the empirical variogram.
        pairs: (K,) behind them.
        area: over which errors are averaged, in the unit of the distances squared.
        least: the size of a pixel: no range is shorter.
    """
    if len(distances) < 4 or not values.max() > 0.0:
        nothing = (math.nan, math.nan)
        return Variogram(distances, values, pairs, nothing, nothing, area, math.nan)
    top, reach = float(values.max()), float(distances.max())

    def model(at: NDArray[np.float64], short: float, longer: float, first: float, second: float) -> FloatArray:
        return _spherical(at, short, first) + _spherical(at, short + longer, second)

    def one_range(at: NDArray[np.float64], longer: float, first: float, second: float) -> FloatArray:
        return model(at, least, longer, first, second)

    found = []
    for tried, starts, low, high in (
        (one_range, [(reach / 8, top / 2, top / 2), (reach / 2, top / 2, top / 2)], [0.0] * 3, [2 * reach, 2 * top]),
        (model, [(2 * least, reach / 2, top / 2, top / 2), (math.sqrt(least * reach), reach / 2, top / 2, top / 2)],
         [least, 0.0, 0.0, 0.0], [reach, 2 * reach, 2 * top]),
    ):  # fmt: skip
        bounds = (low, [*high, high[-1]])
        best, cost = None, math.inf
        for start in starts:
            try:
                fitted, _ = curve_fit(tried, distances, values, p0=start, bounds=bounds)
            except (RuntimeError, ValueError):
                continue
            missed = float(((tried(distances, *fitted) - values) ** 2).sum())
            if missed < cost:
                best, cost = fitted, missed
        if best is not None:
            found.append((_criterion(cost, len(distances), len(best)), best))
    if not found:
        nothing = (math.nan, math.nan)
        return Variogram(distances, values, pairs, nothing, nothing, area, math.nan)
    best = min(found, key=lambda one: one[0])[1]
    short, longer, *sills = best if len(best) == 4 else (least, *best)
    ranges, parts = (float(short), float(short + longer)), (float(sills[0]), float(sills[1]))
    return Variogram(distances, values, pairs, ranges, parts, area, effective_samples(area, ranges, parts))


def _criterion(missed: float, count: int, parameters: int) -> float:
    """Akaike's, corrected for few values: a second range must be worth its parameter, for sums of squares wobble."""
    if count <= parameters + 2:
        return math.inf if parameters > 3 else 0.0
    return count * math.log(max(missed, 1e-300)) + 2 * parameters * count / (count - parameters - 1)


def effective_samples(area: float, ranges: tuple[float, ...], sills: tuple[float, ...]) -> float:
    """Number of independent errors that those of a disk of some area are worth (Rolstad et al., 2009, equation 8).

    Args:
        area: of the disk.
        ranges: of spherical variograms.
        sills: of each of them.
    """
    radius = math.sqrt(area / math.pi)
    squared = 0.0
    for reach, sill in zip(ranges, sills, strict=True):
        share = radius / reach
        squared += sill * (1.0 - share + share**3 / 5.0 if share < 1.0 else 1.0 / (5.0 * share**2))
    return sum(sills) / squared if squared > 0.0 else math.nan
