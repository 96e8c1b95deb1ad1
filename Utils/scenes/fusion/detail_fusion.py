"""A model's detail on the low frequencies of a coarse DEM, or on heights at points.

Fusion as in pansharpening (generalised Laplacian pyramid with local injection gains, Aiazzi et al., IEEE TGRS 2002):

    height = gain * model + surface(reference - gain * model averaged to the reference's cells)

What the reference resolves is the reference's; what it does not is the model's, times a gain.  The gain is the slope of
the reference on the model in the finest octave that both show, found in a window around each cell: where the model's
finest visible detail agrees with the reference it is 1, where it is noise, 0.  Noise of the reference does not bias it.
In voids the difference to the model goes on smoothly from their rim (delta surface fill, Grohman et al., 2006).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.fill import fillnodata
from scipy import sparse
from scipy.fft import dctn, idctn
from scipy.ndimage import gaussian_filter, map_coordinates, spline_filter
from scipy.optimize import minimize_scalar
from scipy.sparse.linalg import cg

from Utils.scenes.fusion.reference import Cells, CoarseHeights, Geometry, average_onto, border_cells

Floats = NDArray[np.float64]

# The finest octave: what a mean over about two cells takes away.
_OCTAVE = 1.0
# Cells around each that decide its gain, as the standard deviation of a Gaussian.
_WINDOW = 12.0
# The window's own evidence counts as so many times that of the scene's mean where it has average contrast.
_TRUST_IN_SCENE = 0.25
_HIGHEST_GAIN = 2.0
# Of the standard deviation, what is the same all over a window: half of the variance.
_LEVEL_SHARE = np.float32(math.sqrt(0.5))
# Cells in the window, and how many of them repeat each other in that octave.
_WINDOW_CELLS = 4.0 * math.pi * _WINDOW**2
_CELLS_AN_OBSERVATION = 4.0
_MAD_TO_SIGMA = 1.4826
# Of the smoothing of offsets, as powers of ten: from none to a scene's width.
_SMOOTHING_POWERS = (-4.0, 4.0)


@dataclass(frozen=True)
class Correction:
    """What turns a model's mosaic into heights: ``gain * mosaic + offset``, both on a coarse grid.

    Attributes:
        gain: (h, w) share of the model's detail that is kept.
        offset: (h, w) coefficients of a cubic B-spline surface, in metres.
        trust: (h, w) factor on the mosaic's own spread.
        spread: (h, w) standard deviation that comes on top, in metres.
        known: (h, w) whether heights were known in a cell, and not filled.
        geometry: of the cells.
    """

    gain: Cells
    offset: Cells
    trust: Cells
    spread: Cells
    known: NDArray[np.bool_]
    geometry: Geometry

    def apply(self, heights: NDArray[np.float32], place: Geometry) -> NDArray[np.float32]:
        """Corrected heights of a part of the scene."""
        at = self.geometry.locate(place)
        return _at(self.gain, at, order=1) * heights + _at(self.offset, at, order=3)

    def uncertainty(self, spread: NDArray[np.float32], place: Geometry) -> NDArray[np.float32]:
        """Standard deviation in metres, from the mosaic's own."""
        at = self.geometry.locate(place)
        return np.hypot(_at(self.trust, at, order=1) * spread, _at(self.spread, at, order=1))

    def filled(self, place: Geometry) -> NDArray[np.bool_]:
        """Where no heights were known, pixel by pixel."""
        return _at(self.known.astype(np.float32), self.geometry.locate(place), order=0) < 0.5


def _at(cells: Cells, places: Floats, order: Literal[0, 1, 3]) -> NDArray[np.float32]:
    """Cells, or spline coefficients, at places (2, H, W) in rows and columns of cells."""
    found: Any = map_coordinates(cells, places, order=order, mode="nearest", prefilter=False)
    return np.asarray(found, np.float32)


