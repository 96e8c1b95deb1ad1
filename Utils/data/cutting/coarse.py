"""The coarse DEM beside the tiles: a given one, or one that is made of the heights; and priors made of it."""

from __future__ import annotations

import math

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from Utils.data.cutting.blocks import Place
from Utils.data.cutting.heights import HeightReader
from Utils.data.cutting.resampling import resampled
from Utils.rasters.geometry import Geometry

__all__ = ["CoarseReader", "as_prior"]

# Cells beyond the tile, so that interpolation has cells on both sides of its border.
_MARGIN = 3


class CoarseReader:
    """Coarse heights on the grid of tiles.

    Args:
        heights: the coarse DEMs, or where ``cells`` is given, the DEMs that they are made from.
        cells: pixels along a cell of the coarse DEM that is made, its cells being means of the heights; 0 for none.
    """

    def __init__(self, heights: HeightReader, cells: int = 0) -> None:
        self.heights = heights
        self.cells = cells

    def read(self, grid: Geometry, place: Place, size: int) -> NDArray[np.float32]:
        """The coarse heights of a tile in metres, (size, size); NaN in voids.

        Args:
            grid: the grid of the tile's image.
            place: where the tile lies.
            size: its side in pixels.
        """
        target = grid.window(place.row, place.column, size, size)
        if not self.cells:
            return self.heights.read(target)
        # Cells lie on the image's grid, so that neighbouring tiles have the same ones.
        first_row, last_row = self._ends(place.row, size)
        first_column, last_column = self._ends(place.column, size)
        coarse = Geometry(
            last_row - first_row,
            last_column - first_column,
            grid.crs,
            grid.transform @ Affine.scale(self.cells) @ Affine.translation(first_column, first_row),
        )
        return resampled(self.heights.read(coarse)[None], coarse, target)[0]

    def _ends(self, start: int, size: int) -> tuple[int, int]:
        return start // self.cells - _MARGIN, math.ceil((start + size) / self.cells) + _MARGIN


def as_prior(heights: NDArray[np.float32]) -> NDArray[np.float32]:
    """A tile's coarse heights as a prior: stretched to [0, 1], each void as the nearest known pixel.

    Args:
        heights: (H, W), NaN in voids; at least one is known.

    Returns:
        (H, W) float32 in [0, 1]; 0 everywhere for a flat map.
    """
    known = np.isfinite(heights)
    if not known.all():
        nearest = distance_transform_edt(~known, return_distances=False, return_indices=True)
        heights = heights[tuple(nearest)]
    low, high = float(heights.min()), float(heights.max())
    return ((heights - low) / (high - low if high > low else 1.0)).astype(np.float32)
