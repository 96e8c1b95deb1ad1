"""Pages of reports, read by the standard library's parser."""

from __future__ import annotations

import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from tests.report_examples import (
    picture,
)
from Utils.reports.items import ColourScale, Curve, Gallery, Picture, Section, Slider, Table, Text
from Utils.reports.page import render_page

VOID = {"meta", "img", "input", "br", "hr", "link"}
HOSTILE = "<script>alert(1)</script>\"'&<img src=x onerror=alert(1)></style>{{ 7 * 7 }}"


class Reader(HTMLParser):
    """A page as its elements, texts and tables; a tag that does not match the one it closes is an error."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.tables: list[list[list[str]]] = []
        self.cells: list[dict[str, str | None]] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert len(dict(attributes)) == len(attributes), f"an attribute stands twice: {attributes}"
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.cells.append(dict(attributes))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data.replace("\N{NO-BREAK SPACE}", " ")

    def text_of(self, tag: str) -> list[str]:
        return [data.strip() for element, data in self.texts if element == tag and data.strip()]

    def attributes(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        return [
            found
            for element, found in self.elements
            if element == tag and all(found.get(key) == value for key, value in wanted.items())
        ]


def read(path: Path) -> Reader:
    return Reader(path.read_text(encoding="utf-8"))


def of_items(*items: Any, **facts: Any) -> Reader:
    return Reader(render_page("page", [Section("part", items)], facts))


def everything(text: str = "text") -> tuple[list[Section], dict[str, Any]]:
    """One of each item, with ``text`` wherever text can stand."""
    items = [
        Table(text, [text, "n"], [[text, 1.0], [text, None]], sortable=True, note=text),
        Picture(text, picture(), text),
        Gallery(
            text, [Picture(text, picture(), text)], 2, [ColourScale(text, text, text, ["#000000", "#ffffff"])], text
        ),
        Slider(text, picture(), picture((0, 0, 255), kind="JPEG"), text, text, text),
        Curve(text, text, text, {text: [(0.0, 1.0), (1.0, math.nan), (2.0, 3.0)]}),
        Text(text, [text, text]),
    ]
    return [Section(text, items)], {text: {text: [text, {text: text}]}, "plain": text}
