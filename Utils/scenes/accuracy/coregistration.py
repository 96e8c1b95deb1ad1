"""By how much a height map is shifted against the truth (Nuth and Kaab, 2011), and the map moved back.

A shift is found in pixels of the prediction's grid, so that it holds on any grid and on any planet. Large scenes are
sampled: blocks of pixels, spread over the scene, are laid side by side.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from affine import Affine
from rasterio.crs import CRS
from rasterio.windows import Window

from Utils.core.errors import UserError
from Utils.core.survey_library import survey_library
from Utils.rasters.ground import metres_per_unit
from Utils.scenes.accuracy.height_grid import Grid
from Utils.scenes.accuracy.height_maps import BoolArray, HeightMap, Maps, inner
from Utils.scenes.accuracy.scene_scores import PREDICTION, FloatArray, HeightFit
from Utils.scenes.accuracy.shifts import Shift
from Utils.scenes.accuracy.stable_ground import StableGround

__all__ = ["ShiftedMap", "find_shifts", "moved", "shift_in_metres"]

logger = logging.getLogger(__name__)

_SIDE = 512
_BLOCKS_A_SIDE = 4  # blocks of a large scene; a smaller one is cut into as many
_GUTTER = 4  # pixels of nothing between blocks that are laid side by side
_FEWEST = 200  # pixels that a shift can be found from
_FEWEST_OF_A_BLOCK = 400
_FARTHEST = 20.0  # pixels; beyond it the method has lost its way, or the files are of two places
_LEAST_LEFT = 0.1  # pixels that a second run may still find
_OUTLIER = 4.0  # robust standard deviations beyond which ground counts as changed
_ANY_METRES = CRS.from_epsg(32631)  # xdem asks for a projected system; here a pixel is its metre
_MAD = 1.4826


@dataclass(frozen=True)
class _Block:
    """Where a block of (H, W) pixels came from, and its part of the sheet."""

    window: Window
    rows: slice
    columns: slice


class ShiftedMap(HeightMap):
    """A height map moved by a part of a pixel, bilinearly, and raised: NaN where one of four neighbours is unknown."""

    def __init__(self, whole: HeightMap, shift: Shift, metres: float) -> None:
        super().__init__(whole.path, whole._reader, whole._band, whole._scaling, whole._lift)
        self._whole, self._shift, self._metres = whole, shift, metres

    def read(self, window: Window) -> FloatArray:
        """(H, W), as for any map."""
        row, column = window.row_off - self._shift.rows, window.col_off - self._shift.columns
        top, left = math.floor(row), math.floor(column)
        wide = Window(left, top, window.width + 1, window.height + 1)
        return bilinear(self._beyond(wide), row - top, column - left) + self._metres

    def _beyond(self, window: Window) -> FloatArray:
        """A window that may reach beyond the raster: NaN there."""
        top, left = max(window.row_off, 0), max(window.col_off, 0)
        bottom = min(window.row_off + window.height, self._reader.height)
        right = min(window.col_off + window.width, self._reader.width)
        values = np.full((window.height, window.width), np.nan)
        if top < bottom and left < right:
            part = self._whole.read(Window(left, top, right - left, bottom - top))
            row, column = top - window.row_off, left - window.col_off
            values[row : row + bottom - top, column : column + right - left] = part
        return values


def bilinear(values: FloatArray, down: float, right: float) -> FloatArray:
    """(H, W) of (H + 1, W + 1) values, so far (0..1) below and right of their upper left ones."""
    found = np.zeros((values.shape[0] - 1, values.shape[1] - 1))
    for weight, part in (
        ((1 - down) * (1 - right), values[:-1, :-1]),
        ((1 - down) * right, values[:-1, 1:]),
        (down * (1 - right), values[1:, :-1]),
        (down * right, values[1:, 1:]),
    ):
        if weight > 0.0:  # what has no weight may be unknown
            found += weight * part
    return found


def moved(maps: Maps, shifts: Mapping[str, Shift]) -> Maps:
    """The maps with each at its place; uncertainty goes with the prediction."""
    scored: dict[str, HeightMap] = {
        name: ShiftedMap(one, shifts[name], shifts[name].metres) for name, one in maps.scored.items()
    }
    sigma = None if maps.sigma is None else ShiftedMap(maps.sigma, shifts[PREDICTION], 0.0)
    return Maps(maps.grid, maps.truth, scored, maps.kinds, sigma, maps.inputs, maps.classes)


def find_shifts(
    maps: Maps, alignments: Mapping[str, HeightFit], stable: StableGround | None, option: str = "--coregister"
) -> dict[str, Shift]:
    """The shift of every map against the truth, found on stable ground.

    Ground that changed is left out: what the mask leaves out, and pixels whose error, after a first shift, lies more
    than four robust standard deviations from the median.

    Raises:
        UserError: too little stable ground or relief; a shift that does not converge, runs away, or explains nothing.
    """
    sheet, blocks = _lay_out(maps.grid)
    truth = np.full(sheet, np.nan)
    heights = {name: np.full(sheet, np.nan) for name in maps.scored}
    usable = np.zeros(sheet, bool)
    for block in blocks:
        found = maps.read(block.window, alignments)
        truth[block.rows, block.columns] = inner(found.truth)
        usable[block.rows, block.columns] = True if stable is None else stable.read(block.window)
        for name, values in found.heights.items():
            heights[name][block.rows, block.columns] = inner(values)
    if stable is not None and not usable.any():
        raise UserError(f"{option}: the mask '{stable.path}' leaves no stable ground on the prediction")
    return {name: _find(name, truth, values, usable, blocks, maps.grid, option) for name, values in heights.items()}


def _lay_out(grid: Grid) -> tuple[tuple[int, int], list[_Block]]:
    """The shape of a sheet, and the blocks on it: neighbours where the scene is small, else with gutters."""
    rows, columns = (_starts(side) for side in (grid.height, grid.width))
    blocks = []
    for number, (top, height, down) in enumerate(rows):
        for other, (left, width, right) in enumerate(columns):
            place = (down + number * _GUTTER, right + other * _GUTTER)
            if len(rows) * len(columns) and _whole(grid):
                place = (top, left)
            window = Window(left, top, width, height)
            blocks.append(_Block(window, slice(place[0], place[0] + height), slice(place[1], place[1] + width)))
    height, width = max(one.rows.stop for one in blocks), max(one.columns.stop for one in blocks)
    return (height, width), blocks


def _whole(grid: Grid) -> bool:
    return max(grid.height, grid.width) <= _SIDE * _BLOCKS_A_SIDE


def _starts(side: int) -> list[tuple[int, int, int]]:
    """First pixel and length of the blocks along a side, and their places when laid side by side."""
    count = min(_BLOCKS_A_SIDE, max(1, side // 64))
    if side <= _SIDE * _BLOCKS_A_SIDE:
        edges = np.linspace(0, side, count + 1).astype(int)
        return [(int(low), int(high - low), int(low)) for low, high in pairwise(edges)]
    places = np.linspace(0, side - _SIDE, _BLOCKS_A_SIDE).astype(int)
    return [(int(place), _SIDE, number * _SIDE) for number, place in enumerate(places)]


def _find(
    name: str,
    truth: FloatArray,
    heights: FloatArray,
    usable: BoolArray,
    blocks: list[_Block],
    grid: Grid,
    option: str,
) -> Shift:
    known = usable & np.isfinite(truth) & np.isfinite(heights)
    if known.sum() < _FEWEST:
        raise UserError(
            f"{option}: {known.sum()} pixels of stable ground are known to {name} and truth; {_FEWEST} are needed"
        )
    apart = (heights - truth)[known]
    if np.ptp(apart) < 1e-6:  # one file twice, but for its level: there is nothing to move
        metres = -float(apart.mean())
        return Shift(0.0, 0.0, metres, *shift_in_metres(grid, 0.0, 0.0), 0.0, 0.0, int(known.sum()), int(known.sum()))
    first = _nuth_kaab(truth, heights, known, name, option)
    error = _error(truth, heights, first)
    stable = known & _ordinary(error, known)
    columns, rows, metres = _nuth_kaab(truth, heights, stable, name, option)
    before, after = _nmad((heights - truth)[stable]), _nmad(_error(truth, heights, (columns, rows, metres))[stable])
    length = math.hypot(columns, rows)
    numbers = (
        f"{name}: {columns:+.2f} columns, {rows:+.2f} rows, {metres:+.2f} m up; NMAD on stable ground {before:.3f} m "
        f"before and {after:.3f} m after, {stable.sum():,} pixels"
    )
    if not math.isfinite(length) or length > _FARTHEST:
        raise UserError(
            f"{option}: the shift runs away ({numbers}), more than {_FARTHEST:g} pixels; do the files show the same "
            "ground? Without the option they are scored as they lie"
        )
    moved_back = _shifted(heights, columns, rows)
    left = _nuth_kaab(truth, moved_back, stable & np.isfinite(moved_back), name, option)
    rest = math.hypot(left[0], left[1])
    if rest > max(_LEAST_LEFT, 0.1 * length):
        raise UserError(
            f"{option}: the shift does not converge ({numbers}), a second run still finds {rest:.2f} pixels; is there "
            "relief on the stable ground? Without the option the files are scored as they lie"
        )
    if after > 1.02 * before and length > 0.25:
        raise UserError(
            f"{option}: the shift explains nothing ({numbers}); do the files show the same ground? Without the option "
            "they are scored as they lie"
        )
    east, north = shift_in_metres(grid, columns, rows)
    vectors = _vectors(truth, heights, stable, blocks, name, option)
    logger.info("%s %s", option, numbers)
    return Shift(columns, rows, metres, east, north, before, after, int(stable.sum()), int(known.sum()), vectors)


def _nuth_kaab(
    truth: FloatArray, heights: FloatArray, mask: BoolArray, name: str, option: str
) -> tuple[float, float, float]:
    """Columns to the right, rows down and metres by which the map must be moved."""
    coreg = survey_library("xdem.coreg", option)
    method = coreg.NuthKaab()
    unit = Affine(1.0, 0.0, 0.0, 0.0, -1.0, float(truth.shape[0]))
    try:
        with _quiet(), np.errstate(all="ignore"):
            method.fit(
                truth.astype(np.float32), heights.astype(np.float32), inlier_mask=mask, transform=unit,
                crs=_ANY_METRES, random_state=0,
            )  # fmt: skip
    except (ValueError, RuntimeError, TypeError, IndexError) as error:
        raise UserError(
            f"{option}: no shift of {name} can be found on {mask.sum():,} pixels of stable ground "
            f"({' '.join(str(error).split())[:200]}); is there relief? Without the option it is scored as it lies"
        ) from error
    found: dict[str, Any] = method.meta["outputs"]["affine"]
    return float(found["shift_x"]), -float(found["shift_y"]), float(found["shift_z"])


@contextmanager
def _quiet() -> Iterator[None]:
    """No words and bars of xdem, which go by the level of the root of all loggers."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(level)


