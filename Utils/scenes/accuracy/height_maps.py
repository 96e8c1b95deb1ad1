"""Height maps on the grid of the prediction, to which truth and baseline are warped window by window."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.dtypes import in_dtype_range
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform_bounds
from rasterio.windows import Window
from tqdm import tqdm

from Utils.core.errors import RasterError, UserError
from Utils.rasters.coordinates import (
    horizontal_crs,
    longitude_period,
    nearest_turn,
    on_earth,
    transformed,
    whole_turns,
)
from Utils.rasters.environment import georeference_optional, raster_errors, root_cause
from Utils.rasters.grids import straightened
from Utils.rasters.ground import ground_sample_distance, has_transform, metres_per_unit
from Utils.scenes.accuracy.scene_scores import BASELINE, PREDICTION, FloatArray, HeightFit

BoolArray = NDArray[np.bool_]
KIND_TAG = "D3RSMDE_KIND"
UNCERTAINTY = "uncertainty"
WINDOW = 512
"""Side of the windows that are read, in pixels."""
# Tolerance of warping, in pixels of the warped map. GDAL's default, an eighth, is metres of height on a steep slope.
_TOLERANCE = 0.01
# Below this many truth pixels along a pixel's side the truth is interpolated, above it averaged.
_FINER = 1.1
# Most pixels along a side that one step of averaging takes: it reads the square of this for each of its results.
_MOST_AVERAGED = 8
# Shorter metres in a map unit than this share of the longest are those of a pole, where rounding leaves more than 0.
_LEAST_WIDTH = 1e-9
_METRES = frozenset({"", "m", "metre", "metres", "meter", "meters"})


@dataclass(frozen=True)
class Grid:
    """A raster's grid; ``crs`` is its CRS without heights, None where the file lacks either a CRS or a transform."""

    crs: CRS | None
    transform: Affine
    height: int
    width: int

    @classmethod
    def of(cls, source: Any) -> Grid:
        """The grid of an open raster."""
        crs = horizontal_crs(source.crs) if has_transform(source.transform) else None
        return cls(crs, straightened(source.transform, source.height, source.width), source.height, source.width)

    @property
    def size(self) -> int:
        """Pixels in all."""
        return self.height * self.width

    @property
    def has_metres(self) -> bool:
        """Whether pixels have a known size; without a georeference it is unknown, and so is every slope."""
        return ground_sample_distance(self.crs, self.transform, self.height, self.width) is not None

    def same_as(self, other: Grid) -> bool:
        """Whether the two grids have the same pixels, to a millionth of a pixel."""
        if (self.height, self.width, self.crs) != (other.height, other.width, other.crs):
            return False
        corners = [(0, 0), (self.width, 0), (0, self.height)]
        moved = np.array([~self.transform @ (other.transform @ corner) for corner in corners])
        return bool(np.abs(moved - corners).max() < 1e-6)

    def finer(self, times: int) -> dict[str, Any]:
        """The grid with so many pixels along each side of a pixel, as a warped view takes it."""
        transform = self.transform @ Affine.scale(1 / times)
        return {"transform": transform, "height": self.height * times, "width": self.width * times}

    @property
    def middle(self) -> tuple[float, float]:
        """Map coordinates of the middle."""
        x, y = self.transform @ (self.width / 2, self.height / 2)
        return float(x), float(y)

    def bounds(self) -> tuple[float, float, float, float]:
        """Left, bottom, right and top in map units; for a rotated grid, those of the box around it."""
        w, h = self.width, self.height
        corners = np.array([self.transform @ corner for corner in ((0, 0), (w, 0), (w, h), (0, h))])
        (left, bottom), (right, top) = corners.min(axis=0), corners.max(axis=0)
        return float(left), float(bottom), float(right), float(top)

    def windows(self) -> list[Window]:
        """Windows that cover the grid, row by row; all but the last of a row or column have full size."""
        return [
            Window(column, row, min(WINDOW, self.width - column), min(WINDOW, self.height - row))
            for row in range(0, self.height, WINDOW)
            for column in range(0, self.width, WINDOW)
        ]

    def gradient(self, heights: FloatArray, window: Window) -> tuple[FloatArray, FloatArray]:
        """Rise to the east and to the north, metres a metre, by central differences.

        Args:
            heights: (H + 2, W + 2) metres, the window and one pixel around it; NaN where unknown.
            window: of H x W pixels.

        Returns:
            (H, W) each; NaN where one of the four neighbours or the size of a pixel is unknown.
        """
        across = (heights[1:-1, 2:] - heights[1:-1, :-2]) / 2
        down = (heights[2:, 1:-1] - heights[:-2, 1:-1]) / 2
        a, b, _, d, e, _ = self.transform[:6]
        # A step of one column goes (a, d) over the map, one of a row (b, e): two equations for the two slopes.
        x, y = self.metres_per_unit[:, window.row_off : window.row_off + window.height, None]  # (rows, 1) each
        east = (e * across - d * down) / ((a * e - b * d) * x)
        north = (a * down - b * across) / ((a * e - b * d) * y)
        return east, north

    @cached_property
    def metres_per_unit(self) -> FloatArray:
        """(2, H): metres in one map unit along x and along y at every row, half-way along it; NaN where unknown."""
        rows = np.arange(self.height) + 0.5
        x = self.transform.a * self.width / 2 + self.transform.b * rows + self.transform.c
        y = self.transform.d * self.width / 2 + self.transform.e * rows + self.transform.f
        found = metres_per_unit(self.crs, x, y) if self.has_metres else None
        if found is None:
            return np.full((2, self.height), np.nan)
        metres = np.stack(found)
        # Along a pole's row all pixels are one place: it has no slope to the east.
        return np.where(metres > _LEAST_WIDTH * metres.max(), metres, np.nan)


