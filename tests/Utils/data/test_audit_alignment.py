"""Misaligned, turned and swapped maps in procedural terrain, where the truth is known, and in real tiles."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray

from tests.conftest import TEST, TRAINING, height_path, image_path, write_raster
from tests.paths import SHARED
from tests.Utils.data.test_audit import codes, items, run_audit
from Utils.data.audit.inspection import describe_shift, stretched
from Utils.data.audit.map_shifts import MapShift, align, align_turned, middle
from Utils.data.published_layout import list_tiles
from Utils.data.tile_dataset import read_tile
from Utils.synthetic.terrain import write_dataset

SIZE, TILES = 192, 12
Bands = NDArray[np.generic]
Floats = NDArray[np.float32]


@pytest.fixture(scope="session")
def untouched_terrain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve training tiles and one test tile; read only."""
    folder = tmp_path_factory.mktemp("terrain") / "dataset"
    write_dataset(folder, TILES, 1, SIZE, seed=13)
    return folder


@pytest.fixture
def terrain(untouched_terrain: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(untouched_terrain, tmp_path / "dataset"))


def training_ids(dataset: Path) -> list[str]:
    return list(list_tiles(dataset, TRAINING))


def change_maps(dataset: Path, ids: Sequence[str], change: Callable[[Bands], Bands]) -> None:
    for tile in ids:
        path = height_path(dataset, tile)
        with rasterio.open(path) as raster:
            bands = raster.read()
        write_raster(path, np.ascontiguousarray(change(bands)))


def read(dataset: Path, tile: str) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    item = read_tile(tile, list_tiles(dataset, TRAINING)[tile])
    return item["image"].numpy(), stretched(item)[0].numpy(), item["valid"][0].numpy()


def test_maps_that_lie_on_their_images_are_left_alone(untouched_terrain: Path) -> None:
    status, summary, rows = run_audit(untouched_terrain, "--strict")
    assert (status, summary["findings"]) == (0, [])
    told = summary["parts"][TRAINING]["alignment"]
    assert told["judged"] == TILES
    assert told["trusted"] >= 8  # of tiles of 128 pixels, four in five are told; of 256, nearly all
    assert all(abs(row["shift_y"]) <= 3 for row in rows.values() if row["shift_y"] == row["shift_y"])


def test_one_shifted_map(terrain: Path) -> None:
    tile = clearest_tiles(terrain, 1)[0]
    change_maps(terrain, [tile], lambda bands: np.roll(bands, (-14, 9), axis=(1, 2)))
    status, summary, rows = run_audit(terrain)
    row = rows[TRAINING, tile]
    assert (status, codes(summary)) == (0, {("warning", "misaligned")})
    assert (abs(row["shift_y"] + 14) <= 1, abs(row["shift_x"] - 9) <= 1) == (True, True)
    assert items(summary, "warning", "misaligned")[0].startswith(f"training {tile}: ")
    assert "px to the right" in row["problem"]
    assert "px up" in row["problem"]


def test_a_shift_that_all_maps_share(terrain: Path) -> None:
    change_maps(terrain, training_ids(terrain), lambda bands: np.roll(bands, (0, 12), axis=(1, 2)))
    _, summary, _ = run_audit(terrain)
    (shared,) = items(summary, "warning", "common_shift")
    assert shared.startswith("(0, 12): 12 px to the right, ")
    assert len(items(summary, "warning", "misaligned")) >= TILES - 3


def test_a_small_shift_is_told_of_the_dataset_and_of_no_tile(terrain: Path) -> None:
    change_maps(terrain, training_ids(terrain), lambda bands: np.roll(bands, (3, 0), axis=(1, 2)))
    _, summary, _ = run_audit(terrain)
    assert codes(summary) == {("warning", "common_shift")}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda bands: bands[:, :, ::-1], "mirrored left to right"),
        (lambda bands: bands[:, ::-1], "mirrored top to bottom"),
        (lambda bands: np.rot90(bands, 2, axes=(1, 2)), "turned by 180 degrees"),
        (lambda bands: np.rot90(bands, 1, axes=(1, 2)), "turned right by 90 degrees"),
        (lambda bands: np.rot90(bands, -1, axes=(1, 2)), "turned left by 90 degrees"),
        (lambda bands: bands.transpose(0, 2, 1), "transposed"),
        (lambda bands: np.rot90(bands, 2, axes=(1, 2)).transpose(0, 2, 1), "transposed along the other diagonal"),
    ],
)
def test_a_turned_map(change: Callable[[Bands], Bands], told: str, terrain: Path) -> None:
    tile = clearest_tiles(terrain, 1)[0]
    change_maps(terrain, [tile], change)
    image, height, valid = read(terrain, tile)
    assert not align(image, height, valid).trusted
    assert align_turned(image, height, valid) == told


