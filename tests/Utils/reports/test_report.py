"""Reports: what they hold, that it is escaped, that nothing is fetched.

The page is read by the standard library's parser; test_report_browser.py opens it in a browser.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from tests.conftest import (
    full_disk,
)
from tests.report_examples import (
    picture,
)
from tests.Utils.reports.report_pages import HOSTILE, Reader, everything, of_items, read
from Utils.pictures.comparison import Panel
from Utils.pictures.quantity import DEPTH, DEPTH_IN_METRES
from Utils.reports.drawing import draw_panel, draw_relief, drawn_range, encode, error_limit
from Utils.reports.items import Curve, Number, Picture, Slider, Table
from Utils.reports.page import render_page, write_page
from Utils.reports.plot import lay_out
from Utils.reports.tile_panels import tile_panels

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
@example([[(5e-324, 0.0)]])
@example([[(0.0, -1e-323), (1.0, -1e-323)]])
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
    # Classes that change from pixel to pixel need more than a byte each, which is where optimising fails.
    scattered = np.random.default_rng(0).choice(np.array([0, 255], np.uint8), (500, 500, 3))
    found_bytes = encode(scattered, 500)
    assert len(found_bytes) > 500 * 500
    with Image.open(io.BytesIO(found_bytes)) as found:
        assert found.size == (500, 500)


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
