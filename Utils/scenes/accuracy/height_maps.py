"""Height maps on the grid of the prediction, to which truth and baseline are warped window by window."""

from __future__ import annotations

import logging
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.dtypes import in_dtype_range
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window
from tqdm import tqdm

from Utils.core.errors import RasterError, UserError
from Utils.rasters.datum_shift import DatumShift
from Utils.rasters.environment import raster_errors
from Utils.rasters.places import gdal_name, raster_place
from Utils.rasters.trusted_heights import Doubts, Place, trusted_heights
from Utils.rasters.vertical_datum import UNKNOWN, VerticalDatum, datum_of
from Utils.scenes.accuracy.dem_alone import write_dem_alone
from Utils.scenes.accuracy.fused_reference import FusedReference
from Utils.scenes.accuracy.grid_overlap import check_georeference, check_overlap, pixels_per_pixel
from Utils.scenes.accuracy.ground_classes import ClassRaster, flag_classes
from Utils.scenes.accuracy.height_file import KIND_TAG, check_heights, opened, scaling_of
from Utils.scenes.accuracy.height_grid import WINDOW, Grid
from Utils.scenes.accuracy.scene_scores import BASELINE, BICUBIC, DEM_ALONE, PREDICTION, FloatArray, HeightFit
from Utils.scenes.accuracy.warping import FirstKnown, warped_view

__all__ = ["KIND_TAG", "UNCERTAINTY", "WINDOW", "BoolArray", "Grid", "HeightMap", "Maps", "WindowMaps", "inner"]
__all__ += ["opened_maps", "progress"]

logger = logging.getLogger(__name__)

BoolArray = NDArray[np.bool_]
UNCERTAINTY = "uncertainty"
Lift = Callable[[Window], FloatArray]
"""Gives the metres (H, W) that a window's heights are raised by, from their vertical datum to the prediction's."""
# Below this many truth pixels along a pixel's side the truth is interpolated, above it averaged.
_FINER = 1.1


class HeightMap:
    """One band of heights on the prediction's grid, read window by window."""

    def __init__(
        self, path: Path, reader: Any, band: int, scaling: tuple[float, float], lift: Lift | None = None
    ) -> None:
        self.path = path
        self._reader = reader
        self._band = band
        self._scaling = scaling
        self._lift = lift

    @property
    def height(self) -> int:
        """Rows."""
        return int(self._reader.height)

    @property
    def width(self) -> int:
        """Columns."""
        return int(self._reader.width)

    def read(self, window: Window) -> FloatArray:
        """(H, W) in metres, or relative, with scale and offset tags applied; NaN where the file has no data."""
        with raster_errors(self.path):
            values = self._reader.read(self._band, window=window).astype(np.float64)
            # A warped map holds NaN already where there is nothing.
            valid = isinstance(self._reader, WarpedVRT | FirstKnown) or self._mask(window)
        scale, offset = self._scaling
        heights = np.where(valid & np.isfinite(values), values * scale + offset, np.nan)
        return heights if self._lift is None else heights + self._lift(window)

    def read_with_rim(self, window: Window) -> FloatArray:
        """(H + 2, W + 2): the window and one pixel around it; NaN outside the scene too."""
        top, left = max(window.row_off - 1, 0), max(window.col_off - 1, 0)
        bottom = min(window.row_off + window.height + 1, self._reader.height)
        right = min(window.col_off + window.width + 1, self._reader.width)
        values = np.full((window.height + 2, window.width + 2), np.nan)
        row, column = top - window.row_off + 1, left - window.col_off + 1
        inside = self.read(Window(left, top, right - left, bottom - top))
        values[row : row + bottom - top, column : column + right - left] = inside
        return values

    def _mask(self, window: Window) -> BoolArray:
        reader = self._reader
        known: BoolArray = reader.read_masks(self._band, window=window) > 0
        # GDAL uses an alpha band as a mask only if it was declared when the file was made.
        for band, use in zip(reader.indexes, reader.colorinterp, strict=True):
            if use == ColorInterp.alpha:
                known &= reader.read(band, window=window) > 0
        return known


