"""A coarse DEM under a scene: read on its own grid, and other maps averaged onto that grid."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.coords import disjoint_bounds
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.features import rasterize
from rasterio.transform import rowcol
from rasterio.vrt import WarpedVRT
from rasterio.warp import reproject, transform

from Utils.core.errors import UserError
from Utils.rasters.environment import gdal_environment
from Utils.rasters.tile_files import GDAL_ERRORS, check_blocks

logger = logging.getLogger(__name__)

Cells = NDArray[np.float32]

# Most cells that are held in memory; a finer reference is averaged to coarser cells.
_MOST_CELLS_A_SIDE = 4096
# A reference as fine as the scene would leave the model nothing to add: its cells are averaged to this many pixels.
_FEWEST_PIXELS_A_CELL = 2.0
_MARGIN = 8  # cells beyond the scene, so that interpolation has cells on both sides of its border
_METRES = {"": 1.0, "m": 1.0, "metre": 1.0, "metres": 1.0, "meter": 1.0, "meters": 1.0, "cm": 0.01, "dm": 0.1}
_METRES |= {"ft": 0.3048, "foot": 0.3048, "feet": 0.3048, "us-ft": 1200 / 3937, "us survey foot": 1200 / 3937}


@dataclass(frozen=True)
class Geometry:
    """Where the pixels of a scene lie.

    Attributes:
        height: rows.
        width: columns.
        crs: its coordinate reference system.
        transform: from (column, row) to coordinates; may be rotated.
    """

    height: int
    width: int
    crs: CRS
    transform: Affine

    def window(self, row: int, column: int, height: int, width: int) -> Geometry:
        """The geometry of a part of the scene."""
        return Geometry(height, width, self.crs, self.transform @ Affine.translation(column, row))

    def grown(self, pixels: int) -> Geometry:
        """The geometry with a border of so many pixels around it."""
        return self.window(-pixels, -pixels, self.height + 2 * pixels, self.width + 2 * pixels)

    def _coordinates(
        self, columns: NDArray[np.float64], rows: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        to = self.transform
        return to.a * columns + to.b * rows + to.c, to.d * columns + to.e * rows + to.f

    def locate(self, other: Geometry) -> NDArray[np.float64]:
        """Rows and columns, (2, H, W), of this grid under each pixel centre of another; 0 is the first cell's centre.

        It is exact at every 32nd pixel and linear between them, where projections bend by less than a thousandth of a
        pixel.
        """
        rows, columns = (_nodes(length) for length in (other.height, other.width))
        xs, ys = other._coordinates(np.tile(columns + 0.5, len(rows)), np.repeat(rows + 0.5, len(columns)))
        there = transform(other.crs, self.crs, xs, ys)
        place = ~self.transform @ (np.asarray(there[0]), np.asarray(there[1]))
        nodes = [np.asarray(values).reshape(len(rows), len(columns)) - 0.5 for values in (place[1], place[0])]
        down = np.interp(np.arange(other.height), rows, np.arange(len(rows)))
        across = np.interp(np.arange(other.width), columns, np.arange(len(columns)))
        return np.stack([_between(values, down, across) for values in nodes])

    def outline(
        self, crs: CRS, points: int = 33, margin: float = 0.0
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Coordinates (x, y) in another system along the border, or ``margin`` pixels outside it; closed."""
        step = np.linspace(0.0, 1.0, points)[:-1]
        zeros, ones = np.zeros_like(step), np.ones_like(step)
        columns = np.concatenate([step, ones, 1 - step, zeros, [0.0]]) * (self.width + 2 * margin) - margin
        rows = np.concatenate([zeros, step, ones, 1 - step, [0.0]]) * (self.height + 2 * margin) - margin
        xs, ys = self._coordinates(columns, rows)
        out = transform(self.crs, crs, xs, ys)
        return np.asarray(out[0]), np.asarray(out[1])


