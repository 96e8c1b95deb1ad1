"""One map of all tiles: aligned, and blended with smooth windows, strip by strip."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window

from Utils.core.errors import RasterError
from Utils.rasters.environment import root_cause
from Utils.rasters.tile_files import GDAL_ERRORS
from Utils.scenes.joining.tile_alignment import TileAlignment
from Utils.scenes.tiles.tile_grid import TileGrid
from Utils.scenes.tiles.tile_store import TileStore

Strip = NDArray[np.float32]


@dataclass(frozen=True)
class Mosaic:
    """A scene's blended map on disk.

    Attributes:
        path: a float32 GeoTIFF, NaN where invalid; its bands are the layers of ``blend``.
        low: the least height.
        high: the greatest.
        valid_pixels: how many pixels have one.
    """

    path: Path
    low: float
    high: float
    valid_pixels: int


def blend(
    grid: TileGrid,
    store: TileStore,
    alignment: TileAlignment,
    with_spread: bool = False,
    supported: NDArray[np.bool_] | None = None,
) -> Iterator[tuple[int, Strip]]:
    """Blend all tiles into full-width strips, from the top to the bottom.

    Args:
        grid: the tiles.
        store: their maps, with a second layer if ``with_spread``.
        alignment: scale, shift and tilt of every tile.
        with_spread: also give the standard deviation, which joins that of the tiles and that between tiles that share a
            pixel.
        supported: (N,) marks some tiles; their share in each pixel is then given as well.

    Yields:
        A strip's first row, and its layers (1 to 3, rows, width) in this order, NaN where no tile is valid.
    """
    rows = min(grid.size, grid.height)
    sums = _Sums(rows, grid.width, with_spread, supported is not None)
    columns = len(grid.column_starts)
    for place, start in enumerate(grid.row_starts):
        for tile in grid.tiles[place * columns : (place + 1) * columns]:
            heights = alignment.apply(tile, store.load(tile))
            spread = alignment.scale[tile.number] * store.load(tile, layer=1) if with_spread else None
            support = None if supported is None else float(supported[tile.number])
            sums.add(tile.columns, heights, spread, support, grid.weights(tile))
        following = grid.row_starts[place + 1] if place + 1 < len(grid.row_starts) else grid.height
        yield start, sums.take(following - start)


class _Sums:
    """Weighted sums of the tiles that cover a band of rows."""

    def __init__(self, rows: int, width: int, with_spread: bool, with_support: bool) -> None:
        # Double precision: heights of thousands of metres are squared and subtracted.
        self._weight = np.zeros((rows, width), np.float64)
        self._heights = np.zeros((rows, width), np.float64)
        self._squares = np.zeros_like(self._heights) if with_spread else None
        self._support = np.zeros((rows, width), np.float32) if with_support else None

    def add(
        self,
        columns: slice,
        heights: NDArray[np.float64],
        spread: NDArray[np.floating] | None,
        support: float | None,
        weights: NDArray[np.float32],
    ) -> None:
        """Add a tile whose first row is the first row of the band."""
        valid = np.isfinite(heights)
        weights = np.where(valid, weights, np.float32(0.0))
        heights = np.where(valid, heights, 0.0)
        self._weight[:, columns] += weights
        self._heights[:, columns] += weights * heights
        if self._squares is not None and spread is not None:
            self._squares[:, columns] += weights * (heights**2 + np.where(valid, spread, 0.0) ** 2)
        if self._support is not None and support is not None:
            self._support[:, columns] += weights * np.float32(support)

    def take(self, rows: int) -> Strip:
        """Give the first rows, which are finished, and remove them from the band."""
        weight = np.where(self._weight[:rows] > 0, self._weight[:rows], np.nan)
        mean = self._heights[:rows] / weight
        layers = [mean]
        if self._squares is not None:
            # The variance of the tiles and that between them.
            layers.append(np.sqrt(np.maximum(self._squares[:rows] / weight - mean**2, 0.0)))
        if self._support is not None:
            layers.append(self._support[:rows] / weight)
        for band in (self._weight, self._heights, self._squares, self._support):
            if band is not None:
                band[:-rows] = band[rows:].copy()
                band[-rows:] = 0
        return np.stack([layer.astype(np.float32) for layer in layers])


def write_mosaic(
    path: Path, strips: Iterator[tuple[int, Strip]], grid: TileGrid, bands: int, georeference: Mapping[str, Any]
) -> Mosaic:
    """Write strips to a file for later steps; ``georeference`` holds ``crs`` and ``transform``.

    Raises:
        RasterError: the file cannot be written.
    """
    low, high, valid = np.inf, -np.inf, 0
    profile = {
        "driver": "GTiff",
        "dtype": "float32",
        "nodata": np.nan,
        "height": grid.height,
        "width": grid.width,
        "count": bands,
        "tiled": True,
        "bigtiff": "IF_SAFER",
        "interleave": "band",
        **georeference,
    }
    try:
        with rasterio.open(path, "w", **profile) as target:
            for row, strip in strips:
                target.write(strip, window=Window(0, row, grid.width, strip.shape[1]))
                heights = strip[0][np.isfinite(strip[0])]
                if heights.size:
                    low, high = min(low, float(heights.min())), max(high, float(heights.max()))
                    valid += heights.size
    except GDAL_ERRORS as error:
        why = f"cannot be written ({root_cause(error)})"
        raise RasterError(path, why, "go on with --resume once it can") from error
    return Mosaic(path, low, high, valid)
