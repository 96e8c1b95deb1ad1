"""A DEM whose cells are uneven under a scene, as around a pole, shown on even cells, and other maps shown alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from Utils.rasters.coordinates import longitude_period
from Utils.rasters.geometry import Floats, Geometry

Cells = NDArray[np.float32]

SAMPLES = 4
"""Samples along a side of a cell of the even grid."""

# A cell counts where a map is known on at least this share of it. Demanding more would cost the cells along a scene's
# border, and those of a scene around a pole are many.
_LEAST_KNOWN = 0.5
_SAMPLES_AT_ONCE = 2**22


def around(cells: Geometry) -> float | None:
    """How many columns of cells in degrees go around the Earth; None for all other cells."""
    period = longitude_period(cells.crs)
    return None if period is None or cells.transform.d != 0.0 else period / abs(cells.transform.a)


@dataclass(frozen=True)
class UnevenCells:
    """The cells of a DEM as they lie, which no grid along the scene has.

    An even grid shows the surface that interpolates the DEM's cells linearly. Whatever is compared with it must be seen
    through the same cells: a model's map is averaged over the DEM's cells, and these means are shown in the same way.
    A map that is averaged over the even cells at once has detail that the interpolated DEM cannot have, and that detail
    would look wrong.

    Attributes:
        heights: (h, w) of the DEM's own cells in metres, NaN in voids.
        geometry: where these cells lie; in degrees they may go all around the Earth.
    """

    heights: Cells
    geometry: Geometry

    def shown(self, grid: Geometry) -> Cells:
        """The DEM on a grid: (h, w), NaN where less than half of a cell is known."""
        return self._interpolated([self.heights], grid)[0]

    def beside(self, fine: Cells, grid: Geometry) -> tuple[Cells, Cells]:
        """The DEM, and another map as the DEM would show it, from those of the DEM's cells where both are known.

        Args:
            fine: (h x SAMPLES, w x SAMPLES), the map at the samples of the grid, NaN where unknown.
            grid: (h, w).

        Returns:
            Both (h, w), NaN where less than half of a cell, or of the DEM's cells there, is known.
        """
        means = self._means(fine, grid)
        heights = np.where(np.isfinite(means), self.heights, np.float32(np.nan))
        shown = self._interpolated([heights, means], grid)
        return shown[0], shown[1]

    def _means(self, fine: Cells, grid: Geometry) -> Cells:
        """A map's means over the DEM's cells."""
        size = self.heights.size
        sums, known, all_of = np.zeros(size), np.zeros(size), np.zeros(size)
        for row, rows, columns in self._samples(grid):
            inside = (rows >= 0) & (rows < self.geometry.height) & (columns >= 0) & (columns < self.geometry.width)
            number = (np.floor(rows) * self.geometry.width + np.floor(columns))[inside].astype(np.intp)
            values = fine[row * SAMPLES :][: len(rows)][inside]
            valid = np.isfinite(values)
            np.add.at(all_of, number, 1.0)
            np.add.at(known, number[valid], 1.0)
            np.add.at(sums, number[valid], values[valid].astype(np.float64))
        enough = (known > 0) & (known >= _LEAST_KNOWN * all_of) & np.isfinite(self.heights.ravel())
        means = np.full(size, np.nan, np.float32)
        means[enough] = sums[enough] / known[enough]
        return means.reshape(self.heights.shape)

    def _interpolated(self, maps: list[Cells], grid: Geometry) -> list[Cells]:
        """Means over a grid's cells of the linear interpolation of maps (h, w) of the DEM's cells, known alike."""
        known = np.isfinite(maps[0])
        filled = [np.where(known, values, 0.0) for values in maps]
        shown = [np.full((grid.height, grid.width), np.nan, np.float32) for _ in maps]
        for row, rows, columns in self._samples(grid):
            total, sums = np.zeros(rows.shape), [np.zeros(rows.shape) for _ in maps]
            for at, weight in self._neighbours(rows, columns):
                weight = weight * known[at]
                total += weight
                for one, values in zip(sums, filled, strict=True):
                    one += weight * values[at]
            blocks = (len(rows) // SAMPLES, SAMPLES, grid.width, SAMPLES)
            known_there = (total >= _LEAST_KNOWN).reshape(blocks)
            counts = known_there.sum(axis=(1, 3))
            for one, target in zip(sums, shown, strict=True):
                surface = (one / np.maximum(total, _LEAST_KNOWN)).reshape(blocks)
                means = np.where(known_there, surface, 0.0).sum(axis=(1, 3)) / np.maximum(counts, 1)
                target[row : row + blocks[0]] = np.where(counts >= _LEAST_KNOWN * SAMPLES**2, means, np.nan)
        return shown

    def _neighbours(self, rows: Floats, columns: Floats) -> Iterator[tuple[tuple[NDArray, NDArray], Floats]]:
        """Row and column of the four cells around each sample, and the weight of each; 0 beyond the DEM."""
        height, width = self.heights.shape
        turn = around(self.geometry)
        first_row, first_column = np.floor(rows - 0.5), np.floor(columns - 0.5)
        for down in (0, 1):
            for across in (0, 1):
                row, column = first_row + down, first_column + across
                weight = (1.0 - np.abs(rows - 0.5 - row)) * (1.0 - np.abs(columns - 0.5 - column))
                column = column if turn is None else column % round(turn)
                inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
                row, column = (np.where(inside, place, 0).astype(np.intp) for place in (row, column))
                yield (row, column), np.where(inside, weight, 0.0)

    def _samples(self, grid: Geometry) -> Iterator[tuple[int, Floats, Floats]]:
        """First row of a strip of a grid, and rows and columns of the DEM at its samples; far off if nowhere."""
        turn = around(self.geometry)
        rows = max(1, _SAMPLES_AT_ONCE // (grid.width * SAMPLES**2))
        for row in range(0, grid.height, rows):
            place = grid.window(row, 0, min(rows, grid.height - row), grid.width).finer(SAMPLES)
            down, across = (side.ravel() + 0.5 for side in np.mgrid[: place.height, : place.width])
            at_row, at_column = self.geometry.place(*place.coordinates(down, across), place.crs)
            at_column = at_column if turn is None else at_column % turn
            shape = (place.height, place.width)
            yield row, np.nan_to_num(at_row, nan=-1e9).reshape(shape), np.nan_to_num(at_column, nan=-1e9).reshape(shape)
