"""The linear estimate of least error of the ground under windows of cells: kriging with block support.

With the ground's covariance S, the mean over a cell C and noise N the estimate is S C' (C S C' + N)^-1 c (Matheron 1963
for block kriging). In the cosine basis S is diagonal, and so is C S C', where frequencies that a cell cannot tell apart
fold together: without voids nothing has to be solved.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn, idctn
from scipy.linalg import cho_factor, cho_solve

from Utils.scenes.fusion.least_error.ground_spectrum import Floats, GroundSpectra


def trends(cells: Floats, times: int | None = None) -> Floats:
    """The planes of least squares through windows of cells (W, h, w).

    They are given at the cells, or at ``times`` samples along the side of each: (W, h * times, w * times).
    """
    rows, columns = (_positions(length, 1) for length in cells.shape[1:])
    level = cells.mean(axis=(1, 2))[:, None, None]
    down = (rows @ cells.sum(axis=2).T / max((rows**2).sum() * len(columns), 1e-12))[:, None, None]
    across = (columns @ cells.sum(axis=1).T / max((columns**2).sum() * len(rows), 1e-12))[:, None, None]
    rows, columns = (_positions(length, times or 1) for length in cells.shape[1:])
    return np.asarray(level + down * rows[:, None] + across * columns[None])


def _positions(length: int, times: int) -> Floats:
    """Positions of samples, in cells from the middle of so many cells."""
    return np.asarray((np.arange(length * times) + 0.5) / times - length / 2)


def periodograms(cells: Floats) -> Floats:
    """Squares of the orthonormal cosine transforms of windows of cells (W, h, w) without their trends."""
    return np.asarray(dctn(cells - trends(cells), axes=(1, 2), norm="ortho") ** 2)


class WindowEstimate:
    """The estimate for windows of one shape.

    Args:
        shape: (h, w) of a window in cells.
        times: samples of the result along the side of a cell.
        spectra: power of the ground and noise of each of W windows.
    """

    def __init__(self, shape: tuple[int, int], times: int, spectra: GroundSpectra) -> None:
        self._shape, self._times, self._noise = shape, times, spectra.noise_variance
        down, across = (_Folding(length, times) for length in shape)
        self._down, self._across = down, across
        power = spectra.power(down.frequency, across.frequency)
        # The mean over the window is known so well that its prior power does not matter.
        power[:, 0, 0] = power[:, 0, 1:2].sum(axis=1) + power[:, 1:2, 0].sum(axis=1)
        self._power = power * times**2
        self._response = down.response[:, None] * across.response[None]
        self._folded = across.fold(down.fold(self._power * self._response**2, 1), 2)

    def __call__(self, cells: Floats) -> Floats:
        """Estimate the ground.

        Args:
            cells: (W, h, w) in metres, without voids.

        Returns:
            Heights (W, h * times, w * times).
        """
        weights = dctn(cells - trends(cells), axes=(1, 2), norm="ortho")
        weights /= self._folded + self._noise[:, None, None]
        return self._ground(weights, slice(None)) + trends(cells, self._times)

    def with_voids(self, cells: Floats, known: NDArray[np.bool_], number: int) -> tuple[Floats, Callable[[], Floats]]:
        """Estimate the ground of one window where some of its cells are not known.

        Args:
            cells: (h, w) in metres; where not known, a guess, on which the result leans as on a cell whose noise has
                the variance of the ground in this window.
            known: (h, w).
            number: which of the windows it is.

        Returns:
            Heights (h * times, w * times), and what gives the variance (h, w) that the voids add to the error of cells'
            means.
        """
        noise, covariance = self._noise[number], self._covariance(number)
        usual = covariance.diagonal().mean()
        doubt = np.where(known, noise, noise + usual).ravel()
        factor = cho_factor(covariance + np.diag(doubt), overwrite_a=True, check_finite=False)
        away = (cells - trends(cells[None])[0]).ravel()
        solved = cho_solve(factor, away, check_finite=False).reshape(self._shape)

        def added() -> Floats:
            explained = (covariance * cho_solve(factor, covariance, check_finite=False)).sum(axis=0)
            variance = np.maximum(covariance.diagonal() - explained, 0.0).reshape(self._shape)
            folded = self._folded[number]
            return np.maximum(variance - (folded * noise / (folded + noise)).mean(), 0.0)

        ground = self._ground(dctn(solved, norm="ortho")[None], slice(number, number + 1))[0]
        return ground + trends(cells[None], self._times)[0], added

    @property
    def error_variance(self) -> Floats:
        """(W,) mean variance of the error of a sample, where all cells are known, in square metres."""
        together = self._folded + self._noise[:, None, None]
        spread = together[:, self._down.index[:, None], self._across.index[None]]
        left = self._power - (self._power * self._response) ** 2 / spread
        left[:, 0, 0] = 0.0
        return np.maximum(left.sum(axis=(1, 2)), 0.0) / left[0].size

    def _ground(self, weights: Floats, numbers: slice) -> Floats:
        """Turn weights of cells, as cosine transforms (W, h, w), into heights."""
        fine = weights[:, self._down.index[:, None], self._across.index[None]]
        return np.asarray(idctn(self._power[numbers] * self._response * fine, axes=(1, 2), norm="ortho"))

    def _covariance(self, number: int) -> Floats:
        """Covariance (h * w, h * w) of the ground's means over the cells of a window."""
        basis = _basis(self._shape)
        return np.asarray((basis * self._folded[number].ravel()) @ basis.T)


@lru_cache(maxsize=4)
def _basis(shape: tuple[int, int]) -> Floats:
    """The orthonormal cosine basis of cells: (h * w, h * w), a column for each frequency."""
    count = shape[0] * shape[1]
    return np.asarray(dctn(np.eye(count).reshape(count, *shape), axes=(1, 2), norm="ortho").reshape(count, count))


class _Folding:
    """How the cosine basis of samples along one side becomes that of cells when the samples of a cell are averaged.

    Args:
        length: number of cells.
        times: samples a cell.

    Attributes:
        frequency: (length * times,) frequencies of the samples' basis in cycles a cell.
        index: (length * times,) the element of the cells' basis on which each falls.
        response: (length * times,) what is left of its amplitude there.
    """

    def __init__(self, length: int, times: int) -> None:
        count = np.arange(length * times)
        self.frequency = count / (2 * length)
        beyond = count % (2 * length)
        # The mean of a cosine over samples that are centred in a cell is the cosine at the cell's centre, times this.
        step = np.sin(np.pi * self.frequency / times)
        mean = np.ones(len(count))
        np.divide(np.sin(np.pi * self.frequency), times * step, out=mean, where=step > 0)
        sign = np.where(beyond > length, -1.0, 1.0) * np.where((count // (2 * length)) % 2, -1.0, 1.0)
        sign[beyond == length] = 0.0  # this cosine is zero at the centre of every cell
        self.index = np.where(beyond > length, 2 * length - beyond, beyond) % length
        fine = np.where(count == 0, 1.0, np.sqrt(2.0)) / np.sqrt(length * times)
        coarse = np.where(self.index == 0, 1.0, np.sqrt(2.0)) / np.sqrt(length)
        self.response = sign * mean * fine / coarse
        self._onto = (self.index[None] == np.arange(length)[:, None]).astype(np.float64)

    def fold(self, values: Floats, axis: int) -> Floats:
        """Sums of values that fall on the same element along an axis, which becomes ``length`` long."""
        return np.asarray(np.moveaxis(np.tensordot(values, self._onto, axes=(axis, 1)), -1, axis))
