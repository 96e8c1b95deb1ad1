"""The mean of true maps: the prediction of someone who never looks at the image, beside which others are scored."""

from __future__ import annotations

import math

import numpy as np

from Utils.scoring.map_pairs import BoolArray, FloatArray


class MeanMap:
    """Adds up true maps, and gives their mean: as one number or, of maps of one size, pixel by pixel."""

    def __init__(self) -> None:
        self.pixels = 0
        self._total = 0.0
        self._sizes: set[tuple[int, ...]] = set()
        self._sum: FloatArray = np.zeros((0, 0))
        self._count: FloatArray = np.zeros((0, 0))

    def add(self, truth: FloatArray, valid: BoolArray) -> None:
        """Add a map (H, W) and its valid pixels."""
        known = np.where(valid, truth, 0.0).astype(np.float64)
        self.pixels += int(valid.sum())
        self._total += float(known.sum())
        if not self._sizes:
            self._sum, self._count = np.zeros(truth.shape), np.zeros(truth.shape)
        self._sizes.add(truth.shape)
        if len(self._sizes) == 1:
            self._sum += known
            self._count += valid

    def number(self) -> float:
        """The mean over all valid pixels of all maps; NaN where there are none."""
        return self._total / self.pixels if self.pixels else math.nan

    def by_pixel(self) -> FloatArray:
        """The mean of each pixel (H, W), of all maps that know it; of a pixel that none knows, the mean of all.

        Raises:
            ValueError: there are no maps, or they differ in size.
        """
        if len(self._sizes) != 1:
            raise ValueError(f"maps of {len(self._sizes)} sizes have no mean pixel by pixel")
        mean: FloatArray = np.where(self._count > 0, self._sum / np.maximum(self._count, 1.0), self.number())
        return mean
