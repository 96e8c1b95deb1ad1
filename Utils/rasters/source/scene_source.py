"""Reading scenes: rasters of any size, type and band count as images in [0, 1] with valid pixels, window by window."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.windows import Window

from Utils.core.errors import RasterError, UserError
from Utils.rasters.colours import opaque_bands
from Utils.rasters.coordinates import on_earth
from Utils.rasters.environment import georeference_optional, raster_errors
from Utils.rasters.grids import straightened, upright
from Utils.rasters.ground import ground_sample_distance, has_transform
from Utils.rasters.places import container, gdal_name, is_file, raster_place
from Utils.rasters.planetary.image_null import undeclared_null
from Utils.rasters.planetary.whole_files import check_whole_product
from Utils.rasters.png import is_png, png_is_whole
from Utils.rasters.source.bands import BandReader, choose_bands
from Utils.rasters.source.inputs import find_scenes
from Utils.rasters.source.opacity import opacity_bands
from Utils.rasters.source.stretch import Stretch, percentile_stretch
from Utils.rasters.source.voids import find_suspects
from Utils.rasters.tile_files import check_blocks

__all__ = ["MAX_SCENE_PIXELS", "SceneSource", "Stretch", "find_scenes", "open_scene"]

logger = logging.getLogger(__name__)

MAX_SCENE_PIXELS = 100_000_000_000
"""Most pixels (height x width) a scene may have: a damaged header must not start a run that takes years."""

# The stretch is taken from about this many pixels a side.
_SAMPLE_SIDE = 2048
# Compressions and formats that change values.
_LOSSY = ("JPEG", "WEBP", "JPEG2000", "JP2OPENJPEG", "LERC", "JXL")
# A 16-bit image whose largest value is no more than this fills a sixteenth of its range: it has 12 bits or fewer.
_DARK = 4095
_SILENT = logging.Logger("silent", logging.CRITICAL + 1)


class SceneSource:
    """An open scene, read window by window. Made by :func:`open_scene`; a context manager.

    Attributes:
        path: the file, or its place in an archive.
        files: the file (or its archive) and all sources of a VRT; an output must be none of them.
        height: rows.
        width: columns.
        crs: rasterio's CRS; None where the file has none, or has no transform.
        transform: from (column, row) to map coordinates, possibly rotated; the identity where the file has none. On a
            map, rows run to the south and columns to the east: a file stored the other way round is read in reverse.
        georeferenced: whether the file has a transform; it may lack a CRS all the same.
        bands: numbers (1-based) of the 1 or 3 bands in use.
        nodata: the value given on opening, or None; the nodata of the file itself is always respected.
        dtype: the type of the file's values, such as "uint16".
        stretch: from the file's values to [0, 1], the same all over the scene.
    """

    def __init__(self, path: Path, dataset: Any, reader: BandReader, stretch: Stretch) -> None:
        """Take over an open dataset; :func:`open_scene` makes what is needed."""
        self.path = path
        self.height: int = dataset.height
        self.width: int = dataset.width
        self.georeferenced = has_transform(dataset.transform)
        self.crs = dataset.crs if self.georeferenced else None
        self.transform, self._reversed = _orientation(dataset)
        self.bands = reader.bands
        self.nodata = reader.nodata
        self.dtype = str(reader.dtype)
        self.stretch = stretch
        # Only those of a VRT: for other formats these are side files, which other programs may rewrite.
        names = dataset.files if dataset.driver == "VRT" else (path,)
        self.files = tuple(dict.fromkeys(container(name) for name in names))
        self._dataset = dataset
        self._reader = reader
        self._lock = threading.Lock()

    def __enter__(self) -> SceneSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; nothing can be read any more."""
        self._dataset.close()

    def read(self, row: int, column: int, height: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Read a window, which must lie inside the scene; threads may share a source, which then take turns.

        Args:
            row: its first row.
            column: its first column.
            height: its rows, at least 1.
            width: its columns, at least 1.

        Returns:
            Image (3, height, width) float32 in [0, 1], 0 at invalid pixels, and valid pixels (height, width) bool.

        Raises:
            RasterError: the file turns out to be damaged here.
            ValueError: the window is not inside the scene.
        """
        inside = 0 <= row < row + height <= self.height and 0 <= column < column + width <= self.width
        if not inside:
            window = f"rows {row} to {row + height}, columns {column} to {column + width}"
            raise ValueError(f"{self.path}: a window of {window} in a scene of {self.height} x {self.width}")
        # A GDAL dataset must not be read by two threads at once.
        with self._lock, raster_errors(self.path):
            from_row, from_column = self._place_in_file(row, column, height, width)
            values, valid = self._reader.read(Window(from_column, from_row, width, height), (height, width))
        values, valid = self._turned(values), self._turned(valid)
        image = self.stretch.apply(values)  # (1 or 3, h, w)
        image[:, ~valid] = 0.0
        return np.repeat(image, 3, axis=0) if len(image) == 1 else image, valid

    def thumbnail(self, longest_side: int) -> NDArray[np.float32]:
        """The whole scene (3, h, w) in [0, 1], at most so many pixels a side, invalid pixels 0."""
        shrink = max(1.0, max(self.height, self.width) / longest_side)
        shape = (max(1, round(self.height / shrink)), max(1, round(self.width / shrink)))
        with self._lock, raster_errors(self.path):
            values, valid = self._reader.read(None, shape)
        values, valid = self._turned(values), self._turned(valid)
        image = self.stretch.apply(values)
        image[:, ~valid] = 0.0
        return np.repeat(image, 3, axis=0) if len(image) == 1 else image

    @property
    def is_reversed(self) -> bool:
        """Whether the file stores rows from south to north, or columns from east to west."""
        return any(self._reversed)

    def _place_in_file(self, row: int, column: int, height: int, width: int) -> tuple[int, int]:
        """First row and column of a window in the file, which may store the scene in reverse."""
        rows, columns = self._reversed
        return self.height - row - height if rows else row, self.width - column - width if columns else column

    def _turned(self, values: NDArray[Any]) -> NDArray[Any]:
        """What was read from the file, (..., h, w), as it lies on the map."""
        rows, columns = self._reversed
        return np.ascontiguousarray(values[..., :: -1 if rows else 1, :: -1 if columns else 1])

    def fingerprint(self) -> dict[str, Any]:
        """Give, as JSON, all that the image depends on: two runs with equal fingerprints read the same image."""
        states = [file.stat() for file in self.files if file.exists()]
        return {
            "name": self.path.name,
            "bytes": sum(state.st_size for state in states),
            "mtime_ns": max((state.st_mtime_ns for state in states), default=0),
            "width": self.width,
            "height": self.height,
            "bands": list(self.bands),
            **({"reversed": list(self._reversed)} if self.is_reversed else {}),
            **({"voids": [list(found) for found in self._reader.voids]} if self._reader.voids else {}),
            **({"frames": [list(colour) for colour in self._reader.frames]} if self._reader.frames else {}),
            "stretch": self.stretch.describe(),
            # JSON has no NaN.
            "nodata": str(self.nodata) if self.nodata is not None and math.isnan(self.nodata) else self.nodata,
        }

    def ground_sample_distance(self) -> tuple[float, float] | None:
        """Give metres (from row to row, from column to column), None without CRS and transform; see ground.py."""
        return ground_sample_distance(self.crs, self.transform, self.height, self.width)


def open_scene(
    path: str | Path,
    bands: Sequence[int] | None = None,
    nodata: float | None = None,
    stretch: tuple[float, float] | None = (2.0, 98.0),
    suspect_voids: bool = True,
    tell: bool = True,
    frames_are_void: bool = False,
    placed_by_rpc: bool = False,
    white: float | None = None,
) -> SceneSource:
    """Open a scene, check it, and take its stretch; the scene is never read as a whole.

    Percentiles come from some 2048 x 2048 pixels spread over the scene, from overviews where there are any.

    Args:
        path: any raster that GDAL reads, also inside an archive (:mod:`Utils.rasters.places`).
        bands: 1 or 3 band numbers, 1-based; None for the usual ones (:func:`Utils.rasters.source.bands.choose_bands`).
        nodata: a value that means no data, in addition to the one that the file names.
        stretch: the percentiles of the valid pixels that become 0 and 1, or None for the full range of the file's
            type: 0..255, 0..65535 or fewer bits where the file says so; floats must lie in [0, 1] then.
        suspect_voids: whether values and frames that look like no data are left out though nobody declares them
            (:mod:`Utils.rasters.source.voids`).
        tell: whether what is noticed goes into the log; not when the same scene was opened before.
        frames_are_void: whether pixels of a suspected frame's colour are no data, as what is learnt from should not
            hold a frame. Else they are only left out of the stretch, because they may be ground.
        placed_by_rpc: whether whoever asks reads the scene's rational polynomials, so that a missing georeference is
            no news.
        white: without a stretch, the value of more than 8 bits that becomes 1; None for what the type or the file says.

    Raises:
        RasterError: the file is missing, damaged, cut short, empty, absurdly large or of complex numbers.
        UserError: bands, percentiles or types that do not fit, or no valid pixel.
    """
    path = raster_place(path)
    log = logger if tell else _SILENT
    if not is_file(path):
        raise RasterError(path, "no such file", "check the path")
    with raster_errors(path):
        _check_whole(path)
        with georeference_optional():
            dataset = rasterio.open(gdal_name(path))
        try:
            _check_header(path, dataset)
            if nodata is None and suspect_voids:
                nodata = undeclared_null(path, dataset, log)
            chosen = choose_bands(path, dataset, bands, log)
            _check_ends(BandReader(dataset, (*chosen, *_alphas(dataset))))
            reader = BandReader(dataset, chosen, nodata, opacity_bands(path, dataset, chosen, log))
            reader, taken = _stretch(path, reader, stretch, suspect_voids, frames_are_void, log, white)
            source = SceneSource(path, dataset, reader, taken)
            if not placed_by_rpc:
                _log_georeference(source, dataset, log)
        except BaseException:
            dataset.close()
            raise
    return source


def _check_whole(path: Path) -> None:
    """Refuse a PNG that is cut short or damaged, a cut JPEG 2000, and a label without its data."""
    if path.is_file() and is_png(path) and not png_is_whole(path):
        raise RasterError(path, "the PNG is cut short or damaged", "copy or write it again")
    check_whole_product(path)


def _check_header(path: Path, dataset: Any) -> None:
    if dataset.count == 0:
        raise RasterError(path, "a container without bands of its own", "convert the layer you need to GeoTIFF")
    if dataset.height * dataset.width > MAX_SCENE_PIXELS:
        size = f"{dataset.width} x {dataset.height} pixels"
        raise RasterError(path, f"the header gives {size}", f"a scene may have {MAX_SCENE_PIXELS:,} pixels; cut it up")
    check_blocks(path, dataset)


def _check_ends(reader: BandReader) -> None:
    """Decode the first and the last block of every band: a file cut short shows here, not after hours."""
    dataset = reader.dataset
    for row, column in ((0, 0), (dataset.height - 1, dataset.width - 1)):
        reader.read(Window(column, row, 1, 1), (1, 1))


def _alphas(dataset: Any) -> list[int]:
    return sorted({*dataset.indexes} - {*opaque_bands(dataset)})


def _stretch(
    path: Path,
    reader: BandReader,
    percentiles: tuple[float, float] | None,
    suspect_voids: bool,
    frames_are_void: bool,
    log: logging.Logger,
    white: float | None,
) -> tuple[BandReader, Stretch]:
    """The stretch, and the reader with the voids that were found on the way."""
    dataset = reader.dataset
    step = max(1.0, math.sqrt(dataset.height * dataset.width) / _SAMPLE_SIDE)
    shape = (max(1, round(dataset.height / step)), max(1, round(dataset.width / step)))
    sample, valid = reader.read(None, shape)
    if not valid.any():
        raise UserError(f"{path}: no valid pixel among {valid.size:,}; check --nodata, and the file's mask and nodata")
    if suspect_voids:
        lossy = (dataset.profile.get("compress") or dataset.driver).upper() in _LOSSY
        palette = reader.has_palette
        found = find_suspects(
            path, sample, valid, lossy=lossy, palette=palette, log=log, frames_are_void=frames_are_void
        )
        if any(found.voids):
            reader = replace(reader, voids=found.voids)
            sample, valid = reader.read(None, shape)
        valid = valid & ~found.frame
        if frames_are_void:
            reader = replace(reader, frames=found.colours)
    if percentiles is None:
        return reader, _full_range(path, reader, sample[:, valid], log, white)
    stretch, widened = percentile_stretch(sample, valid, percentiles)
    for position in widened:
        log.info(
            "%s: percentiles %g and %g of band %s are both the same; it is stretched from its lowest to its highest "
            "value, %g to %g",
            path,
            *percentiles,
            reader.bands[position] if len(reader.bands) == len(sample) else reader.bands[0],
            stretch.low[position],
            stretch.high[position],
        )
    return reader, stretch


def _full_range(
    path: Path, reader: BandReader, values: NDArray[Any], log: logging.Logger, white: float | None
) -> Stretch:
    """The stretch of the file's type, or up to ``white``, for a sample of its valid values (C, n)."""
    remedy = "--stretch 2,98 stretches by percentiles"
    if white is not None and values.dtype != np.uint8:
        low, high = float(values.min()), float(values.max())
        if low < 0.0 or high > white:
            log.warning("%s: values from %g to %g are cut off at 0 and %g, the model's white", path, low, high, white)
        full = white
    elif values.dtype.kind == "f":
        low, high = float(values.min()), float(values.max())
        if low < 0.0 or high > 1.0:
            raise UserError(f"{path}: floats from {low:g} to {high:g}, not in [0, 1], need a stretch; {remedy}")
        full = 1.0
    elif values.dtype in (np.uint8, np.uint16):
        full = max(_full_scale(reader, band) for band in reader.bands)
        if full > 255 and values.max() <= min(_DARK, full / 4):
            log.warning(
                "%s: the largest value is %d, and %d counts as white, so the image is nearly black; %s",
                path,
                values.max(),
                full,
                remedy,
            )
    else:
        raise UserError(f"{path}: values of type {values.dtype} have no full range to go by; {remedy}")
    return Stretch((0.0,) * len(values), (full,) * len(values), None)


def _full_scale(reader: BandReader, band: int) -> float:
    if reader.has_palette:
        return 255.0
    # 12-bit images come in 16 bits, with the bits in use named here.
    bits = reader.dataset.tags(band, ns="IMAGE_STRUCTURE").get("NBITS")
    return float(2 ** int(bits) - 1) if bits else float(np.iinfo(reader.dataset.dtypes[band - 1]).max)


def _orientation(dataset: Any) -> tuple[Affine, tuple[bool, bool]]:
    """The transform of the scene as it lies on a map, and whether rows and columns of the file are in reverse.

    A model has learnt from images with the north at the top. Without a CRS nobody knows where the north is.
    """
    transform = dataset.transform
    if not has_transform(transform) or dataset.crs is None:
        return transform, (False, False)
    if not on_earth(dataset.crs):
        return straightened(transform, dataset.height, dataset.width), (False, False)
    turned, rows, columns = upright(transform, dataset.height, dataset.width)
    return turned, (rows, columns)


def _log_georeference(source: SceneSource, dataset: Any, log: logging.Logger) -> None:
    if source.is_reversed:
        log.info("%s: stored south-up or mirrored; it is read, and the output is written, north-up", source.path)
    if source.crs is not None:
        return
    points, _ = dataset.gcps
    if source.georeferenced:
        log.info("%s: a transform but no CRS; the output gets the transform alone", source.path)
    elif points or dataset.rpcs:
        means = "ground control points" if points else "rational polynomials (RPC)"
        log.info(
            "%s: placed on the ground only by %s, so treated as not georeferenced; orthorectify it first, for example "
            "with gdalwarp, to get heights on a map",
            source.path,
            means,
        )
    else:
        log.info("%s: not georeferenced; the output will not be either", source.path)
