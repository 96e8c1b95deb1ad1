"""A page that shows a scene's classes: image and classes under a slider, their areas, and all facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from Utils.core.errors import write_error
from Utils.data.land_cover.class_table import ClassTable
from Utils.pictures.legend import draw_legend
from Utils.reports.drawing import encode
from Utils.reports.items import Picture, Section, Slider, Table, Text
from Utils.reports.page import write_page
from Utils.scenes.classes.class_picture import class_map, legend_entries

__all__ = ["write_class_scene_report"]

_LONGEST = 900


def write_class_scene_report(
    path: Path,
    output: Path,
    image: NDArray[np.float32],
    table: ClassTable,
    lines: Sequence[str],
    document: Mapping[str, Any],
) -> None:
    """Write the page of a scene's classes.

    Args:
        path: the page to write, in an existing folder.
        output: the class raster.
        image: the scene (3, h, w) in [0, 1], small enough to be shown.
        table: the classes, with the values that the raster has.
        lines: a short summary of what was done.
        document: the content of the JSON beside the output.

    Raises:
        UserError: the page cannot be written.
        RasterError: the classes cannot be read.
    """
    drawn = class_map(output, table, _LONGEST)
    picture = np.rint(np.moveaxis(np.clip(image, 0.0, 1.0), 0, -1) * 255.0).astype(np.uint8)
    resized = np.asarray(Image.fromarray(picture).resize((drawn.shape[1], drawn.shape[0])))
    pixels = [one["pixels"] for one in document["classes"]]
    legend = draw_legend(legend_entries(table, pixels, document["without_class"]))
    slider = Slider(
        "Image and classes",
        encode(resized, _LONGEST),
        encode(drawn, _LONGEST),
        "image",
        "classes",
        "Move the line: drag, tap, or arrow keys.",
    )
    sections = [
        Section("Result", [Text("", lines), slider, Picture("legend", encode(legend, _LONGEST))]),
        Section("Areas", [_areas(document)]),
    ]
    facts = {name: value for name, value in document.items() if name != "classes"}
    try:
        write_page(path, f"Classes of {output.name}", sections, facts)
    except OSError as error:
        raise write_error(path, error, f"'{output}' itself is whole") from error


def _areas(document: Mapping[str, Any]) -> Table:
    total = max(sum(one["pixels"] for one in document["classes"]), 1)
    known = all("square_metres" in one for one in document["classes"])
    headings = ["class", "value", "pixels", "share (%)", *(["hectares"] if known else [])]
    rows = [
        [one["name"], one["value"], one["pixels"], round(100 * one["pixels"] / total, 2)]
        + ([round(one["square_metres"] / 1e4, 3)] if known else [])
        for one in document["classes"]
    ]
    note = f"{document['without_class']:,} pixels have no class. Mean entropy {document['mean_entropy']:.3f}."
    return Table("", headings, rows, sortable=True, note=note)
