"""Sparse heights, such as those of ICESat-2: correcting a map towards them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window
from scipy.interpolate import RBFInterpolator

from Utils.core.errors import UserError
from Utils.scenes.fusion.anchors import Points, sample
from Utils.scenes.fusion.correction import Correction
from Utils.scenes.fusion.points_beside_dem import Surface, guarded_surface, weighted_median
from Utils.scenes.fusion.points_on_scene import FEWEST_POINTS
from Utils.scenes.fusion.reference import Geometry

logger = logging.getLogger(__name__)

Floats = NDArray[np.float64]

_MAD_TO_SIGMA = 1.4826
_NEIGHBOURS = 48
_SMOOTHINGS = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
_MOST_TO_CHOOSE = 1500
_STRIP = 512


@dataclass(frozen=True)
class PointCorrection:
    """How a mosaic is corrected towards points.

    Attributes:
        correction: the surface.
        before: (N,) each point's residual before it, height less mosaic, in metres; NaN where the mosaic is invalid.
        left_out: by reason, how many points did not count.
    """

    correction: Correction
    before: Floats
    left_out: Mapping[str, int]


def correct_to_points(
    points: Points, mosaic: Path, scene: Geometry, spacing: float, first: Correction | None = None
) -> PointCorrection:
    """Fit a surface that corrects a mosaic towards heights at points, however they lie.

    Its smoothness is chosen by leaving out a fifth of the points at a time; after a fusion see
    :func:`~Utils.scenes.fusion.points_beside_dem.guarded_surface`. Points whose residual lies more than five robust
    standard deviations from the median are left out, with a line in the log. Where the points' own accuracy is known,
    they weigh by the inverse of their variance.

    Args:
        points: heights in metres.
        mosaic: the blended map, in metres as accurate as the fits of its tiles; NaN where invalid.
        scene: where its pixels lie.
        spacing: pixels between the nodes of the surface.
        first: what corrects the mosaic before the points do, such as its fusion with a DEM.

    Raises:
        UserError: too few points on valid pixels.
    """
    residuals = points.heights - sample_mosaic(points, mosaic, None if first is None else (first, scene))
    known = np.isfinite(residuals)
    if known.sum() < FEWEST_POINTS:
        raise UserError(f"--points: only {known.sum()} lie on valid pixels, at least {FEWEST_POINTS} are needed")
    middle = float(np.median(residuals[known]))
    spread = _MAD_TO_SIGMA * float(np.median(np.abs(residuals[known] - middle)))
    own = 0.0 if points.sigma is None else points.sigma
    inside = known & (np.abs(residuals - middle) <= 5.0 * np.hypot(spread, own) + 1e-6)
    outliers = known & ~inside
    if outliers.any():
        worst = residuals[outliers][np.abs(residuals[outliers] - middle).argmax()]
        logger.warning(
            "--points: left out %d of %d points whose heights lie more than %.1f m from those around (up to %+.1f m "
            "from the model's map); take rows out of the table if they are wrong",
            outliers.sum(),
            known.sum(),
            5.0 * spread,
            worst,
        )
    variance = np.ones(len(residuals)) if points.sigma is None else points.sigma**2
    places, values, doubt = _thinned(
        points.rows[inside] / spacing, points.columns[inside] / spacing, residuals[inside], variance[inside]
    )
    surface: Surface
    if first is None:
        surface = _surface(places, values, _choose_smoothing(places, values, doubt) * doubt)
    else:
        surface = guarded_surface(places, values, doubt)
    # One node beyond the border on each side, so that interpolation has nodes on both sides of every pixel.
    rows = np.arange(int(np.ceil(scene.height / spacing)) + 2)
    columns = np.arange(int(np.ceil(scene.width / spacing)) + 2)
    nodes = np.stack(np.meshgrid(rows - 0.5, columns - 0.5, indexing="ij"), axis=-1).reshape(-1, 2)
    offset = surface(nodes).reshape(len(rows), len(columns)).astype(np.float32)
    left = values - surface(places)
    shrink = type(scene.transform).scale(spacing)
    geometry = Geometry(1, 1, scene.crs, scene.transform @ shrink).window(-1, -1, len(rows), len(columns))
    ones = np.ones(offset.shape, np.float32)
    unexplained = ones * np.float32(_MAD_TO_SIGMA * np.median(np.abs(left)))
    counts = {"on_invalid_pixels": int((~known).sum()), "outliers": int(outliers.sum())}
    left_out = {reason: count for reason, count in counts.items() if count}
    return PointCorrection(
        Correction(ones, offset, ones, unexplained, ones.astype(bool), geometry, geometry), residuals, left_out
    )


def sample_mosaic(points: Points, mosaic: Path, corrected: tuple[Correction, Geometry] | None = None) -> Floats:
    """The mosaic at points (N,), bilinearly, read strip by strip, and corrected where it shall be; NaN if invalid."""
    found = np.full(len(points.rows), np.nan)
    with rasterio.open(mosaic) as source:
        for start in range(0, source.height, _STRIP):
            mine = (points.rows >= start) & (points.rows < start + _STRIP)
            if mine.any():
                first = max(0, start - 1)
                last = min(source.height, start + _STRIP + 1)
                values = source.read(1, window=Window(0, first, source.width, last - first))
                if corrected is not None:
                    correction, scene = corrected
                    values = correction.apply(values, scene.window(first, 0, *values.shape))
                found[mine] = sample(values, points.rows[mine] - first, points.columns[mine])
    return found


def _thinned(rows: Floats, columns: Floats, values: Floats, variance: Floats) -> tuple[Floats, Floats, Floats]:
    """Take medians in cells of a quarter of the spacing: a thousand points on one track tell no more than ten.

    Returns:
        Places (K, 2), values (K,), and their variance (K,) in shares of the mean one.
    """
    edges = [np.arange(np.floor(side.min() * 4), np.floor(side.max() * 4) + 2) / 4 for side in (rows, columns)]
    cell = [
        np.clip(np.digitize(side, edge) - 1, 0, len(edge) - 2)
        for side, edge in zip((rows, columns), edges, strict=True)
    ]
    _, group = np.unique(cell[0] * len(edges[1]) + cell[1], return_inverse=True)
    order = np.argsort(group, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(group[order])) + 1)
    places = np.array([[rows[part].mean(), columns[part].mean()] for part in parts])
    found = np.array([weighted_median(values[part], 1.0 / variance[part]) for part in parts])
    doubt = np.array([1.0 / np.mean(1.0 / variance[part]) for part in parts])
    return places, found, doubt / doubt.mean()


def _choose_smoothing(places: Floats, values: Floats, doubt: Floats) -> float:
    """The smoothing whose surface best predicts points that it was not fitted to (five folds, at most 1500 points)."""
    order = np.random.default_rng(0).permutation(len(places))[:_MOST_TO_CHOOSE]
    if len(order) < 4 * FEWEST_POINTS:
        return 1.0
    folds = np.arange(len(order)) % 5

    def error(smoothing: float) -> float:
        misses = []
        for fold in range(5):
            known, asked = order[folds != fold], order[folds == fold]
            surface = _surface(places[known], values[known], smoothing * doubt[known])
            misses.append(np.abs(surface(places[asked]) - values[asked]) / doubt[asked])
        return float(np.mean(np.concatenate(misses)))

    return min(_SMOOTHINGS, key=error)


def _surface(places: Floats, values: Floats, smoothing: Floats) -> RBFInterpolator:
    """Kriging with a linear variogram and a nugget.

    It asks for no slope, which points on a straight track leave open: a thin-plate spline with neighbours on one line
    is undetermined, or rises without bound beside it.
    """
    neighbours = min(_NEIGHBOURS, len(places))
    return RBFInterpolator(places, values, neighbors=neighbours, smoothing=smoothing, kernel="linear", degree=0)
