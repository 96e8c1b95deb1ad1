"""Single wrong cells of a DEM: up to three that stand off from everything around them, which no ground does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["AROUND", "find_wrong_cells", "neighbours"]

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

# A spike of at most so many cells stands off from all around it: by more than a slope of 45 degrees (within bounds in
# metres), and by more than so many of the steeper steps in its neighbourhood.
_SPIKE_CELLS = 3
_SPIKE_BOUNDS = (100.0, 2000.0)
_SPIKE_TIMES = 4.0
_NEIGHBOURHOOD = 7
_FEWEST_AROUND = 3
_EIGHT = np.ones((3, 3), bool)

AROUND = tuple((down, across) for down in (-1, 0, 1) for across in (-1, 0, 1) if (down, across) != (0, 0))
"""The ways to the eight neighbours of a cell, in rows and columns."""


def find_wrong_cells(heights: Floats, cell: float | None) -> Mask:
    """Find up to three cells that stand off from everything around them.

    A summit rises from its neighbours by no more than a steep slope, a cliff has cells like it on either side, a
    building has more cells, and rough ground has high steps all around: none of them is found.

    Args:
        heights: (H, W) in metres, NaN where unknown.
        cell: side of a cell in metres; None where unknown.

    Returns:
        (H, W) bool.
    """
    bound = float(np.clip(cell or 0.0, *_SPIKE_BOUNDS))
    none = np.zeros(heights.shape, bool)
    with np.errstate(invalid="ignore"):
        beside = neighbours(heights.shape, ((0, 1), (1, 0)))
        if not any((np.abs(heights[here] - heights[there]) > bound).any() for here, there in beside):
            return none
        candidates = _unlike(heights, bound)
    areas, count = ndimage.label(candidates, _EIGHT)
    if not count:
        return none
    numbers = np.arange(1, count + 1)
    few = ndimage.sum_labels(candidates, areas, numbers) <= _SPIKE_CELLS
    distance = ndimage.minimum(_distance(heights, candidates), areas, numbers)
    row, column = (
        np.array([place[axis] for place in ndimage.maximum_position(candidates, areas, numbers)]) for axis in (0, 1)
    )
    least = np.maximum(bound, _SPIKE_TIMES * _steps_around(np.where(candidates, np.nan, heights), row, column))
    return np.asarray(np.concatenate([[False], few & (distance > least)])[areas], bool)


def _unlike(heights: Floats, bound: float) -> Mask:
    """Cells with fewer cells like them, within two cells, than a spike may have; and with enough known around them."""
    alike, around = np.zeros(heights.shape, np.int8), np.zeros(heights.shape, np.int8)
    ways = [(down, across) for down in range(-2, 3) for across in range(-2, 3) if (down, across) != (0, 0)]
    for (here, there), way in zip(neighbours(heights.shape, ways), ways, strict=True):
        alike[here] += np.abs(heights[here] - heights[there]) <= bound
        if way in AROUND:
            around[here] += np.isfinite(heights[there])
    return np.isfinite(heights) & (alike < _SPIKE_CELLS) & (around >= _FEWEST_AROUND)


def _distance(heights: Floats, candidates: Mask) -> Floats:
    """(H, W) how far a cell lies above the highest or below the lowest neighbour that is no candidate; else 0."""
    high, low = np.full(heights.shape, -np.inf), np.full(heights.shape, np.inf)
    others = np.isfinite(heights) & ~candidates
    for here, there in neighbours(heights.shape, AROUND):
        high[here] = np.maximum(high[here], np.where(others[there], heights[there], -np.inf))
        low[here] = np.minimum(low[here], np.where(others[there], heights[there], np.inf))
    known = np.isfinite(high) & candidates
    return np.where(
        known, np.maximum(0.0, np.maximum(heights - high, low - heights)), np.where(candidates, np.inf, 0.0)
    )


def _steps_around(heights: Floats, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> Floats:
    """The upper quartile of the steps between neighbours around places (N,); infinite where there are none."""
    border = _NEIGHBOURHOOD // 2
    windows = sliding_window_view(np.pad(heights, border, constant_values=np.nan), (_NEIGHBOURHOOD, _NEIGHBOURHOOD))
    parts = windows[rows, columns]
    steps = [np.abs(np.diff(parts, axis=axis)).reshape(len(rows), -1) for axis in (1, 2)]
    found = np.concatenate(steps, axis=1)
    lonely = np.isnan(found).all(axis=1)
    found[lonely] = 0.0
    return np.where(lonely, np.inf, np.nanquantile(found, 0.75, axis=1))


def neighbours(shape: Sequence[int], ways: Sequence[tuple[int, int]]) -> list[tuple[Any, Any]]:
    """Slices of cells and of their neighbours, for every way to a neighbour.

    Args:
        shape: rows and columns.
        ways: steps to the neighbours, in rows and columns.
    """

    def slices(step: int, length: int) -> tuple[slice, slice]:
        low, high = max(0, -step), length - max(0, step)
        return slice(low, max(low, high)), slice(low + step, max(low, high) + step)

    found = []
    for down, across in ways:
        (row, other_row), (column, other_column) = slices(down, shape[0]), slices(across, shape[1])
        found.append(((row, column), (other_row, other_column)))
    return found