class HeightMap:
    """One band of heights on the prediction's grid, read window by window."""

    def __init__(self, path: Path, reader: Any, band: int, scaling: tuple[float, float], nodata: float | None) -> None:
        self.path = path
        self._reader = reader
        self._band = band
        self._scaling = scaling
        self._nodata = nodata

    def read(self, window: Window) -> FloatArray:
        """(H, W) in the file's unit, scale and offset tags applied; NaN where the file has no data."""
        with raster_errors(self.path):
            values = self._reader.read(self._band, window=window).astype(np.float64)
            # A warped map holds NaN already where there is nothing.
            valid = isinstance(self._reader, WarpedVRT | _FirstKnown) or self._mask(values, window)
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

    def _mask(self, values: FloatArray, window: Window) -> BoolArray:
        reader = self._reader
        if self._nodata is None:
            known: BoolArray = reader.read_masks(self._band, window=window) > 0
        else:
            # A given nodata value replaces the file's own, but not its mask or alpha.
            # Rounding to float32 moves a value by less than this.
            known = ~np.isclose(values, self._nodata, rtol=1e-6, atol=0.0)
            if MaskFlags.per_dataset in reader.mask_flag_enums[self._band - 1]:
                known &= reader.read_masks(self._band, window=window) > 0
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
    """The opened files on one grid; ``scored`` and ``relative`` go by map, a baseline first."""

    grid: Grid
    truth: HeightMap
    scored: dict[str, HeightMap]
    relative: dict[str, bool]
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
def opened_maps(prediction: Path, truth: Path, baseline: Path | None, truth_nodata: float | None) -> Iterator[Maps]:
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
            maps[role], inputs[role] = _on_grid(stack, grid, prediction, path, role, nodata)
        true_map = maps.pop("truth")
        maps[PREDICTION] = HeightMap(prediction, source, band, _scaling(source, band), None)
        relative = {name: inputs[name]["kind"] == "relative" for name in maps}
        yield Maps(grid, true_map, maps, relative, _sigma_map(prediction, source), inputs)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if not path.exists():
        raise RasterError(path, "no such file", "check the path")
    with ExitStack() as stack:
        with raster_errors(path), georeference_optional():
            source = stack.enter_context(rasterio.open(path))
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
    dtype, unit = source.dtypes[band - 1], (source.units[band - 1] or "").strip().lower()
    if source.colorinterp[band - 1] == ColorInterp.palette:
        raise RasterError(path, "a colour palette, so no heights", "give the DEM itself")
    if np.issubdtype(np.dtype(dtype), np.complexfloating):
        raise RasterError(path, f"values of type {dtype}", "save it with real numbers")
    if source.crs is not None and source.transform.is_degenerate:
        raise RasterError(path, "its transform has pixels of no area", "georeference it anew (gdal_edit.py -a_ullr)")
    if source.crs is None and source.gcps[0]:
        raise RasterError(path, "georeferenced by control points only", "rectify it first (gdalwarp IN OUT)")
    kind = tags.get(KIND_TAG, "metric")
    if kind not in ("relative", "metric"):
        raise RasterError(path, f"tag {KIND_TAG} is '{kind}'", "it must be relative or metric; correct or remove it")
    if kind == "metric" and unit not in _METRES:
        raise RasterError(path, f"heights in '{unit}'", "convert them to metres, and set the band's unit to m")
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
    }


def _scaling(source: Any, band: int) -> tuple[float, float]:
    return float(source.scales[band - 1]), float(source.offsets[band - 1])


