"""Which cells of a DEM are read under a scene: its own where they are even, else ones along the scene's pixels too."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS

from Utils.core.errors import UserError
from Utils.rasters.coordinates import (
    TRANSFORM_ERRORS,
    horizontal_crs,
    longitude_period,
    on_earth,
    transformed,
)
from Utils.rasters.geometry import Geometry
from Utils.rasters.grids import cell_lattice
from Utils.scenes.fusion.uneven_cells import around

__all__ = ["CellPlan", "plan_cells"]

# Most cells that are held in memory; a finer reference is averaged to coarser cells.
_MOST_CELLS_A_SIDE = 4096
# A reference as fine as the scene would leave the model nothing to add: its cells are averaged to this many pixels.
_FEWEST_PIXELS_A_CELL = 2.0
_MARGIN = 8  # cells beyond the scene, so that interpolation has cells on both sides of its border
_SLIVER = 1e-3  # share of a cell by which a scene may reach into the next
# Near a pole the cells of a DEM in degrees are slivers: they are joined until they are about so many times as long as
# wide.
_LONGEST_CELL = 4.0
# Where one cell under the scene is so many times as large as another, in pixels, as around a pole, the DEM's own grid
# does not serve.
_MOST_UNEVEN = 4.0
# Uneven cells are shown on even ones with this share of their usual side, so that the smaller ones show, too.
_EVEN_SIDE = 0.7
_MOST_EVEN_CELLS_A_SIDE = 2048


@dataclass(frozen=True)
class CellPlan:
    """How a DEM is read.

    Attributes:
        grid: the DEM's own cells under the scene and a margin, or several of them joined.
        pixels: side of a cell in pixels of the scene.
        averaged: how many of the DEM's own cells lie along its side.
        turns: by how many whole turns of longitude the DEM is moved to lie under the grid, in the order of preference.
        even: square cells along the scene's pixels that show those of the DEM where these are uneven; else None.
            ``pixels`` is then the side of these.
    """

    grid: Geometry
    pixels: float
    averaged: float
    turns: tuple[int, ...]
    even: Geometry | None = None


def plan_cells(path: Path, source: Any, scene: Geometry) -> CellPlan:
    """Choose the cells to read, coarser than the DEM's where there would be too many.

    Args:
        path: of the DEM, for messages.
        source: the DEM, open, with a CRS and a transform.
        scene: where the scene's pixels lie.

    Raises:
        UserError: no way leads from the scene's CRS to the DEM's, or they show different places.
    """
    crs = _horizontal(path, source, scene)
    lattice, height, width = cell_lattice(source.transform, source.height, source.width)
    own = Geometry(height, width, crs, lattice)
    _check_axes(path, own)
    # Longitudes go on steadily from the scene's middle, so that those of a scene across 180 degrees do not jump.
    middle = float(transformed(scene.crs, crs, *scene.centre)[0][0])
    near = middle if math.isfinite(middle) else None
    rows, columns = own.outline_of(scene, near=near)
    change = own.steps(scene, near=near)
    known = np.isfinite(rows) & np.isfinite(columns)
    if not known.any() or not np.isfinite(change).all(axis=(-2, -1)).any():
        raise UserError(f"--reference '{path}': the scene lies outside of what its CRS ({source.crs}) can express")
    if not known.all() or _uneven(own, scene, change):
        plan = _along_pixels(own, scene, change)
        if plan is None:
            raise _no_overlap(path, source, own, scene)
        return plan
    box = (float(min(rows)), float(min(columns)), float(max(rows)), float(max(columns)))
    turns = _turns(own, box)
    if not turns:
        raise _no_overlap(path, source, own, scene)
    # The cells under the grid are those of the DEM as it lies after this turn; other pieces need not fit onto them.
    period = longitude_period(crs) or 0.0
    own = Geometry(own.height, own.width, crs, Affine.translation(turns[0] * period, 0.0) @ own.transform)
    rows, columns = own.outline_of(scene, near=near)
    box = (float(min(rows)), float(min(columns)), float(max(rows)), float(max(columns)))
    down, across = _joined(change, (box[2] - box[0], box[3] - box[1]))
    # A scene that ends with a cell ends there in all units, whatever the rounding.
    first = (math.floor(box[0] / down + _SLIVER) - _MARGIN, math.floor(box[1] / across + _SLIVER) - _MARGIN)
    last = (math.ceil(box[2] / down - _SLIVER) + _MARGIN, math.ceil(box[3] / across - _SLIVER) + _MARGIN)
    coarser = Geometry(own.height, own.width, crs, own.transform @ Affine.scale(across, down))
    grid = coarser.window(first[0], first[1], last[0] - first[0], last[1] - first[1])
    box = (first[0] * down, first[1] * across, last[0] * down, last[1] * across)
    pieces = tuple(turn + turns[0] for turn in _turns(own, box))
    return CellPlan(grid, _pixels_a_cell(scene, grid), math.sqrt(down * across), pieces)


def _horizontal(path: Path, source: Any, scene: Geometry) -> CRS:
    """The DEM's CRS without heights; refused where no way leads there from the scene's."""
    crs = horizontal_crs(source.crs)
    assert crs is not None, "checked before"
    for what, one in (("it", crs), ("the scene", scene.crs)):
        if crs != scene.crs and not on_earth(one):
            raise UserError(
                f"--reference '{path}': {what} has a local CRS ({one.to_wkt()[:60]}), of which nobody knows where on "
                "Earth it lies; give both one that does (gdal_edit -a_srs)"
            )
    try:
        transformed(scene.crs, crs, *scene.centre)
    except TRANSFORM_ERRORS as error:
        why = " ".join(str(error).split())
        raise UserError(f"--reference '{path}': the scene's CRS cannot be transformed to its own ({why})") from error
    return crs


def _check_axes(path: Path, own: Geometry) -> None:
    """Refuse latitudes beyond a pole, which come from coordinates in the wrong order or unit."""
    period = longitude_period(own.crs)
    if period is None:
        return
    _, ys = own.coordinates([0, own.height, 0, own.height], [0, 0, own.width, own.width])
    # Grids whose outermost cells are centred on the poles end half a cell beyond them.
    if np.abs(ys).max() > period / 4 + max(np.ptp(ys) / own.height, 1e-9 * period):
        raise UserError(
            f"--reference '{path}' has latitudes from {ys.min():g} to {ys.max():g} ({own.crs}), beyond a pole: its "
            "axes are swapped, or its CRS is not the one that it was made in; correct it (gdal_edit -a_ullr, -a_srs)"
        )


def _no_overlap(path: Path, source: Any, own: Geometry, scene: Geometry) -> UserError:
    xs, ys = scene.outline(own.crs)
    corners = own.coordinates([0, own.height, 0, own.height], [0, 0, own.width, own.width])
    (left, right), (bottom, top) = ((side.min(), side.max()) for side in corners)
    swapped = not _apart(ys, left, right) and not _apart(xs, bottom, top)
    return UserError(
        f"--reference '{path}' does not overlap the scene: it spans x {left:g} to {right:g}, y {bottom:g} to "
        f"{top:g}, the scene x {np.nanmin(xs):g} to {np.nanmax(xs):g}, y {np.nanmin(ys):g} to {np.nanmax(ys):g} "
        f"({source.crs}){'; with x and y swapped it would' if swapped else ''}"
    )


def _apart(values: NDArray[np.float64], low: float, high: float) -> bool:
    return bool(np.nanmax(values) <= low or np.nanmin(values) >= high)


def _turns(own: Geometry, box: tuple[float, float, float, float]) -> tuple[int, ...]:
    """By how many whole turns of longitude the DEM must be moved to meet a box of its rows and columns.

    The turn after which it covers most of the box comes first.
    """
    period = longitude_period(own.crs)
    top, left, bottom, right = box
    found = []
    for turn in (0,) if period is None else (0, -1, 1, -2, 2):
        x, y = own.transform.c + turn * (period or 0.0), own.transform.f
        column, row = ~own.transform @ (x, y)
        down, across = min(bottom, row + own.height) - max(top, row), min(right, column + own.width) - max(left, column)
        if down > 0 and across > 0:
            found.append((-across, turn))
    return tuple(turn for _, turn in sorted(found))


def _uneven(own: Geometry, scene: Geometry, change: NDArray[np.float64]) -> bool:
    """Whether the DEM's cells differ much in size under the scene, or run together in a pole inside it."""
    areas = np.abs(np.linalg.det(change)) if np.isfinite(change).all() else np.zeros(1)
    if areas.min() <= 0 or areas.max() > _MOST_UNEVEN * areas.min():
        return True
    period = longitude_period(own.crs)
    if period is None or own.crs == scene.crs:
        return False
    rows, columns = scene.place([0.0, 0.0], [-period / 4, period / 4], own.crs)
    inside = (np.abs(rows / scene.height - 0.5) < 0.6) & (np.abs(columns / scene.width - 0.5) < 0.6)
    return bool(inside.any())


