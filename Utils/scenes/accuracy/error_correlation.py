"""Pairs of errors by distance, counted window by window in constant memory.

The empirical variogram is half the mean squared difference of the errors of pixels so far apart. Within windows all
pairs along rows and columns count; farther pairs are drawn from a sample of the scene.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from rasterio.windows import Window

from Utils.core.seeds import derive_seed
from Utils.scenes.accuracy.error_statistics import Sample
from Utils.scenes.accuracy.scene_scores import FloatArray
from Utils.scenes.accuracy.variogram import Variogram, fit_variogram

__all__ = ["ErrorCorrelation"]

_LAGS = (1, 2, 4, 8, 16, 32, 64, 128, 256)  # pixels, within windows
_SAMPLED = 20_000  # pixels from which far pairs are drawn
_PAIRS = 400_000
_FEWEST_PAIRS = 200


@dataclass
class ErrorCorrelation:
    """Pairs of errors, counted window by window.

    Attributes:
        metres: of a pixel from row to row and from column to column; None where unknown.
        size: pixels of the grid.
    """

    metres: tuple[float, float] | None
    size: int
    _sums: dict[int, list[float]] = field(default_factory=lambda: {lag: [0.0, 0.0, 0.0] for lag in _LAGS})
    _count: int = 0

    def __post_init__(self) -> None:
        columns = {"row": np.int32, "column": np.int32, "error": np.float32}
        self._sample = Sample(columns, max(1, min(_SAMPLED, self.size)), derive_seed(0, "variogram"))

    def add(self, window: Window, errors: FloatArray) -> None:
        """Take in the errors (H, W) of a window, NaN where nothing is scored."""
        known = np.isfinite(errors)
        self._count += int(known.sum())
        down, across = self.metres or (1.0, 1.0)
        for lag in _LAGS:
            for one, other, step in (
                (errors[lag:], errors[:-lag], down),
                (errors[:, lag:], errors[:, :-lag], across),
            ):
                if not one.size or lag >= errors.shape[0] + errors.shape[1]:
                    continue
                apart = (one - other)[np.isfinite(one) & np.isfinite(other)]
                sums = self._sums[lag]
                sums[0] += 0.5 * float((apart * apart).sum())
                sums[1] += apart.size
                sums[2] += apart.size * lag * step
        rows, columns = np.nonzero(known)
        self._sample.add(
            {"row": rows + window.row_off, "column": columns + window.col_off, "error": errors[rows, columns]}
        )

    def variogram(self) -> Variogram:
        """What was counted, and the model that fits it."""
        near = [
            (total / pairs, way / pairs, pairs) for total, pairs, way in self._sums.values() if pairs >= _FEWEST_PAIRS
        ]
        found = np.array([(way, value, pairs) for value, way, pairs in near] + self._far(near[-1][1] if near else 0.0))
        found = found.reshape(-1, 3)
        down, across = self.metres or (1.0, 1.0)
        area = self._count * down * across
        return fit_variogram(found[:, 0], found[:, 1], found[:, 2], area, min(down, across))

    def _far(self, beyond: float) -> list[tuple[float, float, float]]:
        """Distance, value and pairs of far pairs, in steps of a half octave."""
        count = self._sample.count
        if count < 2:
            return []
        generator = np.random.default_rng(derive_seed(0, "pairs of the variogram"))
        one, other = generator.integers(0, count, (2, _PAIRS))
        down, across = self.metres or (1.0, 1.0)
        rows, columns, errors = (self._sample[name].astype(np.float64) for name in ("row", "column", "error"))
        distance = np.hypot((rows[one] - rows[other]) * down, (columns[one] - columns[other]) * across)
        squares = 0.5 * (errors[one] - errors[other]) ** 2
        # Beyond a half of the scene pairs lie only along its longest side.
        most = 0.5 * float(distance.max())
        edges = [max(beyond * 1.2, min(down, across))]
        while edges[-1] * math.sqrt(2.0) <= most:
            edges.append(edges[-1] * math.sqrt(2.0))
        found = []
        for low, high in pairwise(edges):
            chosen = (distance >= low) & (distance < high)
            if chosen.sum() >= _FEWEST_PAIRS:
                found.append((float(distance[chosen].mean()), float(squares[chosen].mean()), float(chosen.sum())))
        return found
