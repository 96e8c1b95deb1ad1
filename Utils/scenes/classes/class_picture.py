"""A class raster as a picture: its colours, and a legend with each class's share."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image
from rasterio.enums import Resampling

from Utils.core.errors import write_error
from Utils.core.files import atomic_write_bytes
from Utils.data.land_cover.class_table import ClassTable
from Utils.pictures.legend import draw_legend
from Utils.rasters.environment import georeference_optional, raster_errors

__all__ = ["NO_CLASS_COLOUR", "class_map", "legend_entries", "write_class_preview"]

NO_CLASS_COLOUR = (217, 217, 217)
"""A grey that stands for no class; a class of a table may have it all the same."""

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class _Share:
    """One line of a legend."""

    text: str
    colour: tuple[int, int, int]


def class_map(path: Path, table: ClassTable, longest_side: int) -> Pixels:
    """A class raster in its colours, (h, w, 3), at most so many pixels a side; small rasters are enlarged.

    Raises:
        RasterError: a raster that cannot be read.
    """
    with raster_errors(path), georeference_optional(), rasterio.open(path) as source:
        shrink = max(1.0, max(source.height, source.width) / longest_side)
        shape = (max(1, round(source.height / shrink)), max(1, round(source.width / shrink)))
        values = source.read(1, out_shape=shape, resampling=Resampling.nearest)
    palette = np.tile(np.array(NO_CLASS_COLOUR, np.uint8), (256, 1))
    palette[list(table.values)] = np.array(table.colours, np.uint8)
    dots = max(1, longest_side // (3 * max(shape)))
    return np.kron(palette[values], np.ones((dots, dots, 1), np.uint8))


def legend_entries(table: ClassTable, pixels: Sequence[int], unknown: int) -> Mapping[str, tuple[int, int, int]]:
    """The lines of a legend, with their colours: each class, its share of the pixels that have one, and no class.

    Args:
        table: the classes.
        pixels: pixels of each class, by number.
        unknown: pixels without a class.
    """
    total = max(sum(pixels), 1)
    lines = {
        f"{name}  {100 * count / total:.1f} %": colour
        for name, colour, count in zip(table.names, table.colours, pixels, strict=True)
    }
    return lines | ({"no class": NO_CLASS_COLOUR} if unknown else {})


def write_class_preview(
    path: Path, source: Path, table: ClassTable, pixels: Sequence[int], unknown: int, longest_side: int = 1200
) -> None:
    """Draw a class raster with its legend as a PNG, whole or absent.

    Raises:
        UserError: the picture cannot be written.
        RasterError: the raster cannot be read.
    """
    drawn = class_map(source, table, longest_side)
    legend = draw_legend(legend_entries(table, pixels, unknown), max(1.0, drawn.shape[0] / 700))
    margin = round(0.02 * max(drawn.shape)) + 4
    height = max(drawn.shape[0], legend.shape[0]) + 2 * margin
    picture = np.full((height, drawn.shape[1] + legend.shape[1] + 3 * margin, 3), 255, np.uint8)
    picture[margin : margin + drawn.shape[0], margin : margin + drawn.shape[1]] = drawn
    left = drawn.shape[1] + 2 * margin
    picture[margin : margin + legend.shape[0], left : left + legend.shape[1]] = legend
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG", optimize=True)
    try:
        atomic_write_bytes(path, buffer.getvalue())
    except OSError as error:
        raise write_error(path, error, "the picture is missing, the classes are not touched") from error
