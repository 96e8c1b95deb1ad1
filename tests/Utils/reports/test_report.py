"""Reports: what they hold, that it is escaped, that nothing is fetched, and that they stay small.

The page is read by the standard library's parser; test_report_browser.py opens it in a browser.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import evaluateDiffusion
import evaluateViT
from tests.conftest import (
    TEST_IDS,
    full_disk,
    small_diffusion_evaluation,
    small_vit_evaluation,
    write_config,
)
from tests.report_examples import (
    CEILING,
    picture,
    run_evaluation,
    test_part,
    write_evaluation,
    write_large_evaluation,
)
from Utils.core.errors import UserError
from Utils.pictures.comparison import Panel
from Utils.pictures.quantity import DEPTH, DEPTH_IN_METRES
from Utils.reports.drawing import draw_panel, draw_relief, drawn_range, encode, error_limit
from Utils.reports.evaluation import Evaluation
from Utils.reports.evaluation_report import choose_examples, write_report
from Utils.reports.items import ColourScale, Curve, Gallery, Number, Picture, Section, Slider, Table, Text
from Utils.reports.page import render_page, write_page
from Utils.reports.plot import lay_out
from Utils.reports.tile_panels import tile_panels
from Utils.scoring.height_scorer import HeightScorer

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


# The page


def test_a_page_of_everything_is_well_formed_and_names_its_parts(tmp_path: Path) -> None:
    sections, facts = everything()
    write_page(tmp_path / "page.html", "a title", sections, facts)
    page = read(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert page.text_of("title")[:1] == page.text_of("h1") == ["a title"]
    assert page.text_of("h2") == ["text", "Facts"]
    ids = [found["id"] for _, found in page.elements if "id" in found]
    assert [found["href"] for found in page.attributes("a")] == [f"#{name}" for name in ids]
    assert len(set(ids)) == len(ids) == 2


def test_text_is_never_markup() -> None:
    sections, facts = everything(HOSTILE)
    page = Reader(render_page(HOSTILE, sections, facts))
    assert len(page.attributes("script")) == len(page.attributes("style")) == 1
    assert not [found for _, found in page.elements if any(key.startswith("on") for key in found)]
    for tag in ("title", "h1", "h2", "h3", "p", "figcaption", "li", "summary", "text", "span", "small"):
        assert HOSTILE in "".join(page.text_of(tag)), tag
    assert page.tables[0][0][0] == page.tables[0][1][0] == HOSTILE
    assert HOSTILE in [found.get("alt") for found in page.attributes("img")]


def test_nothing_is_fetched_and_the_policy_lets_nothing_through() -> None:
    page = Reader(render_page("page", *everything()))
    for tag, found in page.elements:
        assert not {"srcset", "background", "action", "formaction", "poster", "data"} & set(found)
        for name in ("src", "href", "xlink:href"):
            value = found.get(name)
            assert value is None or value.startswith(("data:image/png;base64,", "data:image/jpeg;base64,", "#")), tag
        assert "url(" not in (found.get("style") or "")
    assert not {"link", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in page.elements}
    (style,), (script,) = page.text_of("style"), page.text_of("script")
    assert not re.search(r"url\(|@import|@font-face", style)
    (policy,) = page.attributes("meta", **{"http-equiv": "Content-Security-Policy"})
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy["content"] == (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )


def test_the_policy_stands_before_anything_it_governs() -> None:
    elements = Reader(render_page("page", *everything())).elements
    governed = ("style", "script", "img")
    first = next(found for tag, found in elements if tag in governed or "http-equiv" in found)
    assert first.get("http-equiv") == "Content-Security-Policy"


def test_pictures_come_back_as_they_went_in() -> None:
    png, jpeg = picture(size=(30, 20)), picture((1, 2, 3), (700, 20), "JPEG")
    page = of_items(Picture("a", png), Picture("b", jpeg))
    small, wide = page.attributes("img")
    for found, data, kind in ((small, png, "png"), (wide, jpeg, "jpeg")):
        assert base64.b64decode(str(found["src"]).removeprefix(f"data:image/{kind};base64,")) == data
    assert (small["width"], small["height"], small["class"]) == ("30", "20", "small")
    assert (wide["width"], wide["height"]) == ("700", "20") and "class" not in wide


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="'t': row 2 has 1 cells for 2 headings"):
        Table("t", ["a", "b"], [[1, 2], [3]])
    with pytest.raises(ValueError, match="'t' has no headings"):
        Table("t", [], [])
    with pytest.raises(ValueError, match="picture 't' is neither PNG nor JPEG"):
        of_items(Picture("t", b"GIF89a\x01\x00\x01\x00\x00\x00\x00;"))
    with pytest.raises(ValueError, match=r"slider 't': pictures of \(300, 200\) and \(20, 20\) pixels"):
        of_items(Slider("t", picture(), picture(size=(20, 20)), "a", "b"))


def test_a_page_is_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    write_page(path, "first", [], {})
    with full_disk(1000), pytest.raises(OSError, match=r"page\.html"):
        write_page(path, "second", [], {})
    assert read(path).text_of("title") == ["first"]
    assert [found.name for found in tmp_path.iterdir()] == ["page.html"]
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        write_page(tmp_path / "absent" / "page.html", "t", [], {})


def test_a_name_that_is_no_text_does_not_stop_the_page(tmp_path: Path) -> None:
    write_page(tmp_path / "page.html", "bytes \udcff in a name", [], {})
    assert read(tmp_path / "page.html").text_of("title") == ["bytes ? in a name"]


# Tables


def test_cells_are_written_and_sorted_by_their_values() -> None:
    rows = [
        ["b", 1234.5, 3, Number(-1.5, "-1.50"), None],
        ["a", math.nan, 12, Number(math.nan, "n/a"), None],
        ["c", 0.25, 7, Number(2.0, "+2.00"), None],
        ["d", -math.inf, 0, None, None],
        ["e", 10.0, 1, Number(3.0, "3"), None],
    ]
    page = of_items(Table("", ["name", "float", "int", "number", "nothing"], rows, sortable=True))
    assert page.tables[0][1:] == [
        ["b", "1234.50", "3", "-1.50", "—"],
        ["a", "n/a", "12", "n/a", "—"],
        ["c", "0.25", "7", "+2.00", "—"],
        ["d", "-inf", "0", "—", "—"],
        ["e", "10.00", "1", "3", "—"],
    ]
    body = page.cells[5:]
    assert [cell.get("data-v") for cell in body[1::5]] == ["1234.5", None, None, "-Infinity", "10"]
    assert [cell.get("data-v") for cell in body[3::5]] == ["-1.5", None, "2", None, None]
    assert ["data-none" in cell for cell in body[3::5]] == [False, True, False, True, False]
    assert all(cell.get("class") == "n" for place, cell in enumerate(page.cells) if place % 5)
    assert not any(cell.get("class") == "n" for cell in page.cells[::5])


def test_a_column_with_a_word_in_it_is_text() -> None:
    page = of_items(Table("", ["mixed", "flag"], [["x", True], [2.5, False]]))
    assert page.tables[0][1:] == [["x", "True"], ["2.5", "False"]]
    assert not any(cell.get("class") for cell in page.cells)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
def test_what_a_number_is_sorted_by_is_its_value(values: list[float]) -> None:
    page = of_items(Table("", ["v"], [[value] for value in values], sortable=True))
    keys = [cell.get("data-v") for cell in page.cells[1:]]
    for value, [text], key in zip(values, page.tables[0][1:], keys, strict=True):
        # Twelve digits are written: more would only lengthen the file.
        assert float(text if key is None else key) == pytest.approx(value, rel=1e-11)


def test_four_digits_of_the_typical_value() -> None:
    def shown(*values: float) -> list[str]:
        return [row[0] for row in of_items(Table("", ["v"], [[value] for value in values])).tables[0][1:]]

    assert shown(0.512345, 0.6, 12.0) == ["0.5123", "0.6000", "12.0000"]
    assert shown(2276.04, 1100.9, 35.2) == ["2276", "1101", "35"]
    assert shown(26.8551, 25.5, 0.0) == ["26.86", "25.50", "0.00"]
    assert shown(1.5e12, 2.0e12) == ["1.500e+12", "2.000e+12"]
    assert shown(0.0, 0.0) == ["0.000", "0.000"]
    assert shown(np.float32(0.5), np.float64(0.25)) == ["0.5000", "0.2500"]  # type: ignore[arg-type]


# Facts


def test_facts_are_nested_and_folded() -> None:
    facts = {
        "date": "2026-11-21",
        "steps": [2, 1, 0],
        "config": {"lr": 1e-4, "compile": False, "prior": None, "model": {"taps": [], "path": Path("a") / "b"}},
        "stages": [{"name": "vae"}, {"name": "unet"}],
    }
    page = of_items(**facts)
    assert page.text_of("summary") == ["config", "model", "stages", "1", "2"]
    assert all("open" not in found for found in page.attributes("details"))
    shown = dict(zip(page.text_of("dt"), page.text_of("dd"), strict=True))
    assert shown["date"] == "2026-11-21" and shown["steps"] == "2, 1, 0"
    assert (shown["lr"], shown["compile"], shown["prior"], shown["taps"]) == ("0.0001", "no", "—", "—")
    assert shown["path"] == "a/b"
    assert page.text_of("dd")[-2:] == ["vae", "unet"]


def test_no_facts_no_section() -> None:
    assert of_items().text_of("h2") == ["part"]


# Curves

COORDINATE = st.floats(-1e9, 1e9) | st.sampled_from([math.nan, math.inf, 0.0, 1.0, 2.0])


@given(st.lists(st.lists(st.tuples(COORDINATE, COORDINATE), max_size=12), max_size=4))
def test_points_lie_in_the_frame_and_ticks_on_it(series: list[list[tuple[float, float]]]) -> None:
    plot = lay_out("x", "y", {str(number): points for number, points in enumerate(series)})
    places = [
        tuple(float(part) for part in point.split(","))
        for line in plot.lines
        for piece in line.pieces
        for point in piece.split()
    ] + [(x, y) for line in plot.lines for x, y, _ in line.marks]
    for x, y in places:
        # Positions are rounded to a tenth.
        assert plot.left - 0.1 <= x <= plot.right + 0.1
        assert plot.top - 0.1 <= y <= plot.bottom + 0.1
    assert [x for x, _ in plot.x_ticks] == sorted(x for x, _ in plot.x_ticks)
    assert [y for y, _ in plot.y_ticks] == sorted((y for y, _ in plot.y_ticks), reverse=True)
    assert len(plot.y_ticks) >= 2
    assert all(plot.left - 0.1 <= x <= plot.right + 0.1 for x, _ in plot.x_ticks)


def test_ticks_tell_where_a_value_lies() -> None:
    plot = lay_out("x", "y", {"a": [(0.0, -1.0), (10.0, 3.0)]})
    for ticks, low, high, first, last in (
        (plot.x_ticks, 0.0, 10.0, plot.left, plot.right),
        (plot.y_ticks, float(plot.y_ticks[0][1]), float(plot.y_ticks[-1][1]), plot.bottom, plot.top),
    ):
        for place, name in ticks:
            assert place == pytest.approx(first + (last - first) * (float(name) - low) / (high - low), abs=0.06)
    assert float(plot.y_ticks[0][1]) <= -1.0 and float(plot.y_ticks[-1][1]) >= 3.0


def test_epochs_are_whole() -> None:
    plot = lay_out("epoch", "loss", {"a": [(1, 0.5), (2, 0.25), (3, 0.2)]})
    assert [name for _, name in plot.x_ticks] == ["1", "2", "3"]


def test_a_missing_value_breaks_its_line() -> None:
    points = [(0.0, 1.0), (1.0, 2.0), (2.0, math.nan), (3.0, 1.0), (4.0, math.inf), (5.0, 1.0), (6.0, 2.0)]
    line = lay_out("x", "y", {"a": points}).lines[0]
    assert [len(piece.split()) for piece in line.pieces] == [2, 2]
    # The lone point between two gaps is a mark.
    assert len(line.marks) == 5


def test_a_curve_has_axes_ticks_and_a_legend() -> None:
    page = of_items(
        Curve("loss", "epoch", "L1", {"training": [(1, 4.0), (2, 2.0)], "validation": [(1, 5.0), (2, 3.0)]})
    )
    assert len(page.attributes("polyline")) == 2 + 2, "the lines, and their samples in the legend"
    assert page.text_of("li") == ["training", "validation"]
    texts = page.text_of("text")
    assert {"epoch", "L1", "1", "2"} <= set(texts) and len(texts) >= 6


# Pictures of tiles


def test_panels_are_coloured_by_their_scales() -> None:
    valid = np.ones((40, 40), bool)
    valid[:, :10] = False
    ramp = np.tile(np.linspace(0.0, 255.0, 40), (40, 1))
    height = draw_panel(Panel("t", ramp, "height"), valid, 10.0)
    assert (height[:, :10] == 0x8C).all()
    # The yellow that viridis ends in, give or take the rounding of 8 bits.
    np.testing.assert_allclose(height[0, -1], [253, 231, 37], atol=1)
    error = draw_panel(Panel("t", np.where(ramp > 127, 10.0, -10.0), "error"), valid, 10.0)
    assert error[0, 12, 2] > error[0, 12, 0] and error[0, 39, 0] > error[0, 39, 2], "blue below, red above"
    relief = draw_panel(Panel("t", ramp, "relief"), valid, 10.0)
    assert (relief[..., 0] == relief[..., 1]).all() and (relief[:, :10] == 0x8C).all()
    image = draw_panel(Panel("t", np.stack([np.ones((40, 40)), *np.zeros((2, 40, 40))]), "image"), valid, 10.0)
    assert (image == [255, 0, 0]).all()


def test_colour_and_light_in_one() -> None:
    valid = np.ones((40, 40), bool)
    tilted = np.tile(np.linspace(0.0, 255.0, 40), (40, 1))
    lit, shaded = draw_relief(tilted, valid), draw_relief(tilted[:, ::-1], valid)
    # The same heights, facing the light in the west and turned away from it.
    assert (lit[:, 5:-5].astype(int) > shaded[:, ::-1][:, 5:-5]).mean() > 0.9
    assert lit[:, 5:-5].mean() > shaded[:, 5:-5].mean() + 10


def test_errors_share_a_scale_that_few_wild_pixels_do_not_set() -> None:
    errors = np.full((100, 100), 12.0)
    errors[0, :50] = 200.0
    assert error_limit([Panel("t", errors, "error")]) == 15.0
    assert error_limit([Panel("t", np.full((4, 4), np.nan), "error")]) == 5.0
    assert error_limit([]) == 5.0


def test_pictures_are_shrunk_never_enlarged() -> None:
    import io

    from PIL import Image

    pixels = np.zeros((100, 400, 3), np.uint8)
    for longest, size, kind in ((200, (200, 50), "JPEG"), (1000, (400, 100), "JPEG"), (80, (80, 20), "PNG")):
        with Image.open(io.BytesIO(encode(pixels, longest))) as found:
            assert (found.size, found.format) == (size, kind)


# Evaluations


def scored(*values: float, ids: list[str] | None = None) -> Evaluation:
    """An evaluation with the given aligned MAE of each tile."""
    found = Evaluation(HeightScorer(), ids=ids or [str(place) for place in range(len(values))])
    found.rows["coarse"] = [{"aligned.mae": value} for value in values]
    return found


@pytest.mark.parametrize(
    ("values", "best", "median", "worst"),
    [
        ([3.0], "0", "", ""),
        ([3.0, 1.0], "1", "", "0"),
        ([3.0, 1.0, 2.0], "1", "2", "0"),
        ([4.0, 3.0, 2.0, 1.0, 0.0], "4", "2", "0"),
        ([9, 8, 7, 6, 5, 4, 3, 2, 1, 0], "987", "654", "210"),
        ([1.0] * 6, "01", "23", "45"),
        ([math.nan, 5.0, math.nan, 4.0, 3.0], "4", "3", "1"),
        ([math.nan, math.nan], "", "", ""),
    ],
)
def test_best_median_and_worst(values: list[float], best: str, median: str, worst: str) -> None:
    chosen = choose_examples(scored(*values))
    assert chosen == {"best": list(best), "median": list(median), "worst": list(worst)}


@given(st.lists(st.floats(0, 100) | st.just(math.nan) | st.integers(0, 3).map(float), max_size=40))
def test_examples_are_in_order_and_none_comes_twice(values: list[float]) -> None:
    found = scored(*values)
    chosen = choose_examples(found)
    scores = dict(zip(found.ids, values, strict=True))
    listed = [tile for kind in ("best", "median", "worst") for tile in chosen[kind]]
    assert len(set(listed)) == len(listed)
    assert [scores[tile] for tile in listed] == sorted(scores[tile] for tile in listed)
    counted = sorted(value for value in values if not math.isnan(value))
    if counted:
        assert scores[chosen["best"][0]] == counted[0]
    if len(counted) > 1:
        assert scores[chosen["worst"][-1]] == counted[-1]
    if len(counted) > 2:
        below, above = counted[(len(counted) - 1) // 2 - 1], counted[min(len(counted) // 2 + 1, len(counted) - 1)]
        assert below <= scores[chosen["median"][len(chosen["median"]) // 2]] <= above


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two maps of eleven tiles, one without a valid height, none with a picture of its own; read only."""
    folder = tmp_path_factory.mktemp("report")
    dataset = test_part(folder / "dataset", [str(number) for number in range(1, 12)], empty=["4"])
    return write_evaluation(dataset, folder / "results")


