"""Height maps on the grid of the prediction, to which truth and baseline are warped window by window."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.dtypes import in_dtype_range
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window
from tqdm import tqdm

from Utils.core.errors import RasterError, UserError
from Utils.rasters.environment import georeference_optional, raster_errors
from Utils.rasters.ground import ground_sample_distance
from Utils.rasters.height_units import height_unit
from Utils.rasters.places import gdal_name, is_file, raster_place
from Utils.rasters.trusted_heights import Doubts, Place, trusted_heights
from Utils.scenes.accuracy.grid_overlap import check_georeference, check_overlap, pixels_per_pixel
from Utils.scenes.accuracy.height_grid import WINDOW, Grid
from Utils.scenes.accuracy.scene_scores import BASELINE, PREDICTION, FloatArray, HeightFit
from Utils.scenes.accuracy.warping import FirstKnown, warped_view

__all__ = ["KIND_TAG", "UNCERTAINTY", "WINDOW", "BoolArray", "Grid", "HeightMap", "Maps", "WindowMaps", "inner"]
__all__ += ["opened_maps", "progress"]

logger = logging.getLogger(__name__)

BoolArray = NDArray[np.bool_]
KIND_TAG = "D3RSMDE_KIND"
KINDS = ("relative", "offset", "metric")
UNCERTAINTY = "uncertainty"
# Below this many truth pixels along a pixel's side the truth is interpolated, above it averaged.
_FINER = 1.1


class HeightMap:
    """One band of heights on the prediction's grid, read window by window."""

    def __init__(self, path: Path, reader: Any, band: int, scaling: tuple[float, float]) -> None:
        self.path = path
        self._reader = reader
        self._band = band
        self._scaling = scaling

    def read(self, window: Window) -> FloatArray:
        """(H, W) in metres, or relative, with scale and offset tags applied; NaN where the file has no data."""
        with raster_errors(self.path):
            values = self._reader.read(self._band, window=window).astype(np.float64)
            # A warped map holds NaN already where there is nothing.
            valid = isinstance(self._reader, WarpedVRT | FirstKnown) or self._mask(window)
        scale, offset = self._scaling
        return np.where(valid & np.isfinite(values), values * scale + offset, np.nan)

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
        maps = [self.truth, *self.heights.values()]
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
        names = " and ".join(f"'{one.path}'" for one in [*self.scored.values(), self.truth])
        return UserError(
            f"no pixel has a height in all of {names}; check that they show the same place, and the nodata values "
            "(--nodata sets the truth's)"
        )


@contextmanager
def opened_maps(
    prediction: Path, truth: Path, baseline: Path | None, truth_nodata: float | None, keep_outliers: bool = False
) -> Iterator[Maps]:
    """Open and check all files; every mistake that can be found early is raised here, before the long work."""
    with ExitStack() as stack:
        source = stack.enter_context(_opened(prediction))
        band, facts = _check_heights(prediction, source)
        grid = Grid.of(source)
        facts["tags"] = source.tags()
        others = {"truth": truth} | ({} if baseline is None else {BASELINE: baseline})
        inputs, maps = {PREDICTION: facts}, {}
        for role, path in others.items():
            nodata = truth_nodata if role == "truth" else None
            maps[role], inputs[role] = _on_grid(stack, grid, prediction, path, role, nodata, keep_outliers)
        true_map = maps.pop("truth")
        trusted = _trusted(stack, source, band, None, PREDICTION, facts, None, keep_outliers)
        maps[PREDICTION] = HeightMap(prediction, *trusted, _scaling(source, band, facts["metres_per_unit"]))
        kinds = {name: inputs[name]["kind"] for name in maps}
        yield Maps(grid, true_map, maps, kinds, _sigma_map(prediction, source, facts["metres_per_unit"]), inputs)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    path = raster_place(path)
    if not (is_file(path) or os.path.isdir(path)):
        raise RasterError(path, "no such file", "check the path")
    with ExitStack() as stack:
        with raster_errors(path), georeference_optional():
            source = stack.enter_context(rasterio.open(gdal_name(path)))
        yield source