def test_turned_maps_in_the_audit(terrain: Path) -> None:
    tile = clearest_tiles(terrain, 1)[0]
    change_maps(terrain, [tile], lambda bands: bands[:, ::-1])
    _, summary, rows = run_audit(terrain)
    assert items(summary, "warning", "turned") == [f"training {tile}: mirrored top to bottom"]
    assert rows[TRAINING, tile]["orientation"] == "mirrored top to bottom"
    assert "only when it is mirrored top to bottom" in rows[TRAINING, tile]["problem"]


def test_swapped_maps(terrain: Path) -> None:
    first, second = clearest_tiles(terrain, 2)
    one, other = height_path(terrain, first), height_path(terrain, second)
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    status, summary, _ = run_audit(terrain)
    assert (status, codes(summary)) == (0, {("warning", "swapped")})
    assert sorted(items(summary, "warning", "swapped")) == sorted(
        f"the image of training {a} fits the map of training {b}" for a, b in ((first, second), (second, first))
    )


def test_a_dataset_whose_maps_show_something_else(tmp_path: Path) -> None:
    # Noise, at the size from which a missing relation says something.
    generator = np.random.default_rng(0)
    for number in range(10):
        for path, bands in (
            (image_path(tmp_path / "dataset", str(number)), 3),
            (height_path(tmp_path / "dataset", str(number)), 1),
        ):
            write_raster(path, generator.integers(0, 255, (bands, 256, 256), np.uint8))
    _, summary, _ = run_audit(tmp_path / "dataset")
    assert items(summary, "warning", "unrelated") == ["10 of 10 tiles"]


def test_nodata_does_not_pass_for_an_outline(untouched_terrain: Path) -> None:
    """A hole in the map and a black box in the image, elsewhere: their edges would be the strongest of all."""
    image, height, valid = read(untouched_terrain, clearest_tiles(untouched_terrain, 1)[0])
    image, height, valid = image.copy(), height.copy(), valid.copy()
    image[:, 60:100, 60:110] = 0.0
    height[80:120, 84:134], valid[80:120, 84:134] = 0.0, False
    found = align(image, height, valid)
    assert found.fits


def test_large_tiles_and_odd_sizes(tmp_path: Path, untouched_terrain: Path) -> None:
    """Only the middle of a large tile is looked at, and no side need be even or equal to the other."""
    tile = clearest_tiles(untouched_terrain, 1)[0]
    image, height, valid = read(untouched_terrain, tile)
    assert align(image[:, 3:, :-20], np.roll(height, 7, axis=1)[3:, :-20], valid[3:, :-20]).shift == (0, 7)
    wide = tmp_path / "dataset"
    write_raster(image_path(wide, "1"), np.rint(np.tile(image, (1, 1, 4)) * 255).astype(np.uint8))
    write_raster(height_path(wide, "1"), np.roll(np.tile(height, (1, 4)), 10, axis=1))
    _, _, rows = run_audit(wide)
    row = rows[TRAINING, "1"]
    assert (row["width"], row["height"], row["shift_y"], row["shift_x"]) == (4 * SIZE, SIZE, 0, 10)
    field = np.arange(700 * 500).reshape(700, 500)
    assert np.array_equal(middle(field), field[94:606])


def test_what_is_believed() -> None:
    assert MapShift((0, 3), 20.0, 2.0).fits
    assert not MapShift((0, 3), 20.0, 2.0).shifted
    assert MapShift((4, 0), 20.0, 2.0).shifted
    assert not MapShift((4, 0), 12.9, 2.0).shifted
    assert not MapShift((4, 0), 20.0, 1.4).shifted
    assert describe_shift(-3, 12) == "12 px to the right, 3 px up"


def clearest_tiles(dataset: Path, count: int) -> list[str]:
    """The tiles whose maps lie on their images most clearly."""
    return sorted(training_ids(dataset), key=lambda tile: -align(*read(dataset, tile)).peak)[:count]


REAL_TILES = SHARED / "real_tiles" / "ImageToDEM-J_K"


@pytest.mark.skipif(not REAL_TILES.is_dir(), reason="no real tiles beside the repository")
def test_real_tiles_of_512_pixels() -> None:
    """What the README says: every rolled map is found, and no aligned one is flagged."""
    random = np.random.default_rng(3)
    pairs = [(tile, files) for part in (TRAINING, TEST) for tile, files in list_tiles(REAL_TILES, part).items()]
    assert len(pairs) == 19
    for tile, files in pairs:
        item = read_tile(tile, files)
        image, height, valid = item["image"].numpy(), stretched(item)[0].numpy(), item["valid"][0].numpy()
        aligned = align(image, height, valid)
        assert aligned.trusted and max(map(abs, aligned.shift)) <= 3, tile
        down, right = (int(random.integers(8, 41)) * int(random.choice([-1, 1])) for _ in range(2))
        rolled = align(image, np.roll(height, (down, right), (0, 1)), np.roll(valid, (down, right), (0, 1)))
        # Beside the roll, what the pair itself is off by.
        off = np.subtract(rolled.shift, np.add(aligned.shift, (down, right)))
        assert rolled.trusted and np.abs(off).max() <= 1, tile
