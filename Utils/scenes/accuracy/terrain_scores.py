"""Whether a height map's slopes, curvature and roughness are those of the truth: what it leaves unexplained of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from Utils.scenes.accuracy.error_statistics import length
from Utils.scenes.accuracy.scene_scores import FloatArray

__all__ = ["TERRAIN", "TerrainSums", "curvature", "roughness"]

BoolArray = NDArray[np.bool_]

TERRAIN = ("slope", "curvature", "roughness")
"""The derivatives that are compared, in the order of the table."""


def curvature(heights: FloatArray) -> FloatArray:
    """Laplacian over one pixel, metres: the mean of the four neighbours less the pixel.

    Args:
        heights: (H + 2, W + 2).

    Returns:
        (H, W); NaN beside unknown pixels.
    """
    around = heights[:-2, 1:-1] + heights[2:, 1:-1] + heights[1:-1, :-2] + heights[1:-1, 2:]
    return np.asarray(around / 4.0 - heights[1:-1, 1:-1])


def roughness(heights: FloatArray) -> FloatArray:
    """Difference of the highest and lowest of 3 x 3 pixels, metres (Dartnell, 2000); shapes as for curvature."""
    rows, columns = heights.shape[0] - 2, heights.shape[1] - 2
    parts = [heights[row : row + rows, column : column + columns] for row in range(3) for column in range(3)]
    high, low = parts[0], parts[0]
    for part in parts[1:]:
        high, low = np.maximum(high, part), np.minimum(low, part)
    return np.asarray(high - low)


class TerrainSums:
    """Sums for squared correlations of derivatives of maps and truth, window by window.

    Args:
        names: of the maps.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._sums = {(name, what): np.zeros(6) for name in names for what in TERRAIN}

    def add(
        self,
        scored: BoolArray,
        truth: FloatArray,
        heights: Mapping[str, FloatArray],
        gradients: Mapping[str, tuple[FloatArray, FloatArray]],
        true_gradient: tuple[FloatArray, FloatArray],
    ) -> None:
        """Take in a window of (H, W) pixels, whose heights have a rim of one pixel."""
        true = {"slope": length(*true_gradient), "curvature": curvature(truth), "roughness": roughness(truth)}
        for name, values in heights.items():
            found = {"slope": length(*gradients[name]), "curvature": curvature(values), "roughness": roughness(values)}
            for what in TERRAIN:
                known = scored & np.isfinite(true[what]) & np.isfinite(found[what])
                x, y = found[what][known], true[what][known]
                self._sums[name, what] += [x.size, x.sum(), y.sum(), (x * x).sum(), (y * y).sum(), (x * y).sum()]

    def unexplained(self) -> dict[str, dict[str, float]]:
        """By map: fraction of unexplained variance, 1 - squared correlation (DEMIX, 2024); NaN on level ground."""
        found: dict[str, dict[str, float]] = {}
        for (name, what), (count, x, y, xx, yy, xy) in self._sums.items():
            value = math.nan
            if count > 2:
                variances = (xx / count - (x / count) ** 2) * (yy / count - (y / count) ** 2)
                covariance = xy / count - x * y / count**2
                value = 1.0 - covariance**2 / variances if variances > 1e-18 else math.nan
            found.setdefault(name, {})[what] = value
        return found