def _shifted(heights: FloatArray, columns: float, rows: float) -> FloatArray:
    """A whole map moved by so much; NaN where nothing came to lie."""
    down, right = -rows - math.floor(-rows), -columns - math.floor(-columns)
    top, left = math.floor(-rows), math.floor(-columns)
    around = max(abs(top), abs(left)) + 2
    padded = np.pad(heights, around, constant_values=np.nan)
    height, width = heights.shape
    part = padded[around + top : around + top + height + 1, around + left : around + left + width + 1]
    return bilinear(part, down, right)


def _error(truth: FloatArray, heights: FloatArray, shift: tuple[float, float, float]) -> FloatArray:
    columns, rows, metres = shift
    if not math.isfinite(columns + rows) or max(abs(columns), abs(rows)) > min(truth.shape):
        return heights - truth
    return _shifted(heights, columns, rows) + metres - truth


def _ordinary(error: FloatArray, known: BoolArray) -> BoolArray:
    """Where the error is no outlier; everywhere where nearly all errors are alike."""
    usual = error[known & np.isfinite(error)]
    if usual.size < _FEWEST:
        return np.ones(error.shape, bool)
    middle = float(np.median(usual))
    return np.asarray(np.abs(error - middle) <= max(_OUTLIER * _nmad(usual), 0.01))