def markdown_tables(path: Path) -> list[list[list[str]]]:
    blocks = path.read_text(encoding="utf-8").strip().split("\n\n")
    cells = [[[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()] for block in blocks]
    return [[rows[0], *rows[2:]] for rows in cells]


def test_the_report_has_the_tables_of_table_md(report: Path) -> None:
    page, tables = read(report), markdown_tables(report.parent / "table.md")
    assert len(tables) == 2
    assert page.tables[:2] == tables
    assert [row[0] for row in tables[0]][1:] == ["coarse", "refined", "change", "± standard error", CEILING]
    assert "10 of 11 tiles" in tables[0][0][0]


def test_the_report_has_a_row_a_tile(report: Path) -> None:
    import csv

    with (report.parent / "tiles.csv").open(encoding="utf-8") as stream:
        scores = {row["id"]: row for row in csv.DictReader(stream)}
    headings, *rows = read(report).tables[2]
    assert headings[:4] == ["tile", "aligned MAE ↓, coarse", "aligned MAE ↓, refined", "change"]
    assert [row[0] for row in rows] == list(scores) == [str(number) for number in range(1, 12)]
    for row in rows:
        expected = scores[row[0]]
        if row[0] == "4":
            assert set(row[1:]) == {"n/a"}
            continue
        before, after = (float(expected[f"{name}.aligned.mae"]) for name in ("coarse", "refined"))
        assert row[1:4] == [f"{before:.3f}", f"{after:.3f}", f"{after - before:+.3f}"]
        assert row[headings.index("paper PSNR (dB) ↑")] == f"{float(expected['refined.paper.psnr']):.2f}"


def test_the_report_draws_best_median_and_worst(report: Path) -> None:
    page = read(report)
    assert not (report.parent / "pictures").exists(), "no picture was asked for"
    titles = page.text_of("h3")
    tiles = [title.removeprefix("Tile ") for title in titles if title.startswith("Tile ")]
    shown = [float(re.findall(r"^aligned MAE ([\d.]+),", title)[0]) for title in titles if title.startswith("aligned")]
    assert len(set(tiles)) == len(tiles) == len(shown) == 9 and "4" not in tiles
    assert shown == sorted(shown)
    # A slider's two, and three panels each of truth, coarse and refined.
    assert len(page.attributes("img")) == 9 * (2 + 9)
    assert len(page.attributes("input", type="range")) == 9
    assert {"Best tiles", "Median tiles", "Worst tiles"} <= set(page.text_of("h2"))


def test_the_panels_are_those_of_the_evaluation(report: Path) -> None:
    """What the page reads back from disk is what was scored: its refined map lies between prior and truth."""
    import io

    from PIL import Image

    page = read(report)
    images = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(str(found["src"]).split(",")[1]))), np.int64)
        for found in page.attributes("img")[:11]
    ]
    # before, after, then image, coarse, refined, truth, error, error, relief, relief, relief
    coarse, refined, truth = images[3], images[4], images[5]
    assert np.abs(refined - truth).mean() < np.abs(coarse - truth).mean()
    assert np.abs(refined - coarse).mean() > 1.0


