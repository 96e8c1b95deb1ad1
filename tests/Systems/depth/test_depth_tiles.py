"""What the numbers of depth files mean: Cityscapes' disparities and cameras, and pictures that are no depth."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from Systems.depth.config import DepthTrainingConfig
from Systems.depth.depth_tiles import camera_file, find_depth_tiles
from tests.conftest import write_raster
from tests.depth_sets import metres, write_cityscapes
from Utils.config.config_files import parse_config
from Utils.core.errors import UserError
from Utils.rasters.height_coding import HeightCoding
from Utils.rasters.tile_files import read_height


def config(table: Path, **changes: object) -> DepthTrainingConfig:
    given = {"dataset_path": str(table), "target": "metres", "max_depth": 80.0, "disparity": {}} | changes
    found = parse_config(given, DepthTrainingConfig, "c")
    assert isinstance(found, DepthTrainingConfig)
    return found


def test_disparities_become_metres(tmp_path: Path) -> None:
    table, _ = write_cityscapes(tmp_path)
    tiles = find_depth_tiles(config(table)).training
    assert len(tiles) == 4
    found = read_height(
        tiles["aachen_000001_000019_leftImg8bit"].height, tiles["aachen_000001_000019_leftImg8bit"].coding
    )
    expected = metres(1, 32, 64) * 3.0
    assert not found.valid[0].any() and found.valid[1:].all()
    # A step of 1/256 pixel of disparity d is depth / (256 d) at most: below 2 mm here.
    np.testing.assert_allclose(found.values[1:], expected[1:], atol=0.004)


def test_by_hand(tmp_path: Path) -> None:
    write_raster(tmp_path / "d.png", np.array([[0, 1, 257, 513]], np.uint16))
    found = read_height(tmp_path / "d.png", HeightCoding(1 / 256, -1 / 256, 0.0, 0.25 * 2000.0))
    # (513 - 1) / 256 = 2 pixels; 500 / 2 = 250 m. No disparity is no distance.
    assert found.values.tolist() == [[0.0, 0.0, 500.0, 250.0]] and found.valid.tolist() == [[False, False, True, True]]


def test_a_camera_for_each_frame_or_constants(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table, _ = write_cityscapes(tmp_path)
    camera = camera_file(tmp_path / "disparity/train/aachen/aachen_000000_000019_disparity.png")
    assert camera == tmp_path / "camera/train/aachen/aachen_000000_000019_camera.json"
    camera.unlink()
    with pytest.raises(UserError, match=r"no camera file beside it \(1 of 4 have none\).*set disparity.baseline"):
        find_depth_tiles(config(table))
    with caplog.at_level(logging.WARNING):
        tiles = find_depth_tiles(config(table, disparity={"baseline": 0.5, "focal": 100.0})).training
    assert "1 of 4 frames have no camera file and take baseline 0.5 m" in caplog.text
    products = sorted(files.coding.disparity or 0.0 for files in tiles.values())
    assert products == pytest.approx([50.0, 400.0, 400.0, 400.0])


@pytest.mark.parametrize("text", ["{}", "no JSON", '{"extrinsic": {"baseline": "x"}, "intrinsic": {"fx": 1}}', "[]"])
def test_a_bad_camera_file(text: str, tmp_path: Path) -> None:
    table, _ = write_cityscapes(tmp_path)
    (tmp_path / "camera/train/aachen/aachen_000000_000019_camera.json").write_text(text)
    with pytest.raises(UserError, match=r"aachen_000000_000019_camera.json' names no extrinsic.baseline"):
        find_depth_tiles(config(table))


def test_pictures_of_classes_are_no_depth(tmp_path: Path) -> None:
    table, _ = write_cityscapes(tmp_path)
    named = table.read_text().replace("disparity/", "gtFine/").replace("_disparity", "_gtFine_color")
    table.write_text(named)
    for changes in ({}, {"disparity": None}):
        with pytest.raises(UserError, match=r"pictures of classes \(segmentation\), and no depth \(4 of 4 files are\)"):
            find_depth_tiles(config(table, **changes))


def test_disparities_that_are_taken_for_depth_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table, _ = write_cityscapes(tmp_path)
    with caplog.at_level(logging.WARNING):
        find_depth_tiles(config(table, disparity=None))
    assert "4 of 4 files are named disparity" in caplog.text and "set disparity, if only to {}" in caplog.text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hole": 0.0}, "remove metres_per_unit and hole"),
        ({"metres_per_unit": 0.5}, "remove metres_per_unit and hole"),
        ({"disparity": {"baseline": 0.2}}, "baseline and focal go together"),
        ({"disparity": {"base_line": 0.2}}, "did you mean 'disparity.baseline'"),
    ],
)
def test_keys_that_do_not_fit(changes: dict[str, object], words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        config(tmp_path, **changes)