@dataclass(frozen=True)
class CoarseHeights:
    """A reference DEM where a scene lies, with a margin.

    Attributes:
        heights: (h, w) in metres, NaN in voids.
        geometry: where these cells lie.
        pixels_a_cell: side of a cell in pixels of the scene.
        description: facts on the reference for the results.
    """

    heights: Cells
    geometry: Geometry
    pixels_a_cell: float
    description: dict[str, Any]

    def part(self, scene: Geometry) -> CoarseHeights | None:
        """The cells under a part of the scene; None where there are none."""
        xs, ys = scene.outline(self.geometry.crs, points=5)
        rows, columns = rowcol(self.geometry.transform, xs, ys, op=float)
        top, left = max(0, math.floor(np.min(rows))), max(0, math.floor(np.min(columns)))
        bottom = min(self.geometry.height, math.ceil(np.max(rows)) + 1)
        right = min(self.geometry.width, math.ceil(np.max(columns)) + 1)
        if top >= bottom or left >= right:
            return None
        geometry = self.geometry.window(top, left, bottom - top, right - left)
        return replace(self, heights=self.heights[top:bottom, left:right], geometry=geometry)


def read_reference(path: Path, scene: Geometry, nodata: float | None = None) -> CoarseHeights:
    """Read a reference DEM under a scene.

    Args:
        path: any raster with one band of heights, in any CRS and resolution; voids by nodata, mask or NaN.
        scene: the place under which it is read.
        nodata: a value that means no data, in addition to the one that the file names.

    Raises:
        UserError: unreadable, no CRS, more bands, no overlap, or nothing but voids under the scene.
    """
    try:
        with gdal_environment(), rasterio.open(path) as source:
            _check(path, source)
            check_blocks(path, source)
            grid = _grid(path, source, scene)
            step = grid.transform.a / _north_up(source).a
            options = {
                "crs": source.crs,
                "transform": grid.transform,
                "height": grid.height,
                "width": grid.width,
                "resampling": Resampling.average if step > 1.01 else Resampling.nearest,
                "dtype": "float32",
                "nodata": float("nan"),
            }
            if nodata is not None:
                options["src_nodata"] = nodata
            elif source.nodata is None and source.mask_flag_enums[0] != [rasterio.enums.MaskFlags.all_valid]:
                options["add_alpha"] = True
            with WarpedVRT(source, **options) as warped:
                heights = warped.read(1, masked=True).astype(np.float32).filled(np.nan)
            heights[~np.isfinite(heights)] = np.nan
            heights = heights * np.float32(source.scales[0]) + np.float32(source.offsets[0])
            unit = (source.units[0] or "").strip().lower()
            name, crs = source.name, source.crs
    except GDAL_ERRORS as error:
        raise UserError(f"--reference '{path}' cannot be read: {' '.join(str(error).split())}") from error
    if unit not in _METRES:
        raise UserError(f"--reference '{path}' has heights in '{unit}'; convert them to metres")
    if _METRES[unit] != 1.0:
        logger.info("reference: heights in %s, converted to metres", unit)
        heights = heights * np.float32(_METRES[unit])
    pixels = _pixels_a_cell(scene, grid)
    described = {
        "file": Path(name).name,
        "crs": crs.to_string(),
        "cells": [grid.height, grid.width],
        "averaged": round(step, 3) if step > 1.01 else 1,
        "pixels_a_cell": round(pixels, 3),
        "void_share": float(np.isnan(heights).mean()),
    }
    found = CoarseHeights(heights, grid, pixels, described)
    under = found.part(scene)
    if under is None or not np.isfinite(under.heights).any():
        raise UserError(f"--reference '{path}' has no heights where the scene lies: nothing but voids there")
    return found


def average_onto(target: Geometry, values: Any, scene: Geometry | None = None) -> Cells:
    """Mean of a finer map in each cell of a coarser grid, over the finer map's finite pixels; NaN where it has none.

    Args:
        target: the coarse grid.
        values: a map (H, W) with NaN where invalid, or ``rasterio.band`` of a file that names its nodata.
        scene: where the pixels of an array lie.
    """
    cells = np.full((target.height, target.width), np.nan, np.float32)
    where = {} if scene is None else {"src_transform": scene.transform, "src_crs": scene.crs}
    reproject(
        values,
        cells,
        **where,
        src_nodata=np.nan if scene is not None else None,
        dst_transform=target.transform,
        dst_crs=target.crs,
        dst_nodata=np.nan,
        resampling=Resampling.average,
        warp_mem_limit=256,
    )
    return cells


def border_cells(reference: CoarseHeights, scene: Geometry) -> NDArray[np.bool_]:
    """Cells (h, w) that the scene's border crosses: the mean over their part inside is not the mean of the cell.

    A cell that reaches beyond the border by at most a tenth of its side counts as inside.
    """
    target = reference.geometry
    xs, ys = scene.outline(target.crs, margin=0.1 * reference.pixels_a_cell)
    line = {"type": "LineString", "coordinates": list(zip(xs.tolist(), ys.tolist(), strict=True))}
    shape = (target.height, target.width)
    touched = rasterize([(line, 1)], out_shape=shape, transform=target.transform, all_touched=True, dtype=np.uint8)
    return touched.astype(bool)


