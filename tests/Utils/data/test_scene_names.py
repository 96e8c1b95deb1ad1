"""Scenes: which one a tile shows, and that a split by scene leaves none on two sides."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.depth_sets import write_nyu
from Utils.core.errors import UserError
from Utils.data.published_layout import TRAINING_PART, TileFiles
from Utils.data.scene_names import group_by_scene, scene_of, shared_scenes
from Utils.data.splits import hold_out, make_folds, read_split
from Utils.data.splits import main as write_splits
from Utils.data.tile_sources import part_tiles


@pytest.mark.parametrize(
    ("image", "scene"),
    [
        ("data/nyu2_train/basement_0001a_out/1.jpg", "basement_0001"),
        ("data/nyu2_train/basement_0001b_out/230.jpg", "basement_0001"),
        ("nyu/study_room_0005b_out/7.jpg", "study_room_0005"),
        ("nyu/images/bookstore_0001d_00001.jpg", "bookstore_0001"),
        ("nyu_small/bookstore_0001d_00001_rgb.jpg", "bookstore_0001"),
        ("raw/2011_09_26/2011_09_26_drive_0001_sync/image_02/data/0000000005.png", "2011_09_26_drive_0001"),
        ("val/image/2011_09_28_drive_0002_sync_image_0000000005_image_02.png", "2011_09_28_drive_0002"),
        ("leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png", "aachen"),
        ("leftImg8bit/train/bad-honnef/bad-honnef_000000_000019_leftImg8bit.png", "bad-honnef"),
        ("kitti/training/image_2/000007.png", None),
        ("data/nyu2_test/00000_colors.png", None),
        ("ortho/tile_805.png", None),
    ],
)
def test_the_scene_of_known_layouts(image: str, scene: str | None) -> None:
    assert scene_of("7", TileFiles(Path(image), Path("d.png"))) == scene


def test_a_table_and_an_id_name_scenes_too() -> None:
    files = TileFiles(Path("data/kitchen_0001_out/1.jpg"), Path("d.png"), scene="my kitchen")
    assert scene_of("1", files) == "my kitchen"
    assert scene_of("ulm_000000_000019", TileFiles(Path("png/tile_x.png"), Path("d.png"))) == "ulm"


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    sizes=st.lists(st.integers(1, 12), min_size=2, max_size=9),
    seed=st.integers(0, 50),
    share=st.floats(0.05, 0.9),
)
def test_no_scene_stands_on_two_sides(sizes: list[int], seed: int, share: float) -> None:
    scenes = {f"{place}-{frame}": str(place) for place, size in enumerate(sizes) for frame in range(size)}
    train, held = hold_out(list(scenes), seed, share, scenes)
    assert train and held and sorted(train + held) == sorted(scenes)
    assert not {scenes[tile] for tile in train} & {scenes[tile] for tile in held}
    # As near to the share as the scene that would be next allows.
    assert abs(len(held) - share * len(scenes)) <= max(sizes)
    assert hold_out(list(reversed(scenes)), seed, share, scenes) == (train, held)
    count = min(len(sizes), 3)
    folds = make_folds(list(scenes), count, seed, scenes)
    assert sorted(tile for fold in folds for tile in fold) == sorted(scenes) and all(folds)
    assert sum(len({scenes[tile] for tile in fold}) for fold in folds) == len(sizes)


def test_a_share_of_frames() -> None:
    ids = [str(number) for number in range(100)]
    train, held = hold_out(ids, 1, 0.3)
    assert (len(train), len(held)) == (70, 30)
    assert [len(part) for part in hold_out(["1", "2"], 1, 0.99)] == [1, 1]


def test_scenes_that_are_not_named(caplog: pytest.LogCaptureFixture) -> None:
    unknown = {str(number): TileFiles(Path(f"{number}.png"), Path("d.png")) for number in range(4)}
    with caplog.at_level(logging.WARNING):
        assert group_by_scene(unknown, list(unknown), "say so") is None
    assert "4 of 4 tiles name no scene" in caplog.text and "say so" in caplog.text
    one = {tile: TileFiles(files.image, files.height, scene="all") for tile, files in unknown.items()}
    with caplog.at_level(logging.WARNING):
        assert group_by_scene(one, list(one), "say so") is None
    assert "all 4 tiles are of one scene, all" in caplog.text
    assert shared_scenes(one, ["0"], ["1"]) == ["all"] and shared_scenes(unknown, ["0"], ["1"]) == []


def test_split_files_by_scene(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, _ = write_nyu(tmp_path)
    given = ["--dataset", str(table), "--root", str(tmp_path), "--name", "NYU", "--output", str(tmp_path / "splits")]
    assert write_splits([*given, "--folds", "3", "--by", "scene"]) == 0
    folds = [read_split(Path(line)) for line in capsys.readouterr().out.split()]
    tiles = part_tiles(table, TRAINING_PART, root=tmp_path)
    scenes = [{scene_of(tile, tiles[tile]) for tile in fold} for fold in folds]
    assert sorted(map(len, scenes)) == [1, 1, 1] and set.union(*scenes) == {
        "basement_0001",
        "kitchen_0002",
        "office_0003",
    }
    assert write_splits([*given, "--folds", "4", "--by", "scene"]) == 2
    assert "4 folds by scene need 4 scenes or more, and there are 3" in capsys.readouterr().err


def test_one_scene_cannot_be_held_out() -> None:
    with pytest.raises(UserError, match="of one scene cannot be split by scene"):
        hold_out(["1", "2"], 0, 0.1, {"1": "a", "2": "a"})
