"""Heights out: a valid COG that says what it is, whole or absent, whatever fails."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import textwrap
import warnings
from collections import namedtuple
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
import tifffile
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import ColorInterp

from tests.conftest import full_disk
from tests.paths import ROOT
from Utils.core.errors import UserError
from Utils.scenes.output import height_writer as output_module
from Utils.scenes.output.height_writer import NODATA, Band, HeightWriter, check_output, space_needed

UTM = CRS.from_epsg(32643)
NORTH_UP = Affine(30.0, 0.0, 500_000.0, 0.0, -30.0, 3_800_000.0)
HEIGHT = Band("height", "height above the ellipsoid", "metre")
UNCERTAINTY = Band("uncertainty", "one standard deviation", "metre")
SUPPORT = Band("support", "1 where the reference has data", "")


def hills(count: int, height: int, width: int, seed: int = 0) -> NDArray[np.float32]:
    """Rough terrain (count, height, width) around 1,500 with a hole in the first band."""
    rows, columns = np.mgrid[:height, :width]
    smooth = 1500 + 200 * np.sin(rows / 70) * np.cos(columns / 90)
    values = smooth + np.random.default_rng(seed).normal(size=(count, height, width))
    values[0, height // 3 : height // 2, width // 3 : width // 2] = np.nan
    return values.astype(np.float32)


def write(
    path: Path,
    values: NDArray[np.float32],
    bands: Sequence[Band] = (HEIGHT,),
    rows: int = 100,
    crs: CRS | None = UTM,
    transform: Affine | None = NORTH_UP,
    tags: dict[str, str] | None = None,
) -> None:
    _, height, width = values.shape
    with HeightWriter(path, height, width, bands, crs, transform, tags or {}) as writer:
        for row in range(0, height, rows):
            writer.write(row, values[:, row : row + rows])


def old_file(folder: Path) -> Path:
    """An older result, to be replaced whole or left alone."""
    path = folder / "height.tif"
    path.write_bytes(b"old")
    return path


# What is written


@pytest.mark.parametrize("rows", [1, 7, 512, 5000])
def test_values_come_back(tmp_path: Path, rows: int) -> None:
    values = hills(2, 130, 700)
    values[1, 5, 5:7] = np.inf, -np.inf
    write(tmp_path / "height.tif", values, (HEIGHT, UNCERTAINTY), rows)
    with rasterio.open(tmp_path / "height.tif") as source:
        assert source.dtypes == ("float32", "float32") and source.nodata == NODATA
        found = source.read(masked=True)
    np.testing.assert_array_equal(found.mask, ~np.isfinite(values))
    np.testing.assert_array_equal(found.data[np.isfinite(values)], values[np.isfinite(values)])
    assert (found.data[~np.isfinite(values)] == NODATA).all()
    assert os.listdir(tmp_path) == ["height.tif"]


def test_it_is_a_valid_cog(tmp_path: Path) -> None:
    path = tmp_path / "height.tif"
    write(path, hills(3, 600, 1100), (HEIGHT, UNCERTAINTY, SUPPORT))
    with rasterio.open(path) as source:
        structure = source.tags(ns="IMAGE_STRUCTURE")
        assert structure["LAYOUT"] == "COG" and structure["COMPRESSION"] == "DEFLATE" and structure["PREDICTOR"] == "3"
        assert source.block_shapes == [(512, 512)] * 3
        assert [source.overviews(band) for band in (1, 2, 3)] == [[2, 4]] * 3
    check_cog_order(path, 3)


def check_cog_order(path: Path, levels: int) -> None:
    """What GDAL's validate_cloud_optimized_geotiff.py checks: all directories first, then overviews before the rest.

    The directories lie in the order of their size, the tiles in the reverse order, so that a reader that fetches the
    beginning of the file knows all of it and finds the smallest overview next.
    """
    with tifffile.TiffFile(path) as tiff:
        assert len(tiff.pages) == levels
        pages = [tiff.pages[number] for number in range(levels)]
        assert [page.imagewidth for page in pages] == sorted((page.imagewidth for page in pages), reverse=True)
        directories = [page.offset for page in pages]
        first_tiles = [min(page.dataoffsets) for page in pages]
        last_tiles = [max(page.dataoffsets) for page in pages]
        ends = [max(map(sum, zip(page.dataoffsets, page.databytecounts, strict=True))) for page in pages]
        assert all(page.is_tiled for page in pages)
    assert directories == sorted(directories) and directories[-1] < min(first_tiles)
    for larger, smaller in zip(range(levels - 1), range(1, levels), strict=True):
        assert last_tiles[smaller] < first_tiles[larger]
    assert max(ends) <= path.stat().st_size
    header = path.read_bytes()[:600]
    assert b"GDAL_STRUCTURAL_METADATA_SIZE=" in header and b"LAYOUT=IFDS_BEFORE_DATA" in header
    assert b"KNOWN_INCOMPATIBLE_EDITION=NO" in header, "changed after it was made"


def test_overviews_are_averages_that_respect_holes(tmp_path: Path) -> None:
    values = np.full((1, 1024, 1024), 100.0, np.float32)
    values[0, ::2] = 300.0
    values[0, :, 512:] = np.nan
    write(tmp_path / "height.tif", values)
    with rasterio.open(tmp_path / "height.tif", overview_level=0) as source:
        overview = source.read(1, masked=True)
    assert overview.shape == (512, 512)
    np.testing.assert_array_equal(overview.mask, np.broadcast_to(np.arange(512) >= 256, (512, 512)))
    np.testing.assert_array_equal(overview.compressed(), np.float32(200.0))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_what_the_file_says(tmp_path: Path, count: int) -> None:
    bands = (HEIGHT, UNCERTAINTY, SUPPORT)[:count]
    turned = NORTH_UP * Affine.rotation(20.0)
    write(tmp_path / "height.tif", hills(count, 60, 80), bands, transform=turned, tags={"MODEL": "é", "KIND": "metric"})
    with rasterio.open(tmp_path / "height.tif") as source:
        assert source.crs == UTM and source.transform.almost_equals(turned)
        assert source.descriptions == tuple(band.name for band in bands)
        assert source.units == tuple(band.unit or None for band in bands)
        assert [source.tags(number)["long_name"] for number in source.indexes] == [band.description for band in bands]
        assert source.tags()["MODEL"] == "é" and source.tags()["KIND"] == "metric"
        assert source.tags()["AREA_OR_POINT"] == "Area"
        assert source.colorinterp == (ColorInterp.gray,) + (ColorInterp.undefined,) * (count - 1)
    assert os.listdir(tmp_path) == ["height.tif"]


def test_statistics_are_those_of_the_values(tmp_path: Path) -> None:
    values = hills(2, 300, 200)
    # Far from zero, where a sum of squares alone would lose the deviation; and strips without any value.
    values[1] += 1e6
    values[1, :100] = np.nan
    write(tmp_path / "height.tif", values, (HEIGHT, UNCERTAINTY), rows=50)
    with rasterio.open(tmp_path / "height.tif") as source:
        for number, band in enumerate(values.astype(np.float64), start=1):
            tags = {name: float(value) for name, value in source.tags(number).items() if name.startswith("STATISTICS_")}
            expected = [np.nanmin(band), np.nanmax(band), np.nanmean(band), np.nanstd(band)]
            names = ["STATISTICS_MINIMUM", "STATISTICS_MAXIMUM", "STATISTICS_MEAN", "STATISTICS_STDDEV"]
            # Nine digits are written.
            np.testing.assert_allclose([tags[name] for name in names], expected, rtol=1e-8)


def test_nothing_but_holes(tmp_path: Path) -> None:
    write(tmp_path / "height.tif", np.full((1, 40, 50), np.nan, np.float32))
    with rasterio.open(tmp_path / "height.tif") as source:
        assert source.read(1, masked=True).mask.all()
        assert not any(name.startswith("STATISTICS") for name in source.tags(1))


@pytest.mark.parametrize("transform", [None, Affine.identity(), NORTH_UP])
def test_without_crs(tmp_path: Path, transform: Affine | None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write(tmp_path / "height.tif", hills(1, 40, 50), crs=None, transform=transform)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(tmp_path / "height.tif") as source:
            assert source.crs is None
            assert source.transform == (transform or Affine.identity())
    assert os.listdir(tmp_path) == ["height.tif"]


def test_the_smallest_and_the_oblong(tmp_path: Path) -> None:
    for shape in ((1, 1, 1), (1, 3, 2000), (1, 2000, 3)):
        values = np.random.default_rng(0).random(shape).astype(np.float32)
        write(tmp_path / "height.tif", values)
        with rasterio.open(tmp_path / "height.tif") as source:
            np.testing.assert_array_equal(source.read(), values)
            assert source.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"


def test_an_older_file_is_replaced_with_its_side_files(tmp_path: Path) -> None:
    path = old_file(tmp_path)
    for suffix in (".aux.xml", ".ovr", ".msk"):
        (tmp_path / f"height.tif{suffix}").write_text("of the older file")
    (tmp_path / "height.tif.md").write_text("a note")
    write(path, hills(1, 40, 50))
    assert sorted(os.listdir(tmp_path)) == ["height.tif", "height.tif.md"]
    with rasterio.open(path) as source:
        assert source.shape == (40, 50)


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_others_may_read_it_as_any_file(tmp_path: Path) -> None:
    write(tmp_path / "height.tif", hills(1, 40, 50))
    (tmp_path / "plain").touch()
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("height.tif", "plain")]
    assert modes[0] == modes[1]


def test_a_name_of_the_longest_length(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 250 + ".tif")
    write(path, hills(1, 40, 50))
    assert path.is_file()


# What goes wrong


@pytest.mark.parametrize("older", [True, False])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_leaves_nothing_but_the_older_file(tmp_path: Path, older: bool, error: type[BaseException]) -> None:
    path = old_file(tmp_path) if older else tmp_path / "height.tif"
    with pytest.raises(error), HeightWriter(path, 90, 80, [HEIGHT], UTM, NORTH_UP, {}) as writer:
        writer.write(0, hills(1, 40, 80))
        assert len(os.listdir(tmp_path)) == 1 + older and not (path.exists() and not older)
        raise error
    assert os.listdir(tmp_path) == (["height.tif"] if older else [])
    assert not older or path.read_bytes() == b"old"


def test_an_interrupt_while_the_file_is_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = old_file(tmp_path)

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(rasterio.shutil, "copy", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(path, hills(1, 40, 50))
    assert os.listdir(tmp_path) == ["height.tif"] and path.read_bytes() == b"old"


def test_missing_rows_are_an_error(tmp_path: Path) -> None:
    path = old_file(tmp_path)
    with (
        pytest.raises(ValueError, match="40 of 90 rows"),
        HeightWriter(path, 90, 80, [HEIGHT], UTM, NORTH_UP, {}) as writer,
    ):
        writer.write(0, hills(1, 40, 80))
    assert os.listdir(tmp_path) == ["height.tif"] and path.read_bytes() == b"old"


def test_strips_that_do_not_fit(tmp_path: Path) -> None:
    strip = hills(1, 40, 80)
    for row, values in ((1, strip), (0, strip[:, :, :-1]), (0, hills(2, 40, 80)), (0, strip[0]), (0, hills(1, 91, 80))):
        with (
            pytest.raises(ValueError, match=r"height\.tif"),
            HeightWriter(tmp_path / "height.tif", 90, 80, [HEIGHT], UTM, NORTH_UP, {}) as writer,
        ):
            writer.write(row, values)
    with (
        pytest.raises(ValueError, match="at row 0"),
        HeightWriter(tmp_path / "height.tif", 90, 80, [HEIGHT], UTM, NORTH_UP, {}) as writer,
    ):
        writer.write(0, strip)
        writer.write(0, strip)
    for size in ((0, 5), (5, 0)):
        with pytest.raises(ValueError, match="cannot be written"):
            HeightWriter(tmp_path / "height.tif", *size, [HEIGHT], UTM, NORTH_UP, {})
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(sys.platform == "win32", reason="resource limits are POSIX")
@pytest.mark.parametrize("older", [True, False])
def test_a_disk_that_takes_no_more(tmp_path: Path, older: bool) -> None:
    path = old_file(tmp_path) if older else tmp_path / "height.tif"
    values = hills(2, 400, 700)
    write(tmp_path / "whole.tif", values, (HEIGHT, UNCERTAINTY))
    final = (tmp_path / "whole.tif").stat().st_size
    (tmp_path / "whole.tif").unlink()
    strips = 2 * 2 * 2**20  # two blocks of each band, as they are
    # Full at once, among the strips, within their last bytes, and at the last byte of the final file's making.
    for limit in (0, 1000, 100_000, strips // 2, strips - 1):
        with full_disk(limit), pytest.raises(UserError, match="no space left") as caught:
            write(path, values, (HEIGHT, UNCERTAINTY))
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
        assert os.listdir(tmp_path) == (["height.tif"] if older else [])
        assert not older or path.read_bytes() == b"old"
    assert final < strips


@pytest.mark.skipif(sys.platform == "win32", reason="resource limits are POSIX")
def test_a_disk_that_is_full_when_the_file_is_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = old_file(tmp_path)
    values = hills(2, 400, 700)
    write(tmp_path / "whole.tif", values, (HEIGHT, UNCERTAINTY))
    final = (tmp_path / "whole.tif").stat().st_size
    (tmp_path / "whole.tif").unlink()
    copy = rasterio.shutil.copy
    # Everywhere from the first byte to the last.
    for limit in sorted({0, 100, final // 2, final - 100, final - 1}):

        def copy_to_full_disk(*arguments: Any, _limit: int = limit, **options: Any) -> None:
            with full_disk(_limit):
                copy(*arguments, **options)

        monkeypatch.setattr(rasterio.shutil, "copy", copy_to_full_disk)
        with pytest.raises(UserError, match=r"height\.tif.*older file stays") as caught:
            write(path, values, (HEIGHT, UNCERTAINTY))
        assert "\n" not in str(caught.value)
        assert os.listdir(tmp_path) == ["height.tif"] and path.read_bytes() == b"old"


@pytest.mark.parametrize("damage", ["zeros", "shorter", "garbage"])
def test_a_loss_that_nobody_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    path = old_file(tmp_path)
    copy = rasterio.shutil.copy

    def copy_with_loss(source: Path, target: Path, **options: Any) -> None:
        if damage == "zeros":  # as a sparse block in the middle of the strips
            with rasterio.open(source, "r+") as dataset:
                dataset.write(np.zeros((1, 10, 10), np.float32), window=rasterio.windows.Window(600, 300, 10, 10))
        copy(source, target, **options)
        data = target.read_bytes()
        if damage == "shorter":
            target.write_bytes(data[:-200])
        if damage == "garbage":
            target.write_bytes(data[: len(data) * 2 // 3] + bytes(64) + data[len(data) * 2 // 3 + 64 :])

    monkeypatch.setattr(rasterio.shutil, "copy", copy_with_loss)
    with pytest.raises(UserError, match=r"height\.tif"):
        write(path, hills(1, 700, 900))
    assert os.listdir(tmp_path) == ["height.tif"] and path.read_bytes() == b"old"


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"height\.tif"):
        write(tmp_path / "absent" / "height.tif", hills(1, 40, 50))
    assert os.listdir(tmp_path) == []


# Before the long work


def scene(tmp_path: Path) -> Path:
    path = tmp_path / "scene.tif"
    path.write_bytes(b"a scene")
    return path


def test_an_output_that_can_be_written(tmp_path: Path) -> None:
    check_output(tmp_path / "height.tif", [scene(tmp_path)], 1000, overwrite=False)
    check_output(tmp_path / "HEIGHT.TIFF", [tmp_path / "absent.tif"], 1000, overwrite=False)
    check_output(old_file(tmp_path), [scene(tmp_path)], 1000, overwrite=True)
    assert sorted(os.listdir(tmp_path)) == ["height.tif", "scene.tif"]


def _link(tmp_path: Path) -> Path:
    (tmp_path / "link.tif").symlink_to(scene(tmp_path))
    return tmp_path / "link.tif"


def _hard_link(tmp_path: Path) -> Path:
    os.link(scene(tmp_path), tmp_path / "hard.tif")
    return tmp_path / "hard.tif"


def _folder(tmp_path: Path) -> Path:
    (tmp_path / "folder.tif").mkdir()
    return tmp_path / "folder.tif"


@pytest.mark.parametrize(
    ("make", "overwrite", "words"),
    [
        (scene, True, "is the input"),
        (_link, True, "is the input"),
        (_hard_link, True, "is the input"),
        (old_file, False, "exists already.*--overwrite"),
        (_folder, True, "is a folder"),
        (lambda folder: folder / "height.png", True, "ending in .tif"),
        (lambda folder: folder / "height", True, "ending in .tif"),
        (lambda folder: folder / "absent" / "height.tif", True, "there is no folder"),
    ],
)
def test_outputs_that_cannot_be(tmp_path: Path, make: Callable[[Path], Path], overwrite: bool, words: str) -> None:
    path = make(tmp_path)
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(UserError, match=words) as caught:
        check_output(path, [tmp_path / "scene.tif"], 1000, overwrite)
    assert str(path) in str(caught.value)
    assert sorted(os.listdir(tmp_path)) == before


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*_: Any, **__: Any) -> None:
        raise OSError(30, "Read-only file system")

    # The tests may run as root, whom no permission stops.
    monkeypatch.setattr("tempfile.TemporaryFile", read_only)
    with pytest.raises(UserError, match="Read-only file system"):
        check_output(tmp_path / "height.tif", [], 1000, overwrite=False)


def test_too_little_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**12, 0, 3 * 10**9))
    check_output(tmp_path / "height.tif", [], 3 * 10**9, overwrite=False)
    with pytest.raises(UserError, match=r"needs up to 3\.50 GB.*3\.00 GB are free"):
        check_output(tmp_path / "height.tif", [], 35 * 10**8, overwrite=False)


def test_the_space_that_is_asked_for_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    most = 0
    flush = output_module._flush

    def measure(path: Path) -> None:
        nonlocal most
        flush(path)
        most = sum(file.stat().st_size for file in path.parent.iterdir())

    monkeypatch.setattr(output_module, "_flush", measure)
    # Noise, which hardly shrinks; a multiple of the block, as edges are filled up.
    values = np.random.default_rng(0).random((2, 1024, 1024)).astype(np.float32)
    write(tmp_path / "height.tif", values, (HEIGHT, UNCERTAINTY))
    assert 2 * 8 * 2**20 < most <= space_needed(1024, 1024, 2)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak is read from /proc")
def test_memory_does_not_grow_with_the_raster(tmp_path: Path) -> None:
    # 8,000 x 4,000 x 4 bytes are 122 MiB, which GDAL would keep twice: as strips and as blocks of the final file. Its
    # cache is made as much smaller as this raster is smaller than a real one.
    script = """
        import sys
        from pathlib import Path
        import numpy as np
        from Utils.rasters import environment
        from Utils.scenes.output.height_writer import Band, HeightWriter
        environment._OPTIONS["GDAL_CACHEMAX"] = 16 * 2**20
        strip = np.ones((1, 250, 4000), np.float32)
        def peak():  # not getrusage, where a child begins with its parent's
            return next(int(line.split()[1]) for line in Path("/proc/self/status").open() if line.startswith("VmHWM"))
        before = peak()
        with HeightWriter(Path(sys.argv[1]), 8000, 4000, [Band("height", "", "")], None, None, {}) as writer:
            for row in range(0, 8000, 250):
                writer.write(row, strip)
        print((peak() - before) / 1024)
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "height.tif")],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    grown = float(result.stdout)  # MiB
    # The cache, a strip of 4 MiB with its copies, and some 90 MiB of libraries, threads and their buffers: measured to
    # be the same for 2,000, 4,000 and 8,000 rows.
    assert grown < 180