def _nodes(length: int) -> NDArray[np.float64]:
    """The positions of every 32nd of so many pixels, and of the last."""
    return np.unique(np.append(np.arange(0.0, length, 32.0), length - 1.0))


def _between(
    nodes: NDArray[np.float64], rows: NDArray[np.float64], columns: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Bilinear values (H, W) at fractional rows (H,) and columns (W,) of nodes."""

    def along(values: NDArray[np.float64], places: NDArray[np.float64]) -> NDArray[np.float64]:
        low = np.minimum(places.astype(int), max(len(values) - 2, 0))
        share = (places - low)[:, None]
        return (1.0 - share) * values[low] + share * values[np.minimum(low + 1, len(values) - 1)]

    return along(along(nodes, rows).T, columns).T


def _check(path: Path, source: Any) -> None:
    if source.crs is None:
        raise UserError(f"--reference '{path}' has no CRS, so nobody knows where it lies; set it (gdal_edit -a_srs)")
    if source.count - (rasterio.enums.ColorInterp.alpha in source.colorinterp) != 1:
        raise UserError(f"--reference '{path}' has {source.count} bands; give a DEM with one")
    if np.issubdtype(np.dtype(source.dtypes[0]), np.complexfloating):
        raise UserError(f"--reference '{path}' holds complex numbers; give a DEM")


def _north_up(source: Any) -> Affine:
    """The reference's own grid, or, if that is rotated, an upright one of the same resolution."""
    if source.transform.b == source.transform.d == 0 and source.transform.a > 0 > source.transform.e:
        return source.transform
    with WarpedVRT(source, crs=source.crs) as upright:
        return upright.transform


def _grid(path: Path, source: Any, scene: Geometry) -> Geometry:
    """The reference's cells under the scene and a margin around it, coarser if there would be too many."""
    own = Geometry(source.height, source.width, source.crs, _north_up(source))
    try:
        xs, ys = scene.outline(source.crs)
    except rasterio.errors.RasterioError as error:
        raise UserError(f"--reference '{path}': the scene's CRS cannot be transformed to its own ({error})") from error
    rows, columns = rowcol(own.transform, xs, ys, op=float)
    if not (np.isfinite(rows).all() and np.isfinite(columns).all()):
        raise UserError(f"--reference '{path}': the scene lies outside of what its CRS ({source.crs}) can express")
    left, bottom, right, top = source.bounds
    if disjoint_bounds(source.bounds, (min(xs), min(ys), max(xs), max(ys))):
        raise UserError(
            f"--reference '{path}' does not overlap the scene: it spans x {left:g} to {right:g}, y {bottom:g} to "
            f"{top:g}, the scene x {min(xs):g} to {max(xs):g}, y {min(ys):g} to {max(ys):g} ({source.crs})"
        )
    most = max(np.ptp(rows), np.ptp(columns)) / _MOST_CELLS_A_SIDE
    step = max(1.0, _FEWEST_PIXELS_A_CELL / _pixels_a_cell(scene, own), most)
    first = math.floor(min(rows) / step) - _MARGIN, math.floor(min(columns) / step) - _MARGIN
    last = math.ceil(max(rows) / step) + _MARGIN, math.ceil(max(columns) / step) + _MARGIN
    coarser = own.transform @ Affine.scale(step)
    return Geometry(own.height, own.width, own.crs, coarser).window(
        first[0], first[1], last[0] - first[0], last[1] - first[1]
    )


def _pixels_a_cell(scene: Geometry, cells: Geometry) -> float:
    """Side of a cell in pixels of the scene, from the areas at the scene's centre."""
    centre = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    xs, ys = scene.transform @ (centre[0] + scene.width / 2, centre[1] + scene.height / 2)
    there = transform(scene.crs, cells.crs, xs, ys)
    rows, columns = rowcol(cells.transform, *there, op=float)
    area = (columns[1] - columns[0]) * (rows[2] - rows[0]) - (columns[2] - columns[0]) * (rows[1] - rows[0])
    return 1.0 / math.sqrt(max(abs(float(area)), 1e-18))
