"""Which bands of a raster make the image, and which of their pixels hold data."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.windows import Window

from Utils.core.errors import RasterError, UserError

__all__ = ["BandReader", "choose_bands"]

logger = logging.getLogger(__name__)

_COLOURS = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)


def choose_bands(path: Path, dataset: Any, wanted: Sequence[int] | None) -> tuple[int, ...]:
    """Give the numbers (1-based) of the 1 or 3 bands that make the image.

    Without ``wanted`` a single band (alpha aside) or the first three are taken; where others are left out, a line in
    the log says which were taken.

    Raises:
        UserError: ``wanted`` is not 1 or 3 existing numbers, or none are given for a file with 2 bands.
        RasterError: complex numbers, or a palette among several bands.
    """
    if wanted is None:
        bands = _usual_bands(path, dataset)
    else:
        bands = tuple(wanted)
        given = ",".join(str(band) for band in bands)
        if len(bands) not in (1, 3):
            raise UserError(f"--bands {given}: give 1 or 3 band numbers, for example --bands 4,3,2")
        missing = [band for band in bands if not 1 <= band <= dataset.count]
        if missing:
            raise UserError(f"--bands {given}: {path} has no band {missing[0]}; its bands are 1 to {dataset.count}")
    if any(dataset.dtypes[band - 1].startswith("complex") for band in bands):
        raise RasterError(
            path, f"an image of type {dataset.dtypes[bands[0] - 1]}", "give its amplitude, as real numbers"
        )
    if len(bands) > 1 and any(dataset.colorinterp[band - 1] == ColorInterp.palette for band in bands):
        raise RasterError(path, "a band with a colour palette among others", "choose it alone with --bands")
    return bands


def _usual_bands(path: Path, dataset: Any) -> tuple[int, ...]:
    colours = [number for number, kind in enumerate(dataset.colorinterp, start=1) if kind != ColorInterp.alpha]
    if len(colours) == 2:
        raise UserError(f"{path}: which of its 2 bands is the image? choose one, for example --bands {colours[0]}")
    if len(colours) <= 3:
        return tuple(colours) or (1,)
    bands = tuple(colours[:3])
    logger.info(
        "%s: bands %s of %d are used%s; others are chosen with --bands, for example --bands 4,3,2",
        path,
        _listed(dataset, bands),
        dataset.count,
        _colour_hint(dataset, bands),
    )
    return bands


def _listed(dataset: Any, bands: Sequence[int]) -> str:
    names = [dataset.descriptions[band - 1] for band in bands]
    numbers = ", ".join(str(band) for band in bands)
    return f"{numbers} ({', '.join(names)})" if all(names) else numbers


def _colour_hint(dataset: Any, bands: Sequence[int]) -> str:
    """A hint at the bands that the file calls red, green and blue, if these are others or in another order."""
    kinds = list(dataset.colorinterp)
    if any(kinds.count(colour) != 1 for colour in _COLOURS):
        return ""
    tagged = tuple(kinds.index(colour) + 1 for colour in _COLOURS)
    numbers = ",".join(str(band) for band in tagged)
    return "" if tagged == tuple(bands) else f" (the file calls {numbers} red, green and blue)"


@dataclass(frozen=True)
class BandReader:
    """Reads the chosen bands of an open raster in the file's own values, with the pixels that hold data.

    A pixel is invalid where the file's mask band or alpha says so and where a band is NaN or infinite. A nodata value
    (the file's or the user's) counts when any of the bands has it; but in unsigned integers, which have no value to
    spare, only when all of them do: 0 in one band of a photograph is a deep colour, 0 in all is the void beside it.

    Attributes:
        dataset: an open rasterio dataset.
        bands: 1 or 3 numbers, 1-based.
        nodata: a value that means no data and that the file does not name, or None. For a palette it is an index.
    """

    dataset: Any
    bands: tuple[int, ...]
    nodata: float | None = None

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type that holds the values of all the bands."""
        return np.result_type(*(self.dataset.dtypes[band - 1] for band in self.bands))

    @property
    def has_palette(self) -> bool:
        """Whether the single band holds indices of colours."""
        return bool(self.dataset.colorinterp[self.bands[0] - 1] == ColorInterp.palette)

    @property
    def knows_invalid(self) -> bool:
        """Whether anything, in the file or given by the user, tells where there is no data."""
        return self.nodata is not None or self._alpha is not None or not self._all_valid

    def read(self, window: Window | None, shape: tuple[int, int]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Read a window, or with None the whole raster, as ``shape`` (height, width): decimated where that is less.

        Decimation takes the nearest pixels, also of overviews: an average would include pixels without data.

        Returns:
            Values (C, h, w), C being 3 for a palette and else the number of bands, and valid pixels (h, w) bool.
        """
        values = self._values(self.bands, window, shape)
        by_band = self._masks(values, window, shape)  # (C, h, w)
        if self.nodata is not None:
            # A nodata value beyond the range of the file's type occurs nowhere.
            with np.errstate(over="ignore"):
                by_band &= values != self.nodata
        is_colour = values.dtype.kind == "u"
        valid: NDArray[np.bool_] = (np.logical_or if is_colour else np.logical_and).reduce(by_band)
        if values.dtype.kind == "f":
            valid &= np.isfinite(values).all(axis=0)
        if self._alpha is not None:
            valid &= self._values((self._alpha,), window, shape)[0] > 0
        if self.has_palette:
            colours = self._colour_table()[values[0]]  # (h, w, 4)
            values, valid = np.moveaxis(colours[..., :3], -1, 0), valid & (colours[..., 3] > 0)
        return values, valid

    @property
    def _alpha(self) -> int | None:
        """Number of the band with the opacity. GDAL uses it as a mask only where no nodata value is set."""
        kinds = self.dataset.colorinterp
        return kinds.index(ColorInterp.alpha) + 1 if ColorInterp.alpha in kinds and len(kinds) > 1 else None

    @property
    def _all_valid(self) -> bool:
        return all(self.dataset.mask_flag_enums[band - 1] == [MaskFlags.all_valid] for band in self.bands)

    def _values(self, bands: Sequence[int], window: Window | None, shape: tuple[int, int]) -> NDArray[Any]:
        if len({self.dataset.dtypes[band - 1] for band in bands}) == 1:
            values: NDArray[Any] = self.dataset.read(list(bands), window=window, out_shape=(len(bands), *shape))
            return values
        # Bands of several types, as a VRT may have, cannot be read in one go.
        return np.stack([self.dataset.read(band, window=window, out_shape=shape) for band in bands])

    def _masks(self, values: NDArray[Any], window: Window | None, shape: tuple[int, int]) -> NDArray[np.bool_]:
        """The file's masks of the bands, (C, h, w), without alpha."""
        flags = {flag for band in self.bands for flag in self.dataset.mask_flag_enums[band - 1]}
        if flags == {MaskFlags.all_valid} or MaskFlags.alpha in flags:
            return np.ones((len(self.bands), *shape), bool)
        if MaskFlags.nodata in flags and self._alpha is not None:
            # GDAL's masks would be the same, but rasterio warns at every reading that alpha is not included.
            return np.stack([band != self._tagged(number) for band, number in zip(values, self.bands, strict=True)])
        masks = self.dataset.read_masks(list(self.bands), window=window, out_shape=(len(self.bands), *shape))
        found: NDArray[np.bool_] = masks > 0
        return found

    def _tagged(self, band: int) -> float:
        """The file's nodata value; NaN, which equals nothing, for none."""
        nodata = self.dataset.nodatavals[band - 1]
        return math.nan if nodata is None else float(nodata)

    def _colour_table(self) -> NDArray[np.uint8]:
        """Colours (levels, 4), red, green, blue and opacity, of every index that the type can hold."""
        table = np.zeros((int(np.iinfo(self.dtype).max) + 1, 4), np.uint8)
        table[:, 3] = 255
        for index, colour in self.dataset.colormap(self.bands[0]).items():
            table[index] = colour
        return table