def _sides(change: NDArray[np.float64]) -> NDArray[np.float64]:
    """Usual length of a cell along its rows and its columns, (2,): down and across, in pixels of the scene."""
    known = change[np.isfinite(change).all(axis=(-2, -1))]
    known = known[np.abs(np.linalg.det(known)) > 0]
    return np.asarray(np.median(np.linalg.norm(np.linalg.inv(known), axis=-2), axis=0))


def _joined(change: NDArray[np.float64], counts: tuple[float, float]) -> tuple[float, float]:
    """How many cells to join down and across, so that none is a sliver, too fine, or one of too many.

    Cells are joined along their short side alone until they are as wide as long, or large enough: what a DEM shows
    along the long side of its cells is not averaged away because the short side is fine.

    Args:
        change: (..., 2, 2), rows and columns of the DEM for a step of a pixel.
        counts: rows and columns of the DEM under the scene.
    """
    sides = _sides(change)
    short, long = sorted(sides)
    least = max(_FEWEST_PIXELS_A_CELL, *(sides * counts / _MOST_CELLS_A_SIDE))
    # A cell a little longer than that is not halved.
    slivers = math.ceil(long / short / _LONGEST_CELL - 0.05)
    times = max(1, slivers, min(round(long / short), math.ceil(least**2 / (short * long))))
    joined = (times, 1) if sides[0] < sides[1] else (1, times)
    if short * times * long >= least**2:
        return joined
    down, across = (max(1.0, least / (times * side)) * times for times, side in zip(joined, sides, strict=True))
    return down, across


