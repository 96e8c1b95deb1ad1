"""Pictures: the right colours at the right pixels, shared scales, sensible files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.paths import ROOT
from Utils.pictures import comparison
from Utils.pictures.comparison import Panel, hillshade, save_comparison, save_overview
from Utils.pictures.quantity import DEPTH, DEPTH_IN_METRES, HEIGHT, Quantity

SIZE = 128


def terrain(seed: int = 0, size: int = SIZE) -> NDArray[np.float64]:
    """Ridges over several scales, (size, size) in 0..255."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size] / size
    height: NDArray[np.float64] = np.zeros((size, size))
    for octave in range(1, 6):
        wave = generator.normal(size=2) * 2.0**octave
        height -= np.abs(np.sin(rows * wave[0] + columns * wave[1] + generator.random())) / 1.6**octave
    height -= height.min()
    height *= 255.0 / height.max()
    return height


def row_of_panels(seed: int) -> list[Panel]:
    truth = terrain(seed)
    image = np.clip(np.stack([terrain(seed + 1), truth, terrain(seed + 2)]) / 255, 0, 1)
    image += np.random.default_rng(seed).normal(scale=0.05, size=image.shape)
    coarse = (truth + terrain(seed + 3)) / 2
    prediction = 0.8 * truth + 0.2 * terrain(seed + 4)
    return [
        Panel("image", image, "image"),
        Panel("truth", truth, "height"),
        Panel("coarse", coarse, "height"),
        Panel("prediction", prediction, "height"),
        Panel("relief", prediction, "relief"),
        Panel("error", prediction - truth, "error"),
    ]


