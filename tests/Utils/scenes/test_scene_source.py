"""Scenes in: every kind of raster as the same image, by windows."""

from __future__ import annotations

import json
import logging
import math
import os
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp, Resampling

from tests.Utils.scenes.source_files import (
    BLOCKS,
    COLOURS,
    HEIGHT,
    NORTH_UP,
    UTM,
    WIDTH,
    logged,
    noise,
    open_all,
    read_all,
    write_scene,
)
from Utils.core.errors import RasterError, UserError
from Utils.rasters.source import scene_source as source_module
from Utils.rasters.source.scene_source import find_scenes, open_scene


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
