"""By how much a height map is shifted against checkpoints: the move that makes its heights theirs.

Nuth and Kaab (2011) fit the error over the tangent of slope against aspect, which needs a field of errors. For points,
the map is read at moved places until the robust sum of squares is least.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window
from scipy.optimize import least_squares

from Utils.core.errors import UserError
from Utils.core.seeds import derive_seed
from Utils.scenes.accuracy.coregistration import shift_in_metres
from Utils.scenes.accuracy.height_grid import Grid
from Utils.scenes.accuracy.height_maps import HeightMap
from Utils.scenes.accuracy.shifts import Shift

__all__ = ["coregistered"]

Floats = NDArray[np.float64]

_FEWEST = 30  # checkpoints that a shift can be found from, as many as the standard asks for
_MOST = 2000  # that find it; all of them are scored
_FARTHEST = 20  # pixels
_FOLDS = 5
_TRIED = np.arange(-5.0, 5.5, 0.5)  # pixels to each side where the search for a shift may begin
_MAD = 1.4826
_OUTLIER = 4.0  # robust standard deviations beyond which ground counts as changed, as for rasters
_LEAST_SURE = 1.0  # pixels: a shift with a larger standard error is not told by the points


@dataclass(frozen=True)
class _Around:
    """Heights (N, side, side) around points, which lie (N,) rows and columns from the first pixel's centre."""

    heights: NDArray[np.float32]
    rows: Floats
    columns: Floats

    def at(self, columns: float, rows: float) -> Floats:
        """(N,) heights at the points of the map moved by so many pixels, bilinear; NaN without data."""
        down, right = self.rows - rows, self.columns - columns
        top, left = np.floor(down).astype(int), np.floor(right).astype(int)
        last = self.heights.shape[1] - 2
        inside = (top >= 0) & (left >= 0) & (top <= last) & (left <= last)
        top, left = np.clip(top, 0, last), np.clip(left, 0, last)
        point, down, right = np.arange(len(top)), down - top, right - left
        found = np.zeros(len(top))
        for row, column, weight in (
            (0, 0, (1 - down) * (1 - right)),
            (0, 1, (1 - down) * right),
            (1, 0, down * (1 - right)),
            (1, 1, down * right),
        ):
            value = self.heights[point, top + row, left + column]
            found += np.where(weight > 0.0, weight * value, 0.0)  # what has no weight may be unknown
        return np.where(inside, found, np.nan)

    def part(self, chosen: NDArray[np.bool_]) -> _Around:
        """Some of the points."""
        return _Around(self.heights[chosen], self.rows[chosen], self.columns[chosen])


def coregistered(
    one: HeightMap, grid: Grid, rows: Floats, columns: Floats, heights: Floats, name: str
) -> tuple[Shift, Floats]:
    """The shift of a map against checkpoints, and the map's heights at all of them once it is moved.

    Each fifth of the points is read from the map as the other four fifths move it: points that found a shift would
    judge it too kindly.

    Args:
        one: the map, in the checkpoints' datum as far as it is known.
        grid: its grid.
        rows: (N,) of the points; 0.5 is the centre of the first row.
        columns: the same.
        heights: (N,) of the points, in metres.
        name: of the map, for messages.

    Raises:
        UserError: too few points, or a shift that runs away, explains nothing, or that the points do not tell.
    """
    around = _read(one, rows - 0.5, columns - 0.5)
    known = np.flatnonzero(np.isfinite(around.at(0.0, 0.0)))
    if len(known) < _FEWEST:
        raise UserError(
            f"--coregister: {len(known)} checkpoints lie on heights of {name}; {_FEWEST} are needed to find its shift. "
            "Without the option it is scored as it lies"
        )
    chosen = np.random.default_rng(derive_seed(0, "checkpoints that find a shift")).permutation(known)[:_MOST]
    used = np.isin(np.arange(len(rows)), chosen)
    folds = np.random.default_rng(derive_seed(0, "folds of checkpoints")).permutation(len(rows)) % _FOLDS
    found, moves = np.full(len(rows), np.nan), []
    for fold in range(_FOLDS):
        others, asked = used & (folds != fold), folds == fold
        moves.append(_fit(around.part(others), heights[others])[0])
        found[asked] = around.part(asked).at(*moves[-1][:2]) + moves[-1][2]
    apart = np.array(moves)[:, :2] - np.mean(moves, axis=0)[:2]
    unsure = math.sqrt((_FOLDS - 1) / _FOLDS * float((apart**2).sum()))  # jackknife
    shift = _find(around.part(used), heights[used], (found - heights)[used], unsure, name)
    east, north = shift_in_metres(grid, shift.columns, shift.rows)
    return replace(shift, east=east, north=north), found


