"""Reading a coarse DEM under a scene: its own cells, and where they are uneven there, even ones that show them."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

from Utils.core.errors import UserError
from Utils.rasters.coordinates import horizontal_crs, longitude_period
from Utils.rasters.datum_shift import DatumShift
from Utils.rasters.environment import gdal_environment
from Utils.rasters.geometry import Geometry
from Utils.rasters.ground import has_transform
from Utils.rasters.height_units import height_unit
from Utils.rasters.places import gdal_name, raster_place
from Utils.rasters.planetary.product_label import product_reference
from Utils.rasters.suspect_heights import ground_limits
from Utils.rasters.tile_files import GDAL_ERRORS, check_blocks
from Utils.rasters.trusted_heights import Doubts, Place, trusted_heights
from Utils.rasters.vertical_datum import UNKNOWN, VerticalDatum, datum_of
from Utils.scenes.fusion.cell_plan import CellPlan, plan_cells
from Utils.scenes.fusion.cells import Cells, CoarseHeights, average_onto, border_cells
from Utils.scenes.fusion.uneven_cells import UnevenCells

__all__ = ["REFERENCE_TAG", "Cells", "CoarseHeights", "Geometry", "average_onto", "border_cells", "read_reference"]

logger = logging.getLogger(__name__)

# Fewer cells than this wholly inside the scene cannot tell the scale of the model's map.
_FEWEST_CELLS = 8
_FEW = 10_000  # cells under a scene among which there are surely enough
_SAME_PLACE = 0.01
REFERENCE_TAG = "HEIGHT_REFERENCE"
"""The tag by which heights of other bodies say what they are counted from: areoid or radius."""
# No ground of a planet or moon has such heights, and hardly any has a smaller radius.
_LEAST_RADIUS = 100_000.0
_REMEDY = "--keep-outliers takes them as heights, --reference-nodata names a void value"


def read_reference(
    path: Path,
    scene: Geometry,
    nodata: float | None = None,
    keep_outliers: bool = False,
    datum: VerticalDatum = UNKNOWN,
) -> CoarseHeights:
    """Read a reference DEM under a scene.

    Args:
        path: any raster with one band of heights, in any CRS and resolution; voids by nodata, mask or NaN.
        scene: the place under which it is read.
        nodata: a value that means no data, in addition to the one that the file names.
        keep_outliers: whether undeclared void values, impossible heights and wrong single cells are taken as heights.
        datum: what the heights shall refer to; where the file says another one, they are brought to it.

    Raises:
        UserError: unreadable, no CRS, more bands, no overlap, cells too wide for the scene, or nothing but voids under
            the scene.
    """
    path = raster_place(path)
    try:
        with gdal_environment(), ExitStack() as stack:
            source = stack.enter_context(rasterio.open(gdal_name(path)))
            _check(path, source)
            check_blocks(path, source)
            plan = plan_cells(path, source, scene)
            told = source.tags().get(REFERENCE_TAG, "")
            name, crs, own = source.name, source.crs, datum_of(path, source)
            _, unit = height_unit(f"--reference {path}", source, 1)
            place = Place(plan.grid.crs, plan.grid.transform, plan.grid.height, plan.grid.width)
            doubts = Doubts(f"--reference '{path}'", _REMEDY, unit, nodata, not keep_outliers, not keep_outliers)
            source, _, left_out = stack.enter_context(trusted_heights(source, 1, place, doubts))
            heights = _own_cells(source, plan)
            heights = heights * np.float32(source.scales[0]) + np.float32(source.offsets[0])
    except GDAL_ERRORS as error:
        raise UserError(f"--reference '{path}' cannot be read: {' '.join(str(error).split())}") from error
    if unit != 1.0:
        logger.info("reference: heights in units of %g m, converted to metres", unit)
        heights = heights * np.float32(unit)
    heights, own = _brought_to(datum, own, heights, plan.grid, path)
    uneven = None if plan.even is None else UnevenCells(heights, plan.grid)
    grid = plan.grid if plan.even is None else plan.even
    heights = heights if uneven is None else uneven.shown(grid)
    described = {
        "file": Path(name).name,
        "crs": crs.to_string(),
        "cells": [grid.height, grid.width],
        "averaged": round(plan.averaged, 3) if plan.averaged > 1.01 else 1,
        "pixels_a_cell": round(plan.pixels, 3),
        "void_share": float(np.isnan(heights).mean()),
        "left_out": left_out.describe(),
        "vertical_datum": own.describe(),
    }
    if not np.isfinite(ground_limits(crs)).all():
        described["height_reference"] = _counted_from(path, told, heights)
    found = CoarseHeights(heights, grid, plan.pixels, described, uneven, own)
    _check_support(path, found, scene)
    return found


def _counted_from(path: Path, told: str, heights: Cells) -> str:
    """What heights of another body are counted from: by the file's tag, its name or label, or their size."""
    known = heights[np.isfinite(heights)]
    size = float(np.median(np.abs(known))) if known.size else 0.0
    stated = (told, f"tag {REFERENCE_TAG}") if told else product_reference(path)
    is_radius = size > _LEAST_RADIUS
    if stated is not None and stated[0] in ("areoid", "radius") and (stated[0] == "radius") != is_radius:
        logger.warning(
            "--reference '%s': %s says %s, which heights of %.0f m are not; that is not used", path, *stated[::-1], size
        )
        stated = None
    seen, by = stated or (("radius", "their size") if is_radius else ("unknown", "neither tag nor label tells it"))
    logger.info(
        "reference: '%s' counts heights from: %s (%s; median size %.0f m); the output's heights are counted alike",
        path,
        seen,
        by,
        size,
    )
    return seen


