"""Whether water would run where it does: channels of a height map beside those of the truth.

Depressions are filled and flow directions found by flooding from the borders (priority flood; Barnes, Lehman and Mulla,
2014). Each cell drains to its steepest lower neighbour (D8), or through a filled place to the cell that flooded it.
"""

from __future__ import annotations

import heapq
import math

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter

from Utils.scenes.accuracy.scene_scores import FloatArray

__all__ = ["channel_agreement", "flow_accumulation", "reduced"]

_MOST = 400  # cells along a side: larger maps are averaged, so that time and memory stay what they are
_FEWEST = 2500  # cells below which there is no drainage to speak of
_SHARE, _LEAST_CELLS = 0.005, 50  # of the scene that drains through a channel cell, and cells at least
_NEIGHBOURS = [(row, column) for row in (-1, 0, 1) for column in (-1, 0, 1) if row or column]


def reduced(heights: FloatArray) -> FloatArray:
    """Means of square groups of cells (H, W), at most 400 a side; NaN where most of a group is unknown."""
    step = math.ceil(max(heights.shape) / _MOST)
    if step == 1:
        return heights
    rows, columns = (-side % step for side in heights.shape)
    padded = np.pad(heights, ((0, rows), (0, columns)), constant_values=np.nan)
    groups = padded.reshape(padded.shape[0] // step, step, padded.shape[1] // step, step)
    known = np.isfinite(groups)
    count = known.sum(axis=(1, 3))
    total = np.where(known, groups, 0.0).sum(axis=(1, 3))
    return np.asarray(np.where(2 * count > step * step, total / np.maximum(count, 1), np.nan))


def flow_accumulation(heights: FloatArray, aspect: float = 1.0) -> NDArray[np.int64]:
    """How many cells drain through each cell (H, W), itself included; 0 where the height is unknown.

    Args:
        heights: (H, W) metres, NaN where unknown. Water leaves at the border and beside unknown cells.
        aspect: height of a cell over its width.
    """
    height, width = heights.shape
    known = np.isfinite(heights)
    around = np.pad(known, 1)
    inner = np.logical_and.reduce([around[1 + r : 1 + r + height, 1 + c : 1 + c + width] for r, c in _NEIGHBOURS])
    steps = [(row, column, math.hypot(row * aspect, column)) for row, column in _NEIGHBOURS]
    filled, done, parent = heights.copy(), ~known, np.full(height * width, -1)
    queue = [(float(heights[row, column]), int(row), int(column)) for row, column in np.argwhere(known & ~inner)]
    for _, row, column in queue:
        done[row, column] = True
    heapq.heapify(queue)
    order = []
    while queue:  # in the order of filled heights, so that all that is lower is known before
        level, row, column = heapq.heappop(queue)
        order.append(row * width + column)
        for down, right, _ in steps:
            other, beside = row + down, column + right
            if 0 <= other < height and 0 <= beside < width and not done[other, beside]:
                done[other, beside] = True
                filled[other, beside] = max(level, heights[other, beside])
                parent[other * width + beside] = row * width + column
                heapq.heappush(queue, (float(filled[other, beside]), other, beside))
    steepest = np.zeros((height, width))
    padded = np.pad(filled, 1, constant_values=np.nan)
    numbers = np.arange(height * width).reshape(height, width)
    for down, right, distance in steps:
        towards = padded[1 + down : 1 + down + height, 1 + right : 1 + right + width]
        fall = np.nan_to_num((filled - towards) / distance)
        better = (fall > steepest) & inner
        steepest = np.where(better, fall, steepest)
        parent[better.ravel()] = (numbers + down * width + right)[better]
    drained = known.ravel().astype(np.int64)
    for cell in reversed(order):
        if parent[cell] >= 0:
            drained[parent[cell]] += drained[cell]
    return drained.reshape(height, width)


def channel_agreement(truth: FloatArray, heights: FloatArray, aspect: float = 1.0) -> float:
    """Share (0..1) of the channel cells of both maps that have one of the other map's within a cell.

    Channels are cells through which at least half a per cent of the scene, and 50 cells, drain.

    Args:
        truth: (H, W) metres, NaN where unknown.
        heights: the same of the map.
        aspect: height of a cell over its width.

    Returns:
        NaN where fewer than 2500 cells are known or there is no channel.
    """
    known = np.isfinite(truth) & np.isfinite(heights)
    if known.sum() < _FEWEST:
        return math.nan
    least = max(_SHARE * known.sum(), _LEAST_CELLS)
    both = [flow_accumulation(np.where(known, one, np.nan), aspect) >= least for one in (truth, heights)]
    total = sum(int(one.sum()) for one in both)
    met = sum(int((one & maximum_filter(other, 3)).sum()) for one, other in (both, both[::-1]))
    return met / total if total else math.nan