def pixels(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def count(picture: NDArray[np.uint8], colour: tuple[float, ...]) -> int:
    """Pixels of a colour, give or take the rounding of 8 bits."""
    return int((np.abs(picture - np.round(np.array(colour[:3]) * 255)) <= 1).all(axis=-1).sum())


def test_heights_share_one_scale(tmp_path: Path) -> None:
    low, high = np.zeros((SIZE, SIZE)), np.full((SIZE, SIZE), 255.0)
    save_comparison(tmp_path / "p.png", [Panel("a", low, "height"), Panel("b", high, "height")], "title")
    viridis = matplotlib.colormaps["viridis"]
    for end in (0.0, 1.0):
        assert count(pixels(tmp_path / "p.png"), viridis(end)) > 200 * 200


def test_errors_are_symmetric_about_white(tmp_path: Path) -> None:
    error = np.zeros((SIZE, SIZE))
    error[:, : SIZE // 2] = 40.0
    panels = [Panel("over", error, "error"), Panel("under", -error, "error")]
    save_comparison(tmp_path / "p.png", panels, "title")
    colours = matplotlib.colormaps["RdBu_r"]
    picture = pixels(tmp_path / "p.png")
    assert count(picture, colours(1.0)) > 100 * 200
    assert count(picture, colours(0.0)) > 100 * 200


def test_invalid_pixels_are_grey_but_in_images(tmp_path: Path) -> None:
    valid = np.ones((SIZE, SIZE), bool)
    valid[: SIZE // 2] = False
    ones = np.ones((SIZE, SIZE))
    grey = (0x8C / 255,) * 3
    for kind in ("height", "error", "relief"):
        save_comparison(tmp_path / "p.png", [Panel("t", ones, kind)], "", valid)
        assert count(pixels(tmp_path / "p.png"), grey) == pytest.approx(220 * 110, rel=0.05)
        save_comparison(tmp_path / "q.png", [Panel("t", np.where(valid, ones, np.nan), kind)], "")
        np.testing.assert_array_equal(pixels(tmp_path / "p.png"), pixels(tmp_path / "q.png"))
    save_comparison(tmp_path / "p.png", [Panel("t", np.ones((3, SIZE, SIZE)), "image")], "", valid)
    assert count(pixels(tmp_path / "p.png"), grey) < 50


def test_both_orders_of_image_axes(tmp_path: Path) -> None:
    image = np.random.default_rng(0).random((3, SIZE, SIZE // 2))
    save_comparison(tmp_path / "p.png", [Panel("t", image, "image")], "")
    save_comparison(tmp_path / "q.png", [Panel("t", np.moveaxis(image, 0, -1), "image")], "")
    assert (tmp_path / "p.png").read_bytes() == (tmp_path / "q.png").read_bytes()


def test_overview_is_small_and_reproducible(tmp_path: Path) -> None:
    rows = [row_of_panels(seed) for seed in range(4)]
    for name in ("a.png", "b.png"):
        save_overview(tmp_path / name, rows, ["one", "two", "three", "a label too long for a row"], "title")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.png").stat().st_size < 600_000
    height, width, _ = pixels(tmp_path / "a.png").shape
    assert 600 < height < 750 and 800 < width < 900
    assert sorted(os.listdir(tmp_path)) == ["a.png", "b.png"]


def test_overview_draws_small_tiles_pixel_by_pixel(tmp_path: Path) -> None:
    image = np.random.default_rng(0).random((3, SIZE, SIZE))
    save_overview(tmp_path / "p.png", [[Panel("t", image, "image")]], ["row"])
    expected = np.moveaxis(image, 0, -1) * 255
    picture = pixels(tmp_path / "p.png").astype(float)
    places = [
        (y, x)
        for y in range(picture.shape[0] - SIZE + 1)
        for x in range(picture.shape[1] - SIZE + 1)
        if np.abs(picture[y, x] - expected[0, 0]).max() <= 1
        and np.abs(picture[y : y + SIZE, x : x + SIZE] - expected).max() <= 1
    ]
    assert len(places) == 1


def test_jpeg_by_suffix(tmp_path: Path) -> None:
    save_overview(tmp_path / "p.jpg", [row_of_panels(0)], ["row"])
    with Image.open(tmp_path / "p.jpg") as picture:
        assert picture.format == "JPEG"
    with pytest.raises(ValueError, match=r"\.svg"):
        save_overview(tmp_path / "p.svg", [row_of_panels(0)], ["row"])


def test_more_panels_than_columns_go_on_below(tmp_path: Path) -> None:
    panels = [Panel(f"step {step} of a refinement", terrain(step), "height") for step in range(7)]
    save_comparison(tmp_path / "p.png", panels, "$100 is not mathematics", columns=4)
    height, width, _ = pixels(tmp_path / "p.png").shape
    assert 4 * 220 < width < 5 * 220 and 2 * 220 < height < 3 * 220


@pytest.mark.parametrize("value", [0.0, np.nan, -1e6, 1e-12])
def test_flat_and_empty_maps(tmp_path: Path, value: float) -> None:
    flat = np.full((8, 8), value)
    panels = [Panel("h", flat, "height"), Panel("e", flat, "error"), Panel("r", flat, "relief")]
    for options in ({}, {"quantity": DEPTH_IN_METRES}):
        save_comparison(tmp_path / "p.png", panels, "flat", **options)
        colours = pixels(tmp_path / "p.png") @ np.array([65536, 256, 1])
        found, counts = np.unique(colours[colours != 0xFFFFFF], return_counts=True)
        # Each panel has one colour, which fills its 220 x 220 pixels; two may have the same.
        assert counts[counts > 0.9 * 220 * 220].sum() > 2.7 * 220 * 220, dict(zip(found, counts, strict=True))


def test_oblong_tiles_keep_their_shape(tmp_path: Path) -> None:
    save_comparison(tmp_path / "p.png", [Panel("t", np.zeros((50, 200)), "height")], "")
    # The panel is 220 x 55; the colour bar adds less than another 20 lines of the lowest colour.
    lowest = matplotlib.colormaps["viridis"](0.0)
    assert 220 * 53 < count(pixels(tmp_path / "p.png"), lowest) < 220 * 60


def test_mistakes_are_named(tmp_path: Path) -> None:
    panel = Panel("t", np.zeros((4, 4)), "height")
    with pytest.raises(ValueError, match="at least one panel"):
        save_comparison(tmp_path / "p.png", [], "")
    with pytest.raises(ValueError, match="mask of"):
        save_comparison(tmp_path / "p.png", [panel], "", np.ones((5, 4), bool))
    with pytest.raises(ValueError, match="row labels"):
        save_overview(tmp_path / "p.png", [[panel]], [])
    with pytest.raises(ValueError, match=r"'t'.*image.*needs shape"):
        Panel("t", np.zeros((4, 4)), "image")
    with pytest.raises(ValueError, match="needs shape"):
        Panel("t", np.zeros((3, 4, 4)), "height")
    with pytest.raises(ValueError, match="depth"):
        Panel("t", np.zeros((4, 4)), "depth")  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        save_comparison(tmp_path / "absent" / "p.png", [panel], "")
    assert os.listdir(tmp_path) == []


def test_hillshade() -> None:
    rows, columns = np.mgrid[:9, :9].astype(float)
    flat = hillshade(np.zeros((9, 9)))
    np.testing.assert_allclose(flat, np.sqrt(0.5))
    # Rising to the south-east, the slope faces the light in the north-west; at 45 degrees it throws all of it back.
    towards = hillshade((rows + columns) / np.sqrt(2.0))
    np.testing.assert_allclose(towards, 1.0)
    np.testing.assert_allclose(hillshade(-(rows + columns) / np.sqrt(2.0)), 0.0, atol=1e-12)
    np.testing.assert_allclose(hillshade(2 * rows, 0.5), hillshade(rows))
    holed = np.zeros((9, 9))
    holed[4, 4] = np.nan
    assert np.isnan(hillshade(holed)[4, 3]) and np.isfinite(hillshade(holed)[0, 0])


def test_pyplot_is_not_loaded() -> None:
    code = "import sys, Utils.pictures.comparison; sys.exit('matplotlib.pyplot' in sys.modules)"
    root = ROOT
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


@pytest.mark.parametrize(
    ("quantity", "label", "errors"),
    [
        (HEIGHT, "height (0 to 255)", "error (prediction minus truth)"),
        (DEPTH, "depth (0 to 255)", "error (prediction minus truth)"),
        (DEPTH_IN_METRES, "depth (m)", "error (prediction minus truth, m)"),
    ],
)
def test_scales_say_what_they_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quantity: Quantity, label: str, errors: str
) -> None:
    said, ends = [], []
    draw = comparison._Canvas.bar

    def bar(canvas, scale, axes, text) -> None:
        said.append(text)
        ends.append((scale.low, scale.high))
        draw(canvas, scale, axes, text)

    monkeypatch.setattr(comparison._Canvas, "bar", bar)
    values = np.linspace(2.0, 7.5, 64).reshape(8, 8)
    panels = [Panel("truth", values, "height"), Panel("error", values - 5.0, "error")]
    save_comparison(tmp_path / "p.png", panels, "", quantity=quantity)
    assert said == [label, errors]
    assert ends[0] == ((2.0, 7.5) if quantity.unit else (0.0, 255.0)), "metres are drawn as they are"