def fuse(reference: CoarseHeights, mosaic: Path, scene: Geometry, with_spread: bool = False) -> Correction:
    """Make a mosaic agree with a reference.

    Args:
        reference: the DEM.
        mosaic: the blended map, in metres as far as its tiles' fits go; NaN where invalid.
        scene: where its pixels lie.
        with_spread: the mosaic's second band is its spread, which is to be brought to what the reference shows.
    """
    with rasterio.open(mosaic) as source:
        model = average_onto(reference.geometry, rasterio.band(source, 1))
        own = average_onto(reference.geometry, rasterio.band(source, 2)) if with_spread else np.zeros_like(model)
    model[border_cells(reference, scene)] = np.nan
    known = np.isfinite(reference.heights)
    if not (known & np.isfinite(model)).any():
        return _flat(reference)
    gain, unexplained = injection_gain(reference.heights, model)
    # In voids and beyond the scene's border the difference goes on smoothly.
    offset = fill_smoothly(reference.heights - gain * model)
    surface = mean_preserving(without_noise(offset))
    trust = _trust(own, unexplained, np.where(known, np.float32(0.0), gain))
    return Correction(gain, surface, trust, _LEVEL_SHARE * unexplained, known, reference.geometry)


def _trust(own: Cells, unexplained: Cells, least: Cells) -> Cells:
    """What to multiply the mosaic's spread by.

    Most of the spread is of large shapes, in which the result follows the reference and not the model.  How large the
    rest is, the reference itself tells in the finest octave that it resolves; where it lies, the spread tells, though
    it exaggerates: half of the variance is taken to be the same all over a window.  In voids, where nothing holds the
    large shapes, the spread counts in full.

    Args:
        own: (h, w) the spread averaged to cells, NaN where unknown.
        unexplained: (h, w) standard deviation of the reference's finest octave about the model's, in metres.
        least: (h, w) the smallest factor.
    """
    known = np.isfinite(own)
    share = np.maximum(_smooth(known.astype(np.float64), _WINDOW), 1e-9)
    usual = np.sqrt(_smooth(np.where(known, own, 0.0).astype(np.float64) ** 2, _WINDOW) / share)
    return np.maximum(_LEVEL_SHARE * unexplained / np.maximum(usual, 1e-6), least).astype(np.float32)


def mean_preserving(cells: Cells) -> Cells:
    """Coefficients (h, w) of the cubic B-spline surface whose mean over each cell is the cell's value.

    A DEM's cell is a mean over its area, not the height of its centre: a surface through the centres flattens
    ridges. The mean of a cubic B-spline over a cell is a quartic one at its centre, so the quartic's prefilter is what
    is needed (Unser, IEEE Signal Processing Magazine 1999, for B-splines and their prefilters).
    """
    return np.asarray(spline_filter(cells.astype(np.float64), order=4, mode="nearest"), np.float32)


def without_noise(cells: Cells) -> Cells:
    """Smooth a map (h, w) by as much as its own cells suggest: nothing, where they go smoothly.

    Penalised least squares in cosine space, the amount chosen by generalised cross-validation (Garcia, Computational
    Statistics & Data Analysis 2010).  Only noise that differs from cell to cell is seen as such.
    """
    spectrum = dctn(cells.astype(np.float64), norm="ortho")
    sides = [2.0 - 2.0 * np.cos(np.pi * np.arange(length) / length) for length in cells.shape]
    penalty = (sides[0][:, None] + sides[1][None, :]) ** 2

    def score(power: float) -> float:
        lost = 1.0 - 1.0 / (1.0 + 10.0**power * penalty)
        return float(((lost * spectrum) ** 2).mean() / max(lost.mean(), 1e-12) ** 2)

    best = minimize_scalar(score, bounds=_SMOOTHING_POWERS, method="bounded", options={"xatol": 0.05})
    if best.x < _SMOOTHING_POWERS[0] + 0.2:
        return cells  # there is no noise to speak of
    return np.asarray(idctn(spectrum / (1.0 + 10.0**best.x * penalty), norm="ortho"), np.float32)


def _flat(reference: CoarseHeights) -> Correction:
    """For a scene so small that no cell lies wholly inside: the model as its tiles were fitted."""
    shape = reference.heights.shape
    zeros = np.zeros(shape, np.float32)
    return Correction(zeros + 1.0, zeros, zeros + 1.0, zeros, np.isfinite(reference.heights), reference.geometry)


