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
from Utils.rasters.colours import named_colours, opaque_bands
from Utils.rasters.planetary.special_values import PLANETARY_DRIVERS, is_special

__all__ = ["BandReader", "choose_bands"]

# What the bands of an ordinary image may be called.
_PLAIN = (ColorInterp.gray, ColorInterp.undefined, ColorInterp.palette)


def choose_bands(path: Path, dataset: Any, wanted: Sequence[int] | None, log: logging.Logger) -> tuple[int, ...]:
    """Give the numbers (1-based) of the 1 or 3 bands that make the image.

    Without ``wanted`` a single band (alpha aside) is taken, or the three that the file calls red, green and blue, or
    the first three. Where others are left out, or the order is another one, a line in the log says which were taken.

    Raises:
        UserError: ``wanted`` is not 1 or 3 existing numbers, or none are given for a file with 2 bands.
        RasterError: complex numbers, or a palette among several bands.
    """
    if wanted is None:
        bands = _usual_bands(path, dataset, log)
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


def _usual_bands(path: Path, dataset: Any, log: logging.Logger) -> tuple[int, ...]:
    colours = opaque_bands(dataset)
    if len(colours) == 2:
        raise UserError(f"{path}: which of its 2 bands is the image? choose one, for example --bands {colours[0]}")
    named = named_colours(dataset)
    bands = named or tuple(colours[:3]) or (1,)
    called = [dataset.colorinterp[band - 1].name for band in bands]
    if len(colours) > 3:
        log.info(
            "%s: bands %s of %d are used%s; others are chosen with --bands, for example --bands 4,3,2",
            path,
            _listed(dataset, bands),
            dataset.count,
            ", which the file calls red, green and blue" if named else "",
        )
    elif named and list(bands) != colours:
        log.info("%s: bands %s are red, green and blue, as the file calls them", path, _listed(dataset, bands))
    if not named and len(bands) == 3 and any(dataset.colorinterp[band - 1] not in _PLAIN for band in bands):
        log.warning(
            "%s: the file calls bands %s %s; they are taken as red, green and blue. --bands chooses others, or another "
            "order",
            path,
            ", ".join(map(str, bands)),
            ", ".join(called),
        )
    return bands


def _listed(dataset: Any, bands: Sequence[int]) -> str:
    names = [dataset.descriptions[band - 1] for band in bands]
    numbers = ", ".join(str(band) for band in bands)
    return f"{numbers} ({', '.join(names)})" if all(names) else numbers


@dataclass(frozen=True)
class BandReader:
    """Reads the chosen bands of an open raster in the file's own values, with the pixels that hold data.

    A pixel is invalid where the file's mask band or opacity says so and where a band is NaN or infinite. A nodata value
    (the file's or the user's) counts when any of the bands has it; but in unsigned integers, which have no value to
    spare, only when all of them do: 0 in one band of a photograph is a deep colour, 0 in all is the void beside it.
    A void counts when its own band has it.

    Attributes:
        dataset: an open rasterio dataset.
        bands: 1 or 3 numbers, 1-based.
        nodata: a value that means no data and that the file does not name, or None. For a palette it is an index.
        opacity: numbers of the bands with the opacity; where one is 0, there is no data.
        voids: for each band, values that lie far from all others and so mean no data; none for any band if empty.
        frames: colours of frames that are no data: where all bands differ from the first number by at most the second.
    """

    dataset: Any
    bands: tuple[int, ...]
    nodata: float | None = None
    opacity: tuple[int, ...] = ()
    voids: tuple[tuple[float, ...], ...] = ()
    frames: tuple[tuple[float, float], ...] = ()

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type that holds the values of all the bands."""
        return np.result_type(*(self.dataset.dtypes[band - 1] for band in self.bands))

    @property
    def has_palette(self) -> bool:
        """Whether the single band holds indices of colours."""
        return bool(self.dataset.colorinterp[self.bands[0] - 1] == ColorInterp.palette)

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
            if self.dataset.driver in PLANETARY_DRIVERS:
                # These formats reserve values for saturation as well, which GDAL does not take for nodata.
                valid &= ~is_special(values).any(axis=0)
        for band, voids in zip(values, self.voids, strict=bool(self.voids)):
            if voids:
                valid &= ~np.isin(band, voids)
        for number in self.opacity:
            valid &= self._values((number,), window, shape)[0] > 0
        if self.has_palette:
            colours = self._colour_table()[values[0]]  # (h, w, 4)
            values, valid = np.moveaxis(colours[..., :3], -1, 0), valid & (colours[..., 3] > 0)
        for value, smear in self.frames:
            valid &= ~(np.abs(values.astype(np.float64) - value) <= smear).all(axis=0)
        return values, valid

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
        if MaskFlags.nodata in flags and ColorInterp.alpha in self.dataset.colorinterp:
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
