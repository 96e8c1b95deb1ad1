"""What the page shows of one result: pictures, the surface, facts, and files to take along."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from Systems.app.job import without_paths
from Systems.app.statistics import raster_statistics
from Systems.app.views import Drawn, map_picture, read_drawn, scene_glb, scene_image
from Utils.core.errors import UserError
from Utils.reports.page import render_relief
from Utils.scenes.output.preview import write_preview
from Utils.scenes.relief.relief_item import relief_item
from Utils.scenes.scene_run import SceneResult, summary

if TYPE_CHECKING:
    from Utils.scenes.classes.class_run import ClassResult
    from Utils.scenes.options import SceneOptions

__all__ = ["PageResults", "collect_results", "glb_file", "said_facts"]

_ON_THE_PAGE = 100_000  # triangles
_IN_THE_FILE = 500_000
_TEXTURE = "texture.npy"


@dataclass(frozen=True)
class PageResults:
    """A result as the page shows it.

    Attributes:
        relief: the picture of the heights with its scale.
        slope: degrees; None where heights or ground have no metres.
        spread: one standard deviation; None without it.
        ground: (h, w, 3) the relief without a frame, on which lines are drawn.
        surface: the page of the viewer; empty where there is too little for a surface.
        facts: Markdown.
        files: to be downloaded.
        drawn: what profiles are read from; None for classes.
        texture: file of the scene's image as it is draped over the heights, float32 (3, h, w); none for classes. Only
            the process that predicted reads the scene itself.
        output: the height raster.
    """

    relief: Image.Image
    slope: Image.Image | None
    spread: Image.Image | None
    ground: NDArray[np.uint8]
    surface: str
    facts: str
    files: list[str]
    drawn: Drawn | None
    texture: Path
    output: Path


def collect_results(folder: Path, image: Path, result: SceneResult | ClassResult, options: SceneOptions) -> PageResults:
    """Draw all that the page shows of a result; ``folder`` is the job's."""
    output, texture = result.output, folder / _TEXTURE
    if result.document["kind"] == "classes":
        return _of_classes(result, texture)
    picture, report = output.with_suffix(".png"), output.with_suffix(".html")
    write_preview(picture, output, title="")
    # The report names its raster by the path that it was written to.
    report.write_text(report.read_text(encoding="utf-8").replace(f"{output.parent}/", ""), encoding="utf-8")
    drawn, draped = read_drawn(output), scene_image(image, options)
    np.save(texture, draped)
    slope = drawn.slope()
    unit = f" ({drawn.unit})" if drawn.unit else " (share of the relative heights' range)"
    with Image.open(picture) as opened:
        relief = opened.convert("RGB")
    return PageResults(
        relief,
        None if slope is None else map_picture(slope, "slope (degrees)", "magma", 0.0),
        None if drawn.spread is None else map_picture(drawn.spread, f"one standard deviation{unit}", "cividis", 0.0),
        drawn.relief(),
        _surface(draped, output),
        _facts(folder, result, slope),
        [str(path) for path in (output, picture, report, output.with_suffix(".json"))],
        drawn,
        texture,
        output,
    )


def _of_classes(result: SceneResult | ClassResult, texture: Path) -> PageResults:
    """Classes: their picture with its legend, and their areas; no surface."""
    output = result.output
    picture, report = output.with_suffix(".png"), output.with_suffix(".html")
    report.write_text(report.read_text(encoding="utf-8").replace(f"{output.parent}/", ""), encoding="utf-8")
    with Image.open(picture) as opened:
        drawn = opened.convert("RGB")
    rows = ["| class | pixels | square metres |", "| --- | ---: | ---: |"]
    rows += [
        f"| {_plain(one['name'])} | {one['pixels']:,} | {one.get('square_metres', 'unknown')} |"
        for one in result.document["classes"]
    ]
    files = [str(path) for path in (output, picture, report, output.with_suffix(".json"))]
    return PageResults(drawn, None, None, np.asarray(drawn), "", "\n".join(rows), files, None, texture, output)


def said_facts(facts: str, messages: Sequence[str]) -> str:
    """The facts of a result, and below them what was noticed on the way."""
    return "\n\n".join([facts, "\n".join(f"- {_plain(message)}" for message in messages)])


def glb_file(results: PageResults | None, exaggeration: float) -> str | None:
    """Write the surface as a file, with as many triangles as other programs like; None without a result."""
    if results is None or results.drawn is None or not results.output.exists():
        return None
    path = results.output.with_suffix(".glb")
    texture = np.load(results.texture, allow_pickle=False)
    path.write_bytes(scene_glb(texture, results.output, _IN_THE_FILE, float(exaggeration)))
    return str(path)


def _surface(texture: NDArray[np.float32], output: Path) -> str:
    try:
        return render_relief(relief_item(output, texture, _ON_THE_PAGE))
    except UserError:  # a single row, or no valid height
        return ""


def _facts(folder: Path, result: SceneResult | ClassResult, slope: NDArray[np.float64] | None) -> str:
    statistics = raster_statistics(result.output, result.document)
    assert isinstance(result, SceneResult)
    lines = [without_paths(line, folder) for line in summary(result).splitlines()]
    table = ["| | |", "| --- | --- |"]
    table += [f"| {name} | {_text(statistics[name])} |" for name in ("width", "height", "crs", "metres_a_pixel")]
    for band, values in statistics["bands"].items():
        known = {key: value for key, value in values.items() if key in ("min", "mean", "max", "std", "valid_share")}
        unit = values["unit"] or "no unit"
        table.append(f"| {band} ({unit}) | {', '.join(f'{key} {value:.6g}' for key, value in known.items())} |")
    if slope is None:
        table.append("| slope | none: it needs heights in metres, from a coarse DEM or points |")
    return "\n\n".join("\n".join(part) for part in ([f"- {_plain(line)}" for line in lines], table))


def _plain(text: str) -> str:
    """Text that Markdown does not take for more than that: it may quote a stranger's file."""
    for mark in "\\`*_{}[]<>#|!":
        text = text.replace(mark, f"\\{mark}")
    return text


def _text(value: Any) -> str:
    if value is None:
        return "none"
    return ", ".join(str(item) for item in value) if isinstance(value, list) else _plain(str(value))
