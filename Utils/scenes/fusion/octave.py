"""The ground as a DEM's cells show it, and what maps add to it; the same for the DEM's own cells and for wider ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from Utils.scenes.fusion.cells import Cells
from Utils.scenes.fusion.learned_relief import DrawDetail, learned_relief
from Utils.scenes.fusion.least_error.joined_windows import LeastErrorEstimate
from Utils.scenes.fusion.shading import shading_relief
from Utils.scenes.fusion.void_filling import fill_smoothly

_FEW_CELLS = 2.0


class Octave:
    """The estimate of least error from cells of one width.

    Args:
        heights: (h, w) of the cells in metres, NaN in voids.
        aspect: height of a cell divided by its width, on the ground.
        folder: where large maps are kept, for the caller to remove; None to keep them in memory.
        name: of their files.

    Attributes:
        surface: (h * SAMPLES_A_CELL, w * SAMPLES_A_CELL) the ground, in metres.
        error: (h, w) its standard error in metres.
    """

    def __init__(self, heights: Cells, aspect: float, folder: Path | None = None, name: str = "octave") -> None:
        self._folder, self._name = folder, name
        self.known, self.filled = np.isfinite(heights), fill_smoothly(heights)
        self.estimate = LeastErrorEstimate(self.filled, self.known, aspect)
        self.surface, self.error = self.estimate.surface(self.filled, self.known, self._file("surface"))

    def continued(self, cells: Cells) -> Cells:
        """A map (h, w), NaN where unknown, continued into all cells.

        Beside the map's border it is taken to be as rough as the DEM, as far as it resembles the DEM where it is known:
        their difference is smoother than the map, and so is better continued.
        """
        known = self.known & np.isfinite(cells)
        alike = _slope(np.where(known, cells, np.float32(0.0)), self.filled, known)
        rest = fill_smoothly(np.where(known, cells - alike * self.filled, np.float32(np.nan)))
        return np.asarray(rest + alike * self.filled, np.float32)

    def seen(self, cells: Cells, name: str) -> NDArray[np.float32]:
        """What the estimate makes of a map's means (h, w) over the cells: (h * SAMPLES_A_CELL, w * SAMPLES_A_CELL)."""
        return self.estimate.seen(cells, self.known, self._file(name))

    def shading(self, image: NDArray[np.float32], trust: float) -> NDArray[np.float32]:
        """The relief that an image's shading suggests, at the surface's samples.

        Args:
            image: (bands, h * SAMPLES_A_CELL, w * SAMPLES_A_CELL), NaN where unknown.
            trust: as for ``shading_relief``.
        """
        return shading_relief(self.estimate, self.surface, image, trust, self._file("relief"))

    def learned(self, draw: DrawDetail, image: NDArray[np.float32], relief: NDArray[np.float32]) -> NDArray[np.float32]:
        """The heights about the surface that a network draws, at the surface's samples.

        Args:
            draw: the network.
            image: as for ``shading``.
            relief: what ``shading`` gave.
        """
        return learned_relief(draw, self.surface, self.error, relief, image, self._file("learned"))

    def _file(self, what: str) -> Path | None:
        return None if self._folder is None else self._folder / f"{self._name}_{what}.npy"


def _slope(cells: Cells, heights: Cells, known: NDArray[np.bool_]) -> np.float32:
    """How much a map (h, w) rises where heights rise by one, in shapes of a few cells."""
    share = np.maximum(_smooth(known), 1e-6)
    one, other = (
        np.where(known, values - _smooth(np.where(known, values, 0.0)) / share, 0.0) for values in (cells, heights)
    )
    return np.float32((one * other).sum() / max((other**2).sum(), 1e-12))


def _smooth(values: NDArray) -> NDArray[np.float64]:
    return np.asarray(gaussian_filter(values.astype(np.float64), _FEW_CELLS, mode="constant"))
