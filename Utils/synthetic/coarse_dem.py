"""A coarse DEM made of true heights: means over cells, with the faults that real ones have."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, shift

Floats = NDArray[np.float64]

_VOID_CELLS = 6  # side of a void


@dataclass(frozen=True)
class CoarseDem:
    """How a coarse DEM is made of the truth.

    Attributes:
        factor: side of a cell in pixels.
        noise: its standard deviation in metres.
        correlated: standard deviation, in cells, of the Gaussian over which the noise is correlated; 0 for none.
        voids: share of the cells in voids.
        seed: of noise and voids.
        blur: standard deviation, in cells, of the Gaussian that blurs the ground before cells are formed.
        shifted: by how many cells, down and across, the ground is displaced before cells are formed.
    """

    factor: int = 8
    noise: float = 3.0
    correlated: float = 0.0
    voids: float = 0.0
    seed: int = 0
    blur: float = 0.0
    shifted: tuple[float, float] = (0.0, 0.0)

    def of(self, truth: Floats) -> Floats:
        """The DEM (H / factor, W / factor), NaN in voids and where a pixel of the cell is unknown.

        Args:
            truth: (H, W) true heights in metres, whole cells, NaN where unknown.
        """
        n = self.factor
        ground = self._displaced(truth)
        cells = ground.reshape(ground.shape[0] // n, n, ground.shape[1] // n, n).mean(axis=(1, 3))
        rng = np.random.default_rng(self.seed)
        noise = rng.standard_normal(cells.shape)
        if self.correlated > 0:
            noise = gaussian_filter(noise, self.correlated, mode="wrap")
            noise /= noise.std()
        cells = cells + self.noise * noise
        for _ in range(round(self.voids * cells.size / _VOID_CELLS**2)):
            row, column = (rng.integers(0, max(1, side - _VOID_CELLS)) for side in cells.shape)
            cells[row : row + _VOID_CELLS, column : column + _VOID_CELLS] = np.nan
        return cells

    def _displaced(self, truth: Floats) -> Floats:
        if not self.blur and not any(self.shifted):
            return truth
        known = np.isfinite(truth)
        ground = np.where(known, truth, truth[known].mean() if known.any() else 0.0)
        if self.blur:
            ground = gaussian_filter(ground, self.blur * self.factor, mode="nearest")
        if any(self.shifted):
            ground = shift(ground, [self.factor * cells for cells in self.shifted], order=1, mode="nearest")
        return np.where(known, ground, np.nan)
