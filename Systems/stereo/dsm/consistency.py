"""The filter between views: a height stays where other views find the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from Systems.stereo.dsm.views import Crop

__all__ = ["Agreement", "agreement"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Agreement:
    """Points of a reference that have a height, N of them, and what other views say of each.

    Attributes:
        rows: their pixels' rows (N,).
        columns: their pixels' columns.
        longitude: degrees.
        latitude: degrees.
        height: metres.
        agreeing: how many other views find the same height.
        tolerance: metres by which the view that is sees it move most may disagree.
    """

    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    longitude: Floats
    latitude: Floats
    height: Floats
    agreeing: NDArray[np.intp]
    tolerance: float


def agreement(
    reference: int, crops: Sequence[Crop], maps: Sequence[NDArray[np.float32]], tolerances: Sequence[float]
) -> Agreement:
    """Ask the other views for the height of each point of a reference.

    A point is projected into each other view; the height that was found for the pixel there must be its own.

    Args:
        reference: place of the reference among the views.
        crops: the pieces of all views.
        maps: the heights found for each, (h, w), NaN where there is none.
        tolerances: metres by which each view may disagree with the reference.
    """
    rows, columns = np.nonzero(np.isfinite(maps[reference]))
    height = maps[reference][rows, columns].astype(np.float64)
    longitude, latitude = crops[reference].model.locate(columns, rows, height)
    agreeing = np.zeros(len(rows), np.intp)
    for other, (crop, found) in enumerate(zip(crops, maps, strict=True)):
        if other == reference:
            continue
        there = _nearest(found, *crop.model.project(longitude, latitude, height))
        apart = np.abs(there - height)
        agreeing += apart <= tolerances[other]  # False for NaN
    least = min(tolerance for other, tolerance in enumerate(tolerances) if other != reference)
    return Agreement(rows, columns, longitude, latitude, height, agreeing, float(least))


def _nearest(values: NDArray[np.float32], columns: Floats, rows: Floats) -> Floats:
    """The value of the pixel at each place (N,); NaN outside."""
    height, width = values.shape
    inside = (columns > -0.5) & (columns < width - 0.5) & (rows > -0.5) & (rows < height - 0.5)  # False for NaN
    found = np.full(len(columns), np.nan)
    found[inside] = values[np.rint(rows[inside]).astype(np.intp), np.rint(columns[inside]).astype(np.intp)]
    return found
