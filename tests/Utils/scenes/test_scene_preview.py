"""Previews: the right light, the right colours, scales that say what they show, holes left grey."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from PIL import Image
from rasterio.crs import CRS

from tests.conftest import full_disk
from Utils.core.errors import RasterError, UserError
from Utils.scenes.output import preview as preview_module
from Utils.scenes.output.preview import write_preview

UTM = CRS.from_epsg(32643)
GREY = round(255 * 0.85)


def write_heights(
    path: Path,
    heights: NDArray[np.floating],
    unit: str = "metre",
    crs: CRS | None = UTM,
    pixel: tuple[float, float] = (30.0, 30.0),
) -> Path:
    """A height raster as HeightWriter's, NaN as nodata; ``pixel`` is (down, across)."""
    transform = Affine(pixel[1], 0, 5e5, 0, -pixel[0], 38e5) if crs is None or crs.is_projected else None
    transform = transform or Affine(pixel[1], 0, 75.0, 0, -pixel[0], 60.0 + pixel[0] * heights.shape[0] / 2)
    with rasterio.open(
        path, "w", driver="GTiff", height=heights.shape[0], width=heights.shape[1], count=1, dtype="float32",
        nodata=-9999.0, crs=crs, transform=transform,
    ) as target:  # fmt: skip
        target.write(np.where(np.isfinite(heights), heights, -9999.0).astype(np.float32), 1)
        target.set_band_unit(1, unit)
    return path


def dome(height: int = 200, width: int = 200, rise: float = 1000.0) -> NDArray[np.float64]:
    rows, columns = np.mgrid[:height, :width]
    distance = np.hypot(rows - height / 2, columns - width / 2) / (min(height, width) / 2.2)
    return np.where(distance < 1, rise * (1 - distance**2), 0.0)


def pixels(path: Path) -> NDArray[np.int64]:
    with Image.open(path) as picture:
        assert picture.format == "PNG" and picture.mode == "RGB"
        return np.asarray(picture).astype(np.int64)


