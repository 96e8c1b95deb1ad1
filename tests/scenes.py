"""Landscapes and models for the tests of whole scenes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.warp import reproject
from scipy.ndimage import gaussian_filter
from torch import Tensor

from Utils.scenes.fusion.reference import Geometry
from Utils.scenes.tiles.tile_grid import TileGrid
from Utils.scenes.tiles.tile_store import TileStore

UTM = CRS.from_epsg(32643)
ORIGIN = Affine(30.0, 0.0, 500_000.0, 0.0, -30.0, 3_800_000.0)


def landscape(height: int, width: int, seed: int = 0) -> NDArray[np.float64]:
    """Hills of several sizes in [0, 1]: (height, width)."""
    rng = np.random.default_rng(seed)
    found = np.zeros((height, width))
    for sigma in (2.0, 5.0, 12.0, 30.0):
        layer = gaussian_filter(rng.standard_normal((height, width)), sigma, mode="wrap")
        found += layer / layer.std() * sigma**0.7
    return (found - found.min()) / np.ptp(found)


def write_raster(
    path: Path, bands: NDArray, transform: Affine | None = ORIGIN, crs: CRS | None = UTM, **profile
) -> Path:
    """A GeoTIFF of (C, H, W) or (H, W)."""
    bands = bands if bands.ndim == 3 else bands[None]
    count, height, width = bands.shape
    where = ({"transform": transform} if transform is not None else {}) | ({"crs": crs} if crs is not None else {})
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=count, dtype=bands.dtype, **where, **profile
    ) as target:
        target.write(bands)
    return path


def brightness(images: Tensor) -> Tensor:
    """The simplest model: what is bright is high, stretched tile by tile as the real one's maps are."""
    grey = images.mean(dim=1)
    low, high = grey.amin(dim=(1, 2), keepdim=True), grey.amax(dim=(1, 2), keepdim=True)
    return (grey - low) / (high - low).clamp_min(1e-6)


def disturbed_tiles(
    grid: TileGrid,
    truth: NDArray[np.float64],
    seed: int = 0,
    noise: float = 0.0,
    tilt: float = 0.0,
) -> list[NDArray[np.float32]]:
    """Each tile's truth under a scale, a shift and a tilt of its own, with noise in shares of the truth's range."""
    rng = np.random.default_rng(seed)
    maps = []
    for tile in grid.tiles:
        values = truth[tile.rows, tile.columns] + noise * rng.standard_normal((tile.height, tile.width))
        rows = np.linspace(-0.5, 0.5, tile.height)[:, None]
        columns = np.linspace(-0.5, 0.5, tile.width)[None, :]
        values = values + tilt * (rng.uniform(-1, 1) * rows + rng.uniform(-1, 1) * columns)
        maps.append((np.exp(rng.uniform(-0.7, 0.7)) * values + rng.uniform(-1, 1)).astype(np.float32))
    return maps


def keep(folder: Path, grid: TileGrid, maps: Sequence[NDArray[np.float32]]) -> TileStore:
    """A store that holds these maps."""
    store = TileStore(folder, {"made": "for a test"}, resume=False)
    for tile, values in zip(grid.tiles, maps, strict=True):
        store.save(tile, values[None])
    return store


def without_affine(found: NDArray, truth: NDArray) -> NDArray[np.float64]:
    """The difference to the truth, in shares of its range, after the best single scale and shift."""
    known = np.isfinite(found) & np.isfinite(truth)
    scale, shift = np.polyfit(found[known], truth[known], 1)
    return np.where(known, scale * found + shift - truth, np.nan) / np.ptp(truth[known])


def interpolate(
    cells: NDArray[np.float32], geometry: Geometry, target: Geometry, resampling: Resampling
) -> NDArray[np.float32]:
    """A coarse map on a finer grid; NaN where the coarse one ends."""
    found = np.full((target.height, target.width), np.nan, np.float32)
    reproject(
        cells,
        found,
        src_transform=geometry.transform,
        src_crs=geometry.crs,
        src_nodata=np.nan,
        dst_transform=target.transform,
        dst_crs=target.crs,
        dst_nodata=np.nan,
        resampling=resampling,
    )
    return found
