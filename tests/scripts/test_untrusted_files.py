"""Rasters, split files and configs from strangers: bounded in memory, from this machine alone, no other file."""

from __future__ import annotations

import functools
import http.server
import os
import struct
import textwrap
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio

from Systems.d3rsmde.config import ViTTrainingConfig
from tests.conftest import TRAINING, height_path, image_path, make_dataset, write_raster, write_tile
from tests.launching import run
from tests.Utils.rasters.test_rasters import png_bytes
from Utils.config.config_files import load_config
from Utils.core.errors import RasterError, UserError, one_line
from Utils.data.published_layout import list_tiles
from Utils.data.splits import read_split, select
from Utils.rasters.source.scene_source import open_scene
from Utils.rasters.tile_files import MAX_TILE_PIXELS, raster_size, read_height, read_image, read_prior
from Utils.scenes.fusion.point_table import read_table
from Utils.scenes.fusion.reference import Geometry, read_reference
from Utils.scenes.tiles.tile_grid import Tile
from Utils.scenes.tiles.tile_store import TileStore

READERS = (read_image, read_height, read_prior)


IS_MASK = b'<GDALMetadata><Item name="INTERNAL_MASK_FLAGS_1">2</Item></GDALMetadata>'


def tiff_bytes(
    width: int, height: int, block_width: int, block_height: int, content: bytes, bands: int = 1, tags: bytes = b""
) -> bytes:
    """A deflated TIFF of one tile, made by hand, to give headers that writers refuse to write."""
    entries = [
        (256, 4, width),
        (257, 4, height),
        (258, 3, 8),
        (259, 3, 8),  # deflate
        (262, 3, 1),
        (277, 3, bands),
        (322, 4, block_width),
        (323, 4, block_height),
        (324, 4, 0),  # where the tile lies, set below
        (325, 4, len(content)),
        (339, 3, 1),
    ]
    start = 8 + 2 + 12 * (len(entries) + 1) + 4
    directory = b"".join(
        struct.pack("<HHII", tag, kind, 1, start if tag == 324 else value) for tag, kind, value in entries
    )
    # GDAL's own tags, as XML.
    directory += struct.pack("<HHII", 42112, 2, len(tags) + 1, start + len(content))
    return b"II*\0" + struct.pack("<IH", 8, len(entries) + 1) + directory + bytes(4) + content + tags + b"\0"


def masked_tiff_bytes(block_side: int) -> bytes:
    """A TIFF of 32 x 32 pixels whose mask, in a second directory, lies in a block of another size."""
    pixels, content = zlib.compress(bytes(1024)), bomb(8)

    def directory(start: int, kind: int, side: int, length: int, following: int) -> bytes:
        entries = [(254, kind), (256, 32), (257, 32), (258, 8), (259, 8), (262, kind or 1), (277, 1)]
        entries += [(322, side), (323, side), (324, start + 138), (325, length)]
        packed = b"".join(
            struct.pack("<HHII", tag, 4 if tag > 300 or tag < 258 else 3, 1, value) for tag, value in entries
        )
        return struct.pack("<H", len(entries)) + packed + struct.pack("<I", following)

    second = 8 + 138 + len(pixels)
    first = directory(8, 0, 32, len(pixels), second)
    return (
        b"II*\0" + struct.pack("<I", 8) + first + pixels + directory(second, 4, block_side, len(content), 0) + content
    )


@functools.cache
def bomb(megabytes: int) -> bytes:
    """Zeros, deflated a thousandfold."""
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(2**20)) for _ in range(megabytes)) + packer.flush()


