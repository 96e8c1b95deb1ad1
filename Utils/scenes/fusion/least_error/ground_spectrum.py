"""Power spectra of the ground and noise of a DEM, fitted to the DEM's own cells in windows.

A cell of a DEM is the mean of the ground over the cell, plus noise. The power of natural ground falls with frequency
about as frequency to the power -3 to -4. Both are found by Whittle's likelihood (Whittle, Arkiv foer Matematik 1953) of
the cells' periodogram.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

Floats = NDArray[np.float64]

# Frequencies beyond the Nyquist frequency of the cells fold back; so many on each side carry nearly all of their power.
_ALIASES = 1
# Bounds of the logarithms of strength and noise, of the slope, and of the logarithm of the bend.
_BOUNDS = ((-30.0, 30.0), (1.5, 7.0), (-8.0, -1.0), (-14.0, 14.0))
_LOWEST, _HIGHEST = np.array(_BOUNDS).T
# How far a window may differ from the pooled spectrum: standard deviations of the same four.
_LOCAL_FREEDOM = np.array([1.0, 0.4, 0.5, 0.4])
# Usual ground: mean and standard deviation of slope and bend. They decide where cells are few.
_USUAL = np.array([3.5, -3.5])
_SPREAD = np.array([1.0, 1.5])
# Noise that is tried, as shares of the usual amplitude of the cells' transform, which it cannot exceed by much.
_NOISES = (0.02, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 1.05)
# Windows overlap: a quarter of each is its own.
_OWN_SHARE = 0.25
# Where the search begins: slope and logarithm of the noise.
_STARTS = ((3.0, 0.0), (4.0, 2.0))
# Fisher scoring converges in a few steps from the pooled spectrum; a step is at most so large.
_STEPS = 10
_LONGEST_STEP = 2.0
_CONVERGED = 1e-3


@dataclass(frozen=True)
class GroundSpectra:
    """Spectra of windows of the ground: ``exp(strength) (frequency^2 + exp(bend)^2)^(-slope / 2)``, and white noise.

    Attributes:
        parameters: (W, 4), for each window strength: logarithm of the power of a cell at one cycle a cell, in square
            metres; slope: the exponent by which the power falls; bend: logarithm of the frequency, in cycles a cell,
            below which it no longer rises; noise: logarithm of the variance of a cell's noise, in square metres.
        aspect: height of a cell divided by its width, on the ground; frequencies are in cycles a cell's height.
    """

    parameters: Floats
    aspect: float = 1.0

    @property
    def noise_variance(self) -> Floats:
        """(W,) variance of a cell's noise in square metres."""
        return np.asarray(np.exp(self.parameters[:, 3]))

    def power(self, down: Floats, across: Floats) -> Floats:
        """Power (W, h, w) at frequencies in cycles a cell along columns (h,) and along rows (w,)."""
        strength, slope, bend = (column[:, None, None] for column in self.parameters.T[:3])
        squared = (down[:, None] ** 2 + (self.aspect * across[None]) ** 2) + np.exp(2 * bend)
        return np.asarray(np.exp(strength - 0.5 * slope * np.log(squared)))


def pooled_spectrum(periodograms: Floats, aspect: float) -> GroundSpectra:
    """The one spectrum that windows of a DEM have in common.

    Rough ground looks like noise. Where the cells cannot tell one from the other, the mean of all amounts of noise that
    go with them is taken: too little sharpens the noise, and too much takes the ground away.

    Args:
        periodograms: (W, h, w) squares of the orthonormal cosine transforms of windows without their trend.
        aspect: height of a cell divided by its width.
    """
    mean = periodograms.mean(axis=0)
    model = _FoldedModel(mean.shape, aspect)
    power = mean[model.used][None]
    usual = float(np.median(power)) + 1e-12
    level, observations = math.log(usual), _OWN_SHARE * len(periodograms)

    def cost(given: Any, *fixed: float) -> tuple[float, Any]:
        value, gradient, _ = model.likelihood(np.append(given, fixed)[None], power)
        away = (given[1:3] - _USUAL) / _SPREAD
        slope = observations * gradient[0][: len(given)]
        slope[1:3] += away / _SPREAD
        return observations * float(value[0]) + 0.5 * float(away @ away), slope

    def best(starts: list[Any], *fixed: float) -> Any:
        found: list[Any] = [
            minimize(
                cost,
                np.clip(start, _LOWEST, _HIGHEST)[: 4 - len(fixed)],
                fixed,
                jac=True,
                method="L-BFGS-B",
                bounds=_BOUNDS[: 4 - len(fixed)],
            )
            for start in starts
        ]
        return min(found, key=lambda result: result.fun)

    likeliest = best([np.array([level - 1.0, slope, -4.0, level + noise - 1.0]) for slope, noise in _STARTS])
    weights, noises = [1.0], [math.exp(likeliest.x[3])]
    for share in _NOISES:
        found = best([likeliest.x], math.log(share**2 * usual))
        weights.append(math.exp(min(0.0, likeliest.fun - found.fun)))
        noises.append(share**2 * usual)
    noise = math.log(float(np.average(noises, weights=weights)))
    return GroundSpectra(np.append(best([likeliest.x], noise).x, noise)[None], aspect)


