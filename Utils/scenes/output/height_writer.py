"""Writing heights or classes: a cloud-optimised GeoTIFF, strip by strip, read back before it gets its name."""

from __future__ import annotations

import errno
import logging
import os
import secrets
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.windows import Window

from Utils.core.errors import write_error
from Utils.core.files import hidden_name
from Utils.rasters.environment import gdal_environment, georeference_optional, root_cause
from Utils.rasters.ground import has_transform
from Utils.rasters.tile_files import GDAL_ERRORS
from Utils.scenes.output.output_checks import BLOCK, check_output, space_needed

__all__ = ["HEIGHTS", "NODATA", "Band", "HeightWriter", "Stored", "check_output", "space_needed"]

logger = logging.getLogger(__name__)

NODATA = -9999.0
"""The value of pixels without a height: it is below the lowest place of Mars, and what GIS users expect."""

# Strips are written here first: without compression a block can be written in parts.
_STRIPS_PROFILE = {
    "driver": "GTiff",
    "tiled": True,
    "blockxsize": BLOCK,
    "blockysize": BLOCK,
    "interleave": "band",
    "BIGTIFF": "IF_SAFER",
}
_COG_OPTIONS = {
    "driver": "COG",
    "BLOCKSIZE": BLOCK,
    "COMPRESS": "DEFLATE",
    "OVERVIEWS": "IGNORE_EXISTING",
    "BIGTIFF": "IF_SAFER",
    "NUM_THREADS": "ALL_CPUS",
}
# Side files of an older file, with its statistics, overviews and mask, which no longer apply.
_SIDE_FILES = (".aux.xml", ".ovr", ".msk")


@dataclass(frozen=True)
class Stored:
    """How numbers are kept in the file.

    Attributes:
        dtype: numpy's name of their type.
        nodata: the value of pixels without one.
        predictor: what GDAL does to neighbours before it compresses them.
        overviews: how several pixels become one of an overview, in GDAL's word.
        palette: red, green and blue of each number; None for numbers that are no classes.
    """

    dtype: str
    nodata: float
    predictor: str
    overviews: str
    palette: Mapping[int, tuple[int, int, int]] | None = None


# This predictor is made for floats: neighbouring heights share their high bytes.
HEIGHTS = Stored("float32", NODATA, "FLOATING_POINT", "AVERAGE")
"""Heights, and whatever else is measured."""


@dataclass(frozen=True)
class Band:
    """One band of the output.

    Attributes:
        name: a short name for programs, such as "height"; the band's description in GDAL's terms.
        description: what the values mean; kept as the band's tag ``long_name``.
        unit: "metre", or "" for a relative height.
    """

    name: str
    description: str
    unit: str


