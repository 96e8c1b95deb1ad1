"""A DEM without what cannot be its heights: declared and undeclared voids, impossible heights and wrong single cells.

The one place that references, truths, baselines and predictions pass before they are warped or averaged, which would
spread a wrong value over its neighbourhood.
"""

from __future__ import annotations

import logging
import math
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.windows import Window

from Utils.rasters.coordinates import (
    TRANSFORM_ERRORS,
    horizontal_crs,
    longitude_period,
    nearest_turn,
    transformed,
    whole_turns,
)
from Utils.rasters.environment import georeference_optional
from Utils.rasters.ground import ground_sample_distance
from Utils.rasters.suspect_heights import RIM, Judgement, Suspects, find_suspects, ground_limits

__all__ = ["Doubts", "LeftOut", "Place", "trusted_heights"]

logger = logging.getLogger(__name__)

_PART = 512
# A reader may look this far beyond a place: so many cells, or this share of its size.
_MARGIN_CELLS = 64
_MARGIN_SHARE = 0.25
# Values that 32 bits hold exactly.
_NARROW = ("int8", "uint8", "int16", "uint16", "float32")


@dataclass(frozen=True)
class Place:
    """The part of a DEM that will be read: the grid of another raster.

    Attributes:
        crs: its coordinate reference system.
        transform: from (column, row) to coordinates.
        height: rows.
        width: columns.
    """

    crs: Any
    transform: Affine
    height: int
    width: int


@dataclass(frozen=True)
class Doubts:
    """What is done about suspect heights.

    Attributes:
        name: what the raster is to the user, such as ``--reference 'dem.tif'``.
        remedy: the options that decide, as the end of the warning.
        unit: metres in one unit of its heights, after its scale and offset tags.
        nodata: a value that means no data, in addition to what the file names.
        voids: whether usual void values are left out that the file does not name.
        errors: whether impossible heights and wrong single cells are left out.
    """

    name: str
    remedy: str
    unit: float = 1.0
    nodata: float | None = None
    voids: bool = True
    errors: bool = True


@dataclass
class LeftOut:
    """What was left out of a DEM.

    Attributes:
        voids: undeclared void values and their numbers of cells.
        impossible: number of cells with a height that no ground has.
        spikes: number of cells unlike all around them.
        extremes: the largest of those, in metres: of ``impossible`` and of ``spikes``.
        untold: whether voids are NaN that no nodata value names.
    """

    voids: Counter[float] = field(default_factory=Counter)
    impossible: int = 0
    spikes: int = 0
    extremes: dict[str, float] = field(default_factory=dict)
    untold: bool = False

    def describe(self) -> dict[str, Any]:
        """The numbers for a JSON; empty where nothing was left out."""
        voids = {f"{value:g}": count for value, count in self.voids.items()}
        counts = {"undeclared_voids": voids, "impossible": self.impossible, "spikes": self.spikes}
        return {name: count for name, count in counts.items() if count}

    def line(self) -> str:
        """What was left out, in words; empty where nothing was."""
        parts = [f"{_cells(count)} of {value:g} (undeclared void value)" for value, count in self.voids.items()]
        if self.impossible:
            worst = self.extremes["impossible"]
            parts.append(f"{_cells(self.impossible)} with heights that no ground on Earth has (up to {worst:g} m)")
        if self.spikes:
            parts.append(f"{_cells(self.spikes)} unlike all around (up to {self.extremes['spikes']:g} m)")
        return ", ".join(parts)

    def add(self, part: _Part, judgement: Judgement) -> Suspects:
        """Judge a window and count what is found in it, without its rim."""
        found = find_suspects(part.raw, part.known, part.heights, judgement)
        self.untold |= bool(np.isnan(part.raw[part.known]).any())
        values, counts = np.unique(part.raw[part.inside][found.voids[part.inside]], return_counts=True)
        self.voids.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
        for name, mask in (("impossible", found.impossible), ("spikes", found.spikes)):
            chosen = part.heights[part.inside][mask[part.inside]]
            if chosen.size:
                setattr(self, name, getattr(self, name) + chosen.size)
                worst = float(chosen[np.abs(chosen).argmax()])
                self.extremes[name] = max(worst, self.extremes.get(name, worst), key=abs)
        return found


def _cells(count: int) -> str:
    return "1 cell" if count == 1 else f"{count} cells"


@contextmanager
def trusted_heights(source: Any, band: int, place: Place | None, doubts: Doubts) -> Iterator[tuple[Any, int, LeftOut]]:
    """Give a raster as it is, or, where more than its nodata value marks voids, a copy of its heights with NaN there.

    Args:
        source: an open raster.
        band: the band with the heights.
        place: the part that will be read; None takes all of it.
        doubts: what is left out, and what the warning says.

    Yields:
        The raster or its copy, the band there, and what was left out. The copy has the whole grid of the raster, its
        scale, offset and unit; its nodata value is NaN, and it holds nothing but voids beyond the place.
    """
    window = _under(source, place)
    judgement = _judgement(source, band, doubts)
    found = LeftOut()
    void: set[float] = set()
    ground: set[float] = set()
    for part in _parts(source, band, window, doubts):
        suspects = found.add(part, judgement)
        void, ground = void | suspects.void, ground | suspects.ground
    judgement = replace(judgement, void=frozenset(void), ground=frozenset(ground))
    if not (found.line() or found.untold or _masked(source, band) or doubts.nodata is not None):
        yield source, band, found
        return
    with tempfile.TemporaryDirectory(prefix="heights-") as folder:
        copy = Path(folder) / "trusted.tif"
        # Once more, because what the last windows show about a void value counts for the first ones too.
        found = _write_copy(copy, source, band, _parts(source, band, window, doubts), judgement)
        if found.line():
            logger.warning("%s: left out %s; %s", doubts.name, found.line(), doubts.remedy)
        with georeference_optional(), rasterio.open(copy) as trusted:
            yield trusted, 1, found


