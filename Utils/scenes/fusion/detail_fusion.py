"""A model's detail on the low frequencies of a coarse DEM, or on heights at points.

Fusion as in pansharpening (generalised Laplacian pyramid with local injection gains, Aiazzi et al., IEEE TGRS 2002):

    height = gain * model + surface(reference - gain * model averaged to the reference's cells)

Shapes that the reference resolves come from the reference; finer ones come from the model, times a gain.  The gain is
the slope of the reference on the model in the finest octave that both show, found in a window around each cell.  It is
1 where the model's finest visible detail agrees with the reference, and 0 where that detail is noise.  Noise of the
reference does not bias it.  In voids the difference to the model is continued smoothly from the rim (delta surface
fill, Grohman et al., 2006).
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

from Utils.scenes.fusion.reference import Cells, CoarseHeights, Geometry, average_onto

Floats = NDArray[np.float64]

# The finest octave is what a mean over about two cells removes.
_OCTAVE = 1.0
# Size of the window that decides a cell's gain: standard deviation of a Gaussian, in cells.
_WINDOW = 12.0
# Weight of the scene's mean evidence, relative to that of a window with average contrast.
_TRUST_IN_SCENE = 0.25
_HIGHEST_GAIN = 2.0
# Share of the standard deviation that is the same all over a window: half of the variance.
_LEVEL_SHARE = np.float32(math.sqrt(0.5))
# Number of cells in the window, and how many of them count as one in that octave.
_WINDOW_CELLS = 4.0 * math.pi * _WINDOW**2
_CELLS_AN_OBSERVATION = 4.0
_MAD_TO_SIGMA = 1.4826
# Amounts of smoothing of the offsets that are tried, as powers of ten: from none to the width of a scene.
_SMOOTHING_POWERS = (-4.0, 4.0)


@dataclass(frozen=True)
class Correction:
    """The correction that turns a model's mosaic into heights: ``gain * mosaic + offset``, both on a coarse grid.

    Attributes:
        gain: (h, w) share of the model's detail that is kept.
        offset: (h, w) coefficients of a cubic B-spline surface, in metres.
        trust: (h, w) factor on the spread of the mosaic.
        spread: (h, w) standard deviation that is added to it, in metres.
        known: (h, w) whether heights in a cell were known and not filled in.
        geometry: where the cells lie.
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
        """Standard deviation in metres, computed from the spread of the mosaic."""
        at = self.geometry.locate(place)
        return np.hypot(_at(self.trust, at, order=1) * spread, _at(self.spread, at, order=1))

    def filled(self, place: Geometry) -> NDArray[np.bool_]:
        """Which pixels lie where no heights were known."""
        return _at(self.known.astype(np.float32), self.geometry.locate(place), order=0) < 0.5


def _at(cells: Cells, places: Floats, order: Literal[0, 1, 3]) -> NDArray[np.float32]:
    """Cells, or spline coefficients, at places (2, H, W) in rows and columns of cells."""
    found: Any = map_coordinates(cells, places, order=order, mode="nearest", prefilter=False)
    return np.asarray(found, np.float32)


def fuse(reference: CoarseHeights, mosaic: Path, scene: Geometry, with_spread: bool = False) -> Correction:
    """Make a mosaic agree with a reference.

    Args:
        reference: the DEM.
        mosaic: the blended map, in metres as accurate as the fits of its tiles; NaN where invalid.
        scene: where its pixels lie.
        with_spread: whether the mosaic's second band is its spread, whose level is then set by the reference.
    """
    with rasterio.open(mosaic) as source:
        heights, model = reference.beside(rasterio.band(source, 1), scene)
        own = average_onto(reference.geometry, rasterio.band(source, 2), scene) if with_spread else np.zeros_like(model)
    known = np.isfinite(reference.heights)
    if not (np.isfinite(heights) & np.isfinite(model)).any():
        return _flat(reference)
    gain, unexplained = injection_gain(heights, model)
    # In voids and beyond the scene's border the difference is continued smoothly.
    offset = fill_smoothly(heights - gain * model)
    surface = mean_preserving(without_noise(offset))
    trust = _trust(own, unexplained, np.where(known, np.float32(0.0), gain))
    return Correction(gain, surface, trust, _LEVEL_SHARE * unexplained, known, reference.geometry)


def _trust(own: Cells, unexplained: Cells, least: Cells) -> Cells:
    """Find the factor on the spread of the mosaic.

    Most of the spread concerns large shapes, in which the result follows the reference and not the model. The size of
    the rest is read from the reference, in the finest octave that it resolves. Where that error lies is read from the
    spread, which exaggerates its differences; half of the variance is therefore taken to be the same all over a window.
    In voids, where nothing fixes the large shapes, the spread counts in full.

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
    ridges. The mean of a cubic B-spline over a cell is a quartic one at its centre, so the prefilter of the quartic is
    used (Unser, IEEE Signal Processing Magazine 1999, for B-splines and their prefilters).
    """
    return np.asarray(spline_filter(cells.astype(np.float64), order=4, mode="nearest"), np.float32)


def without_noise(cells: Cells) -> Cells:
    """Smooth a map (h, w) by the amount that its noise suggests; a map without noise is not changed.

    Penalised least squares in cosine space, the amount chosen by generalised cross-validation (Garcia, Computational
    Statistics & Data Analysis 2010).  Only noise that differs from cell to cell is recognised.
    """
    spectrum = dctn(cells.astype(np.float64), norm="ortho")
    sides = [2.0 - 2.0 * np.cos(np.pi * np.arange(length) / length) for length in cells.shape]
    penalty = (sides[0][:, None] + sides[1][None, :]) ** 2

    def score(power: float) -> float:
        lost = 1.0 - 1.0 / (1.0 + 10.0**power * penalty)
        return float(((lost * spectrum) ** 2).mean() / max(lost.mean(), 1e-12) ** 2)

    best = minimize_scalar(score, bounds=_SMOOTHING_POWERS, method="bounded", options={"xatol": 0.05})
    if best.x < _SMOOTHING_POWERS[0] + 0.2:
        return cells  # there is hardly any noise
    return np.asarray(idctn(spectrum / (1.0 + 10.0**best.x * penalty), norm="ortho"), np.float32)


def _flat(reference: CoarseHeights) -> Correction:
    """The correction for a scene so small that no cell lies wholly inside: it leaves the fitted tiles unchanged."""
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
    # In cells whose neighbourhood is largely unknown, the finest octave means nothing.
    weight = (known & (_smooth(known.astype(np.float64), _OCTAVE) > 0.9)).astype(np.float64)
    if not weight.any():
        weight = known.astype(np.float64)
    # Cliffs and artefacts must not outweigh all other cells.
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
    """A map minus its smoothed version, over known cells; 0 elsewhere."""
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