class HeightWriter:
    """Writes a raster from top to bottom; the file appears on a clean exit of the context, and not at all otherwise.

    The strips go into an uncompressed file in a hidden folder beside ``path``. On exit GDAL's COG driver turns it into
    a cloud-optimised GeoTIFF with overviews, every strip is read back from it and compared, and only then it gets its
    name. If anything goes wrong, nothing remains and an older file stays unchanged. Memory is constant: a strip, and
    GDAL's cache.
    """

    def __init__(
        self,
        path: Path,
        height: int,
        width: int,
        bands: Sequence[Band],
        crs: Any,
        transform: Affine | None,
        tags: Mapping[str, str],
        stored: Stored = HEIGHTS,
    ) -> None:
        """Describe what will be written; nothing is on disk before the context is entered.

        Args:
            path: name ending in .tif or .tiff.
            height: rows.
            width: columns.
            bands: at least one; the first is shown in grey.
            crs: rasterio's CRS; None writes none.
            transform: from (column, row) to map coordinates; None or the identity writes none.
            tags: tags for the default domain of the file.
            stored: type, value without data, and palette.
        """
        if not bands or height < 1 or width < 1:
            raise ValueError(f"{path}: {len(bands)} bands of {height} x {width} pixels cannot be written")
        self.path = Path(path)
        self._shape = (height, width)
        self._bands = tuple(bands)
        georeference = {"crs": crs} if crs is not None else {}
        if transform is not None and has_transform(transform):
            georeference["transform"] = transform
        kind = {"dtype": stored.dtype, "nodata": stored.nodata}
        shape = {"height": height, "width": width, "count": len(bands)}
        self._profile = {**_STRIPS_PROFILE, **kind, **shape, **georeference}
        self._stored = stored
        self._tags = dict(tags)
        self._strips: list[_Strip] = []
        self._statistics = [_Statistics() for _ in bands]
        self._cleanup = ExitStack()
        self._folder = self.path.parent
        self._dataset: Any = None

    def __enter__(self) -> HeightWriter:
        with self._disk_errors(), georeference_optional(), ExitStack() as undo:
            # A folder, because GDAL's COG driver makes temporary files beside its target.
            folder = self.path.with_name(hidden_name(self.path, f".{secrets.token_hex(6)}.tmp"))
            folder.mkdir(mode=0o700)
            self._folder = folder
            undo.callback(shutil.rmtree, self._folder, ignore_errors=True)
            self._dataset = rasterio.open(self._folder / "strips.tif", "w", **self._profile)
            undo.callback(self._abandon)
            self._describe()
            self._cleanup = undo.pop_all()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        with self._cleanup:
            if kind is None:
                self._finish()

    def write(self, row: int, values: NDArray[Any]) -> None:
        """Write the strip that follows the last one.

        Args:
            row: its first row: the number of rows written so far.
            values: (bands, rows, width) of the type stored, any number of rows; what is not finite becomes no data.

        Raises:
            UserError: the disk is full or cannot be written.
            ValueError: another row or shape.
        """
        height, width = self._shape
        written = sum(strip.rows for strip in self._strips)
        if row != written or values.ndim != 3 or (len(values), values.shape[2]) != (len(self._bands), width):
            wanted = f"({len(self._bands)}, rows, {width}) at row {written}"
            raise ValueError(f"{self.path}: a strip of shape {values.shape} at row {row} where {wanted} is due")
        if row + values.shape[1] > height:
            raise ValueError(f"{self.path}: rows up to {row + values.shape[1]} in a file of {height}")
        finite = np.isfinite(values)
        dtype = np.dtype(self._stored.dtype)
        strip = np.where(finite, values, dtype.type(self._stored.nodata)).astype(dtype, copy=False)
        if self._stored.palette is None:  # the mean of class numbers means nothing
            for statistics, band, known in zip(self._statistics, strip, finite, strict=True):
                statistics.add(band[known])
        with self._disk_errors():
            self._dataset.write(strip, window=Window(0, row, width, strip.shape[1]))
        self._strips.append(_Strip(row, strip.shape[1], _checksum(strip)))

    def _describe(self) -> None:
        """Set what the file says about itself."""
        # GDAL would show three bands as red, green and blue.
        first = ColorInterp.gray if self._stored.palette is None else ColorInterp.palette
        self._dataset.colorinterp = [first] + [ColorInterp.undefined] * (len(self._bands) - 1)
        if self._stored.palette is not None:
            self._dataset.write_colormap(1, dict(self._stored.palette))
        for number, band in enumerate(self._bands, start=1):
            self._dataset.set_band_description(number, band.name)
            self._dataset.set_band_unit(number, band.unit)
            self._dataset.update_tags(number, long_name=band.description)
        self._dataset.update_tags(**{**self._tags, "AREA_OR_POINT": "Area"})

    def _finish(self) -> None:
        written = sum(strip.rows for strip in self._strips)
        if written != self._shape[0]:
            raise ValueError(f"{self.path}: only {written} of {self._shape[0]} rows were written; nothing is kept")
        cog = self._folder / "cog.tif"
        # No .aux.xml: everything about the bands is written into the file.
        with self._disk_errors(GDAL_PAM_ENABLED="NO"), georeference_optional():
            for number, statistics in enumerate(self._statistics, start=1):
                self._dataset.update_tags(number, **statistics.tags())
            self._dataset.close()
            kind = {"PREDICTOR": self._stored.predictor, "OVERVIEW_RESAMPLING": self._stored.overviews}
            rasterio.shutil.copy(self._folder / "strips.tif", cog, **_COG_OPTIONS, **kind)
            _flush(cog)
            self._verify(cog)
            replaces = self.path.exists()
            os.replace(cog, self.path)
        if replaces:
            _remove_side_files(self.path)

    def _verify(self, cog: Path) -> None:
        """Read all strips back: GDAL reports a full disk late or, when it closes a file, not at all."""
        with rasterio.open(cog) as dataset:
            for strip in self._strips:
                window = Window(0, strip.row, self._shape[1], strip.rows)
                if _checksum(dataset.read(window=window)) != strip.checksum:
                    raise OSError("the file read back is not what was written; is the disk full or failing?")

    def _abandon(self) -> None:
        """Close the file of strips, whatever its state: it is about to be deleted, or was closed before."""
        with suppress(*GDAL_ERRORS):
            self._dataset.close()

    @contextmanager
    def _disk_errors(self, **options: Any) -> Iterator[None]:
        try:
            with gdal_environment(**options):
                yield
        except GDAL_ERRORS as error:
            kept = "the older file stays as it was" if self.path.exists() else "nothing is kept"
            room = space_needed(*self._shape, len(self._bands)) // 2
            raise write_error(self.path, _cause(error, self._folder, room), kept) from error


