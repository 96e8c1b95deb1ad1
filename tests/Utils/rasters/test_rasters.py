"""Reading tiles and writing maps: exact round trips, masks, and every kind of damage found."""

from __future__ import annotations

import errno
import os
import struct
import subprocess
import sys
import textwrap
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp

from tests.paths import ROOT
from Utils.core.errors import RasterError
from Utils.rasters.tile_files import raster_size, read_height, read_image, read_prior, write_map_16bit, write_map_float

HEIGHT, WIDTH = 24, 40


def write_raster(path: Path, bands: NDArray[Any], mask: NDArray[np.bool_] | None = None, **profile: Any) -> Path:
    """Write (C, H, W) with plain rasterio, as other programs would."""
    count, height, width = bands.shape
    profile.setdefault("driver", {".png": "PNG", ".jpg": "JPEG"}.get(path.suffix, "GTiff"))
    tags = profile.pop("tags", {})
    with warnings.catch_warnings(), rasterio.Env(GDAL_PAM_ENABLED="NO", GDAL_TIFF_INTERNAL_MASK="YES"):
        warnings.simplefilter("ignore")
        with rasterio.open(path, "w", height=height, width=width, count=count, dtype=bands.dtype, **profile) as target:
            target.write(bands)
            if mask is not None:
                target.write_mask(mask)
            for name, value in tags.items():
                setattr(target, name, value)
    return path


def random_bands(count: int, dtype: str, seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> NDArray[Any]:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, (count, height, width), dtype, endpoint=True)


