"""One HTML page that holds everything it shows: tables, pictures, before/after sliders, curves, text and facts.

Nothing is fetched when it is opened, and its content security policy forbids it to fetch anything.  All text that is
given is escaped: a name is never markup.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image, UnidentifiedImageError

from Utils.core.files import atomic_write_bytes
from Utils.reports.items import Cell, Curve, Gallery, Item, Number, Picture, Relief, Section, Slider, Table, Text
from Utils.reports.plot import lay_out
from Utils.reports.three_library import three_library

MISSING = "—"
"""The text of a cell without a value."""

_NOT_A_NUMBER = "n/a"
_NUMBERS = (int, float, np.integer, np.floating)
_TEMPLATES = Path(__file__).parent / "templates"
_MEDIA_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg"}
# Pictures wider than this get a line of their own.
_HALF_A_LINE = 640
# Smaller ones are enlarged by whole pixels: smoothed, they would look like blurred results.
_ENLARGED_BELOW = 200


def write_page(path: str | os.PathLike[str], title: str, sections: Sequence[Section], facts: Mapping[str, Any]) -> None:
    """Write a page; the file is whole or absent.

    Args:
        path: name in an existing folder.
        title: title of the page.
        sections: its parts, in order.
        facts: further facts, such as the model, the config and the machine: scalars, sequences and mappings, nested to
            any depth. They come last and can be folded.

    Raises:
        ValueError: a picture that is neither PNG nor JPEG, or a slider's pictures of two sizes.
        OSError: the file cannot be written.
    """
    # File names may hold bytes that are not text; the page shows a question mark for them.
    atomic_write_bytes(path, render_page(title, sections, facts).encode("utf-8", errors="replace"))


def render_page(title: str, sections: Sequence[Section], facts: Mapping[str, Any]) -> str:
    """The text of the page that :func:`write_page` writes."""
    has_relief = any(isinstance(item, Relief) for section in sections for item in section.items)
    # What a surface needs is large, and only its pages have it.
    scripts = [_asset("page.js"), *([three_library(), _asset("relief.js")] if has_relief else [])]
    numbered = [
        {"id": f"section-{number}", "title": section.title, "items": [_view(item) for item in section.items]}
        for number, section in enumerate(sections, start=1)
    ]
    template = _environment().get_template("page.html")
    return template.render(
        title=title,
        sections=numbered,
        facts=_fact(facts),
        style=Markup(_asset("page.css")),
        scripts=[Markup(script) for script in scripts],
        policy=_policy(scripts, has_relief),
    )


def render_relief(relief: Relief) -> str:
    """A page that shows nothing but a surface, as large as its window; for a frame in another page."""
    scripts = [three_library(), _asset("relief.js")]
    return (
        _environment()
        .get_template("relief.html")
        .render(
            item=_view(relief),
            style=Markup(_asset("page.css")),
            scripts=[Markup(script) for script in scripts],
            policy=_policy(scripts, True),
        )
    )


def _policy(scripts: Sequence[str], has_relief: bool) -> str:
    """The content security policy: these scripts run and no others, should markup ever get past the escaping.

    A surface's image lies inside of its file, and is read by way of a ``blob:``, which is memory of the page itself.
    """
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    images = "img-src data: blob:; connect-src blob:" if has_relief else "img-src data:"
    return (
        f"default-src 'none'; {images}; style-src 'unsafe-inline'; script-src {allowed}; base-uri 'none'; "
        "form-action 'none'"
    )


@cache
def _environment() -> Environment:
    loader = FileSystemLoader(_TEMPLATES)
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


@cache
def _asset(name: str) -> str:
    """A style or script of the package, with line breaks as a browser counts them for the script's hash."""
    return (_TEMPLATES / name).read_text(encoding="utf-8").strip()


def _view(item: Item) -> dict[str, Any]:
    """What the templates need of an item; ``kind`` names the macro that draws it."""
    match item:
        case Table():
            return _table_view(item)
        case Picture():
            return {"kind": "picture", **_picture_view(item)}
        case Gallery():
            return {
                "kind": "gallery",
                "title": item.title,
                "pictures": [_picture_view(picture) for picture in item.pictures],
                "columns": item.columns,
                "scales": item.scales,
                "caption": item.caption,
            }
        case Slider():
            return _slider_view(item)
        case Curve():
            plot = lay_out(item.x_label, item.y_label, item.series)
            return {"kind": "curve", "title": item.title, "plot": plot}
        case Relief():
            return _relief_view(item)
        case Text():
            return {"kind": "text", "title": item.title, "paragraphs": item.paragraphs}


def _picture_view(picture: Picture) -> dict[str, Any]:
    image = _embedded(picture.image, picture.title)
    return {"title": picture.title, "image": image, "caption": picture.caption, "wide": image["width"] > _HALF_A_LINE}