def _nmad(errors: FloatArray) -> float:
    errors = errors[np.isfinite(errors)]
    return float(_MAD * np.median(np.abs(errors - np.median(errors)))) if errors.size else math.nan


def shift_in_metres(grid: Grid, columns: float, rows: float) -> tuple[float, float]:
    """A shift in pixels as metres to the east and to the north; NaN without a georeference."""
    x, y = grid.middle
    found = metres_per_unit(grid.crs, [x], [y]) if grid.has_metres else None
    if found is None:
        return math.nan, math.nan
    a, b, _, d, e, _ = grid.transform[:6]
    return float((a * columns + b * rows) * found[0][0]), float((d * columns + e * rows) * found[1][0])


def _vectors(
    truth: FloatArray, heights: FloatArray, stable: BoolArray, blocks: list[_Block], name: str, option: str
) -> list[tuple[float, float, float, float]]:
    """Middle column and row in the scene of each block, and the shift that it shows by itself, in pixels."""
    found = []
    for block in blocks:
        part = (block.rows, block.columns)
        if stable[part].sum() < _FEWEST_OF_A_BLOCK:
            continue
        try:
            columns, rows, _ = _nuth_kaab(truth[part], heights[part], stable[part], name, option)
        except UserError:
            continue
        if math.hypot(columns, rows) <= _FARTHEST:
            place = block.window
            middle = (place.col_off + place.width / 2, place.row_off + place.height / 2)
            found.append((float(middle[0]), float(middle[1]), columns, rows))
    return found