def text_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def write_bombs(folder: Path) -> dict[str, str]:
    """Files of at most a megabyte that promise gigabytes, by name, with what is said of them."""
    (folder / "header.png").write_bytes(png_bytes(100_000, 100_000, b"xx"))
    (folder / "header.tif").write_bytes(tiff_bytes(100_000, 100_000, 100_000, 16, b"xx"))
    (folder / "deflate.tif").write_bytes(tiff_bytes(20_000, 20_000, 20_000, 20_000, bomb(382)))
    (folder / "block.tif").write_bytes(tiff_bytes(32, 32, 65_536, 65_536, bomb(8)))
    (folder / "bands.tif").write_bytes(tiff_bytes(4096, 4096, 4096, 4096, bomb(8), bands=60_000))
    (folder / "mask.tif").write_bytes(masked_tiff_bytes(65_536))
    write_raster(folder / "side.tif", np.zeros((32, 32), np.uint8))
    (folder / "side.tif.msk").write_bytes(tiff_bytes(32, 32, 65_536, 65_536, bomb(8), tags=IS_MASK))
    pixel = png_bytes(8, 8, bytes(72))
    bombs = text_chunk(b"zTXt", b"Title\0\0" + bomb(512)) + text_chunk(b"iCCP", b"profile\0\0" + bomb(512))
    (folder / "text.png").write_bytes(pixel[:33] + bombs + pixel[33:])
    return {
        "header.png": "the header gives 100000 x 100000 pixels; a tile may have",
        "header.tif": "the header gives 100000 x 100000 pixels; a tile may have",
        "deflate.tif": "the header gives 20000 x 20000 pixels; a tile may have",
        "block.tif": "its pixels lie in blocks of 65536 x 65536, too large to decode; write it again in tiles",
        "mask.tif": "its pixels lie in blocks of 65536 x 65536, too large to decode",
        "side.tif": "its pixels lie in blocks of 65536 x 65536, too large to decode",
        "bands.tif": "its pixels lie in blocks of 4096 x 4096, too large to decode; write it again in tiles",
    }


def test_bombs_take_no_memory(tmp_path: Path) -> None:
    """In a process that may take 256 MiB more than it has after a first reading."""
    said = write_bombs(tmp_path)
    write_raster(tmp_path / "sound.tif", np.zeros((8, 8), np.uint8))
    code = """
        import resource, sys
        from pathlib import Path
        from Utils.core.errors import RasterError
        from Utils.rasters.tile_files import raster_size, read_height, read_image, read_prior
        folder = Path(sys.argv[1])
        read_image(folder / "sound.tif")
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + 2**28, taken + 2**28))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for path in sorted(folder.glob("*.*[!k]")):
            for read in (raster_size, read_image, read_height, read_prior):
                try:
                    read(path)
                    print(path.name, read.__name__, "read", sep="|")
                except RasterError as error:
                    print(path.name, read.__name__, error, sep="|")
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
    """
    *lines, megabytes = in_a_process(code, tmp_path)
    found = {tuple(line.split("|")[:2]): line.split("|")[2] for line in lines}
    assert len(found) == 9 * 4
    for name, message in said.items():
        for read in READERS:
            assert message in found[name, read.__name__]
    for read in READERS:
        assert found["text.png", read.__name__] == "read", "what is not asked for is not inflated"
    assert int(megabytes) < 100


def test_an_array_without_end_is_refused_by_its_header(tmp_path: Path) -> None:
    path = tmp_path / "sparse.npy"
    np.save(path, np.zeros((1, 1), np.float32))
    path.write_bytes(path.read_bytes().replace(b"(1, 1), }", b"(60000, 60000), }")[:128])
    os.truncate(path, 128 + 4 * 60_000**2)  # 14 GB that take no place on the disk
    for read in (read_height, read_prior):
        with pytest.raises(RasterError, match=r"an array of shape \(60000, 60000\); a tile may have"):
            read(path)


def test_the_limit_lets_large_tiles_through() -> None:
    assert MAX_TILE_PIXELS >= 8192 * 8192