def _slider_view(slider: Slider) -> dict[str, Any]:
    before, after = (_embedded(data, slider.title) for data in (slider.before, slider.after))
    sizes = [(image["width"], image["height"]) for image in (before, after)]
    if sizes[0] != sizes[1]:
        raise ValueError(f"slider {slider.title!r}: pictures of {sizes[0]} and {sizes[1]} pixels; give two of one size")
    return {
        "kind": "slider",
        "title": slider.title,
        "images": [before, after],
        "labels": [slider.before_label, slider.after_label],
        "caption": slider.caption,
    }


def _relief_view(relief: Relief) -> dict[str, Any]:
    path = {"eyes": relief.eyes, "targets": relief.targets}
    return {
        "kind": "relief",
        "title": relief.title,
        "glb": base64.b64encode(relief.glb).decode(),
        # Between tags; numbers hold none of the characters that could end them.
        "path": Markup(json.dumps(path, separators=(",", ":"))),
        "label": relief.label,
        "true_scale": relief.true_scale,
        "caption": relief.caption,
    }


def _embedded(data: bytes, title: str) -> dict[str, Any]:
    """A picture as data URI, with its size, which lets a browser lay out the page before decoding."""
    try:
        with Image.open(io.BytesIO(data), formats=list(_MEDIA_TYPES)) as image:
            kind, (width, height) = str(image.format), image.size
    except UnidentifiedImageError as error:
        raise ValueError(f"picture {title!r} is neither PNG nor JPEG") from error
    source = f"data:{_MEDIA_TYPES[kind]};base64,{base64.b64encode(data).decode()}"
    return {"source": source, "width": width, "height": height, "small": width < _ENLARGED_BELOW}


def _table_view(table: Table) -> dict[str, Any]:
    columns = [[row[place] for row in table.rows] for place in range(len(table.headings))]
    numeric = [_is_numeric(column) for column in columns]
    writers = [_writer(column) for column in columns]
    return {
        "kind": "table",
        "title": table.title,
        "headings": list(zip(table.headings, numeric, strict=True)),
        "rows": [[_cell_view(*each) for each in zip(row, numeric, writers, strict=True)] for row in table.rows],
        # The name of a row is set as its heading.
        "named_rows": not numeric[0],
        "sortable": table.sortable,
        "note": table.note,
    }


def _is_numeric(cells: Sequence[Cell]) -> bool:
    """Whether a column holds numbers or missing values, and nothing else."""
    return bool(cells) and all(cell is None or _value(cell) is not None for cell in cells)


def _value(cell: Cell) -> float | None:
    """A cell's number; None where it holds text or nothing."""
    if isinstance(cell, Number):
        return cell.value
    return float(cell) if isinstance(cell, _NUMBERS) and not isinstance(cell, bool) else None


def _cell_view(cell: Cell, numeric: bool, write: Callable[[float], str]) -> tuple[str, str | None]:
    """A cell's text, and its sorting key: "" for no value, None to sort by the text itself."""
    if cell is None:
        return MISSING, ""
    value = _value(cell)
    if value is None or not numeric:
        return cell.text if isinstance(cell, Number) else str(cell), None
    text = cell.text if isinstance(cell, Number) else write(value)
    if math.isnan(value):
        return text, ""
    # JavaScript's word for inf.
    key = f"{value:.12g}".replace("inf", "Infinity")
    return text, None if key == text else key


def _writer(cells: Sequence[Cell]) -> Callable[[float], str]:
    """A function that writes a column's plain numbers: whole ones unchanged, others to four digits of a typical one."""
    plain = [cell for cell in cells if isinstance(cell, _NUMBERS)]
    if all(isinstance(cell, int | np.integer) for cell in plain):
        return lambda value: f"{value:.0f}"
    sizes = [abs(float(cell)) for cell in plain if math.isfinite(cell) and cell]
    magnitude = math.floor(math.log10(statistics.median_low(sizes))) if sizes else 0
    style = f".{max(3 - magnitude, 0)}f" if -4 <= magnitude <= 7 else ".3e"
    return lambda value: _NOT_A_NUMBER if math.isnan(value) else f"{value:{style}}"


def _fact(value: Any) -> Any:
    """A fact as the template draws it: a mapping of facts, or text."""
    if isinstance(value, Mapping):
        return {str(key): _fact(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        if any(isinstance(item, Mapping) for item in value):
            return {str(number): _fact(item) for number, item in enumerate(value, start=1)}
        return ", ".join(str(_fact(item)) for item in value) or MISSING
    if value is None or value == "":
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    return Path(value).as_posix() if isinstance(value, os.PathLike) else str(value)
