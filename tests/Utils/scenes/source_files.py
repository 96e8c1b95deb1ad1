"""Rasters of every kind, written with plain rasterio and read as scenes."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import ColorInterp

from Utils.rasters.source.scene_source import SceneSource, open_scene

HEIGHT, WIDTH = 60, 90
UTM = CRS.from_epsg(32643)
NORTH_UP = Affine(30.0, 0.0, 500_000.0, 0.0, -30.0, 3_800_000.0)
BLOCKS = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}
COLOURS = [ColorInterp.red, ColorInterp.green, ColorInterp.blue]


def write_scene(path: Path, bands: NDArray[Any], mask: NDArray[np.bool_] | None = None, **profile: Any) -> Path:
    """Write (C, H, W) with plain rasterio; on a map unless ``crs`` is None."""
    tags = {name: profile.pop(name) for name in ("colorinterp", "descriptions", "gcps", "rpcs") if name in profile}
    profile.setdefault("driver", {".png": "PNG", ".jpg": "JPEG", ".jp2": "JP2OpenJPEG"}.get(path.suffix, "GTiff"))
    if profile["driver"] == "GTiff" and "gcps" not in tags and "rpcs" not in tags:
        profile = {"crs": UTM, "transform": NORTH_UP, **profile}
    profile = {name: value for name, value in profile.items() if value is not None}
    count, height, width = bands.shape
    with warnings.catch_warnings(), rasterio.Env(GDAL_PAM_ENABLED="NO", GDAL_TIFF_INTERNAL_MASK="YES"):
        warnings.simplefilter("ignore")
        with rasterio.open(path, "w", height=height, width=width, count=count, dtype=bands.dtype, **profile) as target:
            for name, value in tags.items():
                setattr(target, name, value)
            target.write(bands)
            if mask is not None:
                target.write_mask(mask)
    return path


def noise(count: int, dtype: str = "uint8", seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> NDArray[Any]:
    """Values from 1 on: 0 has a meaning of its own in many of these tests."""
    return np.random.default_rng(seed).integers(1, np.iinfo(dtype).max, (count, height, width), dtype, endpoint=True)


def read_all(source: SceneSource) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    return source.read(0, 0, source.height, source.width)


def open_all(path: Path, **options: Any) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    with open_scene(path, **options) as source:
        return read_all(source)


def logged(caplog: pytest.LogCaptureFixture) -> str:
    text = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("Utils.rasters"))
    caplog.clear()
    return text