def _sigma_map(path: Path, source: Any) -> HeightMap | None:
    """The band described as uncertainty."""
    names = [(name or "").strip().lower() for name in source.descriptions]
    if UNCERTAINTY not in names:
        return None
    band = names.index(UNCERTAINTY) + 1
    return HeightMap(path, source, band, _scaling(source, band), None)


def _on_grid(
    stack: ExitStack, grid: Grid, prediction: Path, path: Path, role: str, nodata: float | None
) -> tuple[HeightMap, dict[str, Any]]:
    """Open the truth or the baseline on the prediction's grid; also give the facts on it."""
    source = stack.enter_context(_opened(path))
    band, facts = _check_heights(path, source)
    if role == "truth" and facts["kind"] == "relative":
        raise UserError(f"truth '{path}': its heights are relative ({KIND_TAG}); give a DEM in metres")
    if nodata is not None:
        if not in_dtype_range(nodata, facts["type"]):
            raise UserError(f"nodata {nodata:g}: '{path}' cannot hold it, being {facts['type']}; give another value")
        facts["nodata"] = nodata
    own = Grid.of(source)
    _check_georeference(grid, own, prediction, path, role)
    if grid.crs is None or grid.same_as(own):
        return HeightMap(path, source, band, _scaling(source, band), nodata), facts | {"resampling": "none"}
    _check_overlap(grid, own, prediction, path, role)
    finer = _pixels_per_pixel(grid, own)
    method = Resampling.cubic if role == BASELINE else Resampling.average if finer > _FINER else Resampling.bilinear
    with raster_errors(path):
        reader = _warped(stack, source, band, grid, method, nodata, finer)
    facts |= {"resampling": method.name, "pixels_along_a_predicted_one": finer}
    return HeightMap(path, reader, band, _scaling(source, band), nodata), facts


def _check_georeference(grid: Grid, other: Grid, prediction: Path, path: Path, role: str) -> None:
    if (grid.crs is None) != (other.crs is None):
        without, with_crs = (prediction, path) if grid.crs is None else (path, prediction)
        raise UserError(
            f"'{without}' has no CRS (or no transform), but '{with_crs}' has: they cannot be laid over each other; "
            "georeference the first (gdal_edit.py -a_srs EPSG:N -a_ullr WEST NORTH EAST SOUTH FILE)"
        )
    if grid.crs is not None and other.crs is not None and grid.crs != other.crs:
        for one, crs in ((prediction, grid.crs), (path, other.crs)):
            if not on_earth(crs):
                raise UserError(
                    f"'{one}' has a local CRS ({crs.to_wkt()[:60]}), of which nobody knows where on Earth it lies; "
                    "give both rasters one that does (gdal_edit.py -a_srs EPSG:N FILE)"
                )
    if grid.crs is None and (grid.height, grid.width) != (other.height, other.width):
        raise UserError(
            f"prediction '{prediction}' ({grid.width} x {grid.height}) and {role} '{path}' "
            f"({other.width} x {other.height}) have no CRS, so they are compared pixel by pixel and must be of one "
            "size; cut them alike, or georeference both"
        )


def _check_overlap(grid: Grid, other: Grid, prediction: Path, path: Path, role: str) -> None:
    """Refuse rasters of different places. Doubtful cases pass; they fail later, if no common pixel is found."""
    try:
        transformed(grid.crs, other.crs, *grid.middle)
        left, bottom, right, top = transform_bounds(grid.crs, other.crs, *grid.bounds())
    except Exception as error:  # GDAL's own errors come through here, and share no public base
        raise UserError(
            f"{role} '{path}': no way from the prediction's CRS ({grid.crs}) to its own ({other.crs}): "
            f"{root_cause(error)}; reproject one of them first"
        ) from error
    box = other.bounds()
    # Left beyond right: the scene crosses the antimeridian.
    known = np.isfinite([left, bottom, right, top]).all() and left <= right
    beside = (
        not whole_turns(other.crs, (box[0], box[2]), (left, right))
        if longitude_period(other.crs)
        else (right <= box[0] or left >= box[2])
    )
    if known and (beside or top <= box[1] or bottom >= box[3]):
        theirs, mine = (", ".join(f"{value:.6g}" for value in one) for one in (box, (left, bottom, right, top)))
        raise UserError(
            f"{role} '{path}' ({theirs}) does not overlap the prediction '{prediction}' ({mine} in the same CRS); "
            "give a DEM of the same place, or check both CRSs"
        )


def _pixels_per_pixel(grid: Grid, other: Grid) -> float:
    """How many pixels of another raster lie along the side of a pixel in the middle of the grid."""
    column, row = grid.width / 2, grid.height / 2
    points = [(column, row), (column + 1, row), (column, row + 1)]
    x, y = zip(*(grid.transform @ point for point in points), strict=True)
    xs, ys = transformed(grid.crs, other.crs, x, y)
    xs = nearest_turn(other.crs, xs, float(xs[0]))
    places = np.array([~other.transform @ place for place in zip(xs, ys, strict=True)])
    side = math.sqrt(abs(float(np.linalg.det(places[1:] - places[0]))))
    # Outside the other raster's map projection there is no answer, and there are no common pixels either.
    return side if math.isfinite(side) else 1.0


