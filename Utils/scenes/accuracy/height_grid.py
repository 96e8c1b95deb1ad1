"""The grid of a height raster: its windows, its bounds and the slopes of heights on it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from affine import Affine
from rasterio.crs import CRS
from rasterio.windows import Window

from Utils.rasters.coordinates import horizontal_crs
from Utils.rasters.grids import straightened
from Utils.rasters.ground import ground_sample_distance, has_transform, metres_per_unit
from Utils.scenes.accuracy.scene_scores import FloatArray

__all__ = ["WINDOW", "Grid"]

WINDOW = 512
"""Side of the windows that are read, in pixels."""
# Shorter metres in a map unit than this share of the longest are those of a pole, where rounding leaves more than 0.
_LEAST_WIDTH = 1e-9


@dataclass(frozen=True)
class Grid:
    """A raster's grid; ``crs`` is its CRS without heights, None where the file lacks either a CRS or a transform."""

    crs: CRS | None
    transform: Affine
    height: int
    width: int

    @classmethod
    def of(cls, source: Any) -> Grid:
        """The grid of an open raster."""
        crs = horizontal_crs(source.crs) if has_transform(source.transform) else None
        return cls(crs, straightened(source.transform, source.height, source.width), source.height, source.width)

    @property
    def size(self) -> int:
        """Pixels in all."""
        return self.height * self.width

    @property
    def has_metres(self) -> bool:
        """Whether pixels have a known size; without a georeference it is unknown, and so is every slope."""
        return ground_sample_distance(self.crs, self.transform, self.height, self.width) is not None

    def same_as(self, other: Grid) -> bool:
        """Whether the two grids have the same pixels, to a millionth of a pixel."""
        if (self.height, self.width, self.crs) != (other.height, other.width, other.crs):
            return False
        corners = [(0, 0), (self.width, 0), (0, self.height)]
        moved = np.array([~self.transform @ (other.transform @ corner) for corner in corners])
        return bool(np.abs(moved - corners).max() < 1e-6)

    def finer(self, times: int) -> dict[str, Any]:
        """The grid with so many pixels along each side of a pixel, as a warped view takes it."""
        transform = self.transform @ Affine.scale(1 / times)
        return {"transform": transform, "height": self.height * times, "width": self.width * times}

    @property
    def middle(self) -> tuple[float, float]:
        """Map coordinates of the middle."""
        x, y = self.transform @ (self.width / 2, self.height / 2)
        return float(x), float(y)

    def bounds(self) -> tuple[float, float, float, float]:
        """Left, bottom, right and top in map units; for a rotated grid, those of the box around it."""
        w, h = self.width, self.height
        corners = np.array([self.transform @ corner for corner in ((0, 0), (w, 0), (w, h), (0, h))])
        (left, bottom), (right, top) = corners.min(axis=0), corners.max(axis=0)
        return float(left), float(bottom), float(right), float(top)

    def windows(self) -> list[Window]:
        """Windows that cover the grid, row by row; all but the last of a row or column have full size."""
        return [
            Window(column, row, min(WINDOW, self.width - column), min(WINDOW, self.height - row))
            for row in range(0, self.height, WINDOW)
            for column in range(0, self.width, WINDOW)
        ]

    def gradient(self, heights: FloatArray, window: Window) -> tuple[FloatArray, FloatArray]:
        """Rise to the east and to the north, metres a metre, by central differences.

        Args:
            heights: (H + 2, W + 2) metres, the window and one pixel around it; NaN where unknown.
            window: of H x W pixels.

        Returns:
            (H, W) each; NaN where one of the four neighbours or the size of a pixel is unknown.
        """
        across = (heights[1:-1, 2:] - heights[1:-1, :-2]) / 2
        down = (heights[2:, 1:-1] - heights[:-2, 1:-1]) / 2
        a, b, _, d, e, _ = self.transform[:6]
        # A step of one column goes (a, d) over the map, one of a row (b, e): two equations for the two slopes.
        x, y = self.metres_per_unit[:, window.row_off : window.row_off + window.height, None]  # (rows, 1) each
        east = (e * across - d * down) / ((a * e - b * d) * x)
        north = (a * down - b * across) / ((a * e - b * d) * y)
        return east, north

    @cached_property
    def metres_per_unit(self) -> FloatArray:
        """(2, H): metres in one map unit along x and along y at every row, half-way along it; NaN where unknown."""
        rows = np.arange(self.height) + 0.5
        x = self.transform.a * self.width / 2 + self.transform.b * rows + self.transform.c
        y = self.transform.d * self.width / 2 + self.transform.e * rows + self.transform.f
        found = metres_per_unit(self.crs, x, y) if self.has_metres else None
        if found is None:
            return np.full((2, self.height), np.nan)
        metres = np.stack(found)
        # Along a pole's row all pixels are one place: it has no slope to the east.
        return np.where(metres > _LEAST_WIDTH * metres.max(), metres, np.nan)
