"""Points to cells: the height of each cell of a grid, its spread, and what stands alone taken out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label

from Utils.rasters.geometry import Geometry

__all__ = ["Cells", "Points", "fuse_points", "islands", "joined", "unsupported"]

Floats = NDArray[np.float64]

# Side of the window around a cell in which some must have about its height.
_SUPPORT_SIDE = 7
# Cells that an area of heights has at least.
_LEAST_AREA = 100


@dataclass(frozen=True)
class Points:
    """Points on the ground, N of them.

    Attributes:
        x: eastings in the grid's system.
        y: northings.
        height: metres.
        weight: how far each is to be trusted, above 0.
        views: how many views agree on it.
    """

    x: Floats
    y: Floats
    height: Floats
    weight: Floats
    views: NDArray[np.intp]


def joined(parts: Sequence[Points]) -> Points:
    """All points of several sets."""
    names = [field.name for field in fields(Points)]
    return Points(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


@dataclass(frozen=True)
class Cells:
    """What points make of a grid of cells (h, w).

    Attributes:
        height: metres; NaN without points.
        spread: standard deviation of the points of a cell, in metres; NaN without points.
        views: the most views that agree on a point of the cell; 0 without points.
    """

    height: Floats
    spread: Floats
    views: NDArray[np.intp]


def fuse_points(points: Points, place: Geometry, reach: int, apart: float) -> Cells:
    """The height of each cell: the mean of the points near its middle, closer ones counting more.

    Where points of a cell lie further apart than that of one surface, as at the edge of a roof, those about the median
    count alone: a mean would float between roof and ground.

    Args:
        points: the points.
        place: the grid.
        reach: how many cells around its own a point counts in; 0 for its own alone.
        apart: metres within which points are of one surface.
    """
    rows, columns = place.place(points.x, points.y, place.crs)
    index, weight, which = _shares(rows, columns, points.weight, (place.height, place.width), reach)
    height = points.height[which]
    count = place.height * place.width
    keep = _one_surface(index, height, weight, count, apart)
    index, weight, height, which = index[keep], weight[keep], height[keep], which[keep]
    total = np.bincount(index, weight, count)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.bincount(index, weight * height, count) / total
        variance = np.bincount(index, weight * (height - mean[index]) ** 2, count) / total
    views = np.zeros(count, np.intp)
    np.maximum.at(views, index, points.views[which])
    shape = (place.height, place.width)
    return Cells(mean.reshape(shape), np.sqrt(variance).reshape(shape), views.reshape(shape))


def unsupported(height: Floats, apart: float, least: float) -> NDArray[np.bool_]:
    """Cells, or pixels, that stand alone: too few of the 48 around have about their height.

    Args:
        height: metres (h, w); NaN where there is none. What is outside counts as missing.
        apart: metres within which two heights are about the same.
        least: the share of the 48 that must be.
    """
    half = _SUPPORT_SIDE // 2
    padded = np.pad(height, half, constant_values=np.nan)
    support = np.zeros(height.shape, np.intp)
    for down in range(_SUPPORT_SIDE):
        for across in range(_SUPPORT_SIDE):
            there = padded[down : down + height.shape[0], across : across + height.shape[1]]
            support += np.abs(there - height) <= apart  # False for NaN
    return np.isfinite(height) & (support - 1 < least * (_SUPPORT_SIDE**2 - 1))


def islands(known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Cells of areas that are small and touch nothing: wrong matches that agree by chance come in such patches.

    Areas at the border of the grid may go on beyond it, and stay.
    """
    labels, _ = label(known, structure=np.ones((3, 3)))
    sizes = np.bincount(labels.ravel())
    small = sizes < _LEAST_AREA
    small[np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))] = False
    small[0] = False
    return np.asarray(small[labels])


def _shares(
    rows: Floats, columns: Floats, weight: Floats, shape: tuple[int, int], reach: int
) -> tuple[NDArray[np.intp], Floats, NDArray[np.intp]]:
    """Cells that points count in (M,), with which weight (M,), and which point that is (M,)."""
    own_row, own_column = np.floor(rows).astype(np.intp), np.floor(columns).astype(np.intp)
    parts: list[tuple[NDArray[np.intp], Floats, NDArray[np.intp]]] = []
    for down in range(-reach, reach + 1):
        for across in range(-reach, reach + 1):
            row, column = own_row + down, own_column + across
            inside = (row >= 0) & (row < shape[0]) & (column >= 0) & (column < shape[1])
            which = np.nonzero(inside)[0]
            row, column = row[inside], column[inside]
            squared = (rows[inside] - row - 0.5) ** 2 + (columns[inside] - column - 0.5) ** 2
            # A Gaussian of half a cell: a point on the border of two cells counts the same in both.
            parts.append((row * shape[1] + column, weight[inside] * np.exp(-2.0 * squared), which))
    index, shares, which = (np.concatenate([part[i] for part in parts]) for i in range(3))
    return index, shares, which


def _one_surface(
    index: NDArray[np.intp], height: Floats, weight: Floats, count: int, apart: float
) -> NDArray[np.bool_]:
    """Which shares (M,) lie about the weighted median of their cell; all, where a cell's lie close together."""
    low, high = np.full(count, np.inf), np.full(count, -np.inf)
    np.minimum.at(low, index, height)
    np.maximum.at(high, index, height)
    doubtful = np.nonzero((high - low)[index] > apart)[0]
    keep = np.ones(len(index), bool)
    if not len(doubtful):
        return keep
    order = doubtful[np.lexsort((height[doubtful], index[doubtful]))]
    cell = index[order]
    first = np.concatenate([[True], cell[1:] != cell[:-1]])
    group = np.cumsum(first) - 1
    running = np.cumsum(weight[order])
    before = np.concatenate([[0.0], running[:-1]])[first]
    within = running - before[group]
    total = np.bincount(group, weight[order])
    # The first share at which half of the cell's weight is reached.
    reached = within >= 0.5 * total[group] * (1 - 1e-12)
    median = np.full(len(total), np.nan)
    places = np.nonzero(reached)[0][::-1]
    median[group[places]] = height[order[places]]
    keep[order] = np.abs(height[order] - median[group]) <= apart / 2
    return keep