@dataclass(frozen=True)
class WindowMaps:
    """Heights of a window of H x W pixels, (H + 2, W + 2) each with a rim, and sigma (H, W); NaN where unknown."""

    window: Window
    truth: FloatArray
    heights: dict[str, FloatArray]
    sigma: FloatArray | None

    @cached_property
    def scored(self) -> BoolArray:
        """(H, W): pixels that all maps know."""
        return self.known_to_all_but(None)

    def known_to_all_but(self, name: str | None) -> BoolArray:
        """(H, W): pixels that the truth and all maps but one know."""
        maps = [self.truth, *(heights for other, heights in self.heights.items() if other != name)]
        return np.logical_and.reduce([np.isfinite(inner(heights)) for heights in maps])


def inner(values: FloatArray) -> FloatArray:
    """A window without its rim of one pixel."""
    return values[1:-1, 1:-1]


@dataclass(frozen=True)
class Maps:
    """The opened files on one grid; ``scored`` and ``kinds`` (``metric``, ``offset``, ``relative``) go by map."""

    grid: Grid
    truth: HeightMap
    scored: dict[str, HeightMap]
    kinds: dict[str, str]
    sigma: HeightMap | None
    inputs: dict[str, dict[str, Any]]
    classes: ClassRaster | None = None

    def read(self, window: Window, alignments: Mapping[str, HeightFit]) -> WindowMaps:
        """All maps in a window, with a rim, aligned."""
        heights = {
            name: alignments[name].scale * one.read_with_rim(window) + alignments[name].shift
            for name, one in self.scored.items()
        }
        sigma = None if self.sigma is None else self.sigma.read(window) * alignments[PREDICTION].scale
        return WindowMaps(window, self.truth.read_with_rim(window), heights, sigma)

    def nothing_in_common(self) -> UserError:
        """What to say when no pixel has a height in every map."""
        names = " and ".join(dict.fromkeys(f"'{one.path}'" for one in [*self.scored.values(), self.truth]))
        without = "; --no-reference leaves the prediction's own reference out" if DEM_ALONE in self.scored else ""
        return UserError(
            f"no pixel has a height in all of {names}; check that they show the same place, and the nodata values "
            f"(--nodata sets the truth's{without})"
        )


@contextmanager
def opened_maps(
    prediction: Path,
    truth: Path,
    baseline: Path | None,
    truth_nodata: float | None,
    keep_outliers: bool = False,
    reference: FusedReference | None = None,
    datums: Mapping[str, VerticalDatum] | None = None,
    classes: Path | None = None,
) -> Iterator[Maps]:
    """Open and check all files; every mistake that can be found early is raised here, before the long work.

    ``datums`` has what the user says that the heights of the prediction and the truth refer to; ``classes``
    is a raster of classes, in whose place a flag band of the prediction counts.
    """
    datums = datums or {}
    with ExitStack() as stack:
        source = stack.enter_context(opened(prediction))
        band, facts = check_heights(prediction, source)
        grid = Grid.of(source)
        facts["tags"] = source.tags()
        datum = datum_of(prediction, source, datums.get(PREDICTION, UNKNOWN)) if facts["kind"] == "metric" else UNKNOWN
        facts["vertical_datum"] = datum.describe()
        others = {"truth": truth} | ({} if baseline is None else {BASELINE: baseline})
        inputs, maps = {PREDICTION: facts}, {}
        for role, path in others.items():
            nodata = truth_nodata if role == "truth" else None
            said = (datum, datums.get(role, UNKNOWN))
            maps[role], inputs[role] = _on_grid(stack, grid, prediction, path, role, nodata, keep_outliers, said)
        true_map = maps.pop("truth")
        if reference is not None:
            with_bicubic = baseline is None or not _same_place(baseline, reference.path)
            for role, (one, described) in _of_reference(
                stack, grid, prediction, reference, with_bicubic, datum
            ).items():
                maps[role], inputs[role] = one, described
        trusted = _trusted(stack, source, band, None, PREDICTION, facts, None, keep_outliers)
        maps[PREDICTION] = HeightMap(prediction, *trusted, scaling_of(source, band, facts["metres_per_unit"]))
        kinds = {name: inputs[name]["kind"] for name in maps}
        sigma = _sigma_map(prediction, source, facts["metres_per_unit"])
        flags = flag_classes(prediction, source)
        ground = flags if classes is None else ClassRaster.of(stack, classes, grid, prediction)
        yield Maps(grid, true_map, maps, kinds, sigma, inputs, ground)