def test_the_report_tells_the_runs_facts(report: Path) -> None:
    page = read(report)
    assert {"protocols", "software", "machine", "config"} <= set(page.text_of("summary"))
    assert {"date", "model", "batch_size", "timesteps", "seconds_per_tile", "device"} <= set(page.text_of("dt"))
    assert "summary" not in page.text_of("summary"), "the means are tables"
    assert "2, 1, 0" in page.text_of("dd")
    assert json.loads((report.parent / "metrics.json").read_text(encoding="utf-8"))["machine"]["device"] == "cpu"


def test_a_single_map_has_no_slider_and_no_change(tmp_path: Path) -> None:
    dataset = test_part(tmp_path / "dataset", ["1", "2", "3"])
    page = read(write_evaluation(dataset, tmp_path / "results", stages=1, map_format="npy"))
    assert page.attributes("input", type="range") == []
    assert len(page.attributes("img")) == 3 * 6
    assert page.tables[2][0][:2] == ["tile", "aligned MAE ↓"] and "change" not in page.tables[2][0]
    assert {"Best tile", "Median tile", "Worst tile"} <= set(page.text_of("h2"))


def test_tiles_without_any_score_leave_a_report_without_examples(tmp_path: Path) -> None:
    dataset = test_part(tmp_path / "dataset", ["1", "2"], empty=["1", "2"])
    page = read(write_evaluation(dataset, tmp_path / "results"))
    assert page.text_of("h2") == ["Summary", "All tiles", "Facts"]
    assert page.attributes("img") == []


