"""DEMs: what their headers say, and their heights in metres on any grid."""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.windows import Window

from Utils.core.errors import RasterError
from Utils.data.cutting.placing import own_grid
from Utils.data.cutting.resampling import near_longitude, resampled
from Utils.rasters.coordinates import longitude_period, whole_turns
from Utils.rasters.environment import georeference_optional, raster_errors
from Utils.rasters.geometry import Geometry
from Utils.rasters.ground import ground_sample_distance
from Utils.rasters.height_units import UNITS, height_unit
from Utils.rasters.places import gdal_name
from Utils.rasters.tile_files import check_blocks
from Utils.rasters.trusted_heights import Doubts, trusted_heights
from Utils.rasters.trusted_heights import Place as TrustedPlace

__all__ = ["Dem", "HeightReader", "open_dem"]

logger = logging.getLogger(__name__)

Heights = NDArray[np.float32]

# Source pixels that are held at once, and those that are read around what lies under a tile.
_MOST_AT_ONCE = 2**23
_MARGIN = 4
# DEMs that are open at once; a country may have thousands of sheets.
_MOST_OPEN = 32
# A tile takes a coarser DEM only where that has fewer voids by more than this share of the tile.
_FEWER_VOIDS = 0.01
# Places along a tile at which its place in a DEM is found.
_PLACES = 9
_REMEDY = "--keep-outliers takes them as heights, --height-nodata names a void value"


@dataclass(frozen=True)
class Dem:
    """A DEM's header.

    Attributes:
        path: the file.
        grid: where its pixels lie.
        band: the number of its band of heights, from 1.
        scale: factor from stored values to heights in its own unit.
        offset: what is added after that.
        metres: metres in its unit.
        nodata: a value that means no data, in addition to what the file says; None for none.
        keep_outliers: whether undeclared void values, impossible heights and wrong single cells are taken as heights.
    """

    path: Path
    grid: Geometry
    band: int
    scale: float
    offset: float
    metres: float
    nodata: float | None
    keep_outliers: bool = False

    @property
    def size(self) -> tuple[float, float]:
        """Length of a pixel's sides, down and across, in map units."""
        to = self.grid.transform
        return math.hypot(to.b, to.e), math.hypot(to.a, to.d)


def open_dem(
    path: Path,
    crs: CRS | None = None,
    nodata: float | None = None,
    unit: str | None = None,
    keep_outliers: bool = False,
) -> Dem:
    """Read a DEM's header, check it, and say in the log how its heights become metres.

    Args:
        path: a raster with one band of heights.
        crs: the system of a file that names none.
        nodata: a value that means no data, in addition to what the file says.
        unit: of its heights, one of ``UNITS``; by default what the file says, or metres.
        keep_outliers: whether undeclared void values, impossible heights and wrong single cells are taken as heights.

    Raises:
        RasterError: a file that cannot be read or holds no heights.
        UserError: no place on the ground, or a unit that is no length.
    """
    with raster_errors(path), georeference_optional(), rasterio.open(gdal_name(path)) as source:
        check_blocks(path, source)
        band = _band_of_heights(path, source)
        grid = own_grid("DEM", path, source, crs)
        name, metres = (unit, UNITS[unit]) if unit else height_unit(path, source, band)
        scale, offset = float(source.scales[band - 1]), float(source.offsets[band - 1])
    if (scale, offset) != (1.0, 0.0):
        logger.info("%s: heights are %g x the stored values %+g (scale and offset tags)", path, scale, offset)
    if metres != 1.0:
        logger.info("%s: heights in %s, converted to metres (1 %s = %.7g m)", path, name, name, metres)
    elif not name and grid.crs.is_projected and abs(grid.crs.linear_units_factor[1] / 0.3048 - 1.0) < 1e-3:
        logger.warning(
            "%s: its coordinates are in feet and its heights name no unit; they are taken as metres; "
            "--height-unit us-ft or ft decides otherwise",
            path,
        )
    return Dem(path, grid, band, scale, offset, metres, nodata, keep_outliers)


