"""Relief from shading: what an image's brightness says of the ground between the heights that a DEM resolves.

Where the sun is low, brightness follows the slope along the sun's direction (linear photoclinometry). Direction and
strength of the light are found where the DEM shows the slopes, at wavelengths of a few cells, in windows. Shapes that
the DEM leaves open then follow from the brightness by a Wiener filter. Its signal is the power of the ground that the
estimate of least error leaves open. Its noise is everything in the image that slopes do not explain: land cover,
clouds, grain.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, uniform_filter

from Utils.scenes.fusion.correction import values_at
from Utils.scenes.fusion.least_error.ground_spectrum import Floats, GroundSpectra
from Utils.scenes.fusion.least_error.joined_windows import SAMPLES_A_CELL, LeastErrorEstimate, averaged, new_map

# The light is sought between these wavelengths: differences of Gaussians, whose standard deviations are in cells.
_FINE, _COARSE = 0.6, 2.5
_REACH = 8  # cells around a window that these Gaussians see
# Weight of the scene's light relative to that of a window with average relief.
_TRUST_IN_SCENE = 1.0
# Slopes never explain more of the image than this: a filter that believes in a clean image sharpens its grain.
_MOST_EXPLAINED = 0.9
# A share of the bands' mean power that keeps bands that are alike apart.
_LEAST_POWER = 1e-3
# A window holds flat and rough ground. The relief follows the roughness of the surface in its finest octave, whose mean
# square over near cells is compared with that over far ones (standard deviations of Gaussians, in cells); the power and
# the bound were chosen with the constants of docs/real-ground.md.
_OCTAVE, _NEAR, _FAR = 1.0, 1.5, 6.0
_FOLLOWS, _MOST_FOLLOWED = 0.35, 1.5
_ROWS_AT_ONCE = 512


def shading_relief(
    estimate: LeastErrorEstimate,
    surface: NDArray[np.float32],
    image: NDArray[np.float32],
    trust: float,
    file: Path | None = None,
) -> NDArray[np.float32]:
    """Heights in metres about the surface that explain the image's shading.

    Args:
        estimate: of the ground from (h, w) cells.
        surface: (h * SAMPLES_A_CELL, w * SAMPLES_A_CELL), the ground that it found.
        image: (bands, ...) brightness at the same samples in any unit, NaN where unknown.
        trust: how far the power of the ground is believed an octave beyond what cells resolve, and again with each
            further octave: a spectrum bends there as often as not.
        file: where the result is kept, for the caller to remove; None to keep it in memory.

    Returns:
        The relief, shaped as the surface.
    """
    relief = new_map(file, surface.shape)
    scene = _ShadedScene(estimate, surface, image)
    light = _light(scene)
    if light is None:
        return relief
    along_rows, along_columns = (np.sqrt(side) for side in estimate.weights(SAMPLES_A_CELL))
    spectrum, count = np.zeros(()), 0.0
    for number, spectra in _spectra_of_rest(scene, light, along_rows, along_columns):
        spectrum = spectrum + np.einsum("wiyx,wjyx->yxij", spectra, spectra.conj())
        count += float((along_rows[number] ** 2).sum() * (along_columns**2).sum())
    cross = spectrum / count
    bands = cross.shape[-1]
    cross += _LEAST_POWER * np.trace(cross, axis1=2, axis2=3)[..., None, None].real / bands * np.eye(bands)
    inverse = np.linalg.inv(np.maximum(np.abs(cross).max(), 1e-30) * 1e-12 * np.eye(bands) + cross)
    for number, spectra in _spectra_of_rest(scene, light, along_rows, along_columns):
        filters = _filters(estimate.spectra(number), light[number], inverse, trust)
        found = np.fft.ifft2((filters * spectra).sum(axis=1)).real
        tapers = along_rows[number][:, None] * along_columns[:, None, :]
        scene.add(relief, found * tapers, number)
    _follow_ground(relief, surface)
    return relief


def _follow_ground(relief: NDArray[np.float32], surface: NDArray[np.float32]) -> None:
    """Let the relief be larger where the ground around is rough, and smaller where it is flat, within each window."""
    cells = averaged(surface, SAMPLES_A_CELL).astype(np.float64)
    rough = (cells - gaussian_filter(cells, _OCTAVE)) ** 2
    here, around = gaussian_filter(rough, _NEAR), gaussian_filter(rough, _FAR)
    share = np.minimum((here / np.maximum(around, 1e-12)) ** _FOLLOWS, _MOST_FOLLOWED).astype(np.float32)
    columns = (np.arange(relief.shape[1]) + 0.5) / SAMPLES_A_CELL - 0.5
    for first in range(0, len(relief), _ROWS_AT_ONCE):
        part = relief[first : first + _ROWS_AT_ONCE]
        rows = (np.arange(first, first + len(part)) + 0.5) / SAMPLES_A_CELL - 0.5
        part *= values_at(share, np.stack(np.meshgrid(rows, columns, indexing="ij")), order=1)


class _ShadedScene:
    """Slopes of a surface and bands of an image, in rows of windows."""

    def __init__(self, estimate: LeastErrorEstimate, surface: NDArray[np.float32], image: NDArray[np.float32]) -> None:
        self.estimate, self._surface, self._image = estimate, surface, image
        count, total, squares = 0, np.zeros(len(image)), np.zeros(len(image))
        for first in range(0, image.shape[1], _ROWS_AT_ONCE):
            part = np.asarray(image[:, first : first + _ROWS_AT_ONCE], np.float64)
            part = part[:, np.isfinite(part).all(axis=0)]
            count, total, squares = count + part.shape[1], total + part.sum(axis=1), squares + (part**2).sum(axis=1)
        self._mean = total / max(count, 1)
        self._deviation = np.sqrt(np.maximum(squares / max(count, 1) - self._mean**2, 0.0))

    @property
    def shows(self) -> NDArray[np.bool_]:
        """(bands,) whether a band shows anything."""
        return self._deviation > 1e-6

    def strip(self, number: int) -> tuple[Floats, Floats, slice]:
        """Slopes (2, R, W), bands (bands, R, W) of mean 0 and deviation 1, and which rows are those of the windows."""
        times, size = SAMPLES_A_CELL, self.estimate.rows.size
        start = self.estimate.rows.starts[number]
        first, last = max(start - _REACH, 0), min(start + size + _REACH, self._surface.shape[0] // times)
        rows = slice(first * times, last * times)
        surface = self._surface[rows].astype(np.float64)
        slopes = np.stack([np.gradient(surface, axis=axis) for axis in (0, 1)])
        bands = self._image[self.shows, rows] - self._mean[self.shows, None, None]
        bands = _continued(bands / self._deviation[self.shows, None, None])
        inside = (start - first) * times
        return slopes, bands, slice(inside, inside + size * times)

    def windows(self, values: Floats, times: int = SAMPLES_A_CELL) -> Floats:
        """The windows (W, C, size, size) of a strip (C, size, width) with ``times`` samples along a cell."""
        width = self.estimate.columns.size * times
        starts = [start * times for start in self.estimate.columns.starts]
        return np.stack([values[:, :, start : start + width] for start in starts])

    def add(self, joined: NDArray[np.float32], parts: Floats, number: int) -> None:
        """Add the windows (W, size, size) of a row of windows to a map."""
        times = SAMPLES_A_CELL
        target = joined[self.estimate.rows.starts[number] * times :][: parts.shape[1]]
        for part, start in zip(parts, self.estimate.columns.starts, strict=True):
            target[:, start * times :][:, : parts.shape[2]] += part


def _continued(bands: Floats) -> Floats:
    """Bands with their unknown pixels filled smoothly, and with 0 far from known ones."""
    known = np.asarray(np.isfinite(bands).all(axis=0))
    if known.all():
        return bands
    filled = np.where(known, bands, 0.0)
    share = np.maximum(_means_around(known.astype(np.float64)), 1e-3)
    return np.where(known, bands, _means_around(filled) / share)


def _means_around(values: Floats) -> Floats:
    return np.asarray(uniform_filter(values, round(2 * _COARSE * SAMPLES_A_CELL), mode="nearest", axes=(-2, -1)))


def _smooth(values: Floats, cells: float) -> Floats:
    return np.asarray(gaussian_filter(values, cells * SAMPLES_A_CELL, mode="nearest", axes=(-2, -1)))


def _light(scene: _ShadedScene) -> list[Floats] | None:
    """For each row of windows (W, 2, bands) the brightness that a slope down and across adds; None without relief."""
    powers, products = [], []
    for number in range(len(scene.estimate.rows.starts)):
        slopes, bands, inside = scene.strip(number)
        # Half as many samples show these wavelengths as well.
        maps = np.concatenate([slopes, bands])
        maps = maps.reshape(len(maps), maps.shape[1] // 2, 2, maps.shape[2] // 2, 2).mean(axis=(2, 4))
        passed = _smooth(maps, _FINE / 2) - _smooth(maps, _COARSE / 2)
        windows = scene.windows(passed[:, inside.start // 2 : inside.stop // 2], SAMPLES_A_CELL // 2)
        powers.append(np.einsum("wiyx,wjyx->wij", windows[:, :2], windows[:, :2]))
        products.append(np.einsum("wiyx,wjyx->wij", windows[:, :2], windows[:, 2:]))
    usual = np.mean(np.concatenate(powers), axis=0)
    if not scene.shows.any() or not np.linalg.det(usual) > 0:
        return None
    common = np.mean(np.concatenate(products), axis=0)
    return [
        np.linalg.solve(power + _TRUST_IN_SCENE * usual, product + _TRUST_IN_SCENE * common)
        for power, product in zip(powers, products, strict=True)
    ]


def _spectra_of_rest(
    scene: _ShadedScene, light: list[Floats], along_rows: Floats, along_columns: Floats
) -> Iterator[tuple[int, NDArray[np.complex128]]]:
    """Number of each row of windows, and transforms (W, bands, size, size) of what its known slopes do not explain."""
    for number in range(len(light)):
        slopes, bands, inside = scene.strip(number)
        windows = scene.windows(np.concatenate([slopes, bands])[:, inside])
        rest = windows[:, 2:] - np.einsum("wiyx,wij->wjyx", windows[:, :2], light[number])
        tapers = along_rows[number][:, None] * along_columns[:, None, :]
        yield number, np.fft.fft2(rest * tapers[:, None])


def _filters(
    spectra: GroundSpectra, light: Floats, inverse: NDArray[np.complex128], trust: float
) -> NDArray[np.complex128]:
    """Wiener filters (W, bands, H, W) from the transform of the image's rest to that of the relief."""
    height, width = inverse.shape[:2]
    down, across = (np.asarray(np.fft.fftfreq(side), np.float64) for side in (height, width))
    # Central differences turn a wave of height 1 into slopes of this size.
    slopes = np.stack(np.meshgrid(np.sin(2 * np.pi * down), np.sin(2 * np.pi * across), indexing="ij"))
    response = 1j * np.einsum("iyx,wij->wyxj", slopes, light)
    filters = np.einsum("wyxj,yxji->wyxi", response.conj(), inverse)
    filters *= (open_power(spectra, down, across) * _trust(down, across, trust))[..., None]
    explained = np.einsum("wyxi,wyxi->wyx", filters, response).real
    return np.moveaxis(filters / np.maximum(explained / _MOST_EXPLAINED, 1.0)[..., None], -1, 1)


