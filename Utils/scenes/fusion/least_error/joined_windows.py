"""The surface of least error over a whole DEM: estimated in windows that overlap, and joined without seams."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from Utils.core.errors import write_error
from Utils.core.watching import note_step
from Utils.scenes.fusion.least_error.ground_spectrum import Floats, GroundSpectra, local_spectra, pooled_spectrum
from Utils.scenes.fusion.least_error.window_estimate import WindowEstimate, periodograms

SAMPLES_A_CELL = 4
"""Samples along the side of a cell. Between them a cubic spline is exact to a thousandth of the surface's error."""

WINDOW_CELLS = 16
"""Side of a window in cells: ground and noise change from place to place, and a spectrum wants some hundred cells."""

# With fewer known cells a window takes the spectrum that all have in common.
_LEAST_KNOWN = 0.75
# The pooled spectrum is that of at most so many windows, spread over the DEM.
_MOST_POOLED = 400


class Axis:
    """Windows along one side of a DEM, and their weights, which sum to one everywhere.

    Args:
        length: of the side, in cells.
        size: of a window, in cells.
        shared: cells that neighbouring windows share at least; None takes half of the window.

    Attributes:
        size: of a window, in cells.
        starts: the first cell of each.
    """

    def __init__(self, length: int, size: int = WINDOW_CELLS, shared: int | None = None) -> None:
        self.size = min(size, length)
        self._shared = self.size / 2 if shared is None else min(shared, self.size / 2)
        steps = math.ceil((length - self.size) / (self.size - self._shared))
        self.starts = [round(step * (length - self.size) / steps) for step in range(steps + 1)] if steps else [0]
        self._length = length

    def weights(self, times: int) -> Floats:
        """(windows, size * times) weights of the samples in each window."""
        size = self.size * times
        to_border = np.minimum(np.arange(size), np.arange(size)[::-1]) + 0.5
        bell = np.sin(np.pi / 2 * np.minimum(to_border / (self._shared * times), 1.0)) ** 2
        total = np.zeros(self._length * times)
        for start in self.starts:
            total[start * times :][:size] += bell
        return np.stack([bell / total[start * times :][:size] for start in self.starts])