def _band_of_heights(path: Path, source: Any) -> int:
    bands = [band for band, use in zip(source.indexes, source.colorinterp, strict=True) if use != ColorInterp.alpha]
    if len(bands) != 1:
        raise RasterError(path, f"{len(bands)} bands", "a DEM has one; take it out with gdal_translate -b N")
    band: int = bands[0]
    if source.colorinterp[band - 1] == ColorInterp.palette:
        raise RasterError(path, "a colour palette, so no heights", "give the DEM itself")
    if np.issubdtype(np.dtype(source.dtypes[band - 1]), np.complexfloating):
        raise RasterError(path, f"values of type {source.dtypes[band - 1]}", "give a DEM with real numbers")
    return band


class HeightReader:
    """Heights in metres from several DEMs, on any grid. A context manager.

    DEMs with the same system and pixel size are sheets of one product, which are joined. A tile takes its heights from
    one product, because two surveys differ by steps: the finest, or a coarser one that has fewer voids there.

    Args:
        dems: the DEMs, in the order of preference within a product.
        place: where heights will be read.
    """

    def __init__(self, dems: Sequence[Dem], place: Geometry) -> None:
        self._place = TrustedPlace(place.crs, place.transform, place.height, place.width)
        products: dict[tuple[Any, ...], list[Dem]] = {}
        for dem in dems:
            key = (dem.grid.crs.to_wkt(), *(f"{side:.6g}" for side in dem.size))
            products.setdefault(key, []).append(dem)
        self.products = sorted(products.values(), key=lambda product: _metres_a_pixel(product[0]))
        self._open: OrderedDict[Path, tuple[ExitStack, Any, int]] = OrderedDict()

    def __enter__(self) -> HeightReader:
        return self

    def __exit__(self, *_: object) -> None:
        while self._open:
            self._open.popitem()[1][0].close()

    def read(self, target: Geometry) -> Heights:
        """Heights in metres on a grid, (H, W) float32; NaN in voids and where there is no DEM.

        Raises:
            RasterError: a file turns out to be damaged here.
        """
        best = np.full((target.height, target.width), np.nan, np.float32)
        for product in self.products:
            found = self._joined(product, target)
            if np.isnan(found).mean() < np.isnan(best).mean() - _FEWER_VOIDS:
                best = found
            if np.isnan(best).mean() <= _FEWER_VOIDS:
                break
        return best

    def _joined(self, product: Sequence[Dem], target: Geometry) -> Heights:
        found = np.full((target.height, target.width), np.nan, np.float32)
        for dem in product:
            if not np.isnan(found).any():
                break
            found = np.where(np.isnan(found), self._one(dem, target), found)
        return found

    def _one(self, dem: Dem, target: Geometry) -> Heights:
        parts = list(_under(dem.grid, target))
        if max((part.height * part.width for _, part in parts), default=0) > _MOST_AT_ONCE and (
            max(target.height, target.width) > 1
        ):
            return np.concatenate([self._one(dem, half) for half in _halves(target)], axis=int(_is_wide(target)))
        found = np.full((target.height, target.width), np.nan, np.float32)
        for place, part in parts:
            values = self._read(dem, part)[None]
            for turn in _turns_of(dem.grid):
                moved = Geometry(part.height, part.width, place.crs, Affine.translation(turn, 0.0) @ place.transform)
                found = np.where(np.isnan(found), resampled(values, moved, target)[0], found)
                if not np.isnan(found).any():
                    return found
        return found

    def _read(self, dem: Dem, part: _Part) -> Heights:
        source, band = self._source(dem)
        window = Window(part.column, part.row, part.width, part.height)
        with raster_errors(dem.path):
            raw = source.read(band, window=window)
            known = source.read_masks(band, window=window) > 0
        with np.errstate(over="ignore", invalid="ignore"):
            heights = ((raw.astype(np.float64) * dem.scale + dem.offset) * dem.metres).astype(np.float32)
        return np.where(known & np.isfinite(heights), heights, np.float32(np.nan))

    def _source(self, dem: Dem) -> tuple[Any, int]:
        """The open DEM without what cannot be its heights, and the band with the heights."""
        if dem.path not in self._open:
            if len(self._open) >= _MOST_OPEN:
                self._open.popitem(last=False)[1][0].close()
            doubts = Doubts(
                f"--height '{dem.path}'", _REMEDY, dem.metres, dem.nodata, not dem.keep_outliers, not dem.keep_outliers
            )
            with ExitStack() as stack, raster_errors(dem.path):
                with georeference_optional():
                    source = stack.enter_context(rasterio.open(gdal_name(dem.path)))
                source, band, _ = stack.enter_context(trusted_heights(source, dem.band, self._place, doubts))
                self._open[dem.path] = stack.pop_all(), source, band
        self._open.move_to_end(dem.path)
        return self._open[dem.path][1:]


