"""Heights that cannot be: usual void values that nothing declares, heights that no ground has, and wrong single cells.

Everything here judges arrays; ``trusted_heights`` applies it to files, and the reader of points to a column of a table.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from Utils.rasters.wrong_cells import AROUND, find_wrong_cells, neighbours

__all__ = [
    "NO_HEIGHT",
    "RIM",
    "Judgement",
    "Suspects",
    "find_fill_values",
    "find_suspects",
    "ground_limits",
    "is_other_body",
]

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

NO_HEIGHT = 1e20
"""No unit has heights of this size, but programs mark voids by 1e30, 1.7e38 or 3.4e38, which other types round."""

RIM = 8
"""Cells around a window that its judgement looks at."""

# What programs write where nothing was measured. As 16 bits without sign, -9999 is 55537 and -32768 is 32768.
_CODES = (-32768, -32767, 32767, -9999, 9999, -99999, 99999, -999, 32768, 55537, 65535, -(2**31), 2**31 - 1, 2**32 - 1)
# These are as often heights: the sea's, and what saturates 8 bits.
_DOUBTFUL = (0.0,)
_DOUBTFUL_OF_8_BITS = (0.0, 255.0)

# From below the deepest trench to above the highest summit, and what tells Earth's ellipsoids from others.
_EARTH = (-11_000.0, 9_000.0)
_EARTH_AXES = (6.3e6, 6.45e6)
_ELLIPSOID = re.compile(r'(?:SPHEROID|ELLIPSOID)\["[^"]*",\s*([\d.eE+]+)')

# The rim of a void is a cliff all around: nearly all steps exceed so many metres, and most steps elsewhere.
_VOID_STEP = 50.0
_DOUBTFUL_STEP = 5.0
_FAR = 100.0
_RIM_QUANTILE = 0.05
_STEEP_QUANTILE = 0.95
_STEEP_TIMES = 2.0
_FEWEST_OTHERS = 16
_MOST_SAMPLED = 200_000

_EIGHT = np.ones((3, 3), bool)


@dataclass(frozen=True)
class Judgement:
    """What is looked for, and what is known from other windows.

    Attributes:
        dtype: the type in which the heights are stored.
        cell: side of a cell in metres; None where unknown.
        limits: the lowest and the highest ground, in metres.
        codes: whether usual void values are looked for.
        spikes: whether single wrong cells are looked for.
        void: values that elsewhere were found to mark voids.
        ground: usual void values that elsewhere were found to be heights.
    """

    dtype: str = "float32"
    cell: float | None = None
    limits: tuple[float, float] = (-np.inf, np.inf)
    codes: bool = True
    spikes: bool = True
    void: frozenset[float] = frozenset()
    ground: frozenset[float] = frozenset()


@dataclass
class Suspects:
    """What was found in a window.

    Attributes:
        voids: (H, W) cells with a usual void value.
        impossible: (H, W) cells with a height that no ground has.
        spikes: (H, W) single cells unlike all around them.
        void: the values whose rim shows that they mark voids.
        ground: the usual void values whose rim shows that they are heights.
    """

    voids: Mask
    impossible: Mask
    spikes: Mask
    void: set[float] = field(default_factory=set)
    ground: set[float] = field(default_factory=set)

    @property
    def mask(self) -> Mask:
        """(H, W) all of them."""
        return self.voids | self.impossible | self.spikes


def ground_limits(crs: Any) -> tuple[float, float]:
    """The lowest and the highest ground in metres, of the body that a CRS describes; infinite where it is not Earth.

    Args:
        crs: rasterio's CRS, or None.
    """
    return _EARTH if _axis(crs) is not None and not is_other_body(crs) else (-np.inf, np.inf)


def is_other_body(crs: Any) -> bool:
    """Whether a CRS describes a body of another size than Earth's; not where there is no CRS, or no ellipsoid in it."""
    axis = _axis(crs)
    return axis is not None and not _EARTH_AXES[0] < axis < _EARTH_AXES[1]


def _axis(crs: Any) -> float | None:
    """The semi-major axis of a CRS in metres; None where it has none."""
    found = _ELLIPSOID.search(crs.to_wkt()) if crs is not None else None
    return None if found is None else float(found[1])