@dataclass(frozen=True)
class _Strip:
    """A written strip, to be found again: its first row, its number of rows, and the checksum of its bytes."""

    row: int
    rows: int
    checksum: int


def _checksum(strip: NDArray[Any]) -> int:
    return zlib.crc32(np.ascontiguousarray(strip, strip.dtype.newbyteorder("<")).data)


class _Statistics:
    """Mean and deviation of values that are added in parts (Chan, Golub and LeVeque 1979)."""

    def __init__(self) -> None:
        self._count = 0
        self._pixels = 0
        self._mean = 0.0
        self._squares = 0.0  # sum of squared deviations from the mean
        self._low, self._high = np.inf, -np.inf

    def add(self, values: NDArray[np.float32]) -> None:
        """Take in values (n,), all finite; none are allowed."""
        if not values.size:
            return
        count = self._count + values.size
        mean = float(values.mean(dtype=np.float64))
        deviations = values.astype(np.float64) - mean
        squares = float(deviations @ deviations)
        step = mean - self._mean
        self._squares += squares + step**2 * self._count * values.size / count
        self._mean += step * values.size / count
        self._count = count
        self._low = min(self._low, float(values.min()))
        self._high = max(self._high, float(values.max()))

    def tags(self) -> dict[str, str]:
        """GDAL's tags, from which GIS programs choose their stretch; empty if there was no value."""
        if not self._count:
            return {}
        found = {
            "MINIMUM": self._low,
            "MAXIMUM": self._high,
            "MEAN": self._mean,
            "STDDEV": (self._squares / self._count) ** 0.5,
        }
        return {f"STATISTICS_{name}": f"{value:.9g}" for name, value in found.items()}


def _cause(error: Exception, folder: Path, room: int) -> Exception:
    """Ask the operating system why writing failed: GDAL only says that it did.

    Args:
        error: the error that was raised.
        folder: where the files are.
        room: bytes that a trial file must find room for there.
    """
    if isinstance(error, OSError) and error.errno:
        return error
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(probe.fileno(), 0, room)  # knows limits and quotas as well
            elif shutil.disk_usage(folder).free < room:
                return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as cause:
        return cause
    return OSError(root_cause(error))


def _flush(path: Path) -> None:
    """Flush everything to the disk: an error of a network or a quota may appear only now."""
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())


def _remove_side_files(path: Path) -> None:
    for suffix in _SIDE_FILES:
        side_file = path.with_name(path.name + suffix)
        try:
            side_file.unlink(missing_ok=True)
        except OSError as error:
            logger.warning("%s describes the older file and cannot be removed (%s); remove it", side_file, error)