def injection_gain(reference: Cells, model: Cells) -> tuple[Cells, Cells]:
    """The share of the model's detail that the reference supports, and what it leaves unexplained.

    Args:
        reference: (h, w) in metres, NaN in voids.
        model: (h, w), the model averaged to the same cells, NaN where unknown.

    Returns:
        The gain (h, w) in [0, 2], and the standard deviation (h, w), in metres, of the reference's finest octave about
        the model's.
    """
    known = np.isfinite(reference) & np.isfinite(model)
    if not known.any():
        return np.zeros(reference.shape, np.float32), np.zeros(reference.shape, np.float32)
    true, drawn = _finest_octave(reference, known), _finest_octave(model, known)
    # Cells whose neighbourhood is largely unknown have no octave to speak of.
    weight = (known & (_smooth(known.astype(np.float64), _OCTAVE) > 0.9)).astype(np.float64)
    if not weight.any():
        weight = known.astype(np.float64)
    # Cliffs and artefacts must not decide for all.
    limit = 4.0 * max(_MAD_TO_SIGMA * float(np.median(np.abs(true[weight > 0]))), 1e-12)
    weight = weight * np.minimum(1.0, limit / np.maximum(np.abs(true), limit))
    total = max(weight.sum(), 1e-12)
    power = (weight * drawn**2).sum() / total
    common = (weight * true * drawn).sum() / total
    if power <= 0:
        return np.zeros(reference.shape, np.float32), np.full(reference.shape, float(np.std(true)), np.float32)
    density = _smooth(weight, _WINDOW)
    local_power = _smooth(weight * drawn**2, _WINDOW)
    local_common = _smooth(weight * true * drawn, _WINDOW)
    together = local_power + _TRUST_IN_SCENE * power
    slope = (local_common + _TRUST_IN_SCENE * common) / together
    unexplained = _smooth(weight * (true - slope * drawn) ** 2, _WINDOW) / np.maximum(density, 1e-9)
    # The slope's variance: a chance correlation is no support (positive-part James-Stein).
    observations = (density * _WINDOW_CELLS + _TRUST_IN_SCENE * total) / _CELLS_AN_OBSERVATION
    variance = unexplained / np.maximum(together / (density + _TRUST_IN_SCENE) * observations, 1e-12)
    gain = np.clip(slope - variance / np.maximum(slope, 1e-12), 0.0, _HIGHEST_GAIN)
    return gain.astype(np.float32), np.sqrt(unexplained).astype(np.float32)


def _finest_octave(cells: Cells, known: NDArray[np.bool_]) -> Floats:
    """A map less its smoothed self, over known cells; 0 elsewhere."""
    values = np.where(known, cells, 0.0).astype(np.float64)
    share = np.maximum(_smooth(known.astype(np.float64), _OCTAVE), 1e-9)
    return np.where(known, values - _smooth(values, _OCTAVE) / share, 0.0)


def _smooth(values: Floats, sigma: float) -> Floats:
    return np.asarray(gaussian_filter(values, sigma, mode="constant"))


def fill_smoothly(cells: Cells) -> Cells:
    """Fill unknown (NaN) cells (h, w) with the membrane that hangs from the known ones: the Laplacian is 0 there."""
    unknown = ~np.isfinite(cells)
    if not unknown.any() or unknown.all():
        return np.nan_to_num(cells)
    height, width = cells.shape
    start = fillnodata(np.where(unknown, 0.0, cells).astype(np.float32), ~unknown, max_search_distance=height + width)
    number = np.full(cells.shape, -1)
    number[unknown] = np.arange(unknown.sum())
    rows, columns = np.nonzero(unknown)
    diagonal, sides = np.zeros(len(rows)), np.zeros(len(rows))
    places: list[NDArray[np.intp]] = []
    others: list[NDArray[np.intp]] = []
    for down, across in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        there_rows, there_columns = rows + down, columns + across
        inside = (there_rows >= 0) & (there_rows < height) & (there_columns >= 0) & (there_columns < width)
        diagonal += inside
        other = np.full(len(rows), -1)
        other[inside] = number[there_rows[inside], there_columns[inside]]
        fixed = inside & (other < 0)
        sides[fixed] += cells[there_rows[fixed], there_columns[fixed]]
        places.append(np.nonzero(other >= 0)[0])
        others.append(other[other >= 0])
    where, beside = np.concatenate(places), np.concatenate(others)
    beneath = sparse.csr_array((-np.ones(len(where)), (where, beside)), shape=(len(rows), len(rows)))
    laplacian = sparse.csr_array(beneath + sparse.diags_array(diagonal))
    solved, _ = cg(laplacian, sides, x0=start[unknown].astype(np.float64), rtol=1e-6, maxiter=500)
    filled = cells.copy()
    filled[unknown] = solved
    return filled
