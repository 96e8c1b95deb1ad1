"""Which pixels of a scene are valid: values without data, masks, opacities, frames that nobody declares."""

from __future__ import annotations

import json
import logging
import math
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rasterio.enums import ColorInterp

from tests.Utils.scenes.source_files import (
    COLOURS,
    HEIGHT,
    WIDTH,
    logged,
    noise,
    open_all,
    read_all,
    write_scene,
)
from Utils.core.errors import UserError
from Utils.rasters.source.scene_source import open_scene
from Utils.rasters.source.stretch import percentile_stretch


@pytest.fixture(autouse=True)
def _hear_everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="Utils.rasters")


# Valid pixels


def test_nodata_of_signed_values_in_any_band(tmp_path: Path) -> None:
    for dtype, nodata in (("int16", -32768), ("float32", -9999.0), ("float64", math.nan), ("float32", -3.4028235e38)):
        bands = noise(3, "int16").astype(dtype)
        bands[1, :30], bands[:, :, :10] = nodata, nodata
        expected = np.ones((HEIGHT, WIDTH), bool)
        expected[:30], expected[:, :10] = False, False
        for tagged in (True, False):
            path = write_scene(tmp_path / "scene.tif", bands, nodata=nodata if tagged else None)
            image, valid = open_all(path, nodata=None if tagged else nodata)
            np.testing.assert_array_equal(valid, expected)
            assert (image[:, ~valid] == 0).all() and np.isfinite(image).all()
            assert len(np.unique(image[:, valid])) > 100, "the stretch must not be that of the nodata value"


def test_zero_in_one_band_of_a_photograph_is_a_colour(tmp_path: Path) -> None:
    bands = noise(3)
    bands[0, :, 40:], bands[:, :20] = 0, 0
    expected = np.ones((HEIGHT, WIDTH), bool)
    expected[:20] = False
    for tagged in (True, False):
        path = write_scene(tmp_path / "scene.tif", bands, nodata=0 if tagged else None)
        np.testing.assert_array_equal(open_all(path, nodata=None if tagged else 0)[1], expected)


@pytest.mark.parametrize("count", [1, 3, 5])
def test_mask_band(tmp_path: Path, count: int) -> None:
    mask = np.random.default_rng(1).random((HEIGHT, WIDTH)) < 0.7
    path = write_scene(tmp_path / "scene.tif", noise(count), mask=mask)
    image, valid = open_all(path)
    np.testing.assert_array_equal(valid, mask)
    assert (image[:, ~mask] == 0).all()
    bands = noise(count)
    np.testing.assert_array_equal(
        open_all(path, nodata=float(bands[0, 3, 4]))[1], mask & (bands[:3] != bands[0, 3, 4]).any(0)
    )


@pytest.mark.parametrize("colours", [1, 3, 4])
@pytest.mark.parametrize("nodata", [None, 0])
def test_alpha(tmp_path: Path, colours: int, nodata: int | None) -> None:
    opacity = np.random.default_rng(1).choice([0, 128, 255], (1, HEIGHT, WIDTH)).astype(np.uint8)
    bands = np.concatenate([noise(colours), opacity])
    kinds = ([ColorInterp.gray] if colours == 1 else [*COLOURS, ColorInterp.undefined][:colours]) + [ColorInterp.alpha]
    path = write_scene(tmp_path / "scene.tif", bands, colorinterp=kinds, nodata=nodata)
    with open_scene(path, stretch=None) as source:
        image, valid = read_all(source)
        assert source.bands == ((1,) if colours == 1 else (1, 2, 3))
    np.testing.assert_array_equal(valid, opacity[0] > 0)
    np.testing.assert_array_equal(image[0][valid], (bands[0] / np.float32(255))[valid])


def test_a_fourth_band_that_is_no_alpha_is_left_alone(tmp_path: Path) -> None:
    bands = np.concatenate([noise(3), np.zeros((1, HEIGHT, WIDTH), np.uint8)])
    path = write_scene(tmp_path / "scene.tif", bands, colorinterp=[*COLOURS, ColorInterp.undefined])
    image, valid = open_all(path, stretch=None)
    assert valid.all()
    np.testing.assert_array_equal(image, bands[:3] / np.float32(255))


