"""The layout of a plot: lines, ticks and labels, which the page's template draws as inline SVG in its colours."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from matplotlib.ticker import MaxNLocator

__all__ = ["Line", "Plot", "lay_out"]

# In units of the SVG's view box, which the browser scales to the width at hand.
_WIDTH, _HEIGHT = 520.0, 320.0
_RIGHT, _TOP, _BOTTOM = 16.0, 12.0, 46.0
_CHARACTER = 8.0
_LABEL_SPACE = 34.0
# Where there are few points, each is marked, and shows its value when pointed at.
_MOST_MARKS = 80

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """One series: its name, its unbroken pieces as SVG ``points``, and marks (x, y, what it says)."""

    name: str
    pieces: list[str]
    marks: list[tuple[float, float, str]]


@dataclass(frozen=True)
class Plot:
    """A plot with everything in place; ticks are (position, label).

    Attributes:
        width, height: size of the view box.
        left, top, right, bottom: the frame's sides.
        x_label, y_label: labels of the axes.
        x_ticks, y_ticks: ticks along the frame.
        lines: the series.
    """

    width: float
    height: float
    left: float
    top: float
    right: float
    bottom: float
    x_label: str
    y_label: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    lines: list[Line]


def lay_out(x_label: str, y_label: str, series: Mapping[str, Sequence[Point]]) -> Plot:
    """Lay out lines through points (x, y); the axes hold every finite point and end on a tick at the sides of y.

    Without a finite point the axes go from 0 to 1.
    """
    finite = [point for points in series.values() for point in points if _is_finite(point)]
    xs, ys = [x for x, _ in finite], [y for _, y in finite]
    x_low, x_high = _range(xs)
    # Epochs come in whole numbers.
    x_ticks = _ticks(x_low, x_high, 7, whole=bool(xs) and all(float(x).is_integer() for x in xs))
    y_ticks = _ticks(*_range(ys), 6)
    y_low, y_high = y_ticks[0], y_ticks[-1]
    y_names = _names(y_ticks)
    left = _LABEL_SPACE + _CHARACTER * max(len(name) for name in y_names)
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def across(x: float) -> float:
        return round(left + (right - left) * (x - x_low) / (x_high - x_low), 1)

    def up(y: float) -> float:
        return round(bottom - (bottom - _TOP) * (y - y_low) / (y_high - y_low), 1)

    x_ticks = [tick for tick in x_ticks if x_low <= tick <= x_high]
    lines = []
    for name, points in series.items():
        pieces = [" ".join(f"{across(x):g},{up(y):g}" for x, y in piece) for piece in _pieces(points)]
        marked = [point for point in points if _is_finite(point)] if len(points) <= _MOST_MARKS else []
        lines.append(Line(name, pieces, [(across(x), up(y), f"{name}: {x:g}, {y:.5g}") for x, y in marked]))
    return Plot(
        width=_WIDTH,
        height=_HEIGHT,
        left=left,
        top=_TOP,
        right=right,
        bottom=bottom,
        x_label=x_label,
        y_label=y_label,
        x_ticks=[(across(tick), name) for tick, name in zip(x_ticks, _names(x_ticks), strict=True)],
        y_ticks=[(up(tick), name) for tick, name in zip(y_ticks, y_names, strict=True)],
        lines=lines,
    )


def _is_finite(point: Point) -> bool:
    return math.isfinite(point[0]) and math.isfinite(point[1])


def _range(values: Sequence[float]) -> tuple[float, float]:
    if not values:
        return 0.0, 1.0
    low, high = float(min(values)), float(max(values))
    if low < high:
        return low, high
    # Half of the smallest number above 0 is 0.
    around = 0.5 * abs(low) or 0.5
    return low - around, high + around


def _ticks(low: float, high: float, most: int, whole: bool = False) -> list[float]:
    """Round numbers, the first at or below ``low`` and the last at or above ``high``."""
    return [float(tick) for tick in MaxNLocator(nbins=most, integer=whole, min_n_ticks=2).tick_values(low, high)]


def _names(ticks: Sequence[float]) -> list[str]:
    """Labels of ticks, with just enough digits after the point to be exact, the same number for all."""
    largest = max((abs(tick) for tick in ticks), default=0.0)
    step = min((abs(b - a) for a, b in pairwise(ticks)), default=largest or 1.0)
    if largest < 1e6:
        for digits in range(6):
            if all(abs(round(tick, digits) - tick) < 1e-3 * step for tick in ticks):
                return [f"{tick + 0.0:.{digits}f}" for tick in (round(tick, digits) for tick in ticks)]
    return [f"{tick:.3g}" for tick in ticks]


def _pieces(points: Sequence[Point]) -> list[list[Point]]:
    """The unbroken stretches of a line."""
    pieces: list[list[Point]] = [[]]
    for point in points:
        if _is_finite(point):
            pieces[-1].append(point)
        elif pieces[-1]:
            pieces.append([])
    return [piece for piece in pieces if len(piece) > 1]