def test_scenes_that_promise_what_they_lack(tmp_path: Path) -> None:
    """A scene may be of any size: its blocks may not, and data that is not there is an error."""
    (tmp_path / "long.tif").write_bytes(tiff_bytes(300_000, 300_000, 512, 512, b"xx"))
    (tmp_path / "block.tif").write_bytes(tiff_bytes(32, 32, 65_536, 65_536, bomb(8)))
    (tmp_path / "absurd.tif").write_bytes(tiff_bytes(2**31 - 16, 2**31 - 16, 2**20, 2**20, b"xx"))
    code = """
        import resource, sys
        from pathlib import Path
        from Utils.core.errors import RasterError
        from Utils.rasters.source.scene_source import open_scene
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for path in sorted(Path(sys.argv[1]).iterdir()):
            try:
                open_scene(path)
            except RasterError as error:
                print(error)
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
    """
    absurd, block, long, megabytes = in_a_process(code, tmp_path)
    assert "absurd.tif: " in absurd
    assert "block.tif: its pixels lie in blocks of 65536 x 65536, too large to decode" in block
    assert "long.tif: cannot be read" in long
    assert int(megabytes) < 300


def in_a_process(code: str, *arguments: Path) -> list[str]:
    """The lines that a program prints."""
    result = run(["-c", textwrap.dedent(code), *arguments])
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


# Other formats, and files that name other files