def test_infinite_values_are_invalid_and_do_not_spoil_the_stretch(tmp_path: Path) -> None:
    bands = np.random.default_rng(0).random((1, HEIGHT, WIDTH)).astype(np.float32)
    bands[0, :20, 0], bands[0, 20:40, 0], bands[0, 40:, 0] = np.nan, np.inf, -np.inf
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with open_scene(write_scene(tmp_path / "scene.tif", bands)) as source:
            image, valid = read_all(source)
    assert np.isfinite(image).all() and np.isfinite(source.stretch.low + source.stretch.high).all()
    np.testing.assert_array_equal(valid, np.isfinite(bands[0]))


def test_nothing_valid(tmp_path: Path) -> None:
    for bands, options in (
        (np.zeros((3, 8, 8), np.uint8), {"nodata": 0}),
        (np.full((1, 8, 8), np.nan, np.float32), {}),
    ):
        with pytest.raises(UserError, match="no valid pixel"):
            open_scene(write_scene(tmp_path / "scene.tif", bands), **options)


def framed(bands: NDArray[Any], value: float, width: int = 15) -> NDArray[Any]:
    found = bands.copy()
    found[:, :width] = found[:, :, :width] = value
    return found


@pytest.mark.parametrize(("dtype", "value"), [("uint8", 0), ("uint8", 255), ("uint16", 0), ("uint16", 3060)])
def test_a_frame_that_may_be_ground_is_left_out_of_the_stretch(
    tmp_path: Path, dtype: str, value: int, caplog: pytest.LogCaptureFixture
) -> None:
    picture = np.clip(noise(3), 30, 200).astype(dtype) * (12 if dtype == "uint16" else 1)
    path = write_scene(tmp_path / "scene.tif", framed(picture, value))
    with open_scene(path) as source:
        assert read_all(source)[1].all()
        expected, _ = percentile_stretch(picture, ~(framed(picture, value) == value).all(axis=0), (2.0, 98.0))
        assert source.stretch == expected
    said = logged(caplog)
    assert f"a frame of {value} takes" in said and f"--nodata {value} " in said and "--nodata none" in said
    with open_scene(path, suspect_voids=False) as source:
        assert (source.stretch.low[0] == 0) if value == 0 else (source.stretch.high[0] == value)
    with open_scene(path, nodata=value) as source:
        assert source.stretch == expected and not read_all(source)[1][:15].any()
    assert "frame" not in logged(caplog)


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("int16", -9999), ("int16", -32768), ("int16", 32767), ("float32", -9999.0), ("float32", -3.4028235e38),
        ("float64", 9.96920996838687e36), ("float32", 65535.0), ("uint16", 65535), ("int32", -999), ("float32", 0.0),
    ],
)  # fmt: skip
def test_a_value_far_from_all_others_is_no_ground(
    tmp_path: Path, dtype: str, value: float, caplog: pytest.LogCaptureFixture
) -> None:
    picture = (np.clip(noise(3), 200, 250).astype(np.float64) - (0 if value == 0.0 else 190)).astype(dtype)
    spoilt = framed(picture, value)
    if value != 0.0:
        spoilt[:, 40, 50] = value  # also away from the border
    expected = (spoilt != value).all(axis=0)
    with open_scene(write_scene(tmp_path / "scene.tif", spoilt)) as source:
        np.testing.assert_array_equal(read_all(source)[1], expected)
        assert source.stretch == percentile_stretch(picture, expected, (2.0, 98.0))[0]
        json.dumps(source.fingerprint(), allow_nan=False)
    said = logged(caplog)
    assert (
        f"{float(np.dtype(dtype).type(value)):.9g} in " in said
        and "--nodata none" in said
        and said.count("no data") == 1
    )
    with open_scene(write_scene(tmp_path / "scene.tif", spoilt), suspect_voids=False) as source:
        assert read_all(source)[1].all()