@dataclass(frozen=True)
class _Part:
    """A window of a file."""

    row: int
    column: int
    height: int
    width: int


def _under(own: Geometry, target: Geometry) -> Iterator[tuple[Geometry, _Part]]:
    """The windows of a raster that lie under a grid, with their places; a grid across the raster's seam has two."""
    share = np.linspace(0.0, 1.0, _PLACES)
    rows, columns = (mesh.ravel() for mesh in np.meshgrid(share * target.height, share * target.width, indexing="ij"))
    down, across = own.place(*target.coordinates(rows, columns), target.crs, near_longitude(own, target))
    known = np.isfinite(down) & np.isfinite(across)
    if not known.any():
        return
    down, across = down[known], across[known]
    period = longitude_period(own.crs)
    xs = own.coordinates(down, across)[0]
    span = own.coordinates([0, 0, own.height, own.height], [0, own.width, 0, own.width])[0]
    box = (float(xs.min()), float(xs.max()))
    for turn in whole_turns(own.crs, (float(span.min()), float(span.max())), box) if period else (0,):
        move = Affine.translation(turn * (period or 0.0), 0.0)
        moved = Geometry(own.height, own.width, own.crs, move @ own.transform)
        there = ~moved.transform @ own.transform @ (across, down)
        first_column, last_column = _ends(np.asarray(there[0]), own.width)
        first_row, last_row = _ends(np.asarray(there[1]), own.height)
        if first_column < last_column and first_row < last_row:
            part = _Part(first_row, first_column, last_row - first_row, last_column - first_column)
            yield moved.window(first_row, first_column, part.height, part.width), part


def _ends(places: NDArray[np.float64], length: int) -> tuple[int, int]:
    return max(0, math.floor(places.min()) - _MARGIN), min(length, math.ceil(places.max()) + _MARGIN)


def _turns_of(own: Geometry) -> tuple[float, ...]:
    """By how much longitudes may have to be moved: a transformation gives them within half a turn, or as they are."""
    period = longitude_period(own.crs)
    return (0.0,) if period is None else (0.0, -period, period)


def _is_wide(target: Geometry) -> bool:
    return target.width >= target.height


def _halves(target: Geometry) -> tuple[Geometry, Geometry]:
    if _is_wide(target):
        half = target.width // 2
        return target.window(0, 0, target.height, half), target.window(0, half, target.height, target.width - half)
    half = target.height // 2
    return target.window(0, 0, half, target.width), target.window(half, 0, target.height - half, target.width)


def _metres_a_pixel(dem: Dem) -> float:
    found = ground_sample_distance(dem.grid.crs, dem.grid.transform, dem.grid.height, dem.grid.width)
    return math.sqrt(found[0] * found[1]) if found else math.sqrt(dem.size[0] * dem.size[1])
