"""Made-up ground of Mars: rough plains with craters of all ages, dunes and layers, as heights in metres."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["KINDS", "make_ground"]

Floats = NDArray[np.float64]

KINDS = ("craters", "dunes", "layers")
"""What stands out on a ground; every ground has some craters."""


def make_ground(shape: tuple[int, int], kind: str, generator: np.random.Generator) -> Floats:
    """Make heights (H, W) in metres for pixels of one metre; their mean is 0.

    Args:
        shape: rows and columns, 32 or more each.
        kind: one of ``KINDS``.
        generator: what all is drawn from.

    Raises:
        ValueError: another kind, or too small a shape.
    """
    if kind not in KINDS or min(shape) < 32:
        raise ValueError(f"ground of {shape} pixels, kind '{kind}': give 32 x 32 or more, and one of {KINDS}")
    heights = fractal(shape, generator, slope=4.4, deviation=5.0) + _tilt(shape, generator)
    if kind == "layers":
        heights = _layers(heights + fractal(shape, generator, 5.0, 12.0), generator)
    density = {"craters": 1.0, "dunes": 0.25, "layers": 0.35}[kind]
    heights = _with_craters(heights, density, generator)
    if kind == "dunes":
        heights = heights + _dunes(shape, generator)
    heights = heights + fractal(shape, generator, slope=2.4, deviation=0.06)
    return heights - heights.mean()


def fractal(shape: tuple[int, int], generator: np.random.Generator, slope: float, deviation: float) -> Floats:
    """A random field (H, W) with power falling as frequency to the ``-slope``, of a standard deviation, mean 0."""
    # Twice as wide as asked for, because a field made by Fourier transform repeats at its edges.
    wide = tuple(2 * length for length in shape)
    noise = np.fft.rfft2(generator.standard_normal(wide))
    frequency = np.hypot(np.fft.fftfreq(wide[0])[:, None], np.fft.rfftfreq(wide[1])[None, :])
    frequency[0, 0] = np.inf
    field = np.fft.irfft2(noise * frequency ** (-slope / 2), wide)[: shape[0], : shape[1]]
    return (field - field.mean()) * (deviation / field.std())


def _tilt(shape: tuple[int, int], generator: np.random.Generator) -> Floats:
    down, across = generator.normal(0.0, 0.02, 2)
    rows, columns = np.indices(shape, dtype=np.float64)
    return down * rows + across * columns


def _layers(heights: Floats, generator: np.random.Generator) -> Floats:
    """Terraces: flat benches and steep steps between them."""
    thickness = generator.uniform(4.0, 7.0)
    level = np.floor(heights / thickness)
    share = heights / thickness - level
    step = np.clip((share - 0.7) / 0.3, 0.0, 1.0)
    return (level + 0.25 * share + 0.75 * step * step * (3.0 - 2.0 * step)) * thickness


def _with_craters(heights: Floats, density: float, generator: np.random.Generator) -> Floats:
    """Craters of diameters that follow a power law, the older the shallower.

    Depth is a fifth of the diameter for a fresh one, and the rim a twenty-fifth (Pike 1977).
    """
    rows, columns = heights.shape
    count = generator.poisson(density * rows * columns / 1800.0)
    shares = generator.uniform(size=count)
    smallest, largest = 6.0, min(rows, columns) / 3.0
    # Numbers above a diameter fall with its square.
    diameters = 1.0 / np.sqrt(shares / largest**2 + (1.0 - shares) / smallest**2)
    result = heights.copy()
    for diameter in np.sort(diameters)[::-1]:
        row, column = generator.uniform(0, rows), generator.uniform(0, columns)
        freshness = generator.uniform(0.25, 1.0)
        _dig(result, row, column, diameter / 2.0, freshness)
    return result


def _dig(heights: Floats, row: float, column: float, radius: float, freshness: float) -> None:
    """Add one crater: a parabolic bowl, a rim, and ejecta that fall off with the cube of the distance."""
    reach = 3.0 * radius
    top, left = max(0, int(row - reach)), max(0, int(column - reach))
    part = heights[top : int(row + reach) + 2, left : int(column + reach) + 2]
    down, across = np.indices(part.shape)
    distance = np.hypot(down + top - row, across + left - column) / radius
    depth, rim = 0.4 * radius * freshness, 0.08 * radius * freshness
    bowl = (depth + rim) * distance**2 - depth
    ejecta = rim / np.maximum(distance, 1.0) ** 3
    fade = np.clip((3.0 - distance) / 1.0, 0.0, 1.0)
    part += np.where(distance < 1.0, bowl, ejecta * fade)


def _dunes(shape: tuple[int, int], generator: np.random.Generator) -> Floats:
    """Asymmetric ridges of sand with a gentle windward and a steep lee side, some 1 to 3 m high."""
    direction = generator.uniform(0.0, 2.0 * np.pi)
    wavelength = generator.uniform(18.0, 36.0)
    rows, columns = np.indices(shape, dtype=np.float64)
    along = rows * np.sin(direction) + columns * np.cos(direction)
    bent = along + fractal(shape, generator, 4.4, 0.6 * wavelength)
    phase = (bent / wavelength) % 1.0
    profile = np.where(phase < 0.7, phase / 0.7, (1.0 - phase) / 0.3)
    field = np.clip(0.6 + fractal(shape, generator, 4.0, 0.5), 0.0, 1.0)
    return ndimage.gaussian_filter(profile, 1.0) * field * wavelength * generator.uniform(0.06, 0.1)
