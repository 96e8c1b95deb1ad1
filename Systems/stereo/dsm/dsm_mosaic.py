"""All tiles of a height raster in one file, and how much of the ground they cover."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from rasterio.windows import Window

from Systems.stereo.dsm.tile_heights import AT_END, LAYERS, UNSEEN
from Utils.core.errors import write_error
from Utils.rasters.geometry import Geometry
from Utils.rasters.tile_files import GDAL_ERRORS
from Utils.scenes.tiles.tile_grid import Tile
from Utils.scenes.tiles.tile_store import TileStore

__all__ = ["Coverage", "write_mosaic"]

_STRIP = 256


@dataclass(frozen=True)
class Coverage:
    """How much of the ground has a height.

    Attributes:
        cells: cells that two views or more see.
        found: those of them that have a height.
        at_ends: cells whose height lies at an end of the range that was searched.
        low: the least height; NaN without any.
        high: the greatest.
    """

    cells: int
    found: int
    at_ends: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """Found cells, as a share."""
        return self.found / self.cells if self.cells else 0.0


def write_mosaic(path: Path, ground: Geometry, tiles: Sequence[Tile], store: TileStore) -> Coverage:
    """Write all tiles into one raster, its bands those of ``LAYERS``, NaN where there is no height.

    Raises:
        UserError: the disk is full.
    """
    profile = {"driver": "GTiff", "dtype": "float32", "count": len(LAYERS), "tiled": True, "BIGTIFF": "IF_SAFER"}
    place = {"height": ground.height, "width": ground.width, "crs": ground.crs, "transform": ground.transform}
    try:
        with rasterio.open(path, "w", **profile, **place, interleave="band") as file:
            for tile in tiles:
                layers = np.stack([store.load(tile, layer) for layer in range(len(LAYERS))])
                file.write(layers, window=Window(tile.column, tile.row, tile.width, tile.height))
        return _coverage(path)
    except GDAL_ERRORS as error:
        raise write_error(path, error, "finished tiles stay; go on with --resume") from error


def _coverage(path: Path) -> Coverage:
    cells = found = at_ends = 0
    low, high = np.inf, -np.inf
    with rasterio.open(path) as source:
        for row in range(0, source.height, _STRIP):
            window = Window(0, row, source.width, min(_STRIP, source.height - row))
            height, flags = source.read([1, LAYERS.index("flags") + 1], window=window)
            seen = flags != UNSEEN
            known = np.isfinite(height) & seen
            cells += int(np.count_nonzero(seen))
            found += int(np.count_nonzero(known))
            at_ends += int(np.count_nonzero(known & (flags == AT_END)))
            if known.any():
                low, high = min(low, float(height[known].min())), max(high, float(height[known].max()))
    return Coverage(cells, found, at_ends, low if found else np.nan, high if found else np.nan)
