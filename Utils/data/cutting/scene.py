"""An image that is cut: its pixels in [0, 1] on the grid of its tiles."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS

from Utils.core.errors import UserError
from Utils.data.cutting.placing import own_grid
from Utils.data.cutting.resampling import resampled
from Utils.rasters.coordinates import on_earth
from Utils.rasters.environment import georeference_optional, raster_errors
from Utils.rasters.geometry import Geometry
from Utils.rasters.grids import upright
from Utils.rasters.ground import ground_sample_distance
from Utils.rasters.places import gdal_name
from Utils.rasters.source.scene_source import open_scene

__all__ = ["ImageHeader", "SceneReader", "read_header"]

# Pixels of the image that are held at once, and those that are read around a window.
_MOST_AT_ONCE = 2**23
_MARGIN = 4
# A ground sample distance this near to the image's own is the same.
_SAME = 1e-6


@dataclass(frozen=True)
class ImageHeader:
    """Where an image lies.

    Attributes:
        path: the file.
        own: the grid of its pixels.
        grid: the grid of its tiles' pixels: its own, or one of the wanted ground sample distance.
        metres: metres from row to row and from column to column of ``grid``; None where its system has no metres.
    """

    path: Path
    own: Geometry
    grid: Geometry
    metres: tuple[float, float] | None


def read_header(path: Path, crs: CRS | None, distance: float | None) -> ImageHeader:
    """Read where an image lies.

    Args:
        path: the file.
        crs: the system of a file that names none.
        distance: wanted metres from pixel to pixel; None keeps the image's own.

    Raises:
        RasterError: the file cannot be read.
        UserError: no place on the ground, or ``distance`` for a system without metres.
    """
    with raster_errors(path), georeference_optional(), rasterio.open(gdal_name(path)) as source:
        own = own_grid("image", path, source, crs)
        if source.crs is not None and on_earth(source.crs):
            # As it is read: with the north at the top.
            own = Geometry(own.height, own.width, own.crs, upright(own.transform, own.height, own.width)[0])
    metres = ground_sample_distance(own.crs, own.transform, own.height, own.width)
    if distance is None:
        return ImageHeader(path, own, own, metres)
    if metres is None:
        raise UserError(f"--gsd {distance:g}: image '{path}' has a local CRS without metres; reproject it first")
    down, across = (distance / each for each in metres)
    if max(abs(down - 1.0), abs(across - 1.0)) < _SAME:
        return ImageHeader(path, own, own, metres)
    height, width = math.floor(own.height / down), math.floor(own.width / across)
    if min(height, width) < 1:
        raise UserError(f"--gsd {distance:g}: image '{path}' is smaller than one such pixel; give fewer metres")
    grid = Geometry(height, width, own.crs, own.transform @ Affine.scale(across, down))
    return ImageHeader(path, own, grid, (distance, distance))


class SceneReader:
    """Reads an image window by window, with one radiometric stretch. A context manager.

    Args:
        header: where it lies.
        bands: 1 or 3 numbers; None for the usual ones.
        nodata: a value that means no data, in addition to what the file says.
        stretch: percentiles that become 0 and 1; None for the full range of the file's type.
        suspect_voids: whether values and frames that look like no data are left out though nothing declares them.
    """

    def __init__(
        self,
        header: ImageHeader,
        bands: tuple[int, ...] | None,
        nodata: float | None,
        stretch: tuple[float, float] | None,
        suspect_voids: bool = True,
    ) -> None:
        self.header = header
        self.source = open_scene(header.path, bands, nodata, stretch, suspect_voids, frames_are_void=True)

    def __enter__(self) -> SceneReader:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.source.close()

    def read(self, row: int, column: int, size: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """A square window of the tiles' grid.

        Returns:
            Image (3, size, size) float32 in [0, 1], 0 at invalid pixels, and valid pixels (size, size) bool.
        """
        if self.header.grid is self.header.own:
            return self.source.read(row, column, size, size)
        found = self._resampled(row, column, size, size)
        known = np.asarray(np.isfinite(found).all(axis=0))
        return np.where(known, np.clip(found, 0.0, 1.0), np.float32(0.0)), known

    def _resampled(self, row: int, column: int, height: int, width: int) -> NDArray[np.float32]:
        """A window of the tiles' grid, (3, height, width), NaN where the image has no data."""
        grid, own = self.header.grid, self.header.own
        ratio = ~own.transform @ grid.transform
        top, bottom = _ends(row, height, ratio.e, own.height)
        left, right = _ends(column, width, ratio.a, own.width)
        if (bottom - top) * (right - left) > _MOST_AT_ONCE and max(height, width) > 1:
            if height >= width:
                half = height // 2
                upper = self._resampled(row, column, half, width)
                return np.concatenate([upper, self._resampled(row + half, column, height - half, width)], axis=1)
            half = width // 2
            left_part = self._resampled(row, column, height, half)
            return np.concatenate([left_part, self._resampled(row, column + half, height, width - half)], axis=2)
        image, valid = self.source.read(top, left, bottom - top, right - left)
        image[:, ~valid] = np.nan
        place = own.window(top, left, bottom - top, right - left)
        return resampled(image, place, grid.window(row, column, height, width))

    def thumbnail(self, longest_side: int) -> NDArray[np.float32]:
        """The whole image, (3, h, w) in [0, 1]."""
        return self.source.thumbnail(longest_side)


def _ends(start: int, size: int, ratio: float, length: int) -> tuple[int, int]:
    """First and last pixel of the source under a window, with a margin."""
    first, last = math.floor(start * ratio) - _MARGIN, math.ceil((start + size) * ratio) + _MARGIN
    return max(0, first), min(length, last)