class LeastErrorEstimate:
    """The linear estimate of least error of the ground from means over cells, with the spectra of one DEM.

    Once its spectra are found, the estimate is linear: it also tells what of another map cells of this kind would show.

    Args:
        cells: (h, w) of the DEM in metres, without NaN; where not known, a guess.
        known: (h, w) whether a cell's height is known.
        aspect: height of a cell divided by its width, on the ground.
    """

    def __init__(self, cells: NDArray[np.float32], known: NDArray[np.bool_], aspect: float = 1.0) -> None:
        self.rows, self.columns = Axis(cells.shape[0]), Axis(cells.shape[1])
        self._pooled = self._pool(cells, known, aspect)
        self._spectra = [self._local(self.strip(cells, row), self.strip(known, row)) for row in self.rows.starts]

    @property
    def noise(self) -> float:
        """Standard deviation of the DEM's noise that its windows have in common, in metres."""
        return math.sqrt(float(self._pooled.noise_variance[0]))

    def spectra(self, number: int) -> GroundSpectra:
        """Spectra of the windows in a row of windows."""
        return self._spectra[number]

    def strip(self, values: NDArray, row: int) -> NDArray:
        """The windows (W, h, w) of a map of cells from a row of cells on."""
        part = values[row : row + self.rows.size]
        return np.stack([part[:, column : column + self.columns.size] for column in self.columns.starts])

    def surface(
        self, cells: NDArray[np.float32], known: NDArray[np.bool_], file: Path | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Estimate the ground.

        Args:
            cells: (h, w) as for the DEM, in metres.
            known: (h, w) whether a cell is known; elsewhere it is a guess.
            file: where the surface is kept, for the caller to remove; None to keep it in memory.

        Returns:
            The surface (h * SAMPLES_A_CELL, w * SAMPLES_A_CELL), and the standard error (h, w) of its samples, which
            grows in voids. Both in metres.
        """
        variance = np.zeros(cells.shape, np.float32)
        heights = self._joined(cells, known, file, variance)
        return heights, np.sqrt(variance)

    def seen(
        self, cells: NDArray[np.float32], known: NDArray[np.bool_], file: Path | None = None
    ) -> NDArray[np.float32]:
        """What the estimate makes of any map's means over the cells; arguments and result as of ``surface``."""
        return self._joined(cells, known, file, None)

    def _joined(
        self,
        cells: NDArray[np.float32],
        known: NDArray[np.bool_],
        file: Path | None,
        variance: NDArray[np.float32] | None,
    ) -> NDArray[np.float32]:
        times = SAMPLES_A_CELL
        heights = new_map(file, (cells.shape[0] * times, cells.shape[1] * times))
        fine, coarse = self.weights(times), self.weights(1)
        for number, row in enumerate(self.rows.starts):
            note_step("rows of windows of the DEM", number, len(self.rows.starts))
            estimate = self.estimate(number)
            parts, there = self.strip(cells, row).astype(np.float64), self.strip(known, row)
            found = estimate(parts)
            error = np.zeros(parts.shape) + estimate.error_variance[:, None, None]
            for window in np.flatnonzero(~there.all(axis=(1, 2))):
                found[window], added = estimate.with_voids(parts[window], there[window], int(window))
                if variance is not None:
                    error[window] += added()
            self.join(heights, found, fine, number, times)
            if variance is not None:
                self.join(variance, error, coarse, number, 1)
        return heights

    def estimate(self, number: int) -> WindowEstimate:
        """The estimate for a row of windows."""
        return WindowEstimate((self.rows.size, self.columns.size), SAMPLES_A_CELL, self._spectra[number])

    def weights(self, times: int) -> tuple[Floats, Floats]:
        """Weights of the samples in each window along both axes."""
        return self.rows.weights(times), self.columns.weights(times)

    def join(
        self, joined: NDArray[np.float32], parts: Floats, weights: tuple[Floats, Floats], number: int, times: int
    ) -> None:
        """Add the windows (W, h, w) of a row of windows to a map, each with its weight."""
        height, width = self.rows.size * times, self.columns.size * times
        target = joined[self.rows.starts[number] * times :][:height]
        for part, column, across in zip(parts, self.columns.starts, weights[1], strict=True):
            target[:, column * times :][:, :width] += part * weights[0][number][:, None] * across

    def _pool(self, cells: NDArray[np.float32], known: NDArray[np.bool_], aspect: float) -> GroundSpectra:
        places = [(row, column) for row in self.rows.starts for column in self.columns.starts]
        height, width = self.rows.size, self.columns.size
        shares = np.array([known[row : row + height, column : column + width].mean() for row, column in places])
        usable = np.flatnonzero(shares >= min(_LEAST_KNOWN, shares.max()))
        chosen = usable[np.linspace(0, len(usable) - 1, min(len(usable), _MOST_POOLED)).astype(int)]
        windows = [
            cells[row : row + height, column : column + width] for row, column in (places[one] for one in chosen)
        ]
        return pooled_spectrum(periodograms(np.stack(windows).astype(np.float64)), aspect)

    def _local(self, cells: NDArray[np.float32], known: NDArray[np.bool_]) -> GroundSpectra:
        parameters = np.repeat(self._pooled.parameters, len(cells), axis=0)
        usable = known.mean(axis=(1, 2)) >= _LEAST_KNOWN
        if usable.any():
            found = local_spectra(periodograms(cells[usable].astype(np.float64)), self._pooled)
            parameters[usable] = found.parameters
        return GroundSpectra(parameters, self._pooled.aspect)


def new_map(file: Path | None, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A map of zeros, in a new file or in memory.

    Raises:
        UserError: the disk is full. A mapped file that found it full only later would end the process.
    """
    if file is None:
        return np.zeros(shape, np.float32)
    try:
        values = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=shape)
        if hasattr(os, "posix_fallocate"):
            with file.open("r+b") as stream:
                os.posix_fallocate(stream.fileno(), 0, file.stat().st_size)
    except OSError as error:
        raise write_error(file, error, "go on with --resume once there is space") from error
    return values


def averaged(values: NDArray[np.floating], times: int = 2) -> NDArray[np.float32]:
    """Means (..., h, w) of a map (..., h * times, w * times) over blocks; NaN where a value of the block is."""
    height, width = values.shape[-2] // times, values.shape[-1] // times
    blocks = np.asarray(values)[..., : height * times, : width * times]
    means = blocks.reshape(*values.shape[:-2], height, times, width, times).mean(axis=(-3, -1), dtype=np.float64)
    return np.asarray(means, np.float32)
