"""The page of a height raster from stereo: pictures, pointing, coverage, tiles, and all facts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from Utils.core.errors import write_error
from Utils.reports.items import Item, Number, Picture, Section, Table, Text
from Utils.reports.page import write_page
from Utils.scenes.output.scene_report import image_slider, preview_picture

__all__ = ["summary", "write_dsm_report"]

_CAPTION = "The first image on the grid, and the heights."

_POINTING = (
    "Each view's image was moved by so many pixels, right and down, so that rays of the same point meet. The residual "
    "is how far they miss, in pixels of an image.",
    "Only the part across the way that points take with their height can be seen from two views. What lies along it "
    "is a height, and what all views share is a place: both stay in the result, as a few metres of vertical and "
    "horizontal shift, until a reference on the ground is known.",
)
_TILES = (
    "'searched' is the range of heights in metres that was searched in a tile, 'matched' the pixels of all references "
    "with a height, 'agree' the share of them on which enough views agree, 'at ends' the share that lies at an end of "
    "the range of the whole run: more than a few percent there say that the range misses ground."
)


def summary(document: Mapping[str, Any]) -> list[str]:
    """What was done, in a few lines."""
    grid, cover = document["grid"], document["coverage"]
    lines = [
        f"{grid['width']} x {grid['height']} cells of {grid['resolution']:g} m, {grid['crs']}, heights above "
        f"{document['datum']}; {document['matcher']['name']}, {len(document['images'])} images, "
        f"{document['seconds']:.0f} s",
        f"{100 * cover['share']:.1f} % of the {cover['cells']:,} cells that two views see have a height"
        + (f", {document['heights']['low']:.1f} to {document['heights']['high']:.1f} m" if cover["share"] else ""),
    ]
    pointing = document["pointing"]
    if pointing and pointing["matches"]:
        before, after = pointing["residual_before"], pointing["residual_after"]
        missed = f"pointing: rays missed by {before['median']:.2f} pixels (median of {pointing['matches']} matches)"
        corrected = f"after the correction by {after['median']:.2f}"
        lines.append(f"{missed}, " + (f"not corrected: {pointing['kept']}" if pointing["kept"] else corrected))
    return lines


def write_dsm_report(path: Path, output: Path, image: NDArray[np.float32], document: Mapping[str, Any]) -> None:
    """Write the page.

    Args:
        path: the page.
        output: the height raster.
        image: the first view on its grid (3, h, w) in [0, 1], small enough to be shown.
        document: the content of the JSON.

    Raises:
        UserError: the page cannot be written.
    """
    facts = {name: value for name, value in document.items() if name not in ("tiles", "pointing")}
    sections = [
        Section(
            "Result",
            [
                Text("", summary(document)),
                Picture("Heights", preview_picture(output)),
                image_slider(output, image, _CAPTION),
            ],
        ),
        Section("Pointing", _pointing(document["pointing"])),
        Section("Tiles", [_tiles(document["tiles"]), Text("How to read the table", [_TILES])]),
    ]
    try:
        write_page(path, f"Heights of {output.name}", sections, facts)
    except OSError as error:
        raise write_error(path, error, f"'{output}' itself is whole") from error


def _pointing(found: Mapping[str, Any] | None) -> list[Item]:
    if found is None:
        return [Text("", ["The pointing was not corrected (--no-pointing)."])]
    if not found["matches"]:
        return [Text("", ["No matches were clear enough to correct the pointing."])]
    headings = ["view", "matches", "columns", "rows"]
    rows = [[view[name] for name in headings] for view in found["views"]]
    residuals = [
        [name, *(found[f"residual_{name}"][what] for what in ("median", "p90"))] for name in ("before", "after")
    ]
    return [
        Table("Shifts in pixels", headings, rows),
        Table("Residuals in pixels", ["correction", "median", "90th percentile"], residuals),
        Text("How to read the tables", [f"The views were not moved: {found['kept']}."] if found["kept"] else _POINTING),
    ]


def _tiles(tiles: list[Mapping[str, Any]]) -> Table:
    headings = ["row", "column", "searched", "matched", "agree", "cells", "covered", "at ends", "seconds"]
    rows = []
    for tile in tiles:
        low, high = tile["searched"]
        share = [Number(tile[name], f"{100 * tile[name]:.1f} %") for name in ("agree", "covered", "at_ends")]
        searched = Number(high - low, f"{low:.0f} to {high:.0f}")
        rows.append(
            [
                tile["row"],
                tile["column"],
                searched,
                tile["matched"],
                share[0],
                tile["cells"],
                *share[1:],
                tile["seconds"],
            ]
        )
    return Table("", headings, rows, sortable=True)
