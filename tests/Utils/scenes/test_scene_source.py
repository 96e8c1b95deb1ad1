"""Scenes in: every kind of raster as the same image, its valid pixels, one stretch, and every kind of damage found."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import subprocess
import sys
import textwrap
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Resampling
from rasterio.rpc import RPC
from rasterio.windows import Window

from tests.paths import ROOT
from Utils.core.errors import RasterError, UserError
from Utils.rasters import environment
from Utils.rasters.ground import ground_sample_distance
from Utils.rasters.source import scene_source as source_module
from Utils.rasters.source.scene_source import SceneSource, Stretch, find_scenes, open_scene
from Utils.rasters.source.stretch import percentile_stretch

HEIGHT, WIDTH = 60, 90
UTM = CRS.from_epsg(32643)
NORTH_UP = Affine(30.0, 0.0, 500_000.0, 0.0, -30.0, 3_800_000.0)
BLOCKS = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}
COLOURS = [ColorInterp.red, ColorInterp.green, ColorInterp.blue]


def write_scene(path: Path, bands: NDArray[Any], mask: NDArray[np.bool_] | None = None, **profile: Any) -> Path:
    """Write (C, H, W) with plain rasterio; on a map unless ``crs`` is None."""
    tags = {name: profile.pop(name) for name in ("colorinterp", "descriptions", "gcps", "rpcs") if name in profile}
    profile.setdefault("driver", {".png": "PNG", ".jpg": "JPEG", ".jp2": "JP2OpenJPEG"}.get(path.suffix, "GTiff"))
    if profile["driver"] == "GTiff" and "gcps" not in tags and "rpcs" not in tags:
        profile = {"crs": UTM, "transform": NORTH_UP, **profile}
    profile = {name: value for name, value in profile.items() if value is not None}
    count, height, width = bands.shape
    with warnings.catch_warnings(), rasterio.Env(GDAL_PAM_ENABLED="NO", GDAL_TIFF_INTERNAL_MASK="YES"):
        warnings.simplefilter("ignore")
        with rasterio.open(path, "w", height=height, width=width, count=count, dtype=bands.dtype, **profile) as target:
            for name, value in tags.items():
                setattr(target, name, value)
            target.write(bands)
            if mask is not None:
                target.write_mask(mask)
    return path


def noise(count: int, dtype: str = "uint8", seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> NDArray[Any]:
    """Values from 1 on: 0 has a meaning of its own in many of these tests."""
    return np.random.default_rng(seed).integers(1, np.iinfo(dtype).max, (count, height, width), dtype, endpoint=True)


def read_all(source: SceneSource) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    return source.read(0, 0, source.height, source.width)


def open_all(path: Path, **options: Any) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    with open_scene(path, **options) as source:
        return read_all(source)


def logged(caplog: pytest.LogCaptureFixture) -> str:
    text = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("Utils.rasters"))
    caplog.clear()
    return text


@pytest.fixture(autouse=True)
def _hear_everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="Utils.rasters")


# Which files


def test_files_folders_and_globs(tmp_path: Path) -> None:
    names = ["b.tif", "a.JP2", "c.png", "d.vrt", "notes.txt", "b.tif.aux.xml", "b.tfw", "._b.tif", "e.ntf", "x[1].tif"]
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / "inner.tif").mkdir()
    (tmp_path / "inner.tif" / "z.tif").touch()
    folder = str(tmp_path)

    def found(*inputs: str) -> list[str]:
        return [path.relative_to(tmp_path).as_posix() for path in find_scenes(inputs)]

    assert found(folder) == ["a.JP2", "b.tif", "c.png", "d.vrt", "x[1].tif"]
    assert found(f"{folder}/c.png", f"{folder}/notes.txt") == ["c.png", "notes.txt"]
    assert found(f"{folder}/b*") == ["b.tif"]
    assert found(f"{folder}/*.ntf") == ["e.ntf"]
    assert found(f"{folder}/x[1].tif") == ["x[1].tif"]
    assert found(f"{folder}/**/*.tif") == ["b.tif", "inner.tif/z.tif", "x[1].tif"]
    assert found(folder, f"{folder}/b.tif", f"{folder}/./b.tif", f"{folder}/inner.tif/../b.tif").count("b.tif") == 1


def test_inputs_that_find_nothing_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "scene.tif").touch()
    for inputs, words in (
        ([str(tmp_path / "absent.tif")], "absent.tif: no such file"),
        ([str(tmp_path / "scene.tif"), str(tmp_path / "empty")], "empty: no raster in this folder"),
        ([str(tmp_path / "*.jp2")], "no file fits"),
        ([], "no input"),
    ):
        with pytest.raises(UserError, match=words):
            find_scenes(inputs)


# Images


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int8", "uint32", "int32", "float32", "float64"])
@pytest.mark.parametrize("count", [1, 3])
def test_every_type_is_stretched_alike(tmp_path: Path, dtype: str, count: int) -> None:
    # Values that every type holds, so that every type gives the same image.
    values = np.random.default_rng(0).integers(1, 127, (count, HEIGHT, WIDTH))
    path = write_scene(tmp_path / "scene.tif", values.astype(dtype))
    with open_scene(path, stretch=(5.0, 90.0)) as source:
        assert (source.height, source.width, source.dtype, source.crs) == (HEIGHT, WIDTH, dtype, UTM)
        assert source.transform == NORTH_UP and source.georeferenced
        assert source.bands == (1, 2, 3)[:count]
        image, valid = source.read(7, 11, 20, 30)
        assert source.stretch.percentiles == (5.0, 90.0)
    low, high = np.percentile(values.reshape(count, -1), (5, 90), axis=1)
    np.testing.assert_array_equal((source.stretch.low, source.stretch.high), (low, high))
    window = values[:, 7:27, 11:41]
    expected = np.clip((window - low[:, None, None]) / (high - low)[:, None, None], 0, 1).astype(np.float32)
    assert image.dtype == np.float32 and image.shape == (3, 20, 30) and valid.all()
    np.testing.assert_array_equal(image, np.broadcast_to(expected, image.shape))


def test_scene_larger_than_its_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_module, "_SAMPLE_SIDE", 64)
    rows, columns = np.mgrid[:400, :600]
    ramp = (rows * 100 + columns).astype(np.uint16)[None]
    shapes = []
    read = source_module.BandReader.read

    def spy(self: Any, window: Any, shape: tuple[int, int]) -> Any:
        shapes.append((window, shape))
        return read(self, window, shape)

    monkeypatch.setattr(source_module.BandReader, "read", spy)
    with open_scene(write_scene(tmp_path / "scene.tif", ramp)) as source:
        # Percentiles of a decimated ramp are those of the whole one to within one step of decimation (8 rows of 100).
        np.testing.assert_allclose(source.stretch.low[0], np.percentile(ramp, 2), atol=800)
        np.testing.assert_allclose(source.stretch.high[0], np.percentile(ramp, 98), atol=800)
    whole = [shape for window, shape in shapes if window is None]
    assert whole == [(52, 78)], "one decimated look at the scene, of about 64 x 64 pixels"
    assert all(shape == (1, 1) for window, shape in shapes if window is not None)


def test_the_stretch_comes_from_overviews(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_module, "_SAMPLE_SIDE", 100)
    path = write_scene(
        tmp_path / "scene.tif", noise(1, height=512, width=512), tiled=True, blockxsize=256, blockysize=256
    )
    with rasterio.open(path, "r+") as target:
        target.build_overviews([4], Resampling.average)
    with open_scene(path) as source:
        # Means of 16 uniform values spread a quarter as far as the values: proof of where they were read.
        assert source.stretch.high[0] - source.stretch.low[0] < 0.5 * 255 * 0.96


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".jp2"])
def test_pictures_without_a_map(tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture) -> None:
    smooth = np.stack([np.add.outer(np.arange(HEIGHT), np.arange(WIDTH)) + 30 * band for band in range(3)])
    options = (
        {"QUALITY": 100, "REVERSIBLE": "YES"} if suffix == ".jp2" else {"QUALITY": 100} if suffix == ".jpg" else {}
    )
    path = write_scene(tmp_path / f"scene{suffix}", smooth.astype(np.uint8), **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with open_scene(path, stretch=None) as source:
            assert source.crs is None and not source.georeferenced and source.ground_sample_distance() is None
            image, valid = read_all(source)
    # JPEG rounds in another colour space, by a few levels even at its best quality.
    np.testing.assert_allclose(image, smooth / 255, atol=4 / 255 if suffix == ".jpg" else 1e-6)
    assert valid.all()
    assert "not georeferenced" in logged(caplog)


def test_virtual_rasters(tmp_path: Path) -> None:
    bands = noise(3, "uint16")
    left = write_scene(tmp_path / "left.tif", bands)
    vrt = tmp_path / "scene.vrt"
    with rasterio.open(left) as tile:
        wkt = tile.crs.to_wkt().replace('"', "&quot;")
    parts = "".join(
        f'<VRTRasterBand dataType="UInt16" band="{number}"><SimpleSource>'
        f'<SourceFilename relativeToVRT="1">left.tif</SourceFilename><SourceBand>{number}</SourceBand>'
        f"</SimpleSource></VRTRasterBand>"
        for number in (1, 2, 3)
    )
    transform = ", ".join(str(value) for value in NORTH_UP.to_gdal())
    vrt.write_text(
        f'<VRTDataset rasterXSize="{WIDTH}" rasterYSize="{HEIGHT}"><SRS>{wkt}</SRS>'
        f"<GeoTransform>{transform}</GeoTransform>{parts}</VRTDataset>"
    )
    np.testing.assert_array_equal(open_all(vrt)[0], open_all(left)[0])
    with open_scene(vrt) as source:
        assert sorted(file.name for file in source.files) == ["left.tif", "scene.vrt"]
        before = source.fingerprint()
    # What a VRT shows changes with what it is made of.
    write_scene(left, noise(3, "uint16", seed=1))
    os.utime(left, ns=(1, before["mtime_ns"] + 10**9))
    with open_scene(vrt) as source:
        assert source.fingerprint()["mtime_ns"] > before["mtime_ns"]
    left.unlink()
    with pytest.raises(RasterError, match=r"scene\.vrt"):
        open_scene(vrt)


def test_bands_of_several_types(tmp_path: Path) -> None:
    values = noise(3, height=20, width=30)
    names = []
    for number, dtype in enumerate(("uint8", "int16", "float32")):
        names.append(write_scene(tmp_path / f"{number}.tif", values[number : number + 1].astype(dtype)).name)
    bands = "".join(
        f'<VRTRasterBand dataType="{kind}" band="{number}"><SimpleSource><SourceFilename relativeToVRT="1">{name}'
        f"</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>"
        for number, (kind, name) in enumerate(zip(("Byte", "Int16", "Float32"), names, strict=True), start=1)
    )
    vrt = tmp_path / "stack.vrt"
    vrt.write_text(f'<VRTDataset rasterXSize="30" rasterYSize="20">{bands}</VRTDataset>')
    with open_scene(vrt) as source:
        image, valid = read_all(source)
        assert source.dtype == "float32"
    np.testing.assert_array_equal(image, source.stretch.apply(values))
    assert valid.all()


# Bands


def test_chosen_bands(tmp_path: Path) -> None:
    bands = noise(5)
    path = write_scene(tmp_path / "scene.tif", bands)
    for chosen in ((4, 3, 2), (1, 1, 1), (5,)):
        with open_scene(path, chosen) as source:
            image, _ = read_all(source)
            assert source.bands == chosen and len(source.stretch.low) == len(chosen)
        expected = source.stretch.apply(bands[[number - 1 for number in chosen]])
        np.testing.assert_array_equal(image, np.broadcast_to(expected, image.shape))


@pytest.mark.parametrize("chosen", [(), (1, 2), (1, 2, 3, 4), (0, 1, 2), (4, 5, 6), (-1,), (6,)])
def test_wrong_bands(tmp_path: Path, chosen: tuple[int, ...]) -> None:
    path = write_scene(tmp_path / "scene.tif", noise(5))
    with pytest.raises(UserError, match="--bands"):
        open_scene(path, chosen)


def test_usual_bands_are_told_where_some_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    undefined = [ColorInterp.gray] + [ColorInterp.undefined] * 3
    grey = [ColorInterp.gray, ColorInterp.undefined, ColorInterp.undefined]
    names = ("coastal", "blue", "green", "red", "near infrared")
    backwards = COLOURS[::-1]
    infrared = [ColorInterp.nir, ColorInterp.red, ColorInterp.green]
    for count, options, bands, words in (
        (3, {}, (1, 2, 3), []),
        (3, {"colorinterp": COLOURS}, (1, 2, 3), []),
        (3, {"colorinterp": grey}, (1, 2, 3), []),
        (4, {"colorinterp": undefined}, (1, 2, 3), ["bands 1, 2, 3 of 4", "--bands"]),
        (5, {"descriptions": (*names[:4], "red")}, (1, 2, 3), ["bands 1, 2, 3 (coastal, blue, green) of 5"]),
        (5, {"descriptions": names}, (4, 3, 2), ["bands 4, 3, 2 (red, green, blue) of 5", "--bands"]),
        (3, {"descriptions": ("Blue", "Green", "Red"), "colorinterp": grey}, (3, 2, 1), ["3, 2, 1", "red, green and"]),
        (3, {"colorinterp": backwards}, (3, 2, 1), ["bands 3, 2, 1 are red, green and blue, as the file calls them"]),
        (4, {"colorinterp": [*backwards, ColorInterp.nir]}, (3, 2, 1), ["3, 2, 1 of 4 are used, which the file calls"]),
        (6, {"colorinterp": [*backwards, *COLOURS]}, (3, 2, 1), ["bands 3, 2, 1 of 6 are used"]),
        (3, {"colorinterp": infrared}, (1, 2, 3), ["calls bands 1, 2, 3 nir, red, green", "--bands"]),
    ):
        path = write_scene(tmp_path / "scene.tif", noise(count), **options)
        with open_scene(path) as source:
            assert source.bands == bands
        text = logged(caplog)
        assert all(word in text for word in words) and bool(text) == bool(words), text
    with pytest.raises(UserError, match=r"2 bands.*--bands 1"):
        open_scene(write_scene(tmp_path / "two.tif", noise(2)))


def test_palette(tmp_path: Path) -> None:
    indices = np.array([[[0, 1, 2], [2, 1, 0]]], np.uint8)
    path = tmp_path / "palette.tif"
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=2,
        width=3,
        count=1,
        dtype="uint8",
        photometric="palette",
        crs=UTM,
        transform=NORTH_UP,
    ) as target:
        target.write(indices)
        target.write_colormap(1, {0: (255, 0, 51, 255), 1: (0, 102, 0, 255), 2: (51, 51, 51, 255)})
    image, valid = open_all(path, stretch=None)
    np.testing.assert_allclose(image[:, 0], [[1.0, 0.0, 0.2], [0.0, 0.4, 0.2], [0.2, 0.0, 0.2]], atol=1e-7)
    assert valid.all()
    with open_scene(path, nodata=1) as source:
        assert len(source.stretch.low) == 3 and source.bands == (1,)
        np.testing.assert_array_equal(read_all(source)[1], indices[0] != 1)


def test_transparent_colours_of_a_palette_are_no_data(tmp_path: Path) -> None:
    path = tmp_path / "palette.png"
    with warnings.catch_warnings(), rasterio.Env(GDAL_PAM_ENABLED="NO"):
        warnings.simplefilter("ignore")
        with rasterio.open(path, "w", driver="PNG", height=1, width=4, count=1, dtype="uint8") as target:
            target.write(np.array([[[0, 1, 2, 3]]], np.uint8))
            # Two opacities below the full one: PNG has a nodata value for one alone.
            target.write_colormap(1, {0: (9, 9, 9, 0), 1: (50, 60, 70, 255), 2: (80, 90, 99, 128), 3: (7, 7, 7, 0)})
    np.testing.assert_array_equal(open_all(path)[1], [[False, True, True, False]])


def test_complex_values_are_refused(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "radar.tif", np.ones((1, 8, 8), np.complex64))
    with pytest.raises(RasterError, match="complex64"):
        open_scene(path)


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


# The stretch


def test_full_range(tmp_path: Path) -> None:
    for dtype, options, full in (("uint8", {}, 255), ("uint16", {}, 65535), ("uint16", {"nbits": 12}, 4095)):
        bands = np.array([[[0, 1, full]]], dtype)
        with open_scene(write_scene(tmp_path / "scene.tif", bands, **options), stretch=None) as source:
            np.testing.assert_array_equal(read_all(source)[0][0, 0], np.array([0, 1 / full, 1], np.float32))
            assert source.stretch == Stretch((0.0,), (float(full),), None)
    floats = np.array([[[0.0, 0.25, 1.0]]], np.float32)
    np.testing.assert_array_equal(open_all(write_scene(tmp_path / "scene.tif", floats), stretch=None)[0][1], floats[0])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.array([[[0.5, 1.5]]], np.float32), "0.5 to 1.5"),
        (np.array([[[-0.5, 0.5]]], np.float64), "-0.5 to 0.5"),
        (np.array([[[1, 2]]], np.int16), "int16"),
        (np.array([[[1, 2]]], np.uint32), "uint32"),
    ],
)
def test_no_full_range(tmp_path: Path, values: NDArray[Any], words: str) -> None:
    with pytest.raises(UserError, match=f"{words}.*--stretch 2,98"):
        open_scene(write_scene(tmp_path / "scene.tif", values), stretch=None)


def test_flat_bands(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image, _ = open_all(write_scene(tmp_path / "flat.tif", np.full((3, 9, 9), 7, np.uint8)))
        assert np.isfinite(image).all() and image.min() >= 0 and image.max() <= 1
        # An island in a sea of one value: both percentiles are the sea, and the island must still be seen.
        sea = np.full((1, 100, 100), 3, np.uint16)
        sea[0, 50, 50:60] = np.arange(10, 20)
        caplog.clear()
        image, _ = open_all(write_scene(tmp_path / "sea.tif", sea))
    assert "band 1" in logged(caplog)
    np.testing.assert_allclose(image[0], (sea[0] - 3) / 16, atol=1e-7)


@pytest.mark.parametrize("percentiles", [(98.0, 2.0), (5.0, 5.0), (-1.0, 98.0), (2.0, 101.0), (math.nan, 98.0)])
def test_wrong_percentiles(tmp_path: Path, percentiles: tuple[float, float]) -> None:
    with pytest.raises(UserError, match="--stretch"):
        open_scene(write_scene(tmp_path / "scene.tif", noise(1)), stretch=percentiles)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    scale=st.floats(1e-3, 1e6),
    shift=st.floats(-1e6, 1e6),
    low=st.floats(0.0, 49.0),
    high=st.floats(51.0, 100.0),
)
def test_a_stretch_undoes_any_scale_and_shift(seed: int, scale: float, shift: float, low: float, high: float) -> None:
    """A sensor's gain and offset are no part of the picture."""
    values = np.random.default_rng(seed).random((2, 12, 12))
    valid = np.random.default_rng(seed + 1).random((12, 12)) < 0.8
    valid[0, :2] = True
    plain, _ = percentile_stretch(values, valid, (low, high))
    moved, _ = percentile_stretch(values * scale + shift, valid, (low, high))
    image = plain.apply(values)
    assert image.min() >= 0.0 and image.max() <= 1.0
    # Near 1e6 double precision has steps of 1.2e-10, and percentiles 49 and 51 of a range of 1e-3 lie 2e-5 apart: a
    # step is 6e-6 of what lies between them.
    np.testing.assert_allclose(image, moved.apply(values * scale + shift), atol=1e-5)


