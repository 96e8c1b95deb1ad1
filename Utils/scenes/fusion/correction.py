"""What turns a model's mosaic into heights, strip by strip."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from Utils.rasters.geometry import Geometry
from Utils.scenes.fusion.cells import Cells

Floats = NDArray[np.float64]

# Around the places where a map is read, so many of its samples are read too: a cubic spline depends on those close by.
_MARGIN = 16


@dataclass(frozen=True)
class Correction:
    """The correction that turns a model's mosaic into heights: ``gain * (mosaic - shown) + offset``, on coarse grids.

    Attributes:
        gain: (h, w) share of the model's detail that is kept.
        offset: (H, W) surface in metres, through which a cubic spline runs.
        trust: (h, w) factor on the spread of the mosaic.
        spread: (h, w) standard deviation that is added to it, in metres.
        known: (h, w) whether heights in a cell were known and not filled in.
        geometry: where the cells lie.
        surface: where the samples of ``offset`` lie.
        shown: (H, W) what the offset already shows of the mosaic, as ``offset`` in metres; None for nothing.
    """

    gain: Cells
    offset: NDArray[np.float32]
    trust: Cells
    spread: Cells
    known: NDArray[np.bool_]
    geometry: Geometry
    surface: Geometry
    shown: NDArray[np.float32] | None = None

    def apply(self, heights: NDArray[np.float32], place: Geometry) -> NDArray[np.float32]:
        """Corrected heights of a part of the scene."""
        gain, at = values_at(self.gain, self.geometry.locate(place), order=1), self.surface.locate(place)
        detail = heights if self.shown is None else heights - values_at(self.shown, at, order=3)
        return gain * detail + values_at(self.offset, at, order=3)

    def uncertainty(self, spread: NDArray[np.float32], place: Geometry) -> NDArray[np.float32]:
        """Standard deviation in metres, computed from the spread of the mosaic."""
        at = self.geometry.locate(place)
        return np.hypot(values_at(self.trust, at, order=1) * spread, values_at(self.spread, at, order=1))

    def filled(self, place: Geometry) -> NDArray[np.bool_]:
        """Which pixels lie where no heights were known."""
        return values_at(self.known.astype(np.float32), self.geometry.locate(place), order=0) < 0.5


@dataclass(frozen=True)
class Corrections:
    """Two corrections, one after the other: the fusion with a DEM, then the way to points.

    The uncertainty is that of the first: how much the points lessen it depends on how far they are, which is not said.
    """

    first: Correction
    second: Correction

    def apply(self, heights: NDArray[np.float32], place: Geometry) -> NDArray[np.float32]:
        """Corrected heights of a part of the scene."""
        return self.second.apply(self.first.apply(heights, place), place)

    def uncertainty(self, spread: NDArray[np.float32], place: Geometry) -> NDArray[np.float32]:
        """Standard deviation in metres, computed from the spread of the mosaic."""
        return self.first.uncertainty(spread, place)

    def filled(self, place: Geometry) -> NDArray[np.bool_]:
        """Which pixels lie where no heights were known."""
        return self.first.filled(place)


def values_at(values: NDArray[np.float32], places: Floats, order: Literal[0, 1, 3]) -> NDArray[np.float32]:
    """Values of a map at places (2, H, W) in its rows and columns, of which only the part around them is read."""
    parts = []
    for along, length in zip(places, values.shape, strict=True):
        low, high = np.clip([along.min() - _MARGIN, along.max() + _MARGIN + 1], 0, length)
        first = min(int(low), length - 1)
        parts.append(slice(first, max(math.ceil(high), first + 1)))
    inside = np.asarray(values[parts[0], parts[1]])
    at = places - np.array([parts[0].start, parts[1].start])[:, None, None]
    return np.asarray(map_coordinates(inside, at, order=order, mode="nearest"), np.float32)
