"""Writing a tile in the published layout: image, georeferenced heights, and on request the coarse DEM and its prior."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from Utils.core.files import atomic_write_bytes
from Utils.data.cutting.coarse import as_prior
from Utils.data.published_layout import HEIGHT_FOLDER, IMAGE_FOLDER, PRIOR_FOLDER, prior_file
from Utils.rasters.geometry import Geometry
from Utils.rasters.georeferenced_tile import encode_tile
from Utils.rasters.tile_files import write_map_16bit

__all__ = ["COARSE_FOLDER", "NODATA", "TilePaths", "make_folders", "write_tile"]

COARSE_FOLDER = "coarse_dem"
NODATA = -9999.0
"""What height files hold in voids."""


@dataclass(frozen=True)
class TilePaths:
    """The files of a tile; the last two are None where no coarse DEM was asked for."""

    image: Path
    height: Path
    coarse: Path | None = None
    prior: Path | None = None

    @classmethod
    def of(cls, folder: Path, part: str, tile: str, has_coarse: bool) -> TilePaths:
        """The files of a tile in a dataset's folder."""
        image = folder / part / IMAGE_FOLDER / f"tile_{tile}.png"
        height = folder / part / HEIGHT_FOLDER / f"tile_{tile}.tif"
        if not has_coarse:
            return cls(image, height)
        return cls(image, height, folder / part / COARSE_FOLDER / f"tile_{tile}.tif", prior_file(folder, part, tile))

    @property
    def all(self) -> list[Path]:
        """All files."""
        return [path for path in (self.image, self.height, self.coarse, self.prior) if path is not None]


def make_folders(folder: Path, part: str, has_coarse: bool) -> None:
    """Make the folders of a part."""
    for name in (IMAGE_FOLDER, HEIGHT_FOLDER, *((COARSE_FOLDER, PRIOR_FOLDER) if has_coarse else ())):
        (folder / part / name).mkdir(parents=True, exist_ok=True)


def write_tile(
    paths: TilePaths,
    image: NDArray[np.float32],
    valid: NDArray[np.bool_],
    heights: NDArray[np.float32],
    coarse: NDArray[np.float32] | None,
    place: Geometry,
) -> None:
    """Write the files of a tile, each whole or absent.

    Args:
        paths: where.
        image: (3, H, W) in [0, 1]; written with 8 bits.
        valid: (H, W), the image's valid pixels. Heights elsewhere are written as voids: nothing there shows them.
        heights: (H, W) in metres, NaN in voids.
        coarse: (H, W) in metres, NaN in voids; None where none was asked for.
        place: where the tile's pixels lie.

    Raises:
        OSError: a file cannot be written.
    """
    buffer = io.BytesIO()
    levels = np.rint(np.moveaxis(image, 0, -1) * 255.0).astype(np.uint8)
    Image.fromarray(levels).save(buffer, format="PNG")
    atomic_write_bytes(paths.image, buffer.getbuffer())
    if paths.coarse is not None and paths.prior is not None and coarse is not None:
        atomic_write_bytes(paths.coarse, _heights_file(coarse, place))
        write_map_16bit(paths.prior, as_prior(coarse))
    # Last, because the height file marks the tile as written.
    atomic_write_bytes(paths.height, _heights_file(np.where(valid, heights, np.float32(np.nan)), place))


def _heights_file(heights: NDArray[np.float32], place: Geometry) -> bytes:
    """A georeferenced float32 GeoTIFF of heights in metres."""
    return encode_tile(np.where(np.isfinite(heights), heights, np.float32(NODATA)), place, NODATA, "m")
