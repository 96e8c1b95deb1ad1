"""Masks of classes as files hold them: numbers, a palette, or colours; and class maps written with their palette."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rasterio.enums import ColorInterp

from Utils.core.errors import RasterError
from Utils.core.files import atomic_write_bytes
from Utils.rasters.colours import opaque_bands
from Utils.rasters.tile_files import opened_tile

__all__ = ["LabelRaster", "encode_labels", "label_bands", "labels_of", "read_labels", "write_labels"]

Colour = tuple[int, int, int]
Palette = Mapping[int, tuple[int, ...]]


@dataclass(frozen=True)
class LabelRaster:
    """A mask as its file holds it.

    Attributes:
        values: (H, W) whole numbers; None where the file holds colours.
        colours: (H, W, 3) uint8 red, green, blue; None where the file holds numbers alone. A palette gives both.
        unknown: (H, W) bool; True where the file says that it holds nothing (nodata, mask band, transparency).
    """

    values: NDArray[np.int64] | None
    colours: NDArray[np.uint8] | None
    unknown: NDArray[np.bool_]


def read_labels(path: str | os.PathLike[str]) -> LabelRaster:
    """Read a mask of one band of whole numbers, with or without palette, or of three bands of colours.

    Raises:
        RasterError: missing, damaged or too large file, another band count, numbers that are not whole.
    """
    with opened_tile(path) as source:
        opaque, palette = label_bands(path, source)
        bands: NDArray[np.generic] = source.read(indexes=opaque)  # (1 or 3, H, W)
        unknown = source.dataset_mask() == 0
    return labels_of(path, bands, unknown, palette)


def label_bands(path: str | os.PathLike[str], source: Any) -> tuple[list[int], Palette | None]:
    """The numbers of an open mask's bands that count, one or three, and its palette, if it has one.

    Raises:
        RasterError: another band count.
    """
    opaque = opaque_bands(source)
    if source.count > 4 or len(opaque) not in (1, 3):
        raise RasterError(path, f"a mask with {source.count} bands", "give one band of numbers, or RGB colours")
    return opaque, source.colormap(1) if source.colorinterp[0] == ColorInterp.palette else None


def labels_of(
    path: str | os.PathLike[str], bands: NDArray[Any], unknown: NDArray[np.bool_], palette: Palette | None
) -> LabelRaster:
    """What bands (1 or 3, H, W) of a mask hold.

    Args:
        path: their file, for messages.
        bands: one band of whole numbers, or three of colours.
        unknown: (H, W) where the file says that it holds nothing.
        palette: the colours of numbers.

    Raises:
        RasterError: colours that have not 8 bits, or numbers that are not whole.
    """
    if len(bands) == 3 and not all(np.array_equal(bands[0], other) for other in bands[1:]):
        if bands.dtype != np.uint8:
            raise RasterError(path, f"colours of type {bands.dtype}", "save them with 8 bits")
        return LabelRaster(None, np.moveaxis(bands, 0, -1).astype(np.uint8), unknown)
    band = bands[0]
    if np.issubdtype(band.dtype, np.floating):
        known = band[~unknown]
        if not np.isfinite(known).all() or (known != np.rint(known)).any():
            raise RasterError(path, "a mask with numbers that are not whole", "save it with whole numbers")
        band = np.where(unknown, 0, band)
    elif not np.issubdtype(band.dtype, np.integer):
        raise RasterError(path, f"a mask of type {band.dtype}", "save it with whole numbers")
    values = band.astype(np.int64)
    if palette is None:
        return LabelRaster(values, None, unknown)
    table = np.zeros((256, 3), np.uint8)
    for index, colour in palette.items():
        table[index] = colour[:3]
    return LabelRaster(values, table[values], unknown)


def encode_labels(labels: NDArray[np.uint8], colours: Sequence[Colour] | None = None) -> bytes:
    """A class map (H, W) as a PNG of 8 bits: plain numbers or, with the colours of the numbers from 0 on, a palette."""
    picture = Image.fromarray(labels)
    if colours is not None:
        picture = picture.convert("P") if picture.mode != "P" else picture
        picture.putpalette([number for colour in colours for number in colour])
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def write_labels(
    path: str | os.PathLike[str], labels: NDArray[np.uint8], colours: Sequence[Colour] | None = None
) -> None:
    """Write a class map as ``encode_labels`` makes it; the file is whole or absent.

    Raises:
        OSError: the file cannot be written.
    """
    atomic_write_bytes(path, encode_labels(labels, colours))
