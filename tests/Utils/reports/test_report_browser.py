"""Reports in a real browser, headless: what a reader clicks, drags and types, and that no request leaves.

Skipped where there is no Chromium with its driver, or no selenium.
"""

from __future__ import annotations

import base64
import io
import json
import math
import re
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

pytest.importorskip("selenium", reason="selenium is not installed (tests/requirements.txt has it)")

from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.actions.action_builder import ActionBuilder
from selenium.webdriver.common.actions.pointer_input import PointerInput
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from tests.browser import NEEDS_BROWSER, start_browser
from tests.report_examples import picture, test_part, write_evaluation, write_large_evaluation
from Utils.reports.items import Curve, Gallery, Number, Picture, Section, Slider, Table, Text
from Utils.reports.page import write_page

pytestmark = NEEDS_BROWSER

RED, BLUE = (200, 30, 30), (30, 30, 200)
# name, number, what the reader sees; the order of the file is that of no column.
ROWS: list[list[Any]] = [
    ["tile_10", 2.5, Number(-10.0, "-10.0")],
    ["tile_9", math.nan, Number(9.0, "+9.0")],
    ["other_1", -20.5, None],
    ["tile_2", -3.0, Number(100.0, "+100.0")],
    ["tile_1", 2.5, Number(math.nan, "n/a")],
]
MISSING_TEXTS = {"n/a", "—"}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    driver = start_browser(tmp_path_factory.mktemp("browser"))
    try:
        yield driver
    finally:
        driver.quit()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pages by name; read only."""
    folder = tmp_path_factory.mktemp("pages")
    items = [
        Text("Words", ["A paragraph that is long enough to be broken on a narrow screen, more than once. " * 3]),
        Table("Tiles", ["name", "number", "change"], ROWS, sortable=True, note="a note"),
        Table("Fixed", ["name", *(f"a long heading {number}" for number in range(12))], [["x", *range(12)]]),
        Slider("Red and blue", picture(RED), picture(BLUE), "red", "blue", "a caption"),
        Picture("Wide", picture(size=(1600, 200))),
        Gallery("Small", [Picture(f"p{number}", picture(size=(40, 40))) for number in range(6)]),
        Curve("Curve", "epoch", "loss", {"training": [(1, 3.0), (2, 2.0)], "validation": [(1, 4.0), (2, 3.5)]}),
        Table("No tiles", ["name"], [], sortable=True),
    ]
    facts = {"model": "m" * 200, "config": {"lr": 1e-4, "model": {"taps": [1, 2]}}}
    write_page(folder / "items.html", "A page <b>of</b> everything", [Section("One", items)], facts)
    dataset = test_part(folder / "dataset", [str(number) for number in range(1, 11)], size=64, empty=["7"])
    return {
        "items": folder / "items.html",
        "evaluation": write_evaluation(dataset, folder / "results"),
        "large": write_large_evaluation(folder / "large", size=64),
    }


@pytest.fixture
def items(browser: Chrome, pages: dict[str, Path]) -> Chrome:
    """The browser with the page of everything freshly loaded."""
    return load(browser, pages["items"])


def load(browser: Chrome, page: Path) -> Chrome:
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
    browser.get("about:blank")
    for log in ("browser", "performance"):
        browser.get_log(log)
    browser.get(page.as_uri())
    return browser


def requested(browser: Chrome) -> list[str]:
    """The addresses that were asked for since the last call, or since the page was loaded."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [
        message["params"]["request"]["url"] for message in messages if message["method"] == "Network.requestWillBeSent"
    ]


def column(browser: Chrome, place: int, table: int = 0) -> list[str]:
    """The texts of a column, as far as it is laid out."""
    script = """
        const rows = [...document.querySelectorAll("table")[arguments[0]].tBodies[0].rows];
        return rows.map(row => row.cells[arguments[1]].textContent);
    """
    return list(browser.execute_script(script, table, place))


def heading(browser: Chrome, place: int) -> WebElement:
    return browser.find_elements(By.CSS_SELECTOR, "table.sortable thead th")[place]


def sort_by(browser: Chrome, place: int) -> None:
    heading(browser, place).find_element(By.TAG_NAME, "button").click()


def shot(element: WebElement) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(element.screenshot_as_png)).convert("RGB"))


def share_of_red(slider: WebElement) -> float:
    """How far from the left the first picture reaches, measured in what is drawn, above labels and handle."""
    row = shot(slider)[12].astype(int)
    return float((row[:, 0] > row[:, 2] + 60).mean())


# Loading


