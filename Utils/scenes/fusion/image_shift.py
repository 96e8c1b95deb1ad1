"""Whether a scene's image and a coarse DEM are shifted against each other: the image's shading must lie on the slopes.

The band-passed image is regressed on the DEM's two slopes at every shift of a few cells (any direction of the light);
the shift at which the slopes explain most of it is the one. Its error follows from leaving out parts of the scene.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom

from Utils.core.errors import UserError
from Utils.rasters.geometry import Geometry
from Utils.rasters.source.scene_source import SceneSource
from Utils.scenes.fusion.cells import CoarseHeights, average_onto

__all__ = ["ImageShift", "check_registration", "find_image_shift"]

logger = logging.getLogger(__name__)

Floats = NDArray[np.float64]

_SAMPLES = 2  # a cell
_MOST_CELLS = 256  # along a side of the part that is looked at
_MOST_PIXELS = 4096
_FEWEST_CELLS = 24
_FINE, _COARSE = 0.6, 2.5  # cells: standard deviations of the difference of Gaussians
_FARTHEST = 6  # cells
_PARTS = 3  # a side: parts of the scene that are left out one at a time
# A shift counts where slopes explain so much more than they do elsewhere, and where it is so many standard errors long.
_LEAST_CONTRAST, _LEAST_ERRORS = 1.5, 3.0
_LEAST_SHIFT = 0.5  # cells


@dataclass(frozen=True)
class ImageShift:
    """By how much a DEM must be moved to lie on an image.

    Attributes:
        rows: cells down.
        columns: cells to the right.
        error: standard error of the shift, cells.
        explained: share of the band-passed image that the slopes explain there, and where the files lie now.
        explained_now: the same where the files lie now.
        contrast: ``explained`` over the most that any shift more than two cells away explains.
    """

    rows: float
    columns: float
    error: float
    explained: float
    explained_now: float
    contrast: float

    @property
    def sure(self) -> bool:
        """Whether the image tells a shift at all."""
        long_enough = math.hypot(self.rows, self.columns) > _LEAST_ERRORS * self.error
        return self.contrast >= _LEAST_CONTRAST and long_enough

    @property
    def matters(self) -> bool:
        """Whether it is sure and more than half a cell."""
        return self.sure and math.hypot(self.rows, self.columns) > _LEAST_SHIFT

    def describe(self) -> dict[str, float]:
        """As JSON."""
        return {name: round(float(value), 4) for name, value in vars(self).items()}


def check_registration(source: SceneSource, scene: Geometry, reference: CoarseHeights, register: bool) -> CoarseHeights:
    """Warn of a reference that is shifted against the image; with ``register``, give it moved onto the image.

    Raises:
        UserError: it shall be moved, and its cells are uneven, or the image does not tell where to.
    """
    found = find_image_shift(source, scene, reference)
    if register and reference.uneven is not None:
        raise UserError("--register cannot move a reference whose cells are uneven under the scene; leave it out")
    if register and (found is None or found.contrast < _LEAST_CONTRAST):
        why = "the scene has too few cells with heights" if found is None else f"slopes explain {_share(found)} of it"
        raise UserError(f"--register: the image does not tell how it lies on the reference ({why}); leave it out")
    if found is None or not found.matters:
        if register:
            logger.info("--register: no shift of more than half a cell was found (%s)", _phrase(found))
        return reference
    if not register:
        logger.warning(
            "the image and --reference are shifted against each other: %s. --register moves the reference",
            _phrase(found),
        )
        return reference
    logger.info("--register: the reference is moved by %s", _phrase(found))
    place = reference.geometry.transform @ Affine.translation(found.columns, found.rows)
    described = {**reference.description, "registered": found.describe()}
    return replace(reference, geometry=replace(reference.geometry, transform=place), description=described)


def _share(found: ImageShift) -> str:
    return f"{100 * found.explained:.1f} %, {found.contrast:.1f} times what they do elsewhere"


def _phrase(found: ImageShift | None) -> str:
    if found is None:
        return "too few cells"
    return (
        f"{found.columns:+.2f} columns and {found.rows:+.2f} rows of its cells (± {found.error:.2f}), where its slopes "
        f"explain {_share(found)} of the image, now {100 * found.explained_now:.1f} %"
    )


def find_image_shift(source: SceneSource, scene: Geometry, reference: CoarseHeights) -> ImageShift | None:
    """Find the shift on a part in the scene's middle, in constant memory; None where there are too few cells.

    Args:
        source: the scene.
        scene: where its pixels lie.
        reference: the DEM; uneven cells are looked at as they are shown.
    """
    part = _middle(scene, reference)
    if part is None:
        return None
    known = np.isfinite(part.heights)
    if known.mean() < 0.5:
        return None
    grid = part.geometry.finer(_SAMPLES)
    image = _image(source, scene, grid)
    heights = zoom(np.where(known, part.heights, np.nanmedian(part.heights)).astype(np.float64), _SAMPLES,
                   order=3, mode="nearest", grid_mode=True)  # fmt: skip
    mask = np.kron(known, np.ones((_SAMPLES, _SAMPLES))) * np.isfinite(image).all(axis=0)
    if mask.mean() < 0.25:
        return None
    weight = mask * _taper(mask.shape)
    slopes = np.stack([_band_passed(np.gradient(heights, axis=axis), weight) for axis in (0, 1)])
    bands = [_band_passed(band, weight) for band in image if np.nanstd(band) > 1e-6]
    if not bands or not np.abs(slopes).max() > 0.0:
        return None
    return _best_shift(np.stack(bands), slopes)


def _middle(scene: Geometry, reference: CoarseHeights) -> CoarseHeights | None:
    """The cells in the middle of the scene."""
    side = int(min(_MOST_CELLS, max(_FEWEST_CELLS, _MOST_PIXELS / reference.pixels_a_cell)) * reference.pixels_a_cell)
    height, width = min(side, scene.height), min(side, scene.width)
    place = scene.window((scene.height - height) // 2, (scene.width - width) // 2, height, width)
    part = reference.part(place)
    return part if part is not None and min(part.heights.shape) >= _FEWEST_CELLS else None


def _image(source: SceneSource, scene: Geometry, grid: Geometry) -> Floats:
    """Brightness (3, H, W) on a grid, NaN where there is no valid pixel."""
    rows, columns = scene.outline_of(grid, margin=2.0)
    top, left = max(0, math.floor(np.nanmin(rows))), max(0, math.floor(np.nanmin(columns)))
    bottom, right = min(scene.height, math.ceil(np.nanmax(rows))), min(scene.width, math.ceil(np.nanmax(columns)))
    pixels, valid = source.read(top, left, bottom - top, right - left)
    pixels = np.where(valid, pixels, np.float32(np.nan))
    place = scene.window(top, left, bottom - top, right - left)
    return np.stack([average_onto(grid, band, place) for band in pixels]).astype(np.float64)


def _taper(shape: tuple[int, ...]) -> Floats:
    """Weights that fall to 0 at the border."""
    sides = [np.minimum(1.0, np.minimum(np.arange(n) + 0.5, n - np.arange(n) - 0.5) / (n / 8)) for n in shape]
    return np.asarray(np.outer(*(0.5 - 0.5 * np.cos(np.pi * side) for side in sides)))


def _band_passed(values: Floats, weight: Floats) -> Floats:
    """A difference of Gaussians of what is known, 0 elsewhere."""
    known = (weight > 0.0) & np.isfinite(values)
    shown, there = np.where(known, values, 0.0), known.astype(np.float64)
    fine, coarse = (
        gaussian_filter(shown, sigma * _SAMPLES) / np.maximum(gaussian_filter(there, sigma * _SAMPLES), 1e-3)
        for sigma in (_FINE, _COARSE)
    )
    found = np.where(known, (fine - coarse) * weight, 0.0)
    # A river bank or a cloud must not count for more than all slopes together.
    limit = 4.0 * max(float(np.sqrt(np.mean(found[known] ** 2))), 1e-12)
    return np.asarray(np.clip(found, -limit, limit))


def _best_shift(bands: Floats, slopes: Floats) -> ImageShift:
    """The shift from the image and slopes (2, H, W), all band-passed."""
    reach = min(_FARTHEST * _SAMPLES, min(slopes.shape[1:]) // 4)
    shape = tuple(side + 2 * reach for side in slopes.shape[1:])
    seen = [np.fft.rfft2(band, shape) for band in bands]
    powers = [float((band**2).sum()) for band in bands]
    parts: list[tuple[Any, Any]] = []
    edges = [np.linspace(0, side, _PARTS + 1).astype(int) for side in slopes.shape[1:]]
    for down in range(_PARTS):
        for right in range(_PARTS):
            rows, columns = slice(*edges[0][down : down + 2]), slice(*edges[1][right : right + 2])
            mine = np.zeros_like(slopes)
            mine[:, rows, columns] = slopes[:, rows, columns]
            spectra = [np.conj(np.fft.rfft2(one, shape)) for one in mine]
            cross = np.stack(
                [[_near(np.fft.irfft2(band * one, shape), reach) for one in spectra] for band in seen]
            )  # (bands, 2, lags, lags)
            parts.append((cross, np.einsum("iyx,jyx->ij", mine, mine)))
    cross, gram = sum(one for one, _ in parts), sum(one for _, one in parts)
    explained = _explained(cross, gram, powers)
    peak = _peak(explained)
    around = np.hypot(*(np.indices(explained.shape) - np.array(peak)[:, None, None])) > 2.0 * _SAMPLES
    elsewhere = float(explained[around].max()) if around.any() else math.nan
    without = np.array([_peak(_explained(cross - one, gram - own, powers)) for one, own in parts])
    error = math.sqrt((len(without) - 1) / len(without) * float(((without - without.mean(axis=0)) ** 2).sum()))
    top = float(explained.max())
    now = float(explained[reach, reach])
    rows_, columns_ = ((place - reach) / _SAMPLES for place in peak)
    return ImageShift(rows_, columns_, error / _SAMPLES, top, now, top / max(elsewhere, 1e-12))


def _near(values: Floats, reach: int) -> Floats:
    """The lags from -reach to reach of a circular correlation."""
    return np.roll(values, (reach, reach), axis=(0, 1))[: 2 * reach + 1, : 2 * reach + 1]


def _explained(cross: Floats, gram: Floats, powers: list[float]) -> Floats:
    """Share of the image's power that the slopes explain at each lag, the mean over its bands."""
    inverse = np.linalg.inv(gram + 1e-9 * np.trace(gram) * np.eye(len(gram)))
    found = np.einsum("biyx,ij,bjyx->byx", cross, inverse, cross)
    return np.asarray((found / np.array(powers)[:, None, None]).mean(axis=0))


def _peak(values: Floats) -> tuple[float, float]:
    """Row and column of the highest value, between samples by a parabola."""
    row, column = np.unravel_index(int(values.argmax()), values.shape)

    def between(line: Floats, place: int) -> float:
        if not 0 < place < len(line) - 1:
            return float(place)
        before, here, after = (float(line[place + step]) for step in (-1, 0, 1))
        bend = before - 2 * here + after
        return place + (0.5 * (before - after) / bend if bend < 0.0 else 0.0)

    return between(values[:, column], int(row)), between(values[row], int(column))