@dataclass(frozen=True)
class _Part:
    """A window of a DEM with a rim around it: values as stored, which of them are known, and all in metres (H, W)."""

    window: Window
    inside: tuple[slice, slice]
    raw: NDArray[Any]
    known: NDArray[np.bool_]
    heights: NDArray[np.float64]


def _judgement(source: Any, band: int, doubts: Doubts) -> Judgement:
    cell = ground_sample_distance(source.crs, source.transform, source.height, source.width)
    limits = ground_limits(source.crs) if doubts.errors else (-math.inf, math.inf)
    return Judgement(source.dtypes[band - 1], min(cell) if cell else None, limits, doubts.voids, doubts.errors)


def _parts(source: Any, band: int, window: Window, doubts: Doubts) -> Iterator[_Part]:
    scale, offset = source.scales[band - 1], source.offsets[band - 1]
    for row in range(window.row_off, window.row_off + window.height, _PART):
        for column in range(window.col_off, window.col_off + window.width, _PART):
            height = min(_PART, window.row_off + window.height - row)
            width = min(_PART, window.col_off + window.width - column)
            top, left = max(0, row - RIM), max(0, column - RIM)
            bottom, right = min(source.height, row + height + RIM), min(source.width, column + width + RIM)
            wide = Window(left, top, right - left, bottom - top)
            raw = source.read(band, window=wide)
            known = _known(source, band, wide, raw, doubts.nodata)
            with np.errstate(over="ignore", invalid="ignore"):
                heights = np.where(known, (raw.astype(np.float64) * scale + offset) * doubts.unit, np.nan)
            inside = slice(row - top, row - top + height), slice(column - left, column - left + width)
            yield _Part(Window(column, row, width, height), inside, raw, known, heights)


def _known(source: Any, band: int, window: Window, raw: NDArray[Any], nodata: float | None) -> NDArray[np.bool_]:
    """What the file's own nodata value, mask and alpha say, and the given value."""
    known = np.asarray(source.read_masks(band, window=window) > 0)
    # GDAL uses an alpha band as a mask only if it was declared when the file was made.
    for other, use in zip(source.indexes, source.colorinterp, strict=True):
        if use == ColorInterp.alpha and other != band:
            known &= source.read(other, window=window) > 0
    if nodata is not None:
        # Rounding to float32 moves a value by less than this.
        known &= ~np.isclose(raw.astype(np.float64), nodata, rtol=1e-6, atol=0.0, equal_nan=True)
    return known


def _write_copy(path: Path, source: Any, band: int, parts: Iterator[_Part], judgement: Judgement) -> LeftOut:
    dtype = "float32" if source.dtypes[band - 1] in _NARROW else "float64"
    profile = {"driver": "GTiff", "count": 1, "dtype": dtype, "nodata": math.nan, "tiled": True, "SPARSE_OK": True}
    where = {name: value for name, value in (("crs", source.crs), ("transform", source.transform)) if value}
    found = LeftOut()
    with (
        georeference_optional(),
        rasterio.open(
            path, "w", **profile, **where, height=source.height, width=source.width, BIGTIFF="IF_SAFER"
        ) as target,
    ):
        target.scales, target.offsets = (source.scales[band - 1],), (source.offsets[band - 1],)
        target.units = (source.units[band - 1],)
        for part in parts:
            suspects = found.add(part, judgement)
            kept = np.where(part.known & ~suspects.mask, part.raw, np.nan)[part.inside]
            target.write(kept.astype(dtype), 1, window=part.window)
    return found


def _masked(source: Any, band: int) -> bool:
    """Whether a mask or an alpha band marks voids, which warping does not always heed."""
    return MaskFlags.per_dataset in source.mask_flag_enums[band - 1] or ColorInterp.alpha in source.colorinterp


def _under(source: Any, place: Place | None) -> Window:
    """The cells under a place and a margin; all of them where the place cannot be found."""
    whole = Window(0, 0, source.width, source.height)
    own = horizontal_crs(source.crs)
    if place is None or place.crs is None or own is None:
        return whole
    down, across = np.meshgrid(np.linspace(0, place.height, 33), np.linspace(0, place.width, 33), indexing="ij")
    to = place.transform
    xs, ys = to.a * across + to.b * down + to.c, to.d * across + to.e * down + to.f
    try:
        xs, ys = transformed(place.crs, own, xs.ravel(), ys.ravel())
    except TRANSFORM_ERRORS:
        return whole
    if not np.isfinite(xs).all():
        return whole
    xs = nearest_turn(own, xs, float(np.median(xs)))
    left, _, right, _ = source.bounds
    turns = whole_turns(own, (min(left, right), max(left, right)), (float(xs.min()), float(xs.max())))
    period = longitude_period(own) or 0.0
    parts = [~source.transform @ (xs - turn * period, ys) for turn in turns]
    if not parts:
        return whole
    columns, rows = np.concatenate(parts, axis=1)
    ends = []
    for places, length in ((columns, source.width), (rows, source.height)):
        margin = _MARGIN_CELLS + _MARGIN_SHARE * np.ptp(places)
        low, high = math.floor(max(0.0, places.min() - margin)), math.ceil(min(float(length), places.max() + margin))
        if low >= high:
            return whole
        ends.append((low, high - low))
    return Window(ends[0][0], ends[1][0], ends[0][1], ends[1][1])