def vrt(source: str, size: int = 32) -> str:
    return (
        f'<VRTDataset rasterXSize="{size}" rasterYSize="{size}"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        f'<SourceFilename relativeToVRT="0">{source}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>'
        "</VRTRasterBand></VRTDataset>"
    )


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_tile_that_is_a_list_of_other_files_is_refused(suffix: str, tmp_path: Path) -> None:
    secret, tile = tmp_path / "secret.tif", tmp_path / f"tile_1{suffix}"
    write_raster(secret, np.full((32, 32), 7, np.uint8))
    for content in (
        vrt(str(secret)),
        vrt("/etc/passwd"),
        "<GDAL_WMS></GDAL_WMS>",
        "P5 1 1 255\n0",
        "ncols 1\nnrows 1\n",
    ):
        tile.write_text(content, encoding="utf-8")
        for read in (raster_size, *READERS):
            with pytest.raises(RasterError, match="is neither PNG nor TIFF nor JPEG"):
                read(tile)
    tile.write_text(vrt(str(secret)), encoding="utf-8")
    with rasterio.open(tile) as source:
        assert source.read().max() == 7, "GDAL itself would have followed it"


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """A web server of this machine's own: its address, and what it was asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(404)
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    listening = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listening.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{listening.server_port}", asked
    listening.shutdown()
    listening.server_close()


WMS = (
    "&lt;GDAL_WMS&gt;&lt;Service name='TMS'&gt;&lt;ServerUrl&gt;{}/a&lt;/ServerUrl&gt;&lt;/Service&gt;"
    "&lt;DataWindow&gt;&lt;SizeX&gt;32&lt;/SizeX&gt;&lt;SizeY&gt;32&lt;/SizeY&gt;&lt;TileLevel&gt;0&lt;/TileLevel&gt;"
    "&lt;/DataWindow&gt;&lt;BandsCount&gt;1&lt;/BandsCount&gt;&lt;/GDAL_WMS&gt;"
)
REMOTE = ["/vsicurl/{}/a.tif", "/vsicurl_streaming/{}/a.tif", "/vsizip//vsicurl/{}/a.zip/a.tif", "{}/a.tif", WMS]
REMOTE += ["WCS:{}/wcs?coverage=a", "WMTS:{}/w.xml", "/vsiwebhdfs/{}/webhdfs/v1/a.tif", "DAAS:{}/a"]


@pytest.mark.parametrize("source", REMOTE, ids=lambda source: source[:12].strip("/&{"))
def test_a_scene_is_never_fetched_over_a_network(source: str, server: tuple[str, list[str]], tmp_path: Path) -> None:
    address, asked = server
    scene = tmp_path / "scene.vrt"
    scene.write_text(vrt(source.format(address)), encoding="utf-8")
    with pytest.raises(RasterError, match=r"scene\.vrt: cannot be read"):
        open_scene(scene)
    with pytest.raises((RasterError, UserError), match=r"scene\.vrt"):
        read_reference(scene, Geometry(32, 32, rasterio.CRS.from_epsg(32632), rasterio.Affine.identity()))
    assert asked == []


def test_a_side_file_fetches_nothing(server: tuple[str, list[str]], tmp_path: Path) -> None:
    address, asked = server
    path = tmp_path / "tile_1.tif"
    write_raster(path, np.arange(64, dtype=np.uint8).reshape(8, 8))
    remote = f"/vsicurl/{address}/a.tif"
    (tmp_path / "tile_1.tif.msk").write_text(vrt(remote, 8), encoding="utf-8")
    (tmp_path / "tile_1.tif.aux.xml").write_text(
        f'<PAMDataset><Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">{remote}</MDI></Metadata></PAMDataset>',
        encoding="utf-8",
    )
    for read in (raster_size, *READERS):
        try:
            read(path)
        except RasterError as error:
            assert "tile_1.tif" in str(error)
    assert asked == []


def test_a_local_mosaic_is_still_a_scene(tmp_path: Path) -> None:
    write_raster(tmp_path / "part.tif", np.arange(1024, dtype=np.uint8).reshape(32, 32))
    (tmp_path / "scene.vrt").write_text(vrt(str(tmp_path / "part.tif")), encoding="utf-8")
    with open_scene(tmp_path / "scene.vrt") as scene:
        assert (scene.height, scene.width) == (32, 32)


def test_python_code_in_a_scene_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, scene = tmp_path / "trapped", tmp_path / "scene.vrt"
    scene.write_text(
        '<VRTDataset rasterXSize="8" rasterYSize="8"><VRTRasterBand dataType="Byte" band="1" '
        'subClass="VRTDerivedRasterBand"><PixelFunctionType>f</PixelFunctionType>'
        "<PixelFunctionLanguage>Python</PixelFunctionLanguage><PixelFunctionCode><![CDATA[\n"
        f"import pathlib\ndef f(*a, **k):\n    pathlib.Path({str(target)!r}).touch()\n]]></PixelFunctionCode>"
        "</VRTRasterBand></VRTDataset>",
        encoding="utf-8",
    )
    # Even where a user allows it for other work.
    monkeypatch.setenv("GDAL_VRT_ENABLE_PYTHON", "YES")
    with pytest.raises(RasterError, match="Python"):
        open_scene(scene)
    assert not target.exists()
    # Said once more as an option, which outranks what other tests of this process may have left set.
    with rasterio.Env(GDAL_VRT_ENABLE_PYTHON="YES"), rasterio.open(scene) as source:
        source.read()
    assert target.exists(), "GDAL itself would have run it"


# Texts


@pytest.mark.parametrize("name", ["/dev/zero", "/dev/random", "pipe"])
def test_devices_and_pipes_are_no_text(name: str, tmp_path: Path) -> None:
    path = tmp_path / name  # an absolute name stays as it is
    if name == "pipe":
        os.mkfifo(path)
    said = "cannot be read: it is a device or a pipe, not a regular file; give "
    with pytest.raises(UserError, match=f"config '{path}' {said}the path of a JSON file"):
        load_config(path, ViTTrainingConfig)
    with pytest.raises(UserError, match=f"split file '{path}' {said}a text file of tile ids"):
        read_split(path)
    with pytest.raises(UserError, match=f"--points '{path}' is no regular file"):
        read_table(path)
    for read in (raster_size, *READERS):
        with pytest.raises(RasterError, match="no such file"):
            read(path)


def test_a_text_without_end_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.touch()
    os.truncate(path, 2**40)  # a terabyte that takes no place on the disk
    with pytest.raises(UserError, match="it is longer than 16,777,216 bytes"):
        load_config(path, ViTTrainingConfig)
    with pytest.raises(UserError, match="it is longer than 16,777,216 bytes"):
        read_split(path)


TRICKS = [
    "../../etc/passwd",
    "/etc/passwd",
    "..\\..\\x",
    "C:\\x",
    "1/../2",
    ".",
    "..",
    "~",
    "a\0b",
    "\x1b[31m1",
    "\u202e1",
    "1\u200b",
    "a b",
    "*",
    "$HOME",
    "%2e%2e%2f",
    "a" * 10_000_000 + "/",
]


@pytest.mark.parametrize("line", TRICKS, ids=[ascii(line[:12]) for line in TRICKS])
def test_a_line_of_a_split_file_is_an_id_and_no_path(line: str, tmp_path: Path) -> None:
    path = tmp_path / "s.txt"
    path.write_text(f"1\n{line}\n", encoding="utf-8")
    with pytest.raises(UserError, match="line 2: .* is no tile id; write one id a line") as caught:
        read_split(path)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


def test_an_id_that_looks_like_another_is_another(tmp_path: Path) -> None:
    path = tmp_path / "s.txt"
    for alike in ("\uff11", "\u0661", "\u0430", "9" * 5000):  # a full-width and an Arabic 1, a Cyrillic a
        path.write_text(alike, encoding="utf-8")
        with pytest.raises(UserError, match="which is not in"):
            select(["1", "a"], str(path), "here")


def test_file_names_that_are_no_ids_are_no_tiles(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "dataset", priors=False)
    before = list(list_tiles(dataset, TRAINING))
    for name in ("tile_a b.png", "tile_.._.png", "tile_1\n.png", "tile_\x1b[31m.png", "tile_%2e%2e.png", "tile_.png"):
        image_path(dataset, "1").with_name(name).write_bytes(b"")
    assert list(list_tiles(dataset, TRAINING)) == before


def test_a_link_is_read_as_what_it_points_to(tmp_path: Path) -> None:
    """Datasets are often folders of links: they are followed, but what lies there must be a tile all the same."""
    dataset = make_dataset(tmp_path / "dataset", priors=False)
    write_tile(tmp_path / "elsewhere", "1")
    image = image_path(dataset, "1")
    image.unlink()
    image.symlink_to(image_path(tmp_path / "elsewhere", "1"))
    assert read_image(list_tiles(dataset, TRAINING)["1"].image).shape == (3, 32, 32)
    image.unlink()
    image.symlink_to("/etc/passwd")
    with pytest.raises(RasterError, match="is neither PNG nor TIFF nor JPEG"):
        read_image(image)
    image.unlink()
    image.symlink_to(image)
    with pytest.raises(RasterError, match="no such file"):
        read_image(image)
    assert height_path(dataset, "1").is_file()


# What is said


def test_errors_are_one_line_that_a_terminal_can_show() -> None:
    assert str(UserError("a\nb\x1b[31m\u202ec \ud800 höhe")) == "a b\\x1b[31m\\u202ec \\ud800 höhe"
    assert str(RasterError("a\nb.tif", "x\x07", "y")) == "a b.tif: x\\x07; y"
    assert len(one_line("x" * 10**6)) < 5000
    worker = "Caught UserError in DataLoader worker process 0.\nTraceback:\n  x\nUtils.errors.UserError: what: is wrong"
    assert one_line(worker) == "what: is wrong"
    assert one_line("Caught in the act") == "Caught in the act"


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"PK\x03\x04", b"\x80\x04N."])
def test_a_damaged_map_of_a_scene_is_named(content: bytes, tmp_path: Path) -> None:
    store = TileStore(tmp_path / "work", {}, resume=False)
    tile = Tile(0, 0, 0, 8, 8)
    store.save(tile, np.zeros((1, 8, 8), np.float32))
    path = next((tmp_path / "work").glob("*.npy"))
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"is damaged .*; delete it and go on with --resume"):
        store.load(tile)