def map_of(picture: NDArray[np.int64], height: int, width: int) -> NDArray[np.int64]:
    """The map without its frame: the picture's rows and columns that are not white at the map's size."""
    coloured = (picture < 250).any(axis=2)
    columns = np.flatnonzero(coloured[: picture.shape[0] // 2].any(axis=0))
    left = columns[0]
    rows = np.flatnonzero(coloured[:, left + width // 2])
    return picture[rows[0] : rows[0] + height, left : left + width]


def brightness(patch: NDArray[np.int64]) -> float:
    return float(patch.mean())


def spy_on_frame(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[object]]:
    """What is written and drawn, besides pixels."""
    seen: dict[str, list[object]] = {"text": [], "bar": [], "scale": []}
    frame = preview_module._Frame
    text, bar, scale = frame.text, frame.colour_bar, frame.scale_bar

    def spy_text(self: object, x: float, y: float, text_: str, *rest: object) -> None:
        seen["text"].append(text_)
        text(self, x, y, text_, *rest)

    def spy_bar(self: object, x: float, y: float, width: float, *rest: object) -> None:
        seen["bar"].append(rest)
        bar(self, x, y, width, *rest)

    def spy_scale(self: object, right: float, y: float, room: float, metres: float) -> None:
        seen["scale"].append(metres)
        scale(self, right, y, room, metres)

    monkeypatch.setattr(frame, "text", spy_text)
    monkeypatch.setattr(frame, "colour_bar", spy_bar)
    monkeypatch.setattr(frame, "scale_bar", spy_scale)
    return seen


@pytest.mark.parametrize(
    ("unit", "rise"), [("metre", 1e6), ("metre", 1e3), ("metre", 1e2), ("", 1.0), ("", 1e-4), ("foot", 900.0)]
)
def test_light_comes_from_the_north_west(tmp_path: Path, unit: str, rise: float) -> None:
    heights = dome(500, 500, rise)
    write_preview(tmp_path / "p.png", write_heights(tmp_path / "h.tif", heights, unit))
    drawn = map_of(pixels(tmp_path / "p.png"), 500, 500)
    north_west, south_east = drawn[150:190, 150:190], drawn[310:350, 310:350]
    north_east, south_west = drawn[150:190, 310:350], drawn[310:350, 150:190]
    # The heights, and so the colours, are the same on all four sides.
    assert brightness(north_west) > 1.3 * brightness(south_east), "relief shows, whatever the unit"
    assert brightness(north_east) == pytest.approx(brightness(south_west), rel=0.03)


def test_flat_ground_has_the_colours_of_the_scale(tmp_path: Path) -> None:
    heights = np.repeat([100.0, 200.0, 300.0], 200)[None].repeat(500, axis=0)
    write_preview(tmp_path / "p.png", write_heights(tmp_path / "h.tif", heights))
    drawn = map_of(pixels(tmp_path / "p.png"), 500, 600)
    colours = preview_module._colours()
    for column, share in ((100, 0.0), (300, 0.5), (500, 1.0)):
        expected = np.round(np.array(colours(share)[:3]) * 255)
        np.testing.assert_allclose(drawn[250, column], expected, atol=2)  # 256 shades


def test_nodata_is_grey_and_casts_no_light(tmp_path: Path) -> None:
    heights = np.full((500, 500), 1000.0)
    heights[:, 250:] = np.nan
    heights[0, 0], heights[1, 0] = 0.0, 2000.0
    write_preview(tmp_path / "p.png", write_heights(tmp_path / "h.tif", heights))
    drawn = map_of(pixels(tmp_path / "p.png"), 500, 500)
    assert (drawn[:, 250:] == GREY).all()
    assert (drawn[10:, 240:250] == drawn[250, 100]).all(), "no cliff at the edge of the data"


def test_one_spike_washes_nothing_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = spy_on_frame(monkeypatch)
    heights = np.linspace(100, 200, 500)[None].repeat(500, axis=0)
    heights[250, 250] = 1e6
    write_preview(tmp_path / "p.png", write_heights(tmp_path / "h.tif", heights))
    scale, _, clipped, label = seen["bar"][0]
    assert (scale.vmin, scale.vmax) == pytest.approx((101, 199), abs=0.5)
    assert clipped == "both" and label == "height (m)"


@pytest.mark.parametrize(
    ("unit", "label"), [("metre", "height (m)"), ("", "relative height"), ("foot", "height (foot)")]
)
def test_the_unit_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unit: str, label: str) -> None:
    seen = spy_on_frame(monkeypatch)
    write_preview(tmp_path / "p.png", write_heights(tmp_path / "h.tif", dome(), unit))
    assert seen["bar"][0][-1] == label


def test_scale_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = spy_on_frame(monkeypatch)
    # 1000 pixels of 30 m, drawn as they are: 30% of the width are 9 km, of which 5 km are drawn, 167 dots.
    write_preview(tmp_path / "p.png", write_heights(tmp_path / "h.tif", dome(600, 1000)))
    assert seen["scale"] == [pytest.approx(30.0)] and "5 km" in seen["text"]
    picture = pixels(tmp_path / "p.png")
    black = (picture[620:, 650:] == 0).all(axis=2).sum(axis=1)
    assert black.max() == pytest.approx(5000 / 30, abs=1.5)
    # Shrunk by two and a half.
    write_preview(tmp_path / "p.png", tmp_path / "h.tif", longest_side=400)
    assert seen["scale"][1] == pytest.approx(75.0)


def test_no_scale_bar_without_a_scale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = spy_on_frame(monkeypatch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_preview(tmp_path / "p.png", write_heights(tmp_path / "h.tif", dome(), crs=None))
        degrees = write_heights(tmp_path / "d.tif", dome(), crs=CRS.from_epsg(4326), pixel=(0.001, 0.001))
        write_preview(tmp_path / "p.png", degrees)
    assert seen["scale"] == []


def test_ground_keeps_its_shape(tmp_path: Path) -> None:
    # At 60 degrees north a degree of longitude is half a degree of latitude long.
    path = write_heights(tmp_path / "h.tif", dome(500, 1000), crs=CRS.from_epsg(4326), pixel=(0.001, 0.001))
    for longest, expected in ((700, 500), (400, 400)):
        write_preview(tmp_path / "p.png", path, longest_side=longest)
        picture = pixels(tmp_path / "p.png")
        columns = np.flatnonzero((picture[100] < 250).any(axis=1))
        rows = np.flatnonzero((picture[:, picture.shape[1] // 2] < 250).any(axis=1))
        assert columns[-1] - columns[0] + 1 == pytest.approx(expected, abs=3)
        assert (
            rows[0] < 20 and (picture[rows[0] : rows[0] + expected - 3, picture.shape[1] // 2] < 250).any(axis=1).all()
        )


def test_slopes_are_not_striped(tmp_path: Path) -> None:
    # A plane has one light all over, whatever its pixels are and however many of them make one of the picture.
    rows, columns = np.mgrid[:700, :900]
    for crs, pixel in ((UTM, (30.0, 30.0)), (UTM, (10.0, 30.0)), (CRS.from_epsg(4326), (0.001, 0.001))):
        plane = write_heights(tmp_path / "h.tif", 3.0 * rows + 2.0 * columns, crs=crs, pixel=pixel)
        for longest in (900, 640, 333):
            relief = preview_module._read(plane, longest)
            south, east = np.gradient(relief.heights)
            # Steps of one pixel would be as large as the slope itself; averages are taken to some 2 %.
            assert np.ptp(south[2:-2, 2:-2]) < 0.1 * south.mean() and np.ptp(east[2:-2, 2:-2]) < 0.1 * east.mean()


def test_large_rasters_are_decimated_and_small_ones_enlarged(tmp_path: Path) -> None:
    path = write_heights(tmp_path / "h.tif", dome(900, 1800))
    write_preview(tmp_path / "p.png", path, longest_side=600)
    height, width, _ = pixels(tmp_path / "p.png").shape
    assert 600 < width < 660 and 300 < height < 420
    write_preview(tmp_path / "p.png", write_heights(tmp_path / "h.tif", dome(40, 60)), longest_side=600)
    picture = pixels(tmp_path / "p.png")
    drawn = map_of(picture, 40 * 8, 60 * 8)
    np.testing.assert_array_equal(drawn, np.kron(drawn[::8, ::8], np.ones((8, 8, 1))))


@pytest.mark.parametrize(
    ("shape", "value", "unit"),
    [
        ((1, 1), 0.0, "metre"),
        ((1, 50), np.nan, ""),
        ((50, 1), 1e-9, ""),
        ((3, 900), -1e5, "metre"),
        ((20, 20), np.nan, "metre"),
    ],
)
def test_flat_and_empty_rasters(tmp_path: Path, shape: tuple[int, int], value: float, unit: str) -> None:
    path = write_heights(tmp_path / "h.tif", np.full(shape, value), unit)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_preview(tmp_path / "p.png", path, "a title")
    assert pixels(tmp_path / "p.png").shape[1] > 500


@pytest.mark.parametrize("size", [(300, 300), (200, 1600), (1600, 200)])
def test_text_is_not_cut_off(tmp_path: Path, size: tuple[int, int]) -> None:
    title = "$100 is not mathematics, and a title of many words goes on in further lines " * 3
    heights = dome(*size, rise=1.0) * 1e5 - 5e4
    write_preview(tmp_path / "p.png", write_heights(tmp_path / "h.tif", heights), title)
    picture = pixels(tmp_path / "p.png")
    for edge in (picture[:2], picture[-2:], picture[:, :2], picture[:, -2:]):
        assert (edge > 250).all()


def test_it_is_whole_or_absent(tmp_path: Path) -> None:
    path = write_heights(tmp_path / "h.tif", dome())
    picture = tmp_path / "p.png"
    picture.write_bytes(b"old")
    with full_disk(1000), pytest.raises(UserError, match="no space left"):
        write_preview(picture, path)
    assert picture.read_bytes() == b"old" and sorted(os.listdir(tmp_path)) == ["h.tif", "p.png"]
    write_preview(picture, path)
    first = picture.read_bytes()
    write_preview(picture, path)
    assert picture.read_bytes() == first


def test_mistakes(tmp_path: Path) -> None:
    path = write_heights(tmp_path / "h.tif", dome())
    with pytest.raises(UserError, match=r"\.png"):
        write_preview(tmp_path / "p.jpg", path)
    with pytest.raises(UserError, match="there is no folder"):
        write_preview(tmp_path / "absent" / "p.png", path)
    with pytest.raises(RasterError, match=r"absent\.tif"):
        write_preview(tmp_path / "p.png", tmp_path / "absent.tif")
    assert os.listdir(tmp_path) == ["h.tif"]