ENTRIES = {"coarse": "prior"}


def test_a_report_that_cannot_be_written_is_an_error_that_names_it(tmp_path: Path) -> None:
    dataset = test_part(tmp_path / "dataset", ["1", "2", "3"])
    found, config, tiles = run_evaluation(dataset, tmp_path / "results")
    with full_disk(20_000), pytest.raises(UserError, match=r"cannot write '.*report\.html': no space left on the disk"):
        write_report(found, config, {}, tiles, ENTRIES)
    assert not (tmp_path / "results" / "report.html").exists()
    assert (tmp_path / "results" / "table.md").is_file()


def test_a_map_that_is_gone_is_an_error_that_names_it(tmp_path: Path) -> None:
    dataset = test_part(tmp_path / "dataset", ["1", "2", "3"])
    found, config, tiles = run_evaluation(dataset, tmp_path / "results")
    (tmp_path / "results" / "maps" / "tile_2.tif").unlink()
    with pytest.raises(UserError, match=r"tile_2\.tif: no such file"):
        write_report(found, config, {}, tiles, ENTRIES)


def test_a_large_report_stays_small(tmp_path: Path) -> None:
    path = write_large_evaluation(tmp_path)
    assert path.stat().st_size < 10e6
    page = path.read_text(encoding="utf-8")
    assert page.count("<tr>") == 2 * (1 + 4) + 1 + 5000
    assert page.count("<img ") == 9 * 11


