"""What the demo makes of its tiles and products: a control's table, the product to draw, and a coarse DTM of it."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.warp import calculate_default_transform, reproject

from Utils.rasters.environment import gdal_environment

SHUFFLED = "shuffled.csv"
_SCENE = "scene"
# The sphere of MOLA's maps: another one than a product's, which has the radius at its latitude.
_MOLA_SPHERE = "+proj=longlat +R=3396190 +no_defs"
_VOID = -1e30


def write_shuffled(table: Path) -> None:
    """Write a table beside ``table`` in which each training tile has the heights of another scene's.

    Validation and test tiles keep theirs.
    """
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    training = set((table.parent / "splits" / "train.txt").read_text(encoding="utf-8").split())
    scenes: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        if row["id"] in training:
            scenes[row[_SCENE]].append(row)
    names = sorted(scenes)
    heights = {}
    for name, other in zip(names, names[1:] + names[:1], strict=True):
        for place, row in enumerate(scenes[name]):
            heights[row["id"]] = scenes[other][place % len(scenes[other])]["height"]
    with table.with_name(SHUFFLED).open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(row | {"height": heights.get(row["id"], row["height"])} for row in rows)


def product_to_draw(table: Path) -> tuple[Path, Path]:
    """Orthoimage and DTM of the first pair of the test."""
    with (table.parent / "pairs.csv").open(encoding="utf-8", newline="") as file:
        row = next(row for row in csv.DictReader(file) if row["side"] == "test")
    return Path(row["ortho"]), Path(row["dtm"])


def write_coarse(dtm: Path, path: Path, times: int) -> None:
    """Write a DTM as a coarser instrument would have it: means over cells, in degrees on the sphere of MOLA's maps.

    Args:
        dtm: the fine one.
        path: the GeoTIFF to write.
        times: how many pixels of the fine one a cell is wide.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with gdal_environment(), rasterio.open(dtm) as source:
        heights, crs = source.read(1).astype(np.float32), CRS.from_proj4(_MOLA_SPHERE)
        heights[~np.isfinite(heights) | (heights < _VOID)] = np.nan
        fine, columns, rows = calculate_default_transform(source.crs, crs, source.width, source.height, *source.bounds)
        cells = np.full((max(rows // times, 1), max(columns // times, 1)), np.nan, np.float32)
        where = fine @ Affine.scale(times)
        reproject(
            heights,
            cells,
            src_transform=source.transform,
            src_crs=source.crs,
            src_nodata=np.nan,
            dst_transform=where,
            dst_crs=crs,
            dst_nodata=np.nan,
            resampling=Resampling.average,
        )
    profile = {"driver": "GTiff", "count": 1, "dtype": "float32", "nodata": np.nan, "crs": crs, "transform": where}
    with rasterio.open(path, "w", height=cells.shape[0], width=cells.shape[1], **profile) as target:
        target.write(cells, 1)