def _read(one: HeightMap, rows: Floats, columns: Floats) -> _Around:
    reach = _FARTHEST + 2
    side = 2 * reach + 2
    heights = np.full((len(rows), side, side), np.nan, np.float32)
    tops, lefts = (np.floor(each).astype(int) - reach for each in (rows, columns))
    for number, (top, left) in enumerate(zip(tops, lefts, strict=True)):
        first_row, first_column = max(top, 0), max(left, 0)
        last_row, last_column = min(top + side, one.height), min(left + side, one.width)
        if first_row < last_row and first_column < last_column:
            window = Window(first_column, first_row, last_column - first_column, last_row - first_row)
            part = heights[number, first_row - top : last_row - top, first_column - left : last_column - left]
            part[...] = one.read(window)
    return _Around(heights, rows - tops, columns - lefts)


def _fit(around: _Around, heights: Floats) -> tuple[Floats, Callable[[Floats], Floats]]:
    """Columns, rows and metres of the move, and the function that gives the residuals (N,) of any move."""

    def residuals(move: Floats) -> Floats:
        found = around.at(move[0], move[1]) + move[2] - heights
        return np.where(np.isfinite(found), found, 0.0)

    start = residuals(np.zeros(3))
    _, spread = _middle_and_spread(start)
    # On gentle ground the sum has several minima: the search begins at the lowest of a raster of moves.
    moves = [np.array([column, row, 0.0]) for column in _TRIED for row in _TRIED]
    levels = [residuals(move) for move in moves]
    costs = [float(np.log1p(((one - np.median(one)) / spread) ** 2).sum()) for one in levels]
    first = int(np.argmin(costs))
    best: Floats = moves[first] - np.array([0.0, 0.0, np.median(levels[first])])
    middle, spread = _middle_and_spread(levels[first])
    kept = np.ones(len(heights), bool)
    for _ in range(3):  # the first moves show which errors are usual: those of trees are not
        usual = partial(_of_some, residuals, kept)
        options: dict[str, Any] = {"diff_step": 0.05, "x_scale": (1.0, 1.0, spread)}
        best = np.asarray(least_squares(usual, best, loss="cauchy", f_scale=spread, **options).x)
        left = residuals(best)
        middle, spread = _middle_and_spread(left)
        kept = np.abs(left - middle) <= _OUTLIER * spread
    return best, residuals


def _of_some(residuals: Callable[[Floats], Floats], kept: NDArray[np.bool_], move: Floats) -> Floats:
    return residuals(move)[kept]


def _middle_and_spread(errors: Floats) -> tuple[float, float]:
    """Median, and NMAD of at least a centimetre."""
    middle = float(np.median(errors))
    return middle, max(_MAD * float(np.median(np.abs(errors - middle))), 0.01)


def _find(around: _Around, heights: Floats, judged: Floats, unsure: float, name: str) -> Shift:
    """The shift by all points; ``judged`` are the errors (N,) that points left out show, ``unsure`` its error."""
    move, residuals = _fit(around, heights)
    before, after = residuals(np.zeros(3)), residuals(move)
    middle, spread = _middle_and_spread(after)
    spreads = (_middle_and_spread(before)[1], _middle_and_spread(judged[np.isfinite(judged)])[1])
    usual = np.abs(after - middle) <= _OUTLIER * spread
    length = float(np.hypot(move[0], move[1]))
    numbers = (
        f"{name}: {move[0]:+.2f} columns, {move[1]:+.2f} rows (± {unsure:.2f}), {move[2]:+.2f} m up; NMAD at "
        f"{len(heights)} checkpoints {spreads[0]:.3f} m before and {spreads[1]:.3f} m after"
    )
    without = "Without the option it is scored as it lies"
    if not math.isfinite(length) or length > _FARTHEST:
        raise UserError(f"--coregister: the shift runs away ({numbers}), more than {_FARTHEST} pixels. {without}")
    if unsure > _LEAST_SURE:
        raise UserError(f"--coregister: the checkpoints do not tell the shift ({numbers}); is there relief? {without}")
    if spreads[1] > 1.02 * spreads[0] and length > 0.25:
        raise UserError(f"--coregister: the shift explains nothing ({numbers}). {without}")
    return Shift(
        float(move[0]), float(move[1]), float(move[2]), math.nan, math.nan, *spreads, int(usual.sum()), len(heights),
        error=unsure, where="checkpoints",
    )  # fmt: skip