# Training curves


def write_log(stage: Path, *rows: dict[str, Any]) -> None:
    stage.mkdir(parents=True, exist_ok=True)
    (stage / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's plan and logs: a fold, and the stage that made the model."""
    folder = tmp_path / "run"
    rows = [{"epoch": epoch, "train/L1Loss": 1.0 / epoch, "validation/paper.mae": 10.0 / epoch} for epoch in (1, 2, 3)]
    rows[1]["validation/paper.mae"] = None  # type: ignore[assignment]
    write_log(folder / "final", *rows)
    write_log(folder / "fold-1", *rows)
    plan = [{"name": "fold-1", "held_out": ["1"]}, {"name": "final", "held_out": []}, {"name": "none", "held_out": []}]
    (folder / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    return folder


@pytest.mark.parametrize("place", ["", "model", "final/checkpoints/best.safetensors"])
def test_training_curves_are_found_from_whatever_was_scored(run: Path, place: str) -> None:
    from Utils.reports.training_curves import training_curves

    if place:
        (run / place).parent.mkdir(parents=True, exist_ok=True)
        (run / place).touch() if place.endswith("safetensors") else (run / place).mkdir()
    training, validation = training_curves(run / place)
    assert (training.title, validation.title) == ("final: training", "final: validation")
    assert training.series["L1Loss"] == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]
    (first, second, third) = validation.series["paper MAE"]
    assert (first, third) == ((1, 10.0), (3, pytest.approx(10 / 3))) and math.isnan(second[1])


def test_a_damaged_log_costs_the_curves_alone(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    from Utils.reports.training_curves import training_curves

    (run / "final" / "log.jsonl").write_text('{"epoch": 1,', encoding="utf-8")
    assert training_curves(run) == []
    assert "no training curves" in caplog.text
    assert training_curves(run.parent / "elsewhere") == []


# The scripts


def test_the_scripts_write_a_report(shared_dataset: Path, vit_run: Path, diffusion_run: Path, tmp_path: Path) -> None:
    for script, config, names in (
        (evaluateViT, small_vit_evaluation(shared_dataset, vit_run, tmp_path / "vit"), ["coarse"]),
        (
            evaluateDiffusion,
            small_diffusion_evaluation(shared_dataset, diffusion_run, tmp_path / "diffusion"),
            ["coarse", "refined", "change", "± standard error", "VAE ceiling"],
        ),
    ):
        assert script.main(["--config", str(write_config(tmp_path / "config.json", config))]) == 0
        results = Path(config["output_dir"])
        page = read(results / "report.html")
        assert page.tables[:2] == markdown_tables(results / "table.md")
        assert [row[0] for row in page.tables[0][1:]] == names
        assert [row[0] for row in page.tables[2][1:]] == list(TEST_IDS)
        assert "Training" in page.text_of("h2")


def test_a_tile_in_metres_is_drawn_in_metres() -> None:
    rng = np.random.default_rng(0)
    tile = {
        "image": torch.rand(3, 8, 8),
        "target": torch.full((1, 8, 8), 9000.0),  # the file's unit, which nobody should see
        "depth": torch.from_numpy(rng.uniform(2.0, 9.0, (1, 8, 8)).astype(np.float32)),
        "valid": torch.ones(1, 8, 8, dtype=torch.bool),
    }
    drawn = tile["depth"][0].numpy() + 0.5
    panels, _ = tile_panels(tile, {"depth": drawn}, DEPTH_IN_METRES)
    by_title = {panel.title: panel.values for panel in panels}
    assert set(by_title) == {"image", "truth", "depth", "error, depth"}, "depth is no relief seen from above"
    np.testing.assert_array_equal(by_title["truth"], tile["depth"][0])
    np.testing.assert_allclose(by_title["error, depth"], 0.5, rtol=1e-5)
    stretched = {panel.title: panel.values for panel in tile_panels(tile, {"depth": drawn}, DEPTH)[0]}
    assert stretched["truth"].min() == 0.0 and stretched["truth"].max() == 255.0
    assert "truth, relief" in {panel.title for panel in tile_panels(tile, {"coarse": drawn})[0]}


def test_colours_span_what_is_drawn_in_metres() -> None:
    valid = np.array([[True, True, False]])
    panels = [Panel("truth", np.array([[2.0, 6.0, 99.0]]), "height"), Panel("e", np.array([[0.0, 0.13, 9.0]]), "error")]
    assert drawn_range(panels[:1], valid) == (2.0, 6.0)
    assert drawn_range([Panel("flat", np.full((1, 3), 4.0), "height")], valid) == (3.5, 4.5)
    lowest, highest, grey = draw_panel(panels[0], valid, 1.0, (2.0, 6.0))[0].tolist()
    assert lowest == [68, 1, 84] and highest == [253, 231, 36] and grey == [0x8C] * 3
    limit = error_limit([Panel("e", np.array([[0.0, 0.13]]), "error")], whole=False)
    assert limit == pytest.approx(0.15), "five grey levels would hide errors of centimetres"