class _FirstKnown:
    """Several views on one grid; each pixel is that of the first view that knows it."""

    def __init__(self, views: Sequence[Any]) -> None:
        self._views = views
        self.height: int = views[0].height
        self.width: int = views[0].width

    def read(self, band: int, window: Window) -> FloatArray:
        """(H, W), NaN where no view knows a value."""
        found: FloatArray = self._views[0].read(band, window=window)
        for view in self._views[1:]:
            found = np.where(np.isnan(found), view.read(band, window=window), found)
        return found


def _turns(grid: Grid, own: Grid) -> tuple[int, ...]:
    """By how many whole turns of longitude a raster must be moved so that warping finds all of it under the grid."""
    assert grid.crs is not None and own.crs is not None
    half = (longitude_period(own.crs) or 0.0) / 2
    left, _, right, _ = own.bounds()
    # A transformation gives longitudes within half a turn; between two geographic systems it may keep them as they are.
    low, high = -half, half
    if longitude_period(grid.crs) is not None:
        first, _, last, _ = grid.bounds()
        low, high = (first, last) if grid.crs == own.crs else (min(low, first), max(high, last))
    return whole_turns(own.crs, (left, right), (low, high)) or (0,)


def _warped(
    stack: ExitStack, source: Any, band: int, grid: Grid, method: Resampling, nodata: float | None, finer: float
) -> WarpedVRT | _FirstKnown:
    """A view of ``source`` on the grid, NaN where it has no data."""
    own = Grid.of(source)
    period = (longitude_period(own.crs) if own.crs is not None else None) or 0.0
    views = [
        _view(stack, source, band, grid, method, nodata, finer, Affine.translation(turn * period, 0.0) @ own.transform)
        for turn in _turns(grid, own)
    ]
    return views[0] if len(views) == 1 else _FirstKnown(views)


def _view(
    stack: ExitStack,
    source: Any,
    band: int,
    grid: Grid,
    method: Resampling,
    nodata: float | None,
    finer: float,
    place: Affine,
) -> WarpedVRT:
    """A view of ``source``, whose transform is ``place``, on the grid, NaN where it has no data."""
    # float32 can hold heights of 16 bits; wider ones, and their nodata values, need float64.
    dtype = np.promote_types(source.dtypes[band - 1], np.float32)
    options = {"crs": grid.crs, "tolerance": _TOLERANCE, "dtype": str(dtype), "nodata": math.nan}
    # GDAL would guess the ratio from each block's size and so blur a little, differently in each.
    ratio = min(1.0, 1.0 / finer) if method == Resampling.cubic else 1.0
    options |= {"XSCALE": ratio, "YSCALE": ratio}
    own_nodata = _source_nodata(source, band, nodata) | {
        "src_crs": horizontal_crs(source.crs),
        "src_transform": place,
    }
    if method != Resampling.average:
        return stack.enter_context(WarpedVRT(source, resampling=method, **options, **own_nodata, **grid.finer(1)))
    # GDAL averages correctly only between grids that are not rotated against each other. So the source is first
    # interpolated, at its own resolution, on grids that fit into this one, and then averaged, in steps that read little
    # at once.
    steps, needed = [1], math.ceil(finer - 0.01)
    while steps[-1] < needed:
        steps.append(steps[-1] * min(_MOST_AVERAGED, math.ceil(needed / steps[-1])))
    view = stack.enter_context(
        WarpedVRT(source, resampling=Resampling.bilinear, **options, **own_nodata, **grid.finer(steps.pop()))
    )
    for step in reversed(steps):
        view = stack.enter_context(WarpedVRT(view, resampling=method, **options, **grid.finer(step)))
    return view


def _source_nodata(source: Any, band: int, given: float | None) -> dict[str, float]:
    """The nodata value that the warper must be told, if any."""
    if given is not None:
        return {"src_nodata": given}
    # NaN without a nodata tag would spread to every pixel whose interpolation it touches.
    untold = source.mask_flag_enums[band - 1] == [MaskFlags.all_valid] and ColorInterp.alpha not in source.colorinterp
    return {"src_nodata": math.nan} if untold and np.dtype(source.dtypes[band - 1]).kind == "f" else {}


def progress(grid: Grid, what: str) -> Iterator[Window]:
    """The windows of a grid, with a progress bar."""
    return iter(tqdm(grid.windows(), desc=what, unit="window", leave=False, disable=None))
