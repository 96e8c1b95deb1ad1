"""Comparison of two tiles over the pixels that they share: the ratio of their scales, and heights cell by cell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from Utils.scenes.tiles.tile_grid import Tile

Map = NDArray[np.float32]
Floats = NDArray[np.float64]

_MOST_SAMPLES = 4096
_CELLS_ALONG, _CELLS_ACROSS = 6, 2
_FEWEST_SAMPLES = 16
# A pair whose maps hardly correlate tells nothing about their scales.
_LEAST_CORRELATION = 0.3
# Neighbouring pixels are alike: this many samples count as one.
_SAMPLES_AN_OBSERVATION = 16.0
_TUKEY = 4.685  # 95 % efficient for Gaussian noise
_MAD_TO_SIGMA = 1.4826


@dataclass(frozen=True)
class Overlap:
    """Two tiles in the area where they overlap.

    Attributes:
        first: the number of one tile.
        second: the number of the other.
        log_ratio: log of the ratio of scales, first tile over second, that makes the shared pixels agree; NaN where
            their maps do not correlate.
        log_ratio_error: its standard error.
        rows: (K,) rows of the cells' centres, in pixels of the scene.
        columns: (K,) columns of the cells' centres.
        first_values: (K,) mean of the first tile in each cell, without outliers.
        second_values: (K,) mean of the second tile in each cell.
        counts: (K,) number of pixels behind each mean.
    """

    first: int
    second: int
    log_ratio: float
    log_ratio_error: float
    rows: Floats
    columns: Floats
    first_values: Floats
    second_values: Floats
    counts: Floats


def measure_overlap(first: Tile, second: Tile, first_map: Map, second_map: Map, tilted: bool = False) -> Overlap | None:
    """Compare two tiles.

    Args:
        first: a tile.
        second: another tile.
        first_map: map (H, W) of the first tile, NaN where invalid.
        second_map: map of the second tile.
        tilted: whether the maps may be tilted against each other; planes are then removed before scales are compared.

    Returns:
        None where they share too few valid pixels.
    """
    common = first.common(second)
    if common is None:
        return None
    mine, theirs = common
    step = max(1, int(np.sqrt(first_map[mine].size / _MOST_SAMPLES)))
    one = first_map[mine][::step, ::step].astype(np.float64)
    two = second_map[theirs][::step, ::step].astype(np.float64)
    rows, columns = np.nonzero(np.isfinite(one) & np.isfinite(two))
    if len(rows) < _FEWEST_SAMPLES:
        return None
    one, two = one[rows, columns], two[rows, columns]
    level = _without_plane(rows, columns) if tilted else lambda values: values
    log_ratio, error, inside = _ratio(level(one), level(two))
    cell = _cells(rows, columns)
    counts: Floats = np.bincount(cell, inside).astype(np.float64)
    known = counts > 0

    def means(values: NDArray[np.floating]) -> Floats:
        found: Floats = np.bincount(cell, values * inside)[known] / counts[known]
        return found

    return Overlap(
        first.number,
        second.number,
        log_ratio,
        error,
        rows=means(rows * float(step)) + first.row + mine[0].start,
        columns=means(columns * float(step)) + first.column + mine[1].start,
        first_values=means(one),
        second_values=means(two),
        counts=counts[known],
    )


def _cells(rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[np.intp]:
    """Divide the samples into a few cells, more along the longer side; gives (N,) numbers of cells, from 0."""
    height, width = int(rows.max()) + 1, int(columns.max()) + 1
    down, across = (_CELLS_ALONG, _CELLS_ACROSS) if height >= width else (_CELLS_ACROSS, _CELLS_ALONG)
    numbers: NDArray[np.intp] = (rows * down // height) * across + columns * across // width
    return numbers


def _without_plane(rows: NDArray[np.intp], columns: NDArray[np.intp]) -> Callable[[Floats], Floats]:
    """Subtract the best-fitting plane from values (N,) at these places."""
    basis, _ = np.linalg.qr(np.stack([np.ones(len(rows)), rows - rows.mean(), columns - columns.mean()], axis=1))
    return lambda values: values - basis @ (basis.T @ values)


def _ratio(one: Floats, two: Floats) -> tuple[float, float, Floats]:
    """Log of the slope of ``two`` over ``one``, its standard error, and each sample's weight in [0, 1].

    The slope is the ratio of the standard deviations (reduced major axis: both sides have noise, which in least squares
    would pull the scale towards 0), weighted by Tukey's biweights of the residuals.
    """
    slope, intercept = _by_quartiles(one, two)
    weights = np.ones_like(one)
    for _ in range(6):
        residual = two - intercept - slope * one
        spread = _MAD_TO_SIGMA * float(np.median(np.abs(residual - np.median(residual))))
        if spread <= 1e-7 * float(np.ptp(two)):
            weights = (np.abs(residual) <= 1e-6 * float(np.ptp(two)) + 1e-12).astype(np.float64)
            if weights.sum() < len(one) / 4:  # nothing agrees exactly; the quartiles' line stays
                weights = np.ones_like(one)
        else:
            weights = np.clip(1.0 - (residual / (_TUKEY * spread)) ** 2, 0.0, None) ** 2
        (mean_one, mean_two), (variance_one, variance_two), covariance = _moments(one, two, weights)
        if variance_one <= 0 or variance_two <= 0:
            return np.nan, np.inf, weights
        slope = float(np.sqrt(variance_two / variance_one)) * (1.0 if covariance >= 0 else -1.0)
        intercept = mean_two - slope * mean_one
    correlation = covariance / float(np.sqrt(variance_one * variance_two))
    if correlation < _LEAST_CORRELATION:
        # Without a common trend outliers cannot be told either, so all pixels count for the shift.
        return np.nan, np.inf, np.ones_like(one)
    observations = max(weights.sum() / _SAMPLES_AN_OBSERVATION, 2.0)
    error = float(np.sqrt(max(1.0 - correlation**2, 0.0) / observations))
    return float(np.log(slope)), error, weights


def _by_quartiles(one: Floats, two: Floats) -> tuple[float, float]:
    """A first line that outliers do not move: it maps the quartiles of one side to those of the other."""
    low_one, middle_one, high_one = np.quantile(one, (0.25, 0.5, 0.75))
    low_two, middle_two, high_two = np.quantile(two, (0.25, 0.5, 0.75))
    slope = (high_two - low_two) / (high_one - low_one) if high_one > low_one else 1.0
    return float(slope), float(middle_two - slope * middle_one)


def _moments(one: Floats, two: Floats, weights: Floats) -> tuple[tuple[float, float], tuple[float, float], float]:
    """Weighted means, variances and covariance."""
    total = max(float(weights.sum()), 1e-300)
    means = float((weights * one).sum() / total), float((weights * two).sum() / total)
    left, right = one - means[0], two - means[1]
    variances = float((weights * left**2).sum() / total), float((weights * right**2).sum() / total)
    return means, variances, float((weights * left * right).sum() / total)