def _along_pixels(own: Geometry, scene: Geometry, change: NDArray[np.float64]) -> CellPlan | None:
    """Square cells along the scene's pixels, somewhat smaller than the DEM's usually are there; None off the DEM."""
    usual = math.sqrt(math.prod(_sides(change)))
    side = max(_FEWEST_PIXELS_A_CELL, _EVEN_SIDE * usual, max(scene.height, scene.width) / _MOST_EVEN_CELLS_A_SIDE)
    coarse = Geometry(math.ceil(scene.height / side), math.ceil(scene.width / side), scene.crs, scene.transform)
    grid = Geometry(coarse.height, coarse.width, scene.crs, scene.transform @ Affine.scale(side)).grown(_MARGIN)
    # Far finer cells are joined. Where they are longest, two lie on a side of the grid's, as those are as long there.
    known = change[np.isfinite(change).all(axis=(-2, -1))]
    known = known[np.abs(np.linalg.det(known)) > 0]
    longest = np.linalg.norm(np.linalg.inv(known), axis=-2).max(axis=0)
    down, across = (max(1, int(side / 2 / one)) for one in longest)
    joined = Geometry(
        math.ceil(own.height / down),
        math.ceil(own.width / across),
        own.crs,
        own.transform @ Affine.scale(across, down),
    )
    uneven = _under(joined, grid)
    return None if uneven is None else CellPlan(uneven, side, math.sqrt(down * across), (0,), grid)


def _under(cells: Geometry, grid: Geometry) -> Geometry | None:
    """Those of a DEM's cells that lie under a grid, all around the Earth where a pole is near; None where none does."""
    down, across = (side.ravel() for side in np.meshgrid(*(np.linspace(0, n, 65) for n in (grid.height, grid.width))))
    rows, columns = cells.place(*grid.coordinates(down, across), grid.crs)
    turn = around(cells)
    columns = columns if turn is None else columns % turn
    known = np.isfinite(rows) & np.isfinite(columns)
    if not known.any():
        return None
    ends = []
    for found, count in ((rows[known], cells.height), (columns[known], cells.width)):
        beyond = 2.0 + 0.1 * np.ptp(found)  # the grid reaches beyond these places, and so does the pole
        ends.append((max(0, math.floor(found.min() - beyond)), min(count, math.ceil(found.max() + beyond))))
    (top, bottom), (left, right) = ends
    return cells.window(top, left, bottom - top, right - left) if top < bottom and left < right else None


def _pixels_a_cell(scene: Geometry, cells: Geometry, near: float | None = None) -> float:
    """Side of a cell in pixels of the scene, from the areas at the scene's centre."""
    row, column = scene.height / 2, scene.width / 2
    xs, ys = scene.coordinates([row, row, row + 1], [column, column + 1, column])
    rows, columns = cells.place(xs, ys, scene.crs, near)
    area = (columns[1] - columns[0]) * (rows[2] - rows[0]) - (columns[2] - columns[0]) * (rows[1] - rows[0])
    return 1.0 / math.sqrt(max(abs(float(area)), 1e-18))
