"""The maps of a scene's views, checked against one another, and the points on the ground that they agree on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from Systems.stereo.dsm.cell_fusion import unsupported
from Utils.data.stereo.view_choice import PinholeView, ViewGeometry

__all__ = ["Checked", "ViewMap", "checked"]

Floats = NDArray[np.float64]

# Share of the pixels around one that must say about the same.
_LEAST_DENSITY = 0.4
# The best that a peak is believed, as deviation in pixels of parallax.
_LEAST_DEVIATION = 0.15
_SAMPLED = 400  # pixels at which parallax is measured


@dataclass(frozen=True)
class ViewMap:
    """One view's map.

    Attributes:
        geometry: its camera.
        values: depth or height (h, w) in metres; NaN where there is none.
        confidence: (h, w) in [0, 1].
    """

    geometry: ViewGeometry
    values: NDArray[np.float32]
    confidence: NDArray[np.float32]


@dataclass(frozen=True)
class Checked:
    """What other views say of a view's map.

    Attributes:
        points: (N, 3) as the geometry gives them, of the pixels that count.
        weight: confidence (N,), above 0.
        views: how many views agree on each, itself included (N,).
        seen: pixels whose place another view sees too.
        agreed: pixels on which enough other views agree.
        tolerance: metres by which views may disagree.
        deviation: metres of the least deviation that a point is believed to have.
    """

    points: Floats
    weight: Floats
    views: NDArray[np.intp]
    seen: int
    agreed: int
    tolerance: float
    deviation: float


def checked(maps: Sequence[ViewMap], reference: int, tolerance: float, agreeing: int) -> Checked:
    """Ask the other views for each pixel's place.

    A pixel's point is projected into each other view, and the map there must put its pixel at the same depth or height,
    both in that view's own terms: depths of two cameras differ where one is higher or tilted.

    Args:
        maps: all views of a scene.
        reference: which of them is asked about.
        tolerance: pixels of parallax by which another view may disagree.
        agreeing: how many other views have to agree.
    """
    own = maps[reference]
    rows, columns = np.nonzero(np.isfinite(own.values))
    values = own.values[rows, columns].astype(np.float64)
    points = own.geometry.ground(columns.astype(np.float64), rows.astype(np.float64), values)
    count, seen = np.zeros(len(rows), np.intp), np.zeros(len(rows), bool)
    rates = [0.0]
    for place, other in enumerate(maps):
        if place == reference or not len(rows):
            continue
        rate = _rate(own.geometry, other.geometry, columns, rows, values)
        if not rate > 0:
            continue
        rates.append(rate)
        there, inside = _nearest(other, points)
        apart = np.abs(there - _values_of(other.geometry, points))
        seen |= inside
        count += apart <= tolerance / rate  # False for NaN
    rate = max(rates)
    metres = tolerance / rate if rate > 0 else np.inf
    agreed = count >= agreeing
    kept = np.full(own.values.shape, np.nan)
    kept[rows[agreed], columns[agreed]] = values[agreed]
    keep = agreed & ~unsupported(kept, 2 * metres, _LEAST_DENSITY)[rows, columns]
    weight = np.clip(own.confidence[rows, columns][keep], 0.05, 1.0).astype(np.float64)
    deviation = _LEAST_DEVIATION / rate if rate > 0 else np.inf
    return Checked(
        points[keep], weight, count[keep] + 1, int(seen.sum()), int((agreed & seen).sum()), metres, deviation
    )


def _rate(one: ViewGeometry, other: ViewGeometry, columns: NDArray, rows: NDArray, values: Floats) -> float:
    """Pixels that a metre of a view's depth or height moves its points in another view (median)."""
    some = slice(None, None, max(1, len(values) // _SAMPLED))
    at = columns[some].astype(np.float64), rows[some].astype(np.float64)
    low, high = (other.pixels(one.ground(*at, values[some] + step)) for step in (-0.5, 0.5))
    moved = np.hypot(*(high - low).T)
    return float(np.median(moved[np.isfinite(moved)])) if np.isfinite(moved).any() else 0.0


def _nearest(view: ViewMap, points: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """The value of the pixel that sees each point (N,), NaN where none does, and whether it lies in the image."""
    columns, rows = view.geometry.pixels(points).T
    height, width = view.values.shape
    inside = (columns > -0.5) & (columns < width - 0.5) & (rows > -0.5) & (rows < height - 0.5)  # False for NaN
    found = np.full(len(points), np.nan)
    found[inside] = view.values[np.rint(rows[inside]).astype(np.intp), np.rint(columns[inside]).astype(np.intp)]
    return found, inside


def _values_of(geometry: ViewGeometry, points: Floats) -> Floats:
    """Depth of points (N, 3) before a pinhole camera, or their height."""
    if isinstance(geometry, PinholeView):
        row = geometry.camera.projection[2]
        return np.asarray(points @ row[:3] + row[3])
    return points[:, 2]