def _check_heights(path: Path, source: Any) -> tuple[int, dict[str, Any]]:
    """The number of the band with heights, and facts on the file; a file that is not a DEM is refused."""
    bands = [band for band, use in zip(source.indexes, source.colorinterp, strict=True) if use != ColorInterp.alpha]
    tags = source.tags()
    if not bands:
        raise RasterError(path, "a container without bands of its own", "convert the layer you need to GeoTIFF")
    if len(bands) > 1 and KIND_TAG not in tags:
        raise RasterError(path, f"{len(bands)} bands", "a DEM has one; take it out with gdal_translate -b N")
    band = bands[0]
    dtype = source.dtypes[band - 1]
    if source.colorinterp[band - 1] == ColorInterp.palette:
        raise RasterError(path, "a colour palette, so no heights", "give the DEM itself")
    if np.issubdtype(np.dtype(dtype), np.complexfloating):
        raise RasterError(path, f"values of type {dtype}", "save it with real numbers")
    if source.crs is not None and source.transform.is_degenerate:
        raise RasterError(path, "its transform has pixels of no area", "georeference it anew (gdal_edit.py -a_ullr)")
    if source.crs is None and source.gcps[0]:
        raise RasterError(path, "georeferenced by control points only", "rectify it first (gdalwarp IN OUT)")
    kind = tags.get(KIND_TAG, "metric")
    if kind not in KINDS:
        known = f"{', '.join(KINDS[:-1])} or {KINDS[-1]}"
        raise RasterError(path, f"tag {KIND_TAG} is '{kind}'", f"it must be {known}; correct or remove it")
    unit, metres = height_unit(path, source, band) if kind != "relative" else ("", 1.0)
    if metres != 1.0:
        logger.info("%s: heights in '%s' (%g m), converted to metres", path, unit, metres)
    distance = ground_sample_distance(source.crs, source.transform, source.height, source.width)
    return band, {
        "path": path.as_posix(),
        "kind": kind,
        "crs": None if source.crs is None else source.crs.to_string(),
        "height": source.height,
        "width": source.width,
        "metres_per_pixel": distance,
        "transform": list(source.transform[:6]),
        "type": dtype,
        "nodata": source.nodata,
        "metres_per_unit": metres,
    }


def _scaling(source: Any, band: int, metres: float) -> tuple[float, float]:
    """Factor and summand that make metres of a band's numbers: its tags, and the metres in its unit."""
    return metres * float(source.scales[band - 1]), metres * float(source.offsets[band - 1])


def _sigma_map(path: Path, source: Any, metres: float) -> HeightMap | None:
    """The band described as uncertainty."""
    names = [(name or "").strip().lower() for name in source.descriptions]
    if UNCERTAINTY not in names:
        return None
    band = names.index(UNCERTAINTY) + 1
    return HeightMap(path, source, band, _scaling(source, band, metres))


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
) -> tuple[HeightMap, dict[str, Any]]:
    """Open the truth or the baseline on the prediction's grid; also give the facts on it."""
    source = stack.enter_context(_opened(path))
    band, facts = _check_heights(path, source)
    if role == "truth" and facts["kind"] != "metric":
        what = "relative" if facts["kind"] == "relative" else "of unknown level"
        raise UserError(f"truth '{path}': its heights are {what} ({KIND_TAG}); give a DEM in metres")
    if nodata is not None:
        if not in_dtype_range(nodata, facts["type"]):
            raise UserError(f"nodata {nodata:g}: '{path}' cannot hold it, being {facts['type']}; give another value")
        facts["nodata"] = nodata
    own = Grid.of(source)
    check_georeference(grid, own, prediction, path, role)
    scaling, same = _scaling(source, band, facts["metres_per_unit"]), grid.crs is None or grid.same_as(own)
    if not same:
        check_overlap(grid, own, prediction, path, role)
    place = None if same else Place(grid.crs, grid.transform, grid.height, grid.width)
    source, band = _trusted(stack, source, band, place, role, facts, nodata, keep_outliers)
    if same:
        return HeightMap(path, source, band, scaling), facts | {"resampling": "none"}
    finer = pixels_per_pixel(grid, own)
    method = Resampling.cubic if role == BASELINE else Resampling.average if finer > _FINER else Resampling.bilinear
    with raster_errors(path):
        # float32 can hold heights of 16 bits; wider ones, and their nodata values, need float64.
        dtype = str(np.promote_types(facts["type"], np.float32))
        reader = warped_view(stack, source, grid, method, finer, {"dtype": dtype, **_source_nodata(source, band)})
    facts |= {"resampling": method.name, "pixels_along_a_predicted_one": finer}
    return HeightMap(path, reader, band, scaling), facts


def _source_nodata(source: Any, band: int) -> dict[str, float]:
    """The nodata value that the warper must be told, if any."""
    # NaN without a nodata tag would spread to every pixel whose interpolation it touches.
    untold = source.mask_flag_enums[band - 1] == [MaskFlags.all_valid] and ColorInterp.alpha not in source.colorinterp
    return {"src_nodata": math.nan} if untold and np.dtype(source.dtypes[band - 1]).kind == "f" else {}


def progress(grid: Grid, what: str) -> Iterator[Window]:
    """The windows of a grid, with a progress bar."""
    return iter(tqdm(grid.windows(), desc=what, unit="window", leave=False, disable=None))