@pytest.mark.parametrize("name", ["items", "evaluation", "large"])
def test_a_page_loads_and_asks_for_nothing(browser: Chrome, pages: dict[str, Path], name: str) -> None:
    load(browser, pages[name])
    time.sleep(0.5)  # whatever a page would fetch late
    addresses = requested(browser)
    assert addresses[0] == pages[name].as_uri()
    assert all(address.startswith("data:image/") for address in addresses[1:])
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert browser.get_log("browser") == []
    broken = "return [...document.images].filter(image => !image.complete || !image.naturalWidth).length"
    assert browser.execute_script(broken) == 0


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """A web server on this machine: its address, and the paths that it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listening.server_port}", asked
    listening.shutdown()
    thread.join()
    listening.server_close()


INTRUSION = """
    const server = arguments[0];
    const make = (tag, values) => Object.assign(document.createElement(tag), values);
    document.body.append(
        make("img", {src: `${server}/img`}),
        make("link", {rel: "stylesheet", href: `${server}/style`}),
        make("script", {src: `${server}/script`}),
        make("script", {textContent: "window.intruded = true"}),
        make("iframe", {src: `${server}/frame`}),
    );
    fetch(`${server}/fetch`, {mode: "no-cors"}).catch(() => {});
"""


def test_the_policy_stops_what_a_page_would_fetch_or_run(
    browser: Chrome, pages: dict[str, Path], tmp_path: Path, server: tuple[str, list[str]]
) -> None:
    address, asked = server
    guarded = pages["items"].read_text(encoding="utf-8")
    open_page = tmp_path / "open.html"
    open_page.write_text(re.sub("<meta http-equiv.*?>", "", guarded), encoding="utf-8")
    for page, wanted in ((open_page, {"/img", "/style", "/script", "/frame", "/fetch"}), (pages["items"], set())):
        asked.clear()
        load(browser, page).execute_script(INTRUSION, address)
        wait_until(lambda wanted=wanted: wanted and wanted <= set(asked), seconds=2.0)
        # Beside them a browser may ask for the frame's icon.
        assert set(asked) - {"/favicon.ico"} == wanted
        assert browser.execute_script("return window.intruded === true") == bool(wanted)
    said = "".join(entry["message"] for entry in browser.get_log("browser"))
    for directive in ("img-src", "style-src", "script-src", "frame-src", "connect-src"):
        assert directive in said


def wait_until(done: Callable[[], object], seconds: float) -> None:
    """Return as soon as something is so, or after some seconds."""
    end = time.monotonic() + seconds
    while not done() and time.monotonic() < end:
        time.sleep(0.05)


def test_a_hostile_name_is_shown_and_does_nothing(browser: Chrome, tmp_path: Path) -> None:
    name = "<img src=x onerror='window.intruded = true'><script>window.intruded = true</script>"
    items = [Table(name, [name], [[name]], sortable=True), Curve(name, name, name, {name: [(0, 1), (1, 2)]})]
    write_page(tmp_path / "page.html", name, [Section(name, items)], {name: {name: name}})
    load(browser, tmp_path / "page.html")
    assert browser.execute_script("return window.intruded === undefined")
    assert browser.find_element(By.TAG_NAME, "h1").text == name
    assert column(browser, 0) == [name]
    assert browser.get_log("browser") == []


# Tables


def test_clicking_a_heading_sorts_numbers_as_numbers_with_missing_ones_last(items: Chrome) -> None:
    before = column(items, 0)
    assert before == [row[0] for row in ROWS]
    for place, ascending, descending in (
        (1, ["other_1", "tile_2", "tile_10", "tile_1", "tile_9"], ["tile_10", "tile_1", "tile_2", "other_1", "tile_9"]),
        (2, ["tile_10", "tile_9", "tile_2", "other_1", "tile_1"], ["tile_2", "tile_9", "tile_10", "other_1", "tile_1"]),
        (0, ["other_1", "tile_1", "tile_2", "tile_9", "tile_10"], ["tile_10", "tile_9", "tile_2", "tile_1", "other_1"]),
    ):
        sort_by(items, place)
        assert column(items, 0) == ascending
        assert heading(items, place).get_attribute("aria-sort") == "ascending"
        sort_by(items, place)
        assert column(items, 0) == descending
        assert heading(items, place).get_attribute("aria-sort") == "descending"
        assert column(items, 1)[-1] in MISSING_TEXTS or place != 1
    assert len(items.find_elements(By.CSS_SELECTOR, "[aria-sort]")) == 1


def test_sorting_with_the_keyboard(items: Chrome) -> None:
    button = heading(items, 1).find_element(By.TAG_NAME, "button")
    button.send_keys(Keys.ENTER)
    assert column(items, 0)[0] == "other_1"
    button.send_keys(Keys.SPACE)
    assert column(items, 0)[0] == "tile_10"


def test_only_sortable_tables_have_buttons(items: Chrome) -> None:
    tables = items.find_elements(By.TAG_NAME, "table")
    assert [len(table.find_elements(By.TAG_NAME, "button")) for table in tables] == [3, 0, 1]


def test_the_box_filters_by_name_and_sorting_keeps_it(items: Chrome) -> None:
    (box,) = items.find_elements(By.CSS_SELECTOR, ".filter input")
    count = items.find_element(By.CSS_SELECTOR, ".filter output")
    assert (box.get_attribute("placeholder"), count.text) == ("filter by name", "5 rows")
    box.send_keys("TILE")
    assert column(items, 0) == ["tile_10", "tile_9", "tile_2", "tile_1"]
    assert count.text == "4 of 5 rows"
    sort_by(items, 0)
    assert column(items, 0) == ["tile_1", "tile_2", "tile_9", "tile_10"]
    box.send_keys(" _1")
    assert column(items, 0) == ["tile_1", "tile_10"], "every word must be there; numbers are no names"
    box.send_keys("x")
    assert column(items, 0) == [] and count.text == "0 of 5 rows"
    box.send_keys(Keys.CONTROL, "a", Keys.NULL, Keys.DELETE)
    assert len(column(items, 0)) == 5 and count.text == "5 rows"


def test_numbers_stand_right_and_names_left(items: Chrome) -> None:
    cells = items.find_elements(By.CSS_SELECTOR, "table.sortable tbody tr:first-child > *")
    assert [cell.value_of_css_property("text-align") for cell in cells] == ["left", "right", "right"]


def busy_seconds(browser: Chrome) -> float:
    """Processor time of the page's main thread up to now, which other work on the machine does not lengthen."""
    metrics = browser.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    return float(next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration"))


def test_five_thousand_rows_sort_and_filter_at_once(browser: Chrome, pages: dict[str, Path]) -> None:
    load(browser, pages["large"])
    browser.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
    table = len(browser.find_elements(By.TAG_NAME, "table")) - 1
    assert browser.find_element(By.CSS_SELECTOR, ".filter output").text == "5000 rows"
    act = """
        const [column, done] = arguments;
        const box = document.querySelector(".filter input");
        if (column === null) { box.value = "77"; box.dispatchEvent(new Event("input")); }
        else document.querySelectorAll("table.sortable thead button")[column].click();
        requestAnimationFrame(() => setTimeout(done));  // laid out and painted
    """
    seconds = []
    for place in (0, 0, 1, 3, 3, None):
        before = busy_seconds(browser)
        browser.execute_async_script(act, place)
        seconds.append(busy_seconds(browser) - before)
        if place is not None:
            shown = [float(text) for text in column(browser, place, table)]
            assert shown == sorted(shown, reverse=heading(browser, place).get_attribute("aria-sort") == "descending")
    # Measured: 0.16 s at most, on a core with much else to do.
    assert max(seconds) < 0.5, seconds
    matching = [number for number in range(1, 5001) if "77" in str(number)]
    assert browser.find_element(By.CSS_SELECTOR, ".filter output").text == f"{len(matching)} of 5000 rows"
    assert {int(text) for text in column(browser, 0, table)} == set(matching)


def test_five_thousand_rows_are_turned_over_page_by_page(browser: Chrome, pages: dict[str, Path]) -> None:
    load(browser, pages["large"])
    table = len(browser.find_elements(By.TAG_NAME, "table")) - 1
    pager = browser.find_element(By.CSS_SELECTOR, ".pager")
    first, previous, following, last = pager.find_elements(By.TAG_NAME, "button")
    assert pager.find_element(By.TAG_NAME, "span").text == "1 to 200"
    seen = column(browser, 0, table)
    for _ in range(24):
        following.click()
        seen += column(browser, 0, table)
    assert seen == [str(number) for number in range(1, 5001)]
    for button, start in ((following, 4801), (first, 1), (previous, 1), (last, 4801), (previous, 4601)):
        button.click()
        assert pager.find_element(By.TAG_NAME, "span").text == f"{start} to {start + 199}"
        assert column(browser, 0, table)[0] == str(start)
    browser.find_element(By.CSS_SELECTOR, ".filter input").send_keys("4999")
    assert column(browser, 0, table) == ["4999"] and not pager.is_displayed()


def test_few_rows_have_no_pages(items: Chrome) -> None:
    assert not any(pager.is_displayed() for pager in items.find_elements(By.CSS_SELECTOR, ".pager"))


# The slider


@pytest.fixture
def slider(items: Chrome) -> WebElement:
    element = items.find_element(By.CSS_SELECTOR, ".slider")
    items.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    return element


def test_the_slider_starts_in_the_middle(slider: WebElement) -> None:
    # One pixel in a hundred for the line and its shadow, twice.
    assert share_of_red(slider) == pytest.approx(0.5, abs=0.02)


def test_keys_move_the_slider(slider: WebElement) -> None:
    handle = slider.find_element(By.TAG_NAME, "input")
    handle.send_keys(Keys.ARROW_RIGHT * 5)
    assert share_of_red(slider) == pytest.approx(0.6, abs=0.02)
    handle.send_keys(Keys.PAGE_DOWN * 3)
    assert share_of_red(slider) == pytest.approx(0.3, abs=0.02)
    handle.send_keys(Keys.HOME)
    assert share_of_red(slider) < 0.02
    handle.send_keys(Keys.END)
    assert share_of_red(slider) > 0.98


@pytest.mark.parametrize("kind", ["mouse", "touch"])
def test_dragging_moves_the_slider_to_the_pointer(items: Chrome, slider: WebElement, kind: str) -> None:
    width = slider.size["width"]
    actions = ActionBuilder(items, mouse=PointerInput(kind, kind))
    pointer = actions.pointer_action
    pointer.move_to(slider, 0, 30).pointer_down()
    for step in (1, 2, 3, 4):
        pointer.move_to(slider, round(0.3 * width * step / 4), 30)
    pointer.pointer_up()
    actions.perform()
    # From the middle by three tenths of the width.
    assert share_of_red(slider) == pytest.approx(0.8, abs=0.02)


def test_a_click_brings_the_line_there(items: Chrome, slider: WebElement) -> None:
    width = slider.size["width"]
    for share in (0.1, 0.9, 0.25):
        ActionChains(items).move_to_element_with_offset(slider, round((share - 0.5) * width), 40).click().perform()
        assert share_of_red(slider) == pytest.approx(share, abs=0.02)


def test_the_first_picture_is_left_and_the_second_right(slider: WebElement) -> None:
    row = shot(slider)[12]
    # The middles of the halves, as the browser scaled pictures of one colour.
    np.testing.assert_allclose(row[len(row) // 4], RED, atol=3)
    np.testing.assert_allclose(row[3 * len(row) // 4], BLUE, atol=3)


# Screens, schemes, paper


@pytest.mark.parametrize(
    ("name", "width"),
    [*((name, width) for name in ("items", "evaluation") for width in (320, 400, 1500)), ("large", 400)],
)
def test_no_page_scrolls_sideways(browser: Chrome, pages: dict[str, Path], name: str, width: int) -> None:
    load(browser, pages[name])
    screen = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 700}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    inner, scrolled, body = browser.execute_script(
        "return [innerWidth, document.scrollingElement.scrollWidth, document.body.scrollWidth]"
    )
    assert inner == width and scrolled <= width and body <= width
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_light_and_dark(browser: Chrome, pages: dict[str, Path]) -> None:
    load(browser, pages["items"])
    brightness = {}
    for scheme in ("light", "dark"):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        pixels = shot(browser.find_element(By.CSS_SELECTOR, ".text p"))
        # Paper is most of a paragraph, ink the pixels farthest from it.
        brightness[scheme] = float(np.median(pixels)), float(np.abs(pixels - np.median(pixels)).max())
    assert brightness["light"][0] > 240 and brightness["dark"][0] < 40
    assert all(contrast > 150 for _, contrast in brightness.values())


def test_paper_gets_every_row_and_folded_facts(browser: Chrome, pages: dict[str, Path]) -> None:
    load(browser, pages["evaluation"])
    browser.execute_script("""
        window.opened = 0;
        addEventListener("beforeprint", () => { window.opened = document.querySelectorAll("details[open]").length; });
    """)
    printed = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"])
    assert printed.startswith(b"%PDF")
    folded = len(browser.find_elements(By.TAG_NAME, "details"))
    assert browser.execute_script("return window.opened") == folded > 0
    assert browser.find_elements(By.CSS_SELECTOR, "details[open]") == []
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    hidden = "const s = document.querySelector('.scroll:has(.sortable)'); return s.scrollHeight - s.clientHeight"
    assert browser.execute_script(hidden) <= 0
    assert not browser.find_element(By.TAG_NAME, "nav").is_displayed()


def test_the_navigation_leads_to_its_section(browser: Chrome, pages: dict[str, Path]) -> None:
    load(browser, pages["evaluation"])
    browser.find_element(By.LINK_TEXT, "All tiles").click()
    script = "return [...document.querySelectorAll('h2')].find(h => h.textContent === 'All tiles')"
    place = browser.execute_script(f"{script}.getBoundingClientRect().top")
    # Below the bar that stays at the top, and in the upper half of the window.
    bar = browser.execute_script("return document.querySelector('nav').getBoundingClientRect().bottom")
    assert bar <= place < 450


def test_facts_unfold(items: Chrome) -> None:
    inner = items.find_element(By.XPATH, "//dt[text()='lr']")
    assert not inner.is_displayed()
    items.find_element(By.XPATH, "//summary[text()='config']").click()
    assert inner.is_displayed()
