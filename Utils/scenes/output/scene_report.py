"""A page that shows a predicted scene: the picture, image and relief under a slider, tile by tile, and all facts."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling

from Utils.core.errors import UserError, write_error
from Utils.reports.drawing import draw_relief, encode
from Utils.reports.items import Item, Picture, Section, Slider, Table, Text
from Utils.reports.page import write_page
from Utils.scenes.output.preview import write_preview
from Utils.scenes.relief.relief_item import relief_item

logger = logging.getLogger(__name__)

_LONGEST = 1200
_SLIDER = 900

_HOW_TO_READ = (
    "A tile's height is scale times the model's map plus shift. All tiles' scales and shifts are solved together from "
    "the pixels that neighbours share and, where there are any, from heights in metres.",
    "'supported' tiles were fitted to the heights themselves; the others follow their neighbours, and the flag band of "
    "the raster marks their pixels with 1. 'residual' is the robust standard deviation of the heights about a tile's "
    "own fit, in metres, before the fusion.",
)


def write_scene_report(
    path: Path, output: Path, image: NDArray[np.float32], lines: Sequence[str], document: Mapping[str, Any]
) -> None:
    """Write the page of a scene.

    Args:
        path: the page to write, in an existing folder.
        output: the height raster.
        image: the scene (3, h, w) in [0, 1], small enough to be shown.
        lines: a short summary of what was done.
        document: the content of the JSON beside the output.

    Raises:
        UserError: the page cannot be written.
        RasterError: the heights cannot be read.
    """
    facts = {name: value for name, value in document.items() if name != "tiles"}
    sections = [
        Section("Result", [Text("", lines), Picture("Heights", preview_picture(output)), image_slider(output, image)]),
        *(
            [Section("Tiles", [_tiles(document["tiles"]), Text("How to read the table", _HOW_TO_READ)])]
            if document["tiles"]
            else []
        ),
    ]
    surface = _surface(output, image)
    if surface is not None:
        sections.insert(1, Section("3-D", [surface]))
    try:
        write_page(path, f"Heights of {output.name}", sections, facts)
    except OSError as error:
        raise write_error(path, error, f"'{output}' itself is whole") from error


def _surface(output: Path, image: NDArray[np.float32]) -> Item | None:
    """The scene in three dimensions; None, with a line, where there is too little of it."""
    try:
        return relief_item(output, image)
    except UserError as error:
        logger.warning("the page has no 3-D view: %s", error)
        return None


def preview_picture(output: Path) -> bytes:
    """The preview of a height raster, as a page holds it."""
    with tempfile.TemporaryDirectory() as folder:
        drawn = Path(folder) / "preview.png"
        write_preview(drawn, output, longest_side=_LONGEST)
        return drawn.read_bytes()


def image_slider(output: Path, image: NDArray[np.float32], before: str = "") -> Item:
    """A slider between an image (3, H, W) in [0, 1] and the relief of a height raster; ``before`` opens its caption."""
    height, width = image.shape[1:]
    with rasterio.open(output) as source:
        heights = source.read(1, out_shape=(height, width), resampling=Resampling.average, masked=True)
    valid = ~np.ma.getmaskarray(heights)
    low, high = np.percentile(heights.compressed(), (0.5, 99.5)) if valid.any() else (0.0, 1.0)
    levels = np.clip((heights.filled(low).astype(np.float64) - low) / max(high - low, 1e-9), 0.0, 1.0) * 255.0
    picture = np.rint(np.moveaxis(np.clip(image, 0.0, 1.0), 0, -1) * 255.0).astype(np.uint8)
    caption = f"{before} Move the line: drag, tap, or arrow keys.".strip()
    return Slider(
        "Image and heights",
        encode(picture, _SLIDER),
        encode(draw_relief(levels, valid), _SLIDER),
        "image",
        "heights",
        caption,
    )


def _tiles(tiles: Sequence[Mapping[str, Any]]) -> Table:
    headings = [name for name in tiles[0] if name != "tilt"]
    rows = [[_cell(tile[name]) for name in headings] for tile in tiles]
    return Table("", headings, rows, sortable=True)


def _cell(value: Any) -> str | float | int | None:
    return ("yes" if value else "no") if isinstance(value, bool) else value