def test_stretch_of_nan_and_infinity() -> None:
    stretch = Stretch((10.0, 5.0), (20.0, 5.0), None)
    bands = np.array([[[np.nan, np.inf, -np.inf, 15.0]], [[np.nan, np.inf, 5.0, 6.0]]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = stretch.apply(bands)
    np.testing.assert_array_equal(image[:, 0], [[0, 1, 0, 0.5], [0, 1, 0, 1]])
    assert json.loads(json.dumps(stretch.describe())) == {"low": [10.0, 5.0], "high": [20.0, 5.0], "percentiles": None}
    for ends in (((1.0,), (0.0,)), ((math.nan,), (1.0,)), ((), ()), ((1.0,), (2.0, 3.0))):
        with pytest.raises(ValueError, match="stretch"):
            Stretch(*ends, None)
    with pytest.raises(ValueError, match="shape"):
        stretch.apply(np.zeros((3, 2, 2)))


# Where it lies


def test_ground_sample_distance_of_projected_scenes() -> None:
    feet = CRS.from_epsg(2263)  # New York, US survey feet
    turn = Affine.rotation(30.0) * Affine.scale(2.0, -3.0)
    for crs, transform, expected in (
        (UTM, NORTH_UP, (30.0, 30.0)),
        (UTM, Affine(0.5, 0, 0, 0, -2.0, 0), (2.0, 0.5)),
        (UTM, turn, (3.0, 2.0)),
        (feet, Affine(1.0, 0, 0, 0, -2.0, 0), (2 * 1200 / 3937, 1200 / 3937)),
    ):
        assert ground_sample_distance(crs, transform, 100, 200) == pytest.approx(expected, rel=1e-9)


def test_ground_sample_distance_of_degrees() -> None:
    # WGS 84: lengths of a degree at the equator and at 60 degrees, from tables (110.574, 111.320; 111.412, 55.800 km).
    wgs84 = CRS.from_epsg(4326)
    for latitude, expected in ((0.0, (110_574, 111_320)), (60.0, (111_412, 55_800))):
        transform = Affine(1.0, 0, 10.0, 0, -1.0, latitude + 0.5)
        assert ground_sample_distance(wgs84, transform, 1, 1) == pytest.approx(expected, abs=1)
    moon = CRS.from_wkt(
        'GEOGCS["Moon",DATUM["Moon",SPHEROID["Moon",1737400,0]],PRIMEM["Reference",0],UNIT["degree",0.0174532925199433]]'
    )
    degree = math.radians(1) * 1_737_400
    assert ground_sample_distance(moon, Affine(1.0, 0, 0, 0, -1.0, 60.5), 1, 1) == pytest.approx((degree, degree / 2))


def test_ground_sample_distance_of_web_mercator() -> None:
    # At 60 degrees a metre of the map is half a metre on the ground.
    mercator = CRS.from_epsg(3857)
    y = 6378137.0 * math.log(math.tan(math.radians(45 + 30)))
    assert ground_sample_distance(mercator, Affine(10, 0, 0, 0, -10, y), 0, 0) == pytest.approx((5, 5))


def test_ground_sample_distance_is_unknown_without_map() -> None:
    assert ground_sample_distance(None, NORTH_UP, 10, 10) is None
    assert ground_sample_distance(UTM, Affine.identity(), 10, 10) is None
    assert ground_sample_distance(UTM, Affine(1, 1, 0, 1, 1, 0), 10, 10) is None


def test_rotated_scene_keeps_its_transform(tmp_path: Path) -> None:
    turned = NORTH_UP * Affine.rotation(25.0)
    with open_scene(write_scene(tmp_path / "scene.tif", noise(1), transform=turned)) as source:
        assert source.georeferenced and source.transform.almost_equals(turned)
        assert source.ground_sample_distance() == pytest.approx((30.0, 30.0))


def test_transform_without_crs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_scene(tmp_path / "scene.png", noise(1))
    (tmp_path / "scene.pgw").write_text("30\n0\n0\n-30\n500015\n3799985\n")
    with open_scene(path) as source:
        assert source.crs is None and source.georeferenced and source.transform == NORTH_UP
        assert source.ground_sample_distance() is None
    assert "no CRS" in logged(caplog)


def test_control_points_and_polynomials_are_no_map(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    points = [GroundControlPoint(r, c, 5e5 + 30 * c, 38e5 - 30 * r) for r, c in ((0, 0), (0, 9), (9, 0), (9, 9))]
    polynomial = RPC(
        height_off=100.0, height_scale=50.0, lat_off=34.0, lat_scale=1.0, line_off=30.0, line_scale=30.0,
        long_off=75.0, long_scale=1.0, samp_off=45.0, samp_scale=45.0, line_num_coeff=[0.0] * 20,
        line_den_coeff=[1.0] + [0.0] * 19, samp_num_coeff=[0.0] * 20, samp_den_coeff=[1.0] + [0.0] * 19,
    )  # fmt: skip
    for extra, words in (({"gcps": (points, UTM)}, "control points"), ({"rpcs": polynomial}, "RPC")):
        with open_scene(write_scene(tmp_path / "scene.tif", noise(1), **extra)) as source:
            assert source.crs is None and not source.georeferenced
        assert words in logged(caplog)


# Windows


def test_windows_make_up_the_scene(tmp_path: Path) -> None:
    mask = np.random.default_rng(2).random((HEIGHT, WIDTH)) < 0.9
    path = write_scene(tmp_path / "scene.tif", noise(3, "uint16"), mask=mask, tiled=True, blockxsize=16, blockysize=16)
    with open_scene(path) as source:
        image, valid = read_all(source)
        rows = [(0, 25), (25, 1), (26, 34)]
        columns = [(0, 89), (89, 1)]
        parts = [[source.read(row, column, height, width) for column, width in columns] for row, height in rows]
        np.testing.assert_array_equal(np.block([[part[0] for part in line] for line in parts]), image)
        np.testing.assert_array_equal(np.block([[part[1] for part in line] for line in parts]), valid)
        image[:] = 7.0  # the caller's own to change
        assert (read_all(source)[0] <= 1.0).all()


@pytest.mark.parametrize("window", [(-1, 0, 5, 5), (0, 0, 61, 5), (0, 86, 5, 5), (0, 0, 0, 5), (5, 5, 5, -1)])
def test_windows_beyond_the_scene(tmp_path: Path, window: tuple[int, int, int, int]) -> None:
    with open_scene(write_scene(tmp_path / "scene.tif", noise(1))) as source, pytest.raises(ValueError, match="window"):
        source.read(*window)


def test_threads_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_scene(tmp_path / "scene.tif", noise(3, height=256, width=256), **BLOCKS)
    reading, together = [0], [0]
    read = source_module.BandReader.read

    def slow(self: Any, window: Any, shape: tuple[int, int]) -> Any:
        reading[0] += 1
        together[0] = max(together[0], reading[0])
        time.sleep(0.002)  # long enough for the others to come in, if they could
        found = read(self, window, shape)
        reading[0] -= 1
        return found

    monkeypatch.setattr(source_module.BandReader, "read", slow)
    with open_scene(path) as source:
        whole, _ = read_all(source)

        def work(seed: int) -> bool:
            places = np.random.default_rng(seed).integers(0, 200, (10, 2)).tolist()
            return all(
                np.array_equal(source.read(row, column, 50, 50)[0], whole[:, row : row + 50, column : column + 50])
                for row, column in places
            )

        with ThreadPoolExecutor(max_workers=4) as threads:
            assert all(threads.map(work, range(4)))
    assert together[0] == 1, "a GDAL dataset belongs to one thread at a time"


def test_one_pixel(tmp_path: Path) -> None:
    image, valid = open_all(write_scene(tmp_path / "scene.tif", np.array([[[9]]], np.uint8)))
    assert image.shape == (3, 1, 1) and valid.all()


def test_fingerprint(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "scene.tif", noise(3))

    def fingerprint(**options: Any) -> str:
        with open_scene(path, **options) as source:
            return json.dumps(source.fingerprint(), allow_nan=False)

    first = fingerprint()
    assert first == fingerprint()
    facts = json.loads(first)
    assert facts["name"] == "scene.tif" and facts["bytes"] == path.stat().st_size
    assert (facts["width"], facts["height"], facts["bands"], facts["nodata"]) == (WIDTH, HEIGHT, [1, 2, 3], None)
    others = [
        fingerprint(bands=(3, 2, 1)),
        fingerprint(nodata=0),
        fingerprint(nodata=math.nan),
        fingerprint(stretch=None),
    ]
    assert len({first, *others}) == 5
    os.utime(path, ns=(1, 1))
    assert fingerprint() != first


# Damage


def damaged_files(tmp_path: Path) -> list[Path]:
    bands = noise(3, height=300, width=400)
    smooth = np.add.outer(np.arange(300), np.arange(400))
    smooth = np.stack([smooth // 3, smooth // 4, smooth // 5]).astype(np.uint8)
    return [
        write_scene(tmp_path / "strips.tif", bands),
        write_scene(tmp_path / "tiles.tif", bands, **BLOCKS),
        write_scene(tmp_path / "planes.tif", bands, interleave="band", **BLOCKS),
        write_scene(tmp_path / "cog.tif", bands, driver="COG", compress="deflate", blocksize=128),
        write_scene(tmp_path / "noise.png", bands),
        write_scene(tmp_path / "smooth.png", smooth),
        write_scene(tmp_path / "photo.jpg", smooth),
        write_scene(tmp_path / "photo.jp2", smooth),
    ]


def test_a_file_cut_short_is_found_on_opening(tmp_path: Path) -> None:
    for path in damaged_files(tmp_path):
        data = path.read_bytes()
        open_scene(path).close()
        # The last four bytes of a COG repeat those before them.
        whole = len(data) - 4 if path.name == "cog.tif" else len(data)
        for length in sorted({*range(0, whole, len(data) // 17), *range(whole - 8, whole)}):
            path.write_bytes(data[:length])
            with pytest.raises(RasterError) as caught:
                open_scene(path)
            assert path.name in str(caught.value) and "\n" not in str(caught.value)


def test_a_cut_behind_the_overviews_is_found_on_opening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A COG's overviews come first: the stretch is read from them, and never meets the lost end.
    monkeypatch.setattr(source_module, "_SAMPLE_SIDE", 64)
    bands = noise(1, height=512, width=512)
    path = write_scene(tmp_path / "cog.tif", bands, driver="COG", compress="deflate", blocksize=128)
    open_scene(path).close()
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(RasterError, match=r"cog\.tif"):
        open_scene(path)


def test_a_file_that_is_cut_short_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # These small files are in GDAL's cache as a whole, from where they would be read rightly.
    monkeypatch.setitem(environment._OPTIONS, "GDAL_CACHEMAX", 1)
    for path in damaged_files(tmp_path)[:4]:
        with open_scene(path) as source:
            with path.open("r+b") as stream:
                stream.truncate(path.stat().st_size // 2)
            with pytest.raises(RasterError, match=path.name):
                for row in range(0, source.height, 50):
                    source.read(row, 0, 50, source.width)


def test_a_damaged_block_in_the_middle(tmp_path: Path) -> None:
    path = write_scene(
        tmp_path / "scene.tif",
        noise(1, height=256, width=256),
        tiled=True,
        blockxsize=64,
        blockysize=64,
        compress="deflate",
    )
    with rasterio.open(path) as dataset:
        offset = int(dataset.get_tag_item("BLOCK_OFFSET_1_2", "TIFF", bidx=1))
    with open_scene(path) as source:
        with path.open("r+b") as stream:
            stream.seek(offset)
            stream.write(b"\xff" * 64)
    with pytest.raises(RasterError, match=r"scene\.tif"), open_scene(path) as source:
        read_all(source)


def test_missing_foreign_and_empty_files(tmp_path: Path) -> None:
    text = tmp_path / "notes.tif"
    text.write_text("not a raster\nat all")
    empty = tmp_path / "empty.tif"
    empty.touch()
    for path in (tmp_path / "absent.tif", tmp_path, text, empty):
        with pytest.raises(RasterError) as caught:
            open_scene(path)
        assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_container_without_bands(tmp_path: Path) -> None:
    path = tmp_path / "container.gpkg"
    for table in ("first", "second"):
        write_scene(
            path, noise(1), driver="GPKG", crs=UTM, transform=NORTH_UP, RASTER_TABLE=table, APPEND_SUBDATASET="YES"
        )
    with pytest.raises(RasterError, match="without bands"):
        open_scene(path)


def test_absurd_size(tmp_path: Path) -> None:
    path = tmp_path / "absurd.vrt"
    band = '<VRTRasterBand dataType="Byte" band="1"></VRTRasterBand>'
    path.write_text(f'<VRTDataset rasterXSize="2000000000" rasterYSize="2000000000">{band}</VRTDataset>')
    with pytest.raises(RasterError, match="2000000000 x 2000000000"):
        open_scene(path)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak is read from /proc")
def test_memory_does_not_grow_with_the_scene(tmp_path: Path) -> None:
    # 4,000 x 4,000 x 8 bytes are 122 MiB, which GDAL would keep all of; as a sparse file they take no disk. Its cache
    # is made as much smaller as this scene is smaller than a real one.
    path = tmp_path / "large.tif"
    with rasterio.open(
        path, "w", driver="GTiff", height=4000, width=4000, count=1, dtype="float64", tiled=True, sparse_ok=True,
        crs=UTM, transform=NORTH_UP,
    ) as target:  # fmt: skip
        target.write(np.random.default_rng(0).random((1, 256, 256)), window=Window(2000, 2000, 256, 256))
    script = """
        import sys
        from pathlib import Path
        from Utils.rasters import environment
        from Utils.rasters.source import scene_source as source
        environment._OPTIONS["GDAL_CACHEMAX"] = 16 * 2**20
        source._SAMPLE_SIDE = 256
        def peak():  # not getrusage, where a child begins with its parent's
            return next(int(line.split()[1]) for line in Path("/proc/self/status").open() if line.startswith("VmHWM"))
        before = peak()
        with source.open_scene(sys.argv[1]) as scene:
            for row in range(0, 4000, 500):
                for column in range(0, 4000, 500):
                    scene.read(row, column, 500, 500)
        print((peak() - before) / 1024)
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(path)],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    grown = float(result.stdout)  # MiB
    # The cache, windows of 2 MiB with their copies, and what GDAL loads on its first use: 41 MiB were measured.
    assert grown < 80