def png_bytes(width: int, height: int, content: bytes, bits: int = 8, colour: int = 0) -> bytes:
    """A PNG made by hand, to give headers that writers refuse to write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(content)) + chunk(b"IEND", b"")


# Images


@pytest.mark.parametrize(("dtype", "full"), [("uint8", 255), ("uint16", 65535)])
@pytest.mark.parametrize("count", [1, 3, 4])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_image(tmp_path: Path, dtype: str, full: int, count: int, suffix: str) -> None:
    bands = random_bands(count, dtype)
    image = read_image(write_raster(tmp_path / f"tile{suffix}", bands))
    assert image.shape == (3, HEIGHT, WIDTH) and image.dtype == np.float32
    np.testing.assert_array_equal(image, np.broadcast_to(bands[:3], image.shape) / np.float32(full))
    assert image.min() >= 0.0 and image.max() <= 1.0


def test_image_with_palette_shows_its_colours(tmp_path: Path) -> None:
    path = tmp_path / "palette.png"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(path, "w", driver="PNG", height=1, width=2, count=1, dtype="uint8") as target:
            target.write(np.array([[[0, 1]]], np.uint8))
            target.write_colormap(1, {0: (255, 0, 51, 255), 1: (0, 102, 0, 255)})
    np.testing.assert_allclose(read_image(path)[:, 0], [[1.0, 0.0], [0.0, 0.4], [0.2, 0.0]], atol=1e-7)
    with pytest.raises(RasterError, match="palette"):
        read_height(path)


def test_image_of_one_bit_is_black_and_white(tmp_path: Path) -> None:
    path = tmp_path / "bits.png"
    path.write_bytes(png_bytes(8, 1, b"\x00\x0f", bits=1))
    np.testing.assert_array_equal(read_image(path)[0, 0], [0, 0, 0, 0, 1, 1, 1, 1])


def test_bands_are_taken_by_what_the_file_calls_them(tmp_path: Path) -> None:
    bands = random_bands(4, "uint8")
    red, green, blue = ColorInterp.red, ColorInterp.green, ColorInterp.blue
    for kinds, order in (
        ([blue, green, red], [2, 1, 0]),
        ([blue, green, red, ColorInterp.alpha], [2, 1, 0]),
        ([ColorInterp.alpha, red, green, blue], [1, 2, 3]),
        ([ColorInterp.nir, red, green, blue], [1, 2, 3]),
        ([red, green, blue, ColorInterp.nir], [0, 1, 2]),
        ([ColorInterp.gray, ColorInterp.undefined, ColorInterp.undefined], [0, 1, 2]),
        ([ColorInterp.gray, ColorInterp.alpha], [0, 0, 0]),
    ):
        path = write_raster(tmp_path / "tile.tif", bands[: len(kinds)], nodata=None)
        with rasterio.open(path, "r+") as target:
            target.colorinterp = kinds
        np.testing.assert_array_equal(read_image(path), bands[order] / np.float32(255))


def test_grey_with_opacity_is_grey(tmp_path: Path) -> None:
    bands = np.stack([random_bands(1, "uint8")[0], np.full((HEIGHT, WIDTH), 255, np.uint8)])
    path = write_raster(tmp_path / "tile.png", bands)
    np.testing.assert_array_equal(read_image(path)[2], bands[0] / np.float32(255))
    raster = read_height(path)
    np.testing.assert_array_equal(raster.values, bands[0])


def test_full_scale_of_sixteen_bits(tmp_path: Path) -> None:
    levels = np.array([[[0, 1, 4095]]], np.uint16)
    plain, told = tmp_path / "plain.png", tmp_path / "told.tif"
    write_raster(plain, levels)
    write_raster(told, levels, nbits=12)
    eight = write_raster(tmp_path / "eight.png", np.array([[[0, 1, 255]]], np.uint8))
    for path, full_scale, white in ((plain, None, 65535), (plain, 4095.0, 4095), (plain, 10_000, 10_000)):
        np.testing.assert_array_equal(read_image(path, full_scale)[0], levels[0] / np.float32(white))
    np.testing.assert_array_equal(read_image(told, 10_000)[0], levels[0] / np.float32(4095))
    assert read_image(eight, 4095.0).max() == 1.0
    with pytest.raises(RasterError, match="4095, more than image_full_scale, 2047"):
        read_image(plain, 2047)


@pytest.mark.parametrize("count", [2, 5])
def test_image_with_other_band_counts_is_refused(tmp_path: Path, count: int) -> None:
    with pytest.raises(RasterError, match=f"{count} bands"):
        read_image(write_raster(tmp_path / "tile.tif", random_bands(count, "uint8")))


def test_image_of_floats_that_are_heights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RasterError, match=r"values from 0 to 812\.5; floats go from 0 to 1, or to image_full_scale"):
        read_image(write_raster(tmp_path / "tile.tif", np.array([[[0.0, 812.5]]] * 3, np.float32)))
    with pytest.raises(RasterError, match="an image of type int32"):
        read_image(write_raster(tmp_path / "tile.tif", np.zeros((3, 4, 4), np.int32)))


# Heights


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
def test_height_of_any_type(tmp_path: Path, dtype: str) -> None:
    values = np.arange(HEIGHT * WIDTH).reshape(1, HEIGHT, WIDTH).astype(dtype)
    raster = read_height(write_raster(tmp_path / "dem.tif", values))
    assert raster.values.dtype == np.float32 and raster.valid.dtype == np.bool_
    assert raster.valid.all()
    np.testing.assert_array_equal(raster.values, values[0])


@pytest.mark.parametrize(
    ("dtype", "nodata"), [("int16", -32768), ("float32", -3.4028234663852886e38), ("float64", -1e300), ("uint8", 0)]
)
def test_nodata_tag(tmp_path: Path, dtype: str, nodata: float) -> None:
    values = np.full((1, 4, 5), 7, dtype)
    values[0, 1, 2] = nodata
    raster = read_height(write_raster(tmp_path / "dem.tif", values, nodata=nodata))
    expected = np.ones((4, 5), bool)
    expected[1, 2] = False
    np.testing.assert_array_equal(raster.valid, expected)
    np.testing.assert_array_equal(raster.values, np.where(expected, 7, 0))


def test_nan_and_infinity_are_invalid(tmp_path: Path) -> None:
    values = np.ones((1, 2, 3), np.float64)
    values[0, 0] = np.nan, np.inf, 1e300  # the last is beyond float32
    raster = read_height(write_raster(tmp_path / "dem.tif", values))
    np.testing.assert_array_equal(raster.valid, [[False] * 3, [True] * 3])
    np.testing.assert_array_equal(raster.values, [[0.0] * 3, [1.0] * 3])


def test_mask_band(tmp_path: Path) -> None:
    mask = np.random.default_rng(1).random((HEIGHT, WIDTH)) < 0.7
    raster = read_height(write_raster(tmp_path / "dem.tif", random_bands(1, "int16") | 1, mask=mask))
    np.testing.assert_array_equal(raster.valid, mask)
    assert (raster.values[~mask] == 0).all()


def test_nodata_from_a_side_file(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "dem.png", np.array([[[0, 5]]], np.uint8))
    side_file = tmp_path / "dem.png.aux.xml"
    side_file.write_text(
        '<PAMDataset><PAMRasterBand band="1"><NoDataValue>0</NoDataValue></PAMRasterBand></PAMDataset>'
    )
    np.testing.assert_array_equal(read_height(path).valid, [[False, True]])


def test_scale_and_offset_tags(tmp_path: Path) -> None:
    values = np.array([[[0, 10, -1]]], np.int16)
    path = write_raster(tmp_path / "dem.tif", values, nodata=-1, tags={"scales": (0.5,), "offsets": (100.0,)})
    raster = read_height(path)
    np.testing.assert_array_equal(raster.values, [[100.0, 105.0, 0.0]])
    np.testing.assert_array_equal(raster.valid, [[True, True, False]])


@pytest.mark.parametrize("count", [3, 4])
def test_grey_saved_as_colour_counts_as_one_band(tmp_path: Path, count: int) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (1, HEIGHT, WIDTH), np.uint8)
    bands = np.repeat(grey, count, axis=0)
    bands[3:] = 255
    path = write_raster(tmp_path / "grey.png", bands)
    np.testing.assert_array_equal(read_height(path).values, grey[0])
    np.testing.assert_array_equal(read_prior(path), grey[0] / np.float32(255))
    bands[1, 0, 0] ^= 1
    path = write_raster(tmp_path / "coloured.png", bands)
    for read in (read_height, read_prior):
        with pytest.raises(RasterError, match="different bands"):
            read(path)


def test_height_with_two_bands_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RasterError, match="2 bands"):
        read_height(write_raster(tmp_path / "dem.tif", random_bands(2, "uint8")))


def test_complex_height_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RasterError, match="complex64"):
        read_height(write_raster(tmp_path / "dem.tif", np.zeros((1, 2, 2), np.complex64)))


# Coarse maps, written and read back


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_16bit_round_trip(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((HEIGHT, WIDTH))
    values.flat[:4] = 0.0, 1.0, -0.25, 1.5
    path = tmp_path / "prior.png"
    write_map_16bit(path, values)
    back = read_prior(path)
    assert back.dtype == np.float32
    # Half a level of rounding, and float32's own rounding below 1.
    np.testing.assert_allclose(back, np.clip(values, 0, 1), rtol=0, atol=0.5 / 65535 + 2**-24)
    np.testing.assert_array_equal(back.flat[:4], [0.0, 1.0, 0.0, 1.0])
    with rasterio.open(path) as source:
        assert source.dtypes == ("uint16",) and source.driver == "PNG"
    assert os.listdir(tmp_path) == ["prior.png"]


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_16bit_writes_every_level_it_reads(tmp_path: Path) -> None:
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    first, second = tmp_path / "first.png", tmp_path / "second.png"
    write_map_16bit(first, levels / 65535)
    write_map_16bit(second, read_prior(first))
    with rasterio.open(second) as source:
        np.testing.assert_array_equal(source.read(1), levels)


@pytest.mark.parametrize("suffix", [".tif", ".tiff", ".npy", ".TIF"])
def test_float_round_trip_is_exact(tmp_path: Path, suffix: str) -> None:
    values = np.random.default_rng(0).random((HEIGHT, WIDTH), np.float32)
    path = tmp_path / f"map{suffix}"
    write_map_float(path, values)
    np.testing.assert_array_equal(read_prior(path), values)
    np.testing.assert_array_equal(read_height(path).values, values)
    assert type(read_prior(path)) is np.ndarray
    assert raster_size(path) == (HEIGHT, WIDTH)
    assert os.listdir(tmp_path) == [path.name]


def test_prior_of_8_bits(tmp_path: Path) -> None:
    band = random_bands(1, "uint8")
    np.testing.assert_array_equal(read_prior(write_raster(tmp_path / "p.png", band)), band[0] / np.float32(255))


@pytest.mark.parametrize("bad", [-0.01, 1.01, np.nan, np.inf])
@pytest.mark.parametrize("suffix", [".tif", ".npy"])
def test_float_prior_outside_its_range_is_refused(tmp_path: Path, bad: float, suffix: str) -> None:
    values = np.full((3, 3), 0.5, np.float32)
    values[1, 1] = bad
    path = tmp_path / f"prior{suffix}"
    if suffix == ".npy":
        np.save(path, values)
    else:
        write_raster(path, values[None])
    with pytest.raises(RasterError, match="prior"):
        read_prior(path)


def test_signed_prior_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RasterError, match="int16"):
        read_prior(write_raster(tmp_path / "prior.tif", np.zeros((1, 2, 2), np.int16)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e39])
def test_values_that_are_not_finite_are_not_written(tmp_path: Path, bad: float) -> None:
    values = np.zeros((4, 4))
    values[2, 2] = bad
    with pytest.raises(ValueError, match="1 of 16 values"):
        write_map_float(tmp_path / "map.tif", values)
    if not np.isfinite(bad):
        with pytest.raises(ValueError, match="1 of 16 values"):
            write_map_16bit(tmp_path / "map.png", values)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("shape", [(4,), (1, 4, 4), (0, 4)])
def test_other_shapes_are_not_written(tmp_path: Path, shape: tuple[int, ...]) -> None:
    for write, name in ((write_map_16bit, "m.png"), (write_map_float, "m.tif"), (write_map_float, "m.npy")):
        with pytest.raises(ValueError, match="shape"):
            write(tmp_path / name, np.zeros(shape))


def test_other_suffixes_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.png"):
        write_map_16bit(tmp_path / "map.tif", np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"\.npy"):
        write_map_float(tmp_path / "map.png", np.zeros((2, 2)))


# Damage


def damaged_files(tmp_path: Path) -> list[Path]:
    """One whole file of each kind that readers must be able to check."""
    smooth = (np.add.outer(np.arange(90), np.arange(120)) % 256).astype(np.uint8)[None]
    return [
        write_raster(tmp_path / "noise8.png", random_bands(3, "uint8", height=90, width=120)),
        write_raster(tmp_path / "noise16.png", random_bands(1, "uint16", height=90, width=120)),
        write_raster(tmp_path / "smooth8.png", smooth),
        write_raster(tmp_path / "flat8.png", np.zeros((4, 90, 120), np.uint8)),
        write_raster(tmp_path / "plain.tif", random_bands(1, "uint8", height=90, width=120)),
        write_raster(tmp_path / "deflate.tif", random_bands(3, "uint16", height=90, width=120), compress="deflate"),
        write_raster(tmp_path / "photo.jpg", np.repeat(smooth, 3, axis=0)),
    ]


def test_a_truncated_file_is_an_error_at_any_length(tmp_path: Path) -> None:
    for path in damaged_files(tmp_path):
        data = path.read_bytes()
        read_image(path)
        # All of the last bytes: GDAL alone decodes 8-bit PNGs that lack these, wrongly and silently. A JPEG's last
        # two bytes are its end mark, without which all pixels are still there.
        tail = 2 if path.suffix == ".jpg" else 0
        lengths = {*range(0, len(data), max(1, len(data) // 40)), *range(max(0, len(data) - 40), len(data) - tail)}
        for length in sorted(lengths):
            path.write_bytes(data[:length])
            with pytest.raises(RasterError, match=path.name):
                read_image(path)


def test_a_flipped_bit_in_a_png_is_an_error(tmp_path: Path) -> None:
    for path in damaged_files(tmp_path):
        if path.suffix != ".png":
            continue
        data = path.read_bytes()
        for position in {*range(0, 60), *range(60, len(data), max(1, len(data) // 60)), *range(-20, 0)}:
            flipped = bytearray(data)
            flipped[position] ^= 0x10
            path.write_bytes(flipped)
            with pytest.raises(RasterError, match=path.name):
                read_image(path)


@pytest.mark.parametrize("read", [read_image, read_height, read_prior, raster_size])
def test_missing_and_foreign_files(tmp_path: Path, read: Any) -> None:
    text = tmp_path / "notes.png"
    text.write_text("not a raster\nat all")
    for path in (tmp_path / "absent.tif", tmp_path / "absent.npy", tmp_path, text):
        with pytest.raises(RasterError) as caught:
            read(path)
        assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)
        assert caught.value.path == path


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"PK\x03\x04"])
def test_damaged_npy(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "map.npy"
    path.write_bytes(content)
    with pytest.raises(RasterError, match=r"map\.npy"):
        read_height(path)
    np.save(path, np.zeros((50, 50), np.float32))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RasterError, match=r"map\.npy"):
        read_prior(path)
    np.save(path, np.array([[{}]], object), allow_pickle=True)
    with pytest.raises(RasterError, match=r"map\.npy"):
        read_prior(path)
    np.save(path, np.zeros((2, 2, 2)))
    with pytest.raises(RasterError, match="shape"):
        read_prior(path)


def test_absurd_size_is_refused_before_decoding(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_bytes(60_000, 50_000, b""))
    for read in (read_image, read_height, read_prior):
        with pytest.raises(RasterError, match="60000 x 50000"):
            read(path)
    assert raster_size(path) == (50_000, 60_000)


def test_size_comes_from_the_header_alone(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "tile.png", random_bands(3, "uint8"))
    path.write_bytes(path.read_bytes()[:300])
    assert raster_size(path) == (HEIGHT, WIDTH)


# Folders and disks


def test_nothing_is_warned_about_and_no_side_file_left(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_map_16bit(tmp_path / "a.png", np.eye(8))
        write_map_float(tmp_path / "b.tif", np.eye(8))
        for name in ("a.png", "b.tif"):
            raster_size(tmp_path / name)
            read_height(tmp_path / name)
            read_prior(tmp_path / name)
        read_image(tmp_path / "a.png")
    assert sorted(os.listdir(tmp_path)) == ["a.png", "b.tif"]


def test_writing_into_a_missing_folder(tmp_path: Path) -> None:
    for write, name in ((write_map_16bit, "m.png"), (write_map_float, "m.tif"), (write_map_float, "m.npy")):
        with pytest.raises(FileNotFoundError, match="there is no folder") as caught:
            write(tmp_path / "absent" / name, np.zeros((2, 2)))
        assert name in str(caught.value)


@pytest.mark.skipif(sys.platform == "win32", reason="resource limits are POSIX")
def test_a_disk_that_takes_no_more(tmp_path: Path) -> None:
    # A limit on the size of files fails the write half-way, as a full disk does.
    script = """
        import resource, sys
        import numpy as np
        from pathlib import Path
        from Utils.rasters.tile_files import write_map_16bit, write_map_float
        folder, values = Path(sys.argv[1]), np.random.default_rng(0).random((64, 64))
        write_map_16bit(folder / "old.png", np.zeros((2, 2)))
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        for write, name in ((write_map_16bit, "old.png"), (write_map_float, "m.tif"), (write_map_float, "m.npy")):
            try:
                write(folder / name, values)
            except OSError as error:
                print(type(error).__name__, error.errno, error.filename)
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert result.stdout.splitlines() == [
        f"OSError {errno.EFBIG} {tmp_path / name}" for name in ("old.png", "m.tif", "m.npy")
    ]
    assert os.listdir(tmp_path) == ["old.png"]
    assert read_prior(tmp_path / "old.png").shape == (2, 2)
