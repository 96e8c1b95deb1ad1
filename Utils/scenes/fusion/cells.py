"""The cells of a coarse DEM under a scene, and finer maps averaged onto them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.features import rasterize
from rasterio.warp import reproject
from rasterio.windows import Window

from Utils.rasters.coordinates import horizontal_crs, longitude_period
from Utils.rasters.geometry import Geometry
from Utils.rasters.vertical_datum import UNKNOWN, VerticalDatum
from Utils.scenes.fusion.uneven_cells import SAMPLES, Cells, UnevenCells

# GDAL averages over boxes along the finer grid's axes: right where a cell's sides run along them to this share. Cells
# of 8 x 8 pixels of mountains were off by 0.2 m at 1 degree, 0.7 m at 3 and 1.2 m at 5; means of samples by 0.5, 0.15
# and 0.07 m, but they take 15 times as long.
_MOST_SKEW = 0.05
# Elsewhere each pixel is divided into samples, so that at least so many lie along a cell's shorter side.
_SAMPLES_A_CELL = 16.0
_MOST_SAMPLES_A_PIXEL = 8
_SAMPLES_AT_ONCE = 2**22
_RIM = 4
_WHOLE = 0.95  # share of a cell that a tile must cover


@dataclass(frozen=True)
class CoarseHeights:
    """A reference DEM where a scene lies, with a margin.

    Attributes:
        heights: (h, w) in metres, NaN in voids.
        geometry: where these cells lie.
        pixels_a_cell: side of a cell in pixels of the scene.
        description: facts on the reference for the results.
        uneven: the DEM's own cells, where these here only show them; None where these are the DEM's.
        datum: what the heights refer to.
    """

    heights: Cells
    geometry: Geometry
    pixels_a_cell: float
    description: dict[str, Any]
    uneven: UnevenCells | None = None
    datum: VerticalDatum = UNKNOWN

    def part(self, scene: Geometry) -> CoarseHeights | None:
        """The cells under a part of the scene; None where there are none."""
        rows, columns = self.geometry.outline_of(scene, points=5)
        known = np.isfinite(rows) & np.isfinite(columns)
        if not known.any():
            return None
        top, left = max(0, math.floor(np.min(rows[known]))), max(0, math.floor(np.min(columns[known])))
        bottom = min(self.geometry.height, math.ceil(np.max(rows[known])) + 1)
        right = min(self.geometry.width, math.ceil(np.max(columns[known])) + 1)
        if top >= bottom or left >= right:
            return None
        geometry = self.geometry.window(top, left, bottom - top, right - left)
        return replace(self, heights=self.heights[top:bottom, left:right], geometry=geometry)

    def beside(self, values: Any, scene: Geometry) -> tuple[Cells, Cells]:
        """The DEM's heights, and the means of a map of the scene in the same cells.

        Args:
            values: as for ``average_onto``.
            scene: where its pixels lie.

        Returns:
            Both (h, w). The means are NaN where the map has none, and in cells that its border crosses.
        """
        if self.uneven is not None:
            return self._beside_uneven(values, scene)
        cells = average_onto(self.geometry, values, scene)
        cells[border_cells(self, scene)] = np.nan
        return self.heights, cells

    def beside_tile(self, values: Cells, place: Geometry) -> tuple[Cells, Cells]:
        """As ``beside``, for the map (H, W) of a tile: NaN unless a cell is known to it as a whole."""
        if self.uneven is not None:
            return self._beside_uneven(values, place)
        # With a border of NaN around the tile, a cell that reaches beyond the tile counts as not covered.
        border = math.ceil(self.pixels_a_cell) + 2
        known = np.pad(np.isfinite(values).astype(np.float32), border)
        share = average_onto(self.geometry, known, place.grown(border))
        cells = average_onto(self.geometry, values, place)
        return self.heights, np.where(share > _WHOLE, cells, np.float32(np.nan))

    def _beside_uneven(self, values: Any, scene: Geometry) -> tuple[Cells, Cells]:
        assert self.uneven is not None
        # Around a tile's cells, so that those of the DEM that reach beyond the tile are seen to do so.
        grid = self.geometry.grown(_RIM)
        shown = self.uneven.beside(average_onto(grid.finer(SAMPLES), values, scene), grid)
        heights, cells = (one[_RIM:-_RIM, _RIM:-_RIM] for one in shown)
        return heights, cells


def average_onto(target: Geometry, values: Any, scene: Geometry | None = None) -> Cells:
    """Mean of a finer map in each cell of a coarser grid, over the finer map's finite pixels; NaN where it has none.

    Args:
        target: the coarse grid, which may be turned in any way against the finer one.
        values: a map (H, W) with NaN where invalid, or ``rasterio.band`` of a file that names its nodata.
        scene: where the pixels of an array lie; for a file, None stands for the file's own grid.
    """
    if scene is None:
        file = values.ds
        scene = Geometry(file.height, file.width, horizontal_crs(file.crs), file.transform)
    if _askew(target, scene):
        return _mean_of_samples(target, values, scene)
    cells = np.full((target.height, target.width), np.nan, np.float32)
    is_array = isinstance(values, np.ndarray)
    where = {"src_transform": scene.transform, "src_crs": scene.crs, "src_nodata": np.nan} if is_array else {}
    reproject(
        values,
        cells,
        **where,
        dst_transform=target.transform,
        dst_crs=target.crs,
        dst_nodata=np.nan,
        resampling=Resampling.average,
        warp_mem_limit=256,
    )
    return cells


def _askew(target: Geometry, scene: Geometry) -> bool:
    """Whether GDAL cannot average a scene onto these cells."""
    period = longitude_period(scene.crs)
    if period is not None and scene.crs != target.crs:
        ends = [x for x, _ in (scene.transform @ corner for corner in _corners(scene))]
        if max(ends) > period / 2 or min(ends) < -period / 2:
            return True  # GDAL finds no pixel at 190 degrees where a transformation says -170
    change = target.steps(scene, points=3)  # cells a pixel
    if not np.isfinite(change).all() or not np.abs(np.linalg.det(change)).min() > 0:
        return True
    sides = np.abs(np.linalg.inv(change))  # pixels a cell
    off = np.maximum(sides[..., 0, 1] / sides[..., 0, 0], sides[..., 1, 0] / sides[..., 1, 1])
    return bool(off.max() > _MOST_SKEW)


def _corners(scene: Geometry) -> list[tuple[int, int]]:
    return [(0, 0), (scene.width, 0), (0, scene.height), (scene.width, scene.height)]


def _mean_of_samples(target: Geometry, values: Any, scene: Geometry) -> Cells:
    """Averages as ``average_onto`` gives, for grids that are turned against each other or bend.

    Every pixel is a square of one value, and is divided into samples; each counts for the cell in which it lies.
    """
    change = target.steps(scene)
    # Cells a pixel, along the axis on which a pixel is longest.
    longest = np.nanmax(np.linalg.norm(change, axis=-2)) if np.isfinite(change).any() else 1.0
    times = int(np.clip(math.ceil(_SAMPLES_A_CELL * longest), 1, _MOST_SAMPLES_A_PIXEL))
    sums, counts = np.zeros(target.height * target.width), np.zeros(target.height * target.width)
    for row, strip in _strips(values, scene, max(1, _SAMPLES_AT_ONCE // (scene.width * times**2))):
        place = scene.window(row, 0, *strip.shape).finer(times)
        rows, columns = np.floor(target.locate(place) + 0.5)
        fine = np.repeat(np.repeat(strip, times, axis=0), times, axis=1)
        inside = np.isfinite(fine) & (rows >= 0) & (rows < target.height) & (columns >= 0) & (columns < target.width)
        if not inside.any():
            continue
        cell = (rows[inside] * target.width + columns[inside]).astype(np.intp)
        first = int(cell.min())
        found = np.bincount(cell - first)
        counts[first : first + len(found)] += found
        sums[first : first + len(found)] += np.bincount(cell - first, fine[inside].astype(np.float64))
    means = sums / np.where(counts > 0, counts, np.nan)
    return means.reshape(target.height, target.width).astype(np.float32)


def _strips(values: Any, scene: Geometry, rows: int) -> Iterator[tuple[int, NDArray[np.floating]]]:
    """An array or a band, so many rows at a time, NaN where invalid."""
    for row in range(0, scene.height, rows):
        count = min(rows, scene.height - row)
        if isinstance(values, np.ndarray):
            yield row, values[row : row + count]
        else:
            window = Window(0, row, scene.width, count)
            band = values.ds.read(values.bidx, window=window, masked=True)
            yield row, band.astype(np.float32).filled(np.nan)


def border_cells(reference: CoarseHeights, scene: Geometry) -> NDArray[np.bool_]:
    """Cells (h, w) that the scene's border crosses: the mean over their part inside is not the mean of the cell.

    A cell that reaches beyond the border by at most a tenth of its side counts as inside.
    """
    target = reference.geometry
    rows, columns = target.outline_of(scene, margin=0.1 * reference.pixels_a_cell)
    known = np.isfinite(rows) & np.isfinite(columns)
    line = {"type": "LineString", "coordinates": list(zip(columns[known], rows[known], strict=True))}
    shape = (target.height, target.width)
    if known.sum() < 2:
        return np.zeros(shape, bool)
    identity = rasterio.Affine.identity()
    touched = rasterize([(line, 1)], out_shape=shape, transform=identity, all_touched=True, dtype=np.uint8)
    return touched.astype(bool)
