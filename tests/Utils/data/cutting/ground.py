"""Made-up ground for the tests of cutting: a smooth surface in metres, seen by images and DEMs in any system."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.warp import transform

from tests.scenes import write_raster

UTM = CRS.from_epsg(32632)
ORIGIN = Affine(10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0)


def surface(xs: NDArray, ys: NDArray) -> NDArray[np.float64]:
    """Heights in metres at UTM coordinates: hills of 600 m."""
    return 500.0 + 80.0 * np.sin(xs / 95.0) * np.cos(ys / 95.0) + 0.02 * (xs - 500_000.0)


def surface_on(transform_of: Affine, height: int, width: int, crs: CRS = UTM) -> NDArray[np.float64]:
    """The surface at the pixel centres of a grid in any system."""
    columns, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    xs, ys = transform_of @ (columns.ravel(), rows.ravel())
    if crs != UTM:
        xs, ys = (np.asarray(values) for values in transform(crs, UTM, xs, ys))
    return surface(xs, ys).reshape(height, width)


def picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """An image (3, height, width) without zeros."""
    return np.random.default_rng(seed).integers(1, 256, (3, height, width), dtype=np.uint8)


def write_image(path: Path, side: int = 96, where: Affine = ORIGIN, seed: int = 0, **profile) -> Path:
    return write_raster(path, picture(side, side, seed), where, **{"crs": UTM, **profile})


def write_dem(path: Path, side: int = 96, where: Affine = ORIGIN, crs: CRS = UTM, **profile) -> Path:
    return write_raster(path, surface_on(where, side, side, crs).astype(np.float32), where, crs, **profile)


def tiles_of(folder: Path) -> list[dict[str, str]]:
    """The rows of a dataset's tiles.csv."""
    with (folder / "tiles.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def heights_of(folder: Path, row: dict[str, str], key: str = "height") -> tuple[NDArray[np.float64], Affine, CRS]:
    """A tile's heights, NaN in voids, with their place."""
    with rasterio.open(folder / row[key]) as source:
        return source.read(1, masked=True).astype(np.float64).filled(np.nan), source.transform, source.crs