def _same_place(one: Path, other: Path) -> bool:
    return os.path.realpath(gdal_name(raster_place(one))) == os.path.realpath(gdal_name(other))


def _of_reference(
    stack: ExitStack,
    grid: Grid,
    prediction: Path,
    reference: FusedReference,
    with_bicubic: bool,
    datum: VerticalDatum,
) -> dict[str, tuple[HeightMap, dict[str, Any]]]:
    """The maps that the reference gives by itself, with facts on them; none, with a line, where it cannot be used."""
    path = reference.path
    try:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="reference-"))
        written = Path(folder) / "alone.tif"
        facts = write_dem_alone(written, reference, grid, prediction, datum)
        facts = {"path": path.as_posix(), "kind": "metric", **facts, "resampling": "surface of least error"}
        found = {DEM_ALONE: (HeightMap(path, stack.enter_context(opened(written)), 1, (1.0, 0.0)), facts)}
        if with_bicubic:
            options = (reference.nodata, reference.keep_outliers, (datum, UNKNOWN))
            found = {BICUBIC: _on_grid(stack, grid, prediction, path, BICUBIC, *options)} | found
    except (UserError, RasterError) as error:
        if reference.by_hand:
            raise
        logger.warning(
            "the prediction's own reference is not scored beside it: %s (--reference names another, --no-reference "
            "does without)",
            error,
        )
        return {}
    return found


def _sigma_map(path: Path, source: Any, metres: float) -> HeightMap | None:
    """The band described as uncertainty."""
    names = [(name or "").strip().lower() for name in source.descriptions]
    if UNCERTAINTY not in names:
        return None
    band = names.index(UNCERTAINTY) + 1
    return HeightMap(path, source, band, scaling_of(source, band, metres))


def _trusted(
    stack: ExitStack,
    source: Any,
    band: int,
    place: Place | None,
    role: str,
    facts: dict[str, Any],
    nodata: float | None,
    keep_outliers: bool,
) -> tuple[Any, int]:
    """The raster, or a copy of its heights without those that cannot be, and its band; the facts get their number.

    Errors of what is scored are to be scored: there only void values are left out.
    """
    remedy = "--keep-outliers takes them as heights" + (", --nodata names a void value" if role == "truth" else "")
    remedy = "as when the prediction was made" if role == BICUBIC else remedy
    metric = facts["kind"] == "metric" and not keep_outliers
    name, errors = f"{role} '{facts['path']}'", metric and role == "truth"
    doubts = Doubts(name, remedy, facts["metres_per_unit"], nodata, voids=metric, errors=errors)
    with raster_errors(Path(facts["path"])):
        trusted, band, left_out = stack.enter_context(trusted_heights(source, band, place, doubts))
    facts["left_out"] = left_out.describe()
    return trusted, band