def find_suspects(raw: NDArray[Any], known: Mask, heights: Floats, judgement: Judgement) -> Suspects:
    """Judge a window of a DEM.

    Args:
        raw: (H, W) values as stored.
        known: (H, W) whether the file itself says that there is a height.
        heights: (H, W) the same in metres.
        judgement: what is looked for.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        absurd = known & ~np.isnan(raw) & ~(np.abs(raw) < NO_HEIGHT)
        usable = known & np.isfinite(heights) & ~absurd
        outside = usable & ((heights < judgement.limits[0]) | (heights > judgement.limits[1]))
    found = Suspects(absurd, outside, np.zeros_like(known))
    asked = (*_CODES, *_doubtful(judgement.dtype)) if judgement.codes else ()
    codes = [float(code) for code in asked if (usable & (raw == code)).any()]
    coded = usable & np.isin(raw, codes)
    others = usable & ~coded & ~outside
    for code in codes:
        cells = coded & (raw == code)
        if outside[cells].any():
            found.void.add(code)
            void = cells
        else:
            void = _judge_code(code, cells, heights, others, judgement, found)
        found.voids |= void
        found.impossible &= ~void
    if judgement.spikes:
        left = usable & ~found.mask
        found.spikes = find_wrong_cells(np.where(left, heights, np.nan), judgement.cell)
    return found


def _doubtful(dtype: str) -> Sequence[float]:
    return _DOUBTFUL_OF_8_BITS if dtype == "uint8" else _DOUBTFUL


def _judge_code(code: float, cells: Mask, heights: Floats, others: Mask, judgement: Judgement, found: Suspects) -> Mask:
    """(H, W) the cells with a usual void value that mark a void: those with a cliff all around them."""
    doubtful = code in _doubtful(judgement.dtype)
    areas, count = ndimage.label(cells, _EIGHT)
    rims = _rim_steps(areas, count, heights, others)
    far = True
    least = _VOID_STEP
    if doubtful:
        least, far = _DOUBTFUL_STEP, _is_far(float(heights[cells][0]), heights[others], rims)
    least = max(least, _STEEP_TIMES * _steep_step(heights, others))
    # An area that nothing surrounds is what other areas of its value are.
    unseen_is_void = code in judgement.void if doubtful else code not in judgement.ground
    void = np.where(np.isnan(rims), unseen_is_void, far & (rims > least))
    found.void |= {code} if (void & ~np.isnan(rims)).any() else set()
    found.ground |= {code} if (~void & ~np.isnan(rims)).any() else set()
    return np.asarray(np.concatenate([[False], void])[areas], bool)


def _rim_steps(areas: NDArray[Any], count: int, heights: Floats, others: Mask) -> Floats:
    """(count,) a low quantile of the steps from each area to the cells around it; NaN where there are none."""
    numbers, steps = [], []
    for here, there in neighbours(areas.shape, AROUND):
        beside = (areas[here] > 0) & others[there]
        numbers.append(areas[here][beside] - 1)
        steps.append(np.abs(heights[here] - heights[there])[beside])
    number, step = np.concatenate(numbers), np.concatenate(steps)
    order = np.lexsort((step, number))
    counts = np.bincount(number, minlength=count)
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    found = np.full(count, np.nan)
    seen = counts > 0
    found[seen] = step[order][(first + _RIM_QUANTILE * (counts - 1)).astype(int)[seen]]
    return found


def _is_far(height: float, others: Floats, rims: Floats) -> bool:
    """Whether a height lies outside of all others, by as much as they span or very much."""
    if len(others) < _FEWEST_OTHERS or np.isnan(rims).all():
        return False
    low, high = np.quantile(_sampled(others), (0.001, 0.999))
    gap = max(low - height, height - high)
    return bool(gap >= _DOUBTFUL_STEP and gap >= min(high - low, _FAR))


def _steep_step(heights: Floats, others: Mask) -> float:
    """A steep step between neighbouring cells, in metres; 0 where there are none."""
    steps = [np.empty(0)]
    for here, there in neighbours(heights.shape, ((0, 1), (1, 0))):
        steps.append(np.abs(heights[here] - heights[there])[others[here] & others[there]])
    found = _sampled(np.concatenate(steps))
    return float(np.quantile(found, _STEEP_QUANTILE)) if len(found) else 0.0


def _sampled(values: Floats) -> Floats:
    return values[:: max(1, len(values) // _MOST_SAMPLED)]


def find_fill_values(heights: Floats) -> Mask:
    """Find usual void values (N,) among heights without an order, such as those of points: they lie far off all others.

    Args:
        heights: (N,) in metres, NaN where unknown.

    Returns:
        (N,) bool; infinite and absurd values count too.
    """
    with np.errstate(invalid="ignore"):
        found = ~np.isnan(heights) & ~(np.abs(heights) < NO_HEIGHT)
    coded, doubtful = np.isin(heights, _CODES), np.isin(heights, _DOUBTFUL)
    others = heights[np.isfinite(heights) & ~found & ~coded & ~doubtful]
    if not len(others):
        return found | coded
    low, high = np.quantile(others, (0.01, 0.99))
    far = np.maximum(low - heights, heights - high) >= max(_FAR, 0.5 * (high - low))
    suspects = coded | doubtful if len(others) >= _FEWEST_OTHERS else coded
    return np.asarray(found | (suspects & far), bool)
