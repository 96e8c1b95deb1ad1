"""Tiles in the form of prepareMars.py: bowls and domes under a sun, in metres, with the tags that labels give."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio import open as open_raster
from rasterio.crs import CRS

MARS = CRS.from_proj4("+proj=eqc +lat_ts=0 +lat_0=0 +lon_0=180 +R=3396190 +units=m +no_defs")
NULL = -3.4028226550889045e38
AZIMUTH, ELEVATION = 250.0, 35.0


def relief(number: int, side: int, metres: float = 2.0) -> NDArray[np.float64]:
    """Bowls and domes (side, side) in metres about -2500, another one for each number; ``metres`` a pixel."""
    rng = np.random.default_rng(number)
    rows, columns = np.indices((side, side), dtype=np.float64)
    heights = np.full((side, side), -2500.0)
    for _ in range(6):
        row, column, width = rng.uniform(0, side), rng.uniform(0, side), rng.uniform(0.08, 0.2) * side
        size = rng.choice([-1.0, 1.0]) * 0.2 * width * metres
        heights += size * np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * width**2))
    return heights


def shaded(heights: NDArray[np.float64], metres: float = 2.0) -> NDArray[np.float64]:
    """Brightness (H, W) of even, Lambertian ground, 1 where the sun is overhead."""
    down, across = np.gradient(heights, metres)
    azimuth, elevation = math.radians(AZIMUTH), math.radians(ELEVATION)
    towards = down * -math.cos(azimuth) + across * math.sin(azimuth)
    light = math.sin(elevation) - math.cos(elevation) * towards
    return np.clip(light / np.sqrt(1 + down**2 + across**2), 0, 1)


def write_mars_tiles(folder: Path, scenes: int = 4, tiles: int = 2, side: int = 64, tests: int = 1) -> Path:
    """Write a dataset and its split files; returns the table. The last scenes test, the one before validates.

    Some pixels of each tile are void in both files, and the first test tile tells no sun.
    """
    lines = ["id,image,height,part,fold,scene"]
    sides: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for scene in range(scenes):
        of = "test" if scene >= scenes - tests else "val" if scene == scenes - tests - 1 else "train"
        pair = f"DTEEC_{scene:06d}_1985_{scene + 100:06d}_1985_A01"
        for place in range(tiles):
            tile = f"{pair}_{0:05d}_{place * side:05d}"
            heights = relief(10 * scene + place, side)
            image = np.clip(1 + 250 * shaded(heights), 1, 255).astype(np.uint8)
            image[:2, :3], heights[:2, :3] = 0, NULL
            tags = {"PAIR": pair, "PIXEL_SIZE": "2.0", "HEIGHT_REFERENCE": "areoid" if scene % 2 else "radius"}
            if not (of == "test" and place == 0):
                tags |= {"SUN_AZIMUTH": str(AZIMUTH), "SUN_ELEVATION": str(ELEVATION)}
            for kind, values, nodata in (("images", image, 0), ("heights", heights.astype(np.float32), NULL)):
                path = folder / kind / pair / f"{0:05d}_{place * side:05d}.tif"
                path.parent.mkdir(parents=True, exist_ok=True)
                where = Affine(2.0, 0, 1000.0 * scene + 2.0 * place * side, 0, -2.0, 5000.0)
                profile = {"driver": "GTiff", "count": 1, "height": side, "width": side, "dtype": values.dtype}
                with open_raster(path, "w", crs=MARS, transform=where, nodata=nodata, **profile) as target:
                    target.write(values, 1)
                    target.update_tags(**tags)
            part = "test" if of == "test" else "train"
            name = f"{pair}/{0:05d}_{place * side:05d}.tif"
            lines.append(f"{tile},images/{name},heights/{name},{part},,group{scene}")
            sides[of].append(tile)
    (folder / "splits").mkdir()
    for name, ids in sides.items():
        (folder / "splits" / f"{name}.txt").write_text("\n".join(ids) + "\n")
    (folder / "tiles.csv").write_text("\n".join(lines) + "\n")
    return folder / "tiles.csv"