def open_power(spectra: GroundSpectra, down: Floats, across: Floats) -> Floats:
    """Power (W, H, W), in square metres a sample, that the estimate leaves open at frequencies in cycles a sample.

    Args:
        spectra: of the ground in W windows.
        down: (H,) frequencies as ``numpy.fft.fftfreq`` orders them, a multiple of SAMPLES_A_CELL of them.
        across: (W,) likewise.
    """
    times = SAMPLES_A_CELL
    power = spectra.power(times * down, times * across)
    power[:, 0, 0] = 0.0
    seen = power * (_cell_response(down)[:, None] * _cell_response(across)) ** 2
    folds = (len(power), times, len(down) // times, times, len(across) // times)
    together = seen.reshape(folds).sum(axis=(1, 3)) + spectra.noise_variance[:, None, None]
    return np.asarray(times**2 * power * (1.0 - seen / np.tile(together, (1, times, times))))


def _trust(down: Floats, across: Floats, an_octave: float) -> Floats:
    """How far the power (H, W) at frequencies in cycles a sample is believed: 1 where the cells resolve it."""
    cycles_a_cell = SAMPLES_A_CELL * np.hypot(*np.meshgrid(down, across, indexing="ij"))
    return np.asarray(np.maximum(2.0 * cycles_a_cell, 1.0) ** math.log2(an_octave))


def _cell_response(frequency: Floats) -> Floats:
    """What the mean over a cell's samples leaves of a wave's amplitude."""
    turns = np.arange(SAMPLES_A_CELL) - (SAMPLES_A_CELL - 1) / 2
    return np.asarray(np.cos(2 * np.pi * frequency[:, None] * turns).mean(axis=1))
