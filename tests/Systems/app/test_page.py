"""The page in a real browser, headless: upload, options, result, surface, profile, download, cancel, error."""

from __future__ import annotations

import io
import json
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from PIL import Image

pytest.importorskip("selenium", reason="selenium is not installed (tests/requirements.txt has it)")
pytest.importorskip("gradio", reason="gradio is not installed (requirements-app.txt has it)")

from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from Systems.app.limits import Limits
from Systems.app.offered_models import OfferedModel
from Systems.app.serving import prepared_server
from Systems.app.work.workshop import Workshop
from tests.browser import NEEDS_BROWSER, start_browser
from tests.launching import HANG, fork_server
from tests.scenes import landscape, write_raster
from tests.Systems.app.stand_in import install

pytestmark = NEEDS_BROWSER

GREEN = (40, 200, 60)


@pytest.fixture(scope="module")
def signs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the model says that it has begun, and is told to wait."""
    return tmp_path_factory.mktemp("signs")


@pytest.fixture(scope="module")
def address(signs: Path) -> Iterator[str]:
    """The app in a thread, as app.py serves it, with one model that draws brightness once it may."""
    fork_server()
    with pytest.MonkeyPatch.context() as patch:
        made = partial(Workshop, prepare=partial(install, signs))
        patch.setattr("Systems.app.work.workshop.Workshop", made)
        patch.setattr("Systems.app.serving.find_models", lambda _: [OfferedModel("bright", "relative height", "held")])
        with prepared_server([], "127.0.0.1", 0, Limits()) as (server, listener):
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
            thread.start()
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def browser(address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    driver = start_browser(tmp_path_factory.mktemp("browser"), webgl=True)
    try:
        yield driver
    finally:
        driver.quit()


@pytest.fixture
def page(browser: Chrome, address: str) -> Chrome:
    browser.get(address)
    until(lambda: state(browser) == "ready")
    return browser


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """A green image whose brightness is its height."""
    grey = 60 + 195 * landscape(90, 130, seed=3)
    colours = np.rint(np.stack([grey * part / 255.0 for part in GREEN])).astype(np.uint8)
    return write_raster(tmp_path / "scene.tif", colours)


def until(done: Callable[[], Any]) -> Any:
    """Wait for something that is true; elements come and go meanwhile."""
    end = time.monotonic() + HANG
    while time.monotonic() < end:
        try:
            found = done()
        except Exception:  # not there yet, or replaced just now
            found = None
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError("waited in vain")


def state(page: Chrome) -> str:
    return page.find_element(By.CSS_SELECTOR, "#status .state").get_attribute("data-state") or ""


def words(page: Chrome) -> str:
    return page.find_element(By.CSS_SELECTOR, "#status .state").text


def upload(page: Chrome, file: Path) -> None:
    page.find_element(By.CSS_SELECTOR, "#image input[type=file]").send_keys(str(file))
    until(lambda: file.stem in page.find_element(By.ID, "image").text)


def open_tab(page: Chrome, name: str) -> None:
    page.execute_script(
        "[...document.querySelectorAll('button[role=tab]')].find(b => b.textContent.trim() === arguments[0]).click()",
        name,
    )


def click(page: Chrome, name: str) -> None:
    page.execute_script("arguments[0].click()", page.find_element(By.ID, name))


def pixels(element: WebElement) -> NDArray[np.int64]:
    shot = Image.open(io.BytesIO(element.screenshot_as_png)).convert("RGB")
    return np.asarray(shot).astype(np.int64)


def fetched(element: WebElement) -> bytes:
    source = element.get_attribute("src") or element.get_attribute("href")
    return urllib.request.urlopen(str(source)).read()


def test_from_an_upload_to_surface_profile_and_files(page: Chrome, scene: Path) -> None:
    page.get_log("performance")
    upload(page, scene)
    page.find_element(By.CSS_SELECTOR, "#options button").click()
    ways = until(lambda: page.find_element(By.CSS_SELECTOR, "#ways input[type=number]"))
    stretch = page.find_element(By.CSS_SELECTOR, "#stretch textarea, #stretch input")
    for box, value in ((ways, "2"), (stretch, "none")):
        box.send_keys(Keys.CONTROL, "a")
        box.send_keys(value, Keys.TAB)
    click(page, "run")
    until(lambda: state(page) in ("done", "failed"))
    assert state(page) == "done", words(page)
    relief = until(lambda: page.find_element(By.CSS_SELECTOR, "#relief img"))
    assert np.asarray(Image.open(io.BytesIO(fetched(relief)))).std() > 20

    open_tab(page, "3-D")
    frame = until(lambda: page.find_element(By.CSS_SELECTOR, "#surface iframe"))
    page.switch_to.frame(frame)
    until(lambda: page.find_element(By.CSS_SELECTOR, "figure.relief[data-state=ready]"))
    stage = page.find_element(By.CSS_SELECTOR, ".stage")
    # The image is draped over the heights: a good part of the stage is green, in many shades.
    until(lambda: share_of_green(stage) > 0.15)
    drawn = pixels(stage)
    assert len(np.unique(drawn[..., 1][is_green(drawn)])) > 50
    page.find_element(By.CSS_SELECTOR, ".fly").click()
    until(lambda: float(page.find_element(By.CSS_SELECTOR, "figure").get_attribute("data-flown") or 0) > 0.01)
    assert np.abs(pixels(stage) - drawn).mean() > 5  # it moved
    page.switch_to.default_content()

    open_tab(page, "Uncertainty")
    assert len(fetched(until(lambda: page.find_element(By.CSS_SELECTOR, "#spread img")))) > 5_000
    open_tab(page, "Profile")
    for share in (-0.3, 0.3):
        add_corner(page, share)
    assert len(fetched(until(lambda: page.find_element(By.CSS_SELECTOR, "#profile img")))) > 5_000
    open_tab(page, "Files")
    link = until(lambda: page.find_element(By.CSS_SELECTOR, "a[href$='height.tif']"))
    with rasterio.open(io.BytesIO(fetched(link))) as raster:
        assert raster.shape == (90, 130) and raster.descriptions == ("height", "uncertainty")

    addresses = [
        message["params"]["request"]["url"]
        for message in (json.loads(entry["message"])["message"] for entry in page.get_log("performance"))
        if message["method"] == "Network.requestWillBeSent"
    ]
    here = (page.current_url, "data:", "blob:")
    assert addresses and not [url for url in addresses if not url.startswith(here)]


def add_corner(page: Chrome, share: float) -> None:
    """Click the picture of the ground beside its middle, until the corner is drawn: it may move under the pointer."""

    def is_drawn() -> bool:
        ground = page.find_element(By.CSS_SELECTOR, "#ground img")
        before, aside = ground.get_attribute("src"), round(share * ground.size["width"])
        page.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", ground)
        ActionChains(page).move_to_element_with_offset(ground, aside, 0).click().perform()
        time.sleep(2.0)
        return page.find_element(By.CSS_SELECTOR, "#ground img").get_attribute("src") != before

    until(is_drawn)


def is_green(shot: NDArray[np.int64]) -> NDArray[np.bool_]:
    return (shot[..., 1] > shot[..., 0] + 20) & (shot[..., 1] > shot[..., 2] + 20)


def share_of_green(stage: WebElement) -> float:
    return float(is_green(pixels(stage)).mean())


def test_cancel_stops_between_two_steps(page: Chrome, scene: Path, signs: Path) -> None:
    (signs / "hold").touch()
    upload(page, scene)
    click(page, "run")
    until(lambda: state(page) == "working" and "tiles" in words(page))
    click(page, "cancel")
    time.sleep(0.5)
    (signs / "hold").unlink()
    until(lambda: state(page) in ("done", "failed"))
    assert state(page) == "failed" and words(page) == "stopped: cancelled"


def test_a_wrong_file_is_told_in_one_line(page: Chrome, tmp_path: Path) -> None:
    (tmp_path / "scene.png").write_bytes(b"no picture")
    upload(page, tmp_path / "scene.png")
    click(page, "run")
    until(lambda: state(page) in ("done", "failed"))
    assert state(page) == "failed" and words(page).startswith("image: neither GeoTIFF")