def local_spectra(periodograms: Floats, pooled: GroundSpectra) -> GroundSpectra:
    """The spectra of windows (W, h, w), each of which strays from the pooled one as far as its cells demand.

    They have the largest posterior probability, found by Fisher scoring for all windows at once.
    """
    model = _FoldedModel(periodograms.shape[1:], pooled.aspect)
    power = periodograms[:, model.used]
    centre, precision = pooled.parameters, np.diag(_LOCAL_FREEDOM**-2.0)

    def posterior(given: Floats) -> tuple[Floats, Floats, Floats]:
        value, gradient, information = model.likelihood(given, power)
        away = given - centre
        return value + 0.5 * (away**2 @ precision).sum(axis=1), gradient + away @ precision, information + precision

    found = np.repeat(np.clip(centre, _LOWEST, _HIGHEST), len(power), axis=0)
    cost, gradient, information = posterior(found)
    reach = np.ones(len(power))
    for _ in range(_STEPS):
        step = -np.linalg.solve(information, gradient[..., None])[..., 0]
        step *= (reach * np.minimum(1.0, _LONGEST_STEP / np.maximum(np.abs(step).max(axis=1), 1e-12)))[:, None]
        tried = np.clip(found + step, _LOWEST, _HIGHEST)
        there = posterior(tried)
        better = there[0] < cost
        found = np.where(better[:, None], tried, found)
        gradient = np.where(better[:, None], there[1], gradient)
        information = np.where(better[:, None, None], there[2], information)
        cost = np.where(better, there[0], cost)
        reach = np.where(better, 1.0, 0.3 * reach)
        if (np.abs(step).max(axis=1) < _CONVERGED).all():
            break
    return GroundSpectra(found, pooled.aspect)


class _FoldedModel:
    """The expected periodogram of cells (h, w): the ground's power times a cell's response, folded, plus noise.

    Attributes:
        used: (h, w) the frequencies that count: what is left of a trend stands in the first row and column.
    """

    def __init__(self, shape: Sequence[int], aspect: float) -> None:
        self.used = np.ones(tuple(shape), bool)
        self.used[0, :] = self.used[:, 0] = False
        shifts = np.arange(-_ALIASES, _ALIASES + 1)
        sides = [(np.arange(length)[None] / (2 * length) + shifts[:, None]) for length in shape]
        down, across = sides[0][:, None, :, None], sides[1][None, :, None, :]
        response = (np.sinc(down) * np.sinc(across)) ** 2
        squared = down**2 + (aspect * across) ** 2
        self._response, self._squared = (
            values[..., self.used].reshape(-1, self.used.sum()) for values in (response, squared)
        )

    def likelihood(self, given: Floats, power: Floats) -> tuple[Floats, Floats, Floats]:
        """Negative logarithm of the likelihood (W,), its gradient (W, 4) and its expected curvature (W, 4, 4)."""
        expected, slopes = self._expected(given)
        value = (np.log(expected) + power / expected).sum(axis=1)
        relative = slopes / expected[:, None]
        gradient = (relative * (1.0 - power / expected)[:, None]).sum(axis=2)
        return value, gradient, relative @ relative.swapaxes(1, 2)

    def _expected(self, given: Floats) -> tuple[Floats, Floats]:
        """The expected periodogram (W, N), and how it changes (W, 4, N) with the four parameters."""
        strength, slope, bend, noise = (column[:, None, None] for column in given.T)
        bent = np.exp(2 * bend)
        squared = self._squared + bent
        logarithm = np.log(squared)
        terms = self._response * np.exp(strength - 0.5 * slope * logarithm)
        total = terms.sum(axis=1)
        noise_power = np.exp(noise[..., 0]) + np.zeros_like(total)
        by_slope = -0.5 * (terms * logarithm).sum(axis=1)
        by_bend = -(slope * bent)[..., 0] * (terms / squared).sum(axis=1)
        return total + noise_power, np.stack([total, by_slope, by_bend, noise_power], axis=1)