def _brought_to(
    wanted: VerticalDatum, own: VerticalDatum, heights: Cells, grid: Geometry, path: Path
) -> tuple[Cells, VerticalDatum]:
    """Cells in the wanted datum, and the datum that they are in then: the file's where none is wanted."""
    if not wanted.known:
        return heights, own
    if not own.known:
        logger.info("--reference '%s': its heights are taken as those of %s", path, wanted.label)
        return heights, wanted
    if own.same_as(wanted):
        return heights, wanted
    shift = DatumShift(own, wanted, grid.crs, f"--reference '{path}'")
    metres = shift.over(grid.transform, 0, 0, grid.height, grid.width).astype(np.float32)
    middle = float(metres[grid.height // 2, grid.width // 2])
    logger.info("reference: heights brought from %s to %s, %+.2f m in the middle", own.label, wanted.label, middle)
    return heights + metres, wanted


def _check(path: Path, source: Any) -> None:
    if not has_transform(source.transform):
        means = " but by control points or RPCs; rectify it first (gdalwarp IN OUT)" if _placed(source) else ""
        raise UserError(f"--reference '{path}' is not georeferenced{means or '; set its place (gdal_edit -a_ullr)'}")
    if source.crs is None:
        raise UserError(f"--reference '{path}' has no CRS, so nobody knows where it lies; set it (gdal_edit -a_srs)")
    if source.count - (rasterio.enums.ColorInterp.alpha in source.colorinterp) != 1:
        raise UserError(f"--reference '{path}' has {source.count} bands; give a DEM with one")
    if np.issubdtype(np.dtype(source.dtypes[0]), np.complexfloating):
        raise UserError(f"--reference '{path}' holds complex numbers; give a DEM")


def _placed(source: Any) -> bool:
    return bool(source.gcps[0] or source.rpcs)


def _own_cells(source: Any, plan: CellPlan) -> Cells:
    """Cells of the DEM, or means of them: (h, w), NaN in voids."""
    grid, period = plan.grid, longitude_period(plan.grid.crs) or 0.0
    heights = np.full((grid.height, grid.width), np.nan, np.float32)
    for turn in plan.turns:
        method = Resampling.average if plan.averaged > 1.01 else Resampling.nearest
        if turn != plan.turns[0] and method == Resampling.nearest and not _fits(grid, (turn - plan.turns[0]) * period):
            method = Resampling.cubic  # no whole number of cells goes round the Earth
        place = Affine.translation(-turn * period, 0.0) @ grid.transform if turn else grid.transform
        part = _read(source, replace(grid, transform=place), method)
        heights = np.where(np.isnan(heights), part, heights)
    return heights


def _fits(grid: Geometry, moved: float) -> bool:
    """Whether a grid that is moved along x falls onto itself, to a hundredth of a cell."""
    column, row = ~grid.transform @ (grid.transform.c + moved, grid.transform.f)
    return abs(column - round(column)) < _SAME_PLACE and abs(row - round(row)) < _SAME_PLACE


def _read(source: Any, grid: Geometry, method: Resampling) -> Cells:
    """The DEM on a grid; NaN in voids."""
    with WarpedVRT(
        source,
        src_crs=horizontal_crs(source.crs),
        crs=grid.crs,
        transform=grid.transform,
        height=grid.height,
        width=grid.width,
        resampling=method,
        dtype="float32",
        nodata=float("nan"),
    ) as warped:
        heights: Cells = warped.read(1, masked=True).astype(np.float32).filled(np.nan)
    heights[~np.isfinite(heights)] = np.nan
    return heights


def _check_support(path: Path, found: CoarseHeights, scene: Geometry) -> None:
    """Refuse a reference that cannot tell the scale of the model's map, before that map is made."""
    under = found.part(scene)
    if under is None or not np.isfinite(under.heights).any():
        raise UserError(f"--reference '{path}' has no heights where the scene lies: nothing but voids there")
    if under.heights.size > _FEW:
        return
    place = under.geometry
    rows, columns = (grid.ravel() for grid in np.mgrid[: place.height + 1, : place.width + 1])
    rows, columns = scene.place(*place.coordinates(rows, columns), place.crs)
    beyond = 0.25 * found.pixels_a_cell
    inside = (rows > -beyond) & (rows < scene.height + beyond) & (columns > -beyond) & (columns < scene.width + beyond)
    corners = inside.reshape(place.height + 1, place.width + 1)
    whole = corners[:-1, :-1] & corners[1:, :-1] & corners[:-1, 1:] & corners[1:, 1:]
    count = int((whole & np.isfinite(under.heights)).sum())
    if count < _FEWEST_CELLS:
        raise UserError(
            f"--reference '{path}' is too coarse for this scene: a cell is {found.pixels_a_cell:.0f} pixels wide, and "
            f"{count} cells with heights lie wholly inside the scene, where {_FEWEST_CELLS} are needed to scale "
            "the model's map; give a finer DEM, a larger scene, or --points"
        )