def test_values_that_a_picture_may_have_are_no_suspects(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one_band = noise(3)
    one_band[1] = 0
    island = noise(3)
    island[:, 20:40, 20:40] = 0
    dotted = noise(3)
    dotted[:, 0, ::2] = 255
    bright = np.random.default_rng(0).lognormal(0, 2, (1, HEIGHT, WIDTH)).astype(np.float32)
    signed = noise(1, "int16") - np.int16(9999)
    for bands, profile in (
        (noise(3), {}),
        (one_band, {}),
        (island, {}),
        (dotted, {}),
        (framed(noise(3), 0), {"nodata": 0}),
        (bright, {}),
        (np.minimum(bright, 20.0), {}),  # saturated
        (signed, {}),
        (np.full((3, HEIGHT, WIDTH), 255, np.uint8), {}),
    ):
        with open_scene(write_scene(tmp_path / "scene.tif", bands, **profile)) as source:
            nodata = profile.get("nodata")
            valid = np.ones((HEIGHT, WIDTH), bool) if nodata is None else (bands != nodata).any(axis=0)
            np.testing.assert_array_equal(read_all(source)[1], valid)
            assert source.stretch == percentile_stretch(bands, valid, (2.0, 98.0))[0]
        said = logged(caplog)
        assert "no data" not in said and "frame" not in said


def test_the_frame_of_a_lossy_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    smooth = np.add.outer(np.arange(240), np.arange(320)) // 4 + 60
    path = write_scene(tmp_path / "scene.jpg", framed(np.stack([smooth] * 3).astype(np.uint8), 0, 60), QUALITY=70)
    with open_scene(path) as source:
        assert source.stretch.low[0] > 60
    assert re.search("a frame of [0-4] takes", logged(caplog))


def test_a_picture_that_is_tagged_as_alpha_makes_no_holes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    infrared = noise(1, seed=5)
    infrared[0, 10:30, 20:60] = 0  # water
    bands = np.concatenate([noise(3), infrared])
    path = write_scene(tmp_path / "scene.tif", bands, colorinterp=[*COLOURS, ColorInterp.alpha])
    image, valid = open_all(path, stretch=None)
    assert valid.all()
    np.testing.assert_array_equal(image, bands[:3] / np.float32(255))
    said = logged(caplog)
    assert "band 4 is tagged as opacity" in said and "256 different values" in said and "--bands" in said
    # One that the user asks for is image, whatever its values.
    mask = np.where(infrared > 0, 255, 0).astype(np.uint8)
    path = write_scene(
        tmp_path / "scene.tif", np.concatenate([bands[:3], mask]), colorinterp=[*COLOURS, ColorInterp.alpha]
    )
    logged(caplog)
    assert not open_all(path)[1].all()
    # Nobody can know what a band of two values is, so the line says what was taken, and how to change it.
    assert "no data, though the other bands hold a picture there" in (said := logged(caplog)) and "gdal_edit" in said
    image, valid = open_all(path, bands=(4, 1, 2), stretch=None)
    assert valid.all()
    np.testing.assert_array_equal(image[0], mask[0] / np.float32(255))


def test_a_mask_over_one_colour_is_nothing_to_tell(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mask = np.full((1, HEIGHT, WIDTH), 255, np.uint8)
    mask[0, :20] = 0
    bands = np.concatenate([noise(3) * (mask > 0), mask])
    path = write_scene(tmp_path / "scene.tif", bands, colorinterp=[*COLOURS, ColorInterp.alpha])
    np.testing.assert_array_equal(open_all(path)[1], mask[0] > 0)
    assert "opacity" not in logged(caplog)


def test_an_opacity_with_soft_edges_is_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    down, across = (
        np.minimum(np.arange(HEIGHT), np.arange(HEIGHT)[::-1]),
        np.minimum(np.arange(WIDTH), np.arange(WIDTH)[::-1]),
    )
    distance = np.minimum.outer(down, across)
    soft, softest = (np.clip(distance * step, 0, 255).astype(np.uint8) for step in (60, 8))
    premultiplied = (noise(3) * (softest / 255.0)).astype(np.uint8)
    half = np.full((HEIGHT, WIDTH), 128, np.uint8)
    for bands, opacities in (
        (noise(3), [soft]),
        (premultiplied, [softest]),
        (noise(3), [half, soft]),
        (noise(1), [soft]),
    ):
        kinds = (COLOURS if len(bands) == 3 else [ColorInterp.gray]) + [ColorInterp.alpha] * len(opacities)
        path = write_scene(tmp_path / "scene.tif", np.concatenate([bands, np.stack(opacities)]), colorinterp=kinds)
        np.testing.assert_array_equal(open_all(path)[1], distance > 0)
        assert "opacity" not in logged(caplog)
