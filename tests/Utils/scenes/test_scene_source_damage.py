"""Every kind of damage is found, and memory does not grow with the scene."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window

from tests.paths import ROOT
from tests.Utils.scenes.source_files import (
    BLOCKS,
    NORTH_UP,
    UTM,
    noise,
    read_all,
    write_scene,
)
from Utils.core.errors import RasterError
from Utils.rasters import environment
from Utils.rasters.source import scene_source as source_module
from Utils.rasters.source.scene_source import open_scene

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
