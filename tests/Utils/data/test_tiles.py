"""Tiles: listing, reading, masks, cropping and mirroring, the cache, priors, and the check before training."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from Systems.d3rsmde.targets import relative_height
from tests.conftest import (
    TEST,
    TEST_IDS,
    TRAINING,
    TRAINING_IDS,
    height_path,
    image_path,
    make_dataset,
    prior_path,
    shaded_image,
    synthetic_height,
    write_prior,
    write_raster,
    write_tile,
)
from Utils.core.errors import UserError
from Utils.data.loaders import make_loader
from Utils.data.published_layout import find_priors, list_tiles
from Utils.data.tile_check import check_tiles
from Utils.data.tile_dataset import TileDataset, read_tile


def open_dataset(folder: Path, with_priors: bool = True, **options: Any) -> TileDataset:
    files = list_tiles(folder, TRAINING)
    priors = find_priors(folder, TRAINING, list(files)) if with_priors else None
    return TileDataset(files, list(files), priors, **options)


def tensors(item: dict[str, object]) -> dict[str, Tensor]:
    return {key: value for key, value in item.items() if isinstance(value, Tensor)}


def same(first: dict[str, object], second: dict[str, object]) -> bool:
    left, right = tensors(first), tensors(second)
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def test_listing_is_in_natural_order(dataset: Path) -> None:
    (dataset / TRAINING / "png-stretched-unique" / "notes.txt").write_text("not a tile", encoding="utf-8")
    write_tile(dataset, "9")
    assert list(list_tiles(dataset, TRAINING)) == ["1", "2", "3", "9", "10", "11", "20"]
    assert sorted(list_tiles(dataset, TEST)) == sorted(TEST_IDS)


def test_listing_refuses(dataset: Path) -> None:
    image_path(dataset, "10").unlink()
    image_path(dataset, "2").unlink()
    with pytest.raises(UserError, match=r"height map '.*tile_2\.tif' has no image \(and 1 more\); add it or remove"):
        list_tiles(dataset, TRAINING)
    write_tile(dataset, "10")
    write_tile(dataset, "2")
    height_path(dataset, "3").unlink()
    with pytest.raises(UserError, match=r"image '.*tile_3\.png' has no height map; add it or remove the image"):
        list_tiles(dataset, TRAINING)
    with pytest.raises(UserError, match=r"dataset folder '.*' not found; set dataset_path to"):
        list_tiles(dataset / "none", TRAINING)


def test_an_empty_dataset_is_refused(tmp_path: Path) -> None:
    for folder in ("png-stretched-unique", "DEM_255-unique"):
        (tmp_path / TRAINING / folder).mkdir(parents=True)
    with pytest.raises(UserError, match=r"no tile_<id>\.png in '.*'; put the images there"):
        list_tiles(tmp_path, TRAINING)


@pytest.mark.parametrize(
    ("image", "height"), [(".PNG", ".TIF"), (".JPG", ".Tif"), (".jpeg", ".TIFF"), (".tif", ".png"), (".TIFF", ".PNG")]
)
def test_suffixes_in_capitals_and_of_other_formats(dataset: Path, image: str, height: str) -> None:
    before = [read_tile(tile, files) for tile, files in list_tiles(dataset, TRAINING).items()]
    # The content decides how a file is read.
    for tile in TRAINING_IDS:
        image_path(dataset, tile).rename(image_path(dataset, tile).with_suffix(image))
        height_path(dataset, tile).rename(height_path(dataset, tile).with_suffix(height))
        prior_path(dataset, tile).rename(prior_path(dataset, tile).with_suffix(".PNG"))
    listed = list_tiles(dataset, TRAINING)
    assert all(same(read_tile(tile, files), old) for (tile, files), old in zip(listed.items(), before, strict=True))
    assert len(find_priors(dataset, TRAINING, list(listed))) == len(TRAINING_IDS)


def test_of_two_files_of_a_tile_the_usual_one_is_taken(dataset: Path) -> None:
    for name in ("tile_1.PNG", "tile_1.jpg"):
        (image_path(dataset, "1").parent / name).write_bytes(b"another")
    (height_path(dataset, "1").with_suffix(".png")).write_bytes(b"another")
    files = list_tiles(dataset, TRAINING)["1"]
    assert (files.image, files.height) == (image_path(dataset, "1"), height_path(dataset, "1"))


def test_links_and_folders_that_cannot_be_written_are_read(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(dataset, target_is_directory=True)
    image_path(dataset, "1").rename(tmp_path / "elsewhere.png")
    image_path(dataset, "1").symlink_to(tmp_path / "elsewhere.png")
    assert check_tiles(list_tiles(tmp_path / "link", TRAINING), ["1", "2"]).size == (32, 32)


def test_images_of_few_bits_are_pointed_out(dataset: Path, caplog: pytest.LogCaptureFixture) -> None:
    for tile in TRAINING_IDS:
        write_raster(image_path(dataset, tile), shaded_image(synthetic_height(int(tile))).astype(np.uint16) * 16)
    files = list_tiles(dataset, TRAINING)
    check_tiles(files, list(files))
    found = [record.getMessage() for record in caplog.records if "nearly black" in record.getMessage()]
    assert len(found) == 1 and "4048 of 65535" in found[0] and "--set image_full_scale=4095" in found[0]
    for full_scale in (4095.0, 65535.0):
        caplog.clear()
        files = list_tiles(dataset, TRAINING, full_scale)
        check_tiles(files, list(files))
        assert "nearly black" not in caplog.text
    image = read_tile("1", list_tiles(dataset, TRAINING, 4080.0)["1"])["image"]
    np.testing.assert_allclose(image, shaded_image(synthetic_height(1)) / 255.0, atol=1e-6)


def test_reading(dataset: Path) -> None:
    item = open_dataset(dataset)[0]
    truth = synthetic_height(1)
    assert item["id"] == "1"
    assert {key: (tuple(value.shape), value.dtype) for key, value in tensors(item).items()} == {
        "image": ((3, 32, 32), torch.float32),
        "target": ((1, 32, 32), torch.float32),
        "valid": ((1, 32, 32), torch.bool),
        "prior": ((1, 32, 32), torch.float32),
    }
    np.testing.assert_array_equal(item["target"][0], truth)
    # A float32 quotient of bytes is exact to one rounding.
    np.testing.assert_allclose(item["image"], shaded_image(truth) / 255.0, atol=1e-7)
    assert item["valid"].all()
    assert "prior" not in open_dataset(dataset, with_priors=False)[0]


@pytest.mark.parametrize(("dtype", "step"), [("uint8", 1 / 255), ("uint16", 1 / 65535)])
def test_priors_of_both_depths(dtype: str, step: float, dataset: Path) -> None:
    write_prior(dataset, "1", dtype=dtype)
    blocks = synthetic_height(1).reshape(4, 8, 4, 8).mean(axis=(1, 3)) / 255.0
    prior = read_tile("1", list_tiles(dataset, TRAINING)["1"], prior_path(dataset, "1"))["prior"]
    # Half a level of rounding, and float32's own.
    np.testing.assert_allclose(prior[0], np.kron(blocks, np.ones((8, 8))), atol=0.5 * step + 1e-7)


def test_masks_of_nodata_tag_and_nan(dataset: Path) -> None:
    holed = synthetic_height(1).astype(np.float32)
    holed[:4] = -9999.0
    write_raster(height_path(dataset, "1"), holed, nodata=-9999.0)
    torn = synthetic_height(2).astype(np.float32)
    torn[:, :3] = np.nan
    torn[0, 5] = np.inf
    write_raster(height_path(dataset, "2"), torn)
    tiles = open_dataset(dataset)
    for index, invalid in ((0, np.s_[:4, :]), (1, np.s_[:, :3])):
        item = tiles[index]
        expected = np.ones((32, 32), bool)
        expected[invalid] = False
        if index:
            expected[0, 5] = False
        np.testing.assert_array_equal(item["valid"][0], expected)
        stretched = relative_height(item)["height"]
        for values in (item["target"], stretched):
            assert torch.isfinite(values).all()
            assert (values[~item["valid"]] == 0.0).all()
        known = stretched[item["valid"]]
        assert (known.min(), known.max()) == (0.0, 1.0), "the stretch is over the valid pixels alone"


def test_flat_and_empty_tiles_are_finite_and_reported(dataset: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_raster(height_path(dataset, "2"), np.full((32, 32), 77, np.uint8))
    write_raster(height_path(dataset, "10"), np.zeros((32, 32), np.uint8), nodata=0)
    holed = synthetic_height(20)
    holed[:2] = 0
    write_raster(height_path(dataset, "20"), np.maximum(holed, 0), nodata=0)
    files = list_tiles(dataset, TRAINING)
    with caplog.at_level(logging.WARNING):
        check = check_tiles(files, list(files))
    assert (check.size, check.flat, check.empty, check.with_gaps) == ((32, 32), ["2"], ["10"], ["20"])
    assert "1 of 6 tiles have flat heights" in caplog.text
    assert "1 of 6 tiles have no valid height" in caplog.text
    assert "1 of 6 tiles have some invalid pixels" in caplog.text
    for tile in ("2", "10"):
        item = read_tile(tile, files[tile])
        assert (relative_height(item)["height"] == 0.0).all()
    assert not read_tile("10", files["10"])["valid"].any()


def test_a_sound_dataset_is_not_remarked_on(dataset: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = list_tiles(dataset, TRAINING)
    with caplog.at_level(logging.WARNING):
        check_tiles(files, list(files), find_priors(dataset, TRAINING, list(files)))
    assert caplog.text == ""


@pytest.mark.parametrize("what", ["image", "height", "prior"])
def test_the_check_finds_damage_that_the_header_hides(what: str, dataset: Path) -> None:
    path = {"image": image_path, "height": height_path, "prior": prior_path}[what](dataset, "11")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    files = list_tiles(dataset, TRAINING)
    with pytest.raises(UserError, match=path.name):
        check_tiles(files, list(files), find_priors(dataset, TRAINING, list(files)))


def test_the_check_names_the_tile_of_another_size(dataset: Path) -> None:
    write_tile(dataset, "11", size=64)
    files = list_tiles(dataset, TRAINING)
    with pytest.raises(UserError, match=r"tile_11\.png' is 64 x 64 pixels but .* all tiles of a dataset must have one"):
        check_tiles(files, list(files))
    write_tile(dataset, "11")
    write_raster(height_path(dataset, "11"), synthetic_height(11)[:, :24])
    with pytest.raises(UserError, match=r"tile_11\.tif' is 24 x 32 pixels but '.*tile_11\.png' is 32 x 32; image, map"):
        check_tiles(files, list(files))
    with pytest.raises(UserError, match=r"tile_11\.tif' is 24 x 32 pixels"):
        read_tile("11", files["11"])


def test_missing_priors_are_counted(dataset: Path) -> None:
    prior_path(dataset, "3").unlink()
    with pytest.raises(UserError, match=r"tile_3_pred_depth\.png' not found \(1 of 6 are missing\); make them with"):
        find_priors(dataset, TRAINING, TRAINING_IDS)


def test_augmentation_goes_by_seed_epoch_and_tile(dataset: Path) -> None:
    options: dict[str, Any] = {"flips": ["vertical", "horizontal"], "crop": 16}
    tiles = open_dataset(dataset, seed=5, **options)
    first = [tiles[index] for index in range(6)]
    # In any order, however often: the same.
    assert all(same(tiles[index], first[index]) for index in (5, 0, 3, 3, 1))
    assert all(same(open_dataset(dataset, seed=5, **options)[index], first[index]) for index in range(6))
    # A tile's draw does not depend on the tiles beside it.
    alone = TileDataset(tiles.files, ["10"], tiles.priors, flips=["horizontal", "vertical"], crop=16, seed=5)
    assert same(alone[0], first[3])
    tiles.epoch = 1
    assert not all(same(tiles[index], first[index]) for index in range(6))
    assert not all(same(open_dataset(dataset, seed=6, **options)[index], first[index]) for index in range(6))


def test_tiles_are_drawn_for_apart(dataset: Path) -> None:
    for path in (image_path, height_path, prior_path):
        path(dataset, "2").write_bytes(path(dataset, "1").read_bytes())
    tiles = open_dataset(dataset, flips=["horizontal"], crop=16)
    alike = []
    for epoch in range(12):
        tiles.epoch = epoch
        alike.append(same(tiles[0], tiles[1]))
    assert not all(alike)


def test_augmentation_does_not_depend_on_workers(dataset: Path) -> None:
    tiles = open_dataset(dataset, flips=["horizontal"], crop=16, seed=1)
    torch.manual_seed(0)
    alone = next(iter(make_loader(tiles, 6, 0)))
    torch.manual_seed(1)
    parted = next(iter(make_loader(tiles, 6, 1)))
    assert alone["id"] == parted["id"]
    assert same(alone, parted)


def test_all_maps_are_cut_and_mirrored_alike(dataset: Path) -> None:
    # Every map of this tile holds the same numbers, so whatever happens to one must have happened to all.
    height = synthetic_height(1)
    holed = height.astype(np.float32)
    holed[height < 40] = np.nan
    write_raster(image_path(dataset, "1"), np.stack([height] * 3))
    write_raster(height_path(dataset, "1"), holed)
    write_raster(prior_path(dataset, "1"), height)
    tiles = open_dataset(dataset, flips=["horizontal", "vertical"], crop=16, seed=2)
    whole = torch.from_numpy(height)[None]
    found: set[tuple[int, int, bool, bool]] = set()
    for epoch in range(40):
        tiles.epoch = epoch
        item = tiles[0]
        levels = torch.round(item["image"] * 255.0).to(torch.uint8)
        assert levels.shape == (3, 16, 16)
        assert torch.equal(levels[:1], torch.round(item["prior"] * 255.0).to(torch.uint8))
        assert torch.equal(item["valid"], levels[:1] >= 40)
        assert torch.equal(item["target"][item["valid"]], levels[:1][item["valid"]].float())
        back = {(down, right): levels[0].flip(_axes(down, right)) for down in (False, True) for right in (False, True)}
        places = [
            (top, left, *turned)
            for turned, values in back.items()
            for top in range(17)
            for left in range(17)
            if torch.equal(whole[0, top : top + 16, left : left + 16], values)
        ]
        assert len(places) == 1
        found.add(places[0])
    assert len({place[:2] for place in found}) > 20
    assert {place[2:] for place in found} == {(False, False), (False, True), (True, False), (True, True)}


def _axes(down: bool, right: bool) -> list[int]:
    return [axis for axis, turned in ((0, down), (1, right)) if turned]


def test_the_cache_is_bounded_and_not_spoilt(dataset: Path) -> None:
    plain = open_dataset(dataset)
    size = sum(value.nbytes for value in tensors(plain[0]).values())
    tiles = open_dataset(dataset, cache_bytes=2.5 * size, crop=16, flips=["horizontal"])
    first = [tiles[index] for index in range(6)]
    for tile in TRAINING_IDS:
        height_path(dataset, tile).unlink()
    assert same(tiles[0], first[0])
    assert same(tiles[1], first[1])
    for index in range(2, 6):
        with pytest.raises(UserError, match="no such file"):
            tiles[index]


def test_who_changes_an_item_does_not_change_the_cache(dataset: Path) -> None:
    tiles = open_dataset(dataset, cache_bytes=1e9)
    del tiles[0]["target"]
    assert "target" in tiles[0]


def test_without_a_cache_every_look_is_a_reading(dataset: Path) -> None:
    tiles = open_dataset(dataset)
    before = tiles[0]
    write_raster(height_path(dataset, "1"), synthetic_height(99))
    assert not same(tiles[0], before)


def test_other_sizes_than_square(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "data", priors=False)
    for tile in TRAINING_IDS:
        write_raster(height_path(folder, tile), synthetic_height(int(tile))[:, :24])
        write_raster(image_path(folder, tile), shaded_image(synthetic_height(int(tile)))[..., :24])
    files = list_tiles(folder, TRAINING)
    assert check_tiles(files, list(files)).size == (32, 24)
    assert TileDataset(files, list(files))[0]["image"].shape == (3, 32, 24)