def _on_grid(
    stack: ExitStack,
    grid: Grid,
    prediction: Path,
    path: Path,
    role: str,
    nodata: float | None,
    keep_outliers: bool,
    datums: tuple[VerticalDatum, VerticalDatum],
) -> tuple[HeightMap, dict[str, Any]]:
    """Open the truth, the baseline or the reference on the prediction's grid; also give the facts on it.

    ``datums`` are the prediction's, and what the user says of this file.
    """
    source = stack.enter_context(opened(path))
    band, facts = check_heights(path, source)
    lift, facts["vertical_datum"] = _lift(grid, path, role, source, *datums)
    if role == "truth" and facts["kind"] != "metric":
        what = "relative" if facts["kind"] == "relative" else "of unknown level"
        raise UserError(f"truth '{path}': its heights are {what} ({KIND_TAG}); give a DEM in metres")
    if nodata is not None and role == "truth":
        if not in_dtype_range(nodata, facts["type"]):
            raise UserError(f"nodata {nodata:g}: '{path}' cannot hold it, being {facts['type']}; give another value")
        facts["nodata"] = nodata
    own = Grid.of(source)
    check_georeference(grid, own, prediction, path, role)
    scaling, same = scaling_of(source, band, facts["metres_per_unit"]), grid.crs is None or grid.same_as(own)
    if not same:
        check_overlap(grid, own, prediction, path, role)
    place = None if same else Place(grid.crs, grid.transform, grid.height, grid.width)
    source, band = _trusted(stack, source, band, place, role, facts, nodata, keep_outliers)
    if same:
        return HeightMap(path, source, band, scaling, lift), facts | {"resampling": "none"}
    finer = pixels_per_pixel(grid, own)
    method = (
        Resampling.cubic
        if role in (BASELINE, BICUBIC)
        else Resampling.average
        if finer > _FINER
        else Resampling.bilinear
    )
    with raster_errors(path):
        # float32 can hold heights of 16 bits; wider ones, and their nodata values, need float64.
        dtype = str(np.promote_types(facts["type"], np.float32))
        reader = warped_view(stack, source, grid, method, finer, {"dtype": dtype, **_source_nodata(source, band)})
    facts |= {"resampling": method.name, "pixels_along_a_predicted_one": finer}
    return HeightMap(path, reader, band, scaling, lift), facts


def _lift(
    grid: Grid, path: Path, role: str, source: Any, wanted: VerticalDatum, given: VerticalDatum
) -> tuple[Lift | None, dict[str, Any]]:
    """What brings a file's heights to the prediction's datum, where both are known and differ; and facts on it."""
    own = datum_of(path, source, given, "--truth-datum" if role == "truth" else "--vertical-datum")
    facts: dict[str, Any] = own.describe()
    if not (own.known and wanted.known) or own.same_as(wanted):
        return None, facts
    if grid.crs is None:
        raise UserError(
            f"{role} '{path}' refers to {own}, the prediction to {wanted}, and neither has a place on Earth"
        )
    shift = DatumShift(own, wanted, grid.crs, f"{role} '{path}'")
    x, y = grid.middle
    middle = float(shift.at(np.array([x]), np.array([y]))[0])
    logger.info(
        "%s '%s': heights brought from %s to %s, %+.2f m in the middle", role, path, own.label, wanted.label, middle
    )
    facts |= {"brought_to": wanted.describe(), "metres_in_the_middle": middle}

    def lift(window: Window) -> FloatArray:
        return shift.over(grid.transform, window.row_off, window.col_off, window.height, window.width)

    return lift, facts


def _source_nodata(source: Any, band: int) -> dict[str, float]:
    """The nodata value that the warper must be told, if any."""
    # NaN without a nodata tag would spread to every pixel whose interpolation it touches.
    untold = source.mask_flag_enums[band - 1] == [MaskFlags.all_valid] and ColorInterp.alpha not in source.colorinterp
    return {"src_nodata": math.nan} if untold and np.dtype(source.dtypes[band - 1]).kind == "f" else {}


def progress(grid: Grid, what: str) -> Iterator[Window]:
    """The windows of a grid, with a progress bar."""
    return iter(tqdm(grid.windows(), desc=what, unit="window", leave=False, disable=None))
