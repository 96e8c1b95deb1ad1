"""Pairs of errors by distance, counted window by window in constant memory.

The empirical variogram is half the mean squared difference of the errors of pixels so far apart. Within windows all
pairs along rows and columns count; farther pairs are drawn from a sample of the scene.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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
_LARGE, _STEP = 4_000_000, 4  # of so many pixels every fourth line tells as much of near pairs as all


@dataclass
class ErrorCorrelation:
    """Pairs of one or several fields of errors, counted window by window.

    Of several fields any weighted sum has its variogram in the end, with weights that need not be known before.

    Attributes:
        metres: of a pixel from row to row and from column to column; None where unknown.
        size: pixels of the grid.
        fields: how many fields (K) there are.
    """

    metres: tuple[float, float] | None
    size: int
    fields: int = 1
    _sums: dict[int, FloatArray] = field(default_factory=dict)
    _pairs: dict[int, list[float]] = field(default_factory=lambda: {lag: [0.0, 0.0] for lag in _LAGS})
    _count: int = 0

    def __post_init__(self) -> None:
        columns = {"row": np.int32, "column": np.int32} | {f"field {one}": np.float32 for one in range(self.fields)}
        self._sample = Sample(columns, max(1, min(_SAMPLED, self.size)), derive_seed(0, "variogram"))
        self._sums = {lag: np.zeros((self.fields, self.fields)) for lag in _LAGS}
        self._step = _STEP if self.size > _LARGE else 1

    def add(self, window: Window, *errors: FloatArray) -> None:
        """Take in the K fields (H, W) of a window, NaN where nothing is scored."""
        known = np.logical_and.reduce([np.isfinite(one) for one in errors])
        self._count += int(known.sum())
        down, across = self.metres or (1.0, 1.0)
        every = self._step
        for fields, there, step in (
            ([one[:, ::every] for one in errors], known[:, ::every], down),
            ([one[::every].T for one in errors], known[::every].T, across),
        ):
            for lag in _LAGS:
                if lag >= there.shape[0]:
                    break
                both = there[lag:] & there[:-lag]
                apart = np.stack([(one[lag:] - one[:-lag])[both] for one in fields])  # (K, N)
                self._sums[lag] += 0.5 * apart @ apart.T
                self._pairs[lag][0] += apart.shape[1]
                self._pairs[lag][1] += apart.shape[1] * lag * step
        rows, columns = np.nonzero(known)
        places = {"row": rows + window.row_off, "column": columns + window.col_off}
        self._sample.add(places | {f"field {number}": one[rows, columns] for number, one in enumerate(errors)})

    def variogram(self, weights: Sequence[float] = (1.0,)) -> Variogram:
        """What was counted of a weighted sum (K,) of the fields, and the model that fits it."""
        weight = np.asarray(weights, np.float64)
        near = [
            (way / pairs, float(weight @ self._sums[lag] @ weight) / pairs, pairs)
            for lag, (pairs, way) in self._pairs.items()
            if pairs >= _FEWEST_PAIRS
        ]
        found = np.array(near + self._far(near[-1][0] if near else 0.0, weight)).reshape(-1, 3)
        down, across = self.metres or (1.0, 1.0)
        area = self._count * down * across
        return fit_variogram(found[:, 0], found[:, 1], found[:, 2], area, min(down, across))

    def _far(self, beyond: float, weight: FloatArray) -> list[tuple[float, float, float]]:
        """Distance, value and pairs of far pairs, in steps of a half octave."""
        count = self._sample.count
        if count < 2:
            return []
        generator = np.random.default_rng(derive_seed(0, "pairs of the variogram"))
        one, other = generator.integers(0, count, (2, _PAIRS))
        down, across = self.metres or (1.0, 1.0)
        rows, columns = (self._sample[name].astype(np.float64) for name in ("row", "column"))
        errors = sum(by * self._sample[f"field {number}"].astype(np.float64) for number, by in enumerate(weight))
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
