"""Sums, samples and fits that grow window by window, and the statistics that are computed from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from rasterio.windows import Window

from Utils.scenes.accuracy.height_grid import Grid
from Utils.scenes.accuracy.scene_scores import BLOCK, FloatArray, HeightFit

_THUMBNAIL = 640


class LineFit:
    """Least squares of truth = scale x height + shift, window by window.

    Means and central moments are merged (Chan, Golub and LeVeque, 1983), because sums of squares of heights far from
    zero would lose the digits that matter.
    """

    def __init__(self) -> None:
        self.count = 0
        self._height = self._truth = self._squares = self._products = 0.0

    def add(self, heights: FloatArray, truth: FloatArray) -> None:
        """Take in the (N,) pixels of a window."""
        if not heights.size:
            return
        height, true = float(heights.mean()), float(truth.mean())
        total = self.count + heights.size
        weight = self.count * heights.size / total
        self._squares += float(np.sum((heights - height) ** 2)) + weight * (height - self._height) ** 2
        self._products += float(np.sum((heights - height) * (truth - true)))
        self._products += weight * (height - self._height) * (true - self._truth)
        self._height += (height - self._height) * heights.size / total
        self._truth += (true - self._truth) * heights.size / total
        self.count = total

    def line(self) -> HeightFit:
        """The best line that does not turn hills into valleys; a flat map gets scale 0."""
        scale = max(self._products / self._squares, 0.0) if self._squares > 0.0 else 0.0
        return HeightFit(True, scale, self._truth - scale * self._height)

    def level(self) -> HeightFit:
        """The best shift alone."""
        return HeightFit(True, 1.0, self._truth - self._height)


class BlockSums:
    """Sums over pixels by block of 256 x 256 and slope class; the last class holds pixels without a slope."""

    def __init__(self, grid: Grid, classes: int) -> None:
        self._shape = (math.ceil(grid.height / BLOCK), math.ceil(grid.width / BLOCK), classes + 1)
        self._sums: dict[str, FloatArray] = {}

    def cells(self, classes: NDArray[np.intp]) -> NDArray[np.intp]:
        """Number the pixels (H, W) of a window by block and class, for :meth:`add`."""
        height, width = classes.shape
        rows, columns = np.arange(height) // BLOCK, np.arange(width) // BLOCK
        return (rows[:, None] * (columns[-1] + 1) + columns) * self._shape[2] + classes

    def add(self, name: str, window: Window, cells: NDArray[np.intp], values: FloatArray | None = None) -> None:
        """Add (N,) values, or ones, of the pixels whose cells are given."""
        row, column = window.row_off // BLOCK, window.col_off // BLOCK
        shape = (math.ceil(window.height / BLOCK), math.ceil(window.width / BLOCK), self._shape[2])
        found = np.bincount(cells, weights=values, minlength=math.prod(shape)).reshape(shape)
        sums = self._sums.setdefault(name, np.zeros(self._shape))
        sums[row : row + shape[0], column : column + shape[1]] += found

    def by_block(self, name: str, chosen: int | None) -> FloatArray:
        """(blocks,) sums of one class, or of all pixels."""
        sums = self._sums.get(name, np.zeros(self._shape))
        blocks: FloatArray = (sums.sum(axis=2) if chosen is None else sums[:, :, chosen]).ravel()
        return blocks

    def total(self, name: str, chosen: int | None) -> float:
        """The sum of all blocks."""
        return float(self.by_block(name, chosen).sum())


class Sample:
    """A uniform sample of pixels: everything until it is full, then each pixel with the same chance.

    Whenever the sample would exceed its limit, a random half is dropped, and from then on half as many pixels are
    taken. So it always holds between half its limit and its limit.
    """

    def __init__(self, columns: Mapping[str, DTypeLike], limit: int, seed: int) -> None:
        self._columns = {name: np.empty(limit, dtype) for name, dtype in columns.items()}
        self._limit = limit
        self._generator = np.random.default_rng(seed)
        self.count = 0
        self.rate = 1.0

    def add(self, new: Mapping[str, NDArray[Any]]) -> None:
        """Take in (N,) values for every column."""
        kept = {name: new[name] for name in self._columns}
        if self.rate < 1.0:
            kept = self._thinned(kept, self.rate)
        while self.count + len(next(iter(kept.values()))) > self._limit:
            self.rate /= 2
            held = self._thinned({name: self[name] for name in self._columns}, 0.5)
            self.count = self._place(held, 0)
            kept = self._thinned(kept, 0.5)
        self.count = self._place(kept, self.count)

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._columns[name][: self.count]

    def _place(self, values: Mapping[str, NDArray[Any]], start: int) -> int:
        end = start + len(next(iter(values.values())))
        for name, column in self._columns.items():
            column[start:end] = values[name]
        return end

    def _thinned(self, values: Mapping[str, NDArray[Any]], chance: float) -> dict[str, NDArray[Any]]:
        chosen = self._generator.random(len(next(iter(values.values())))) < chance
        return {name: column[chosen] for name, column in values.items()}


class Thumbnails:
    """Means over square cells of the scored pixels, so that the longer side has at most 640 cells."""

    def __init__(self, grid: Grid) -> None:
        self.step = max(1, math.ceil(max(grid.height, grid.width) / _THUMBNAIL))
        self._shape = (math.ceil(grid.height / self.step), math.ceil(grid.width / self.step))
        self._sums: dict[str, FloatArray] = {}

    def add(self, name: str, window: Window, values: FloatArray) -> None:
        """Add (H, W) values of a window; unscored pixels must be 0."""
        rows, columns = self._starts(window.row_off, window.height), self._starts(window.col_off, window.width)
        sums = np.add.reduceat(np.add.reduceat(values, rows, axis=0), columns, axis=1)
        row, column = window.row_off // self.step, window.col_off // self.step
        target = self._sums.setdefault(name, np.zeros(self._shape))
        target[row : row + len(rows), column : column + len(columns)] += sums

    def mean(self, name: str, counts: str) -> FloatArray:
        """The mean of one map in each cell, over the counts of another."""
        count = self._sums[counts]
        return np.divide(self._sums[name], count, out=np.full(self._shape, np.nan), where=count > 0)

    def _starts(self, offset: int, length: int) -> NDArray[np.intp]:
        """The places where cells begin within a window; the first may have begun in the window before."""
        return np.unique(np.append(0, np.arange(-offset % self.step, length, self.step)))


def length(east: FloatArray, north: FloatArray) -> FloatArray:
    """Lengths of vectors."""
    # Three times as fast as np.hypot, whose guard against overflow no slope needs.
    return np.sqrt(east * east + north * north)


def ratio(numerator: float, denominator: float) -> float:
    """NaN of nothing."""
    return numerator / denominator if denominator else math.nan


def order_statistics(errors: NDArray[np.float32]) -> dict[str, float]:
    """Median, NMAD and LE90 of (N,) errors."""
    if not errors.size:
        return dict.fromkeys(("median_error", "nmad", "le90"), math.nan)
    median = float(np.median(errors))
    return {
        "median_error": median,
        "nmad": 1.4826 * float(np.median(np.abs(errors - np.float32(median)))),
        "le90": float(np.percentile(np.abs(errors), 90.0)),
    }


def jackknife_error(statistic: Callable[..., FloatArray], *sums: FloatArray) -> float:
    """Standard error of a function of sums over blocks, leaving out one block at a time; NaN below two blocks.

    For a mean over blocks of equal size it is the usual standard error, the deviation over the root of the count.
    """
    blocks = sums[0].size
    if blocks < 2:
        return math.nan
    without = statistic(*(one.sum() - one for one in sums))
    return math.sqrt((blocks - 1) / blocks * float(np.sum((without - without.mean()) ** 2)))


def reliability(sigma: NDArray[np.float32], error: NDArray[np.float32]) -> list[dict[str, float]]:
    """Observed RMSE by decile of sigma; equal sigmas stay in one part."""
    if not sigma.size:
        return []
    edges = np.unique(np.quantile(sigma, np.arange(1, 10) / 10))
    part = np.searchsorted(edges, sigma, side="left")
    rows = []
    for number in range(len(edges) + 1):
        chosen = part == number
        if not chosen.any():
            continue
        deviation, found = sigma[chosen].astype(np.float64), error[chosen].astype(np.float64)
        rows.append(
            {
                "sigma_low": float(deviation.min()),
                "sigma_high": float(deviation.max()),
                "share": float(chosen.mean()),
                "rms_sigma": math.sqrt(float(np.mean(deviation**2))),
                "rmse": math.sqrt(float(np.mean(found**2))),
            }
        )
    return rows
