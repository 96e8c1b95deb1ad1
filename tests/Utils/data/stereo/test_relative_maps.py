"""Relative depth maps: near is dark whoever wrote them, and the blur pyramid is the published one."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from Utils.core.errors import UserError
from Utils.data.stereo.relative_maps import blur_pyramid, read_relative
from Utils.rasters.tile_files import write_map_16bit


@pytest.fixture
def depth() -> np.ndarray:
    return np.random.default_rng(0).uniform(0.0, 1.0, (20, 30)).astype(np.float32)


def published_kernel(side: int) -> np.ndarray:
    place = np.arange(side) - side // 2
    weights = np.exp(-(place[:, None] ** 2 + place**2) / (2 * 2.0**2))
    return weights / weights.sum()


def test_the_pyramid_is_two_gaussians_of_the_published_kernels(depth) -> None:
    pyramid = blur_pyramid(depth)
    np.testing.assert_array_equal(pyramid[0], depth)
    for level, side in ((1, 3), (2, 25)):
        kernel, reach = published_kernel(side), side // 2
        wide = np.pad(depth.astype(float), reach, mode="symmetric")
        windows = np.lib.stride_tricks.sliding_window_view(wide, (side, side))
        np.testing.assert_allclose(pyramid[level], (windows * kernel).sum(axis=(2, 3)), atol=1e-6)
    # The weights of the small kernel along a line, as the dataset's tool has them.
    np.testing.assert_allclose(published_kernel(3).sum(axis=0), [0.319, 0.362, 0.319], atol=5e-4)


def test_maps_of_this_project_rise_with_height_and_published_ones_with_depth(tmp_path, depth) -> None:
    Image.fromarray(np.rint(255 * depth).astype(np.uint8)).save(tmp_path / "published.png")
    write_map_16bit(tmp_path / "ours.png", 1.0 - depth)
    (tmp_path / "ours.json").write_text(
        json.dumps({"polarity": "higher values are higher ground, nearer to the camera"}), encoding="utf-8"
    )
    published, ours = (read_relative(tmp_path / f"{name}.png") for name in ("published", "ours"))
    assert ours.shape == (3, 20, 30)
    np.testing.assert_allclose(published, ours, atol=1 / 255)
    turned = read_relative(tmp_path / "published.png", rises="height")
    np.testing.assert_allclose(turned[2], 1.0 - published[2], atol=1e-5)
    np.testing.assert_allclose(read_relative(tmp_path / "ours.png", rises="depth")[0], 1.0 - ours[0], atol=1e-6)


def test_what_systems_relative_depth_writes_is_understood(tmp_path, depth) -> None:
    """Its own words, so that a change of them fails here."""
    from Systems.relative_depth import _POLARITY, _write

    image = tmp_path / "image.png"
    _write(tmp_path / "map.png", 7.0 - 3.0 * depth, image, {"polarity": _POLARITY})
    np.testing.assert_allclose(read_relative(tmp_path / "map.png")[0], (depth - depth.min()) / np.ptp(depth), atol=1e-4)


def test_three_channels_are_such_a_pyramid(tmp_path, depth) -> None:
    stored = np.rint(255 * np.moveaxis(blur_pyramid(depth), 0, 2)).astype(np.uint8)
    Image.fromarray(stored).save(tmp_path / "map.png")
    np.testing.assert_allclose(read_relative(tmp_path / "map.png"), np.moveaxis(stored, 2, 0) / 255.0, atol=1e-6)
    Image.fromarray(np.repeat(stored[..., :1], 3, axis=2)).save(tmp_path / "grey.png")
    grey = read_relative(tmp_path / "grey.png")
    np.testing.assert_allclose(grey, blur_pyramid(grey[0]), atol=1e-6)
    assert grey[2].std() < 0.5 * grey[0].std(), "a grey map in colours is blurred too"


@pytest.mark.parametrize("text", ["{}", "no json", '{"polarity": "sideways"}'])
def test_a_note_that_says_nothing_has_a_line(tmp_path, depth, text) -> None:
    write_map_16bit(tmp_path / "map.png", depth)
    (tmp_path / "map.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="relative_depth_rises"):
        read_relative(tmp_path / "map.png")
    assert read_relative(tmp_path / "map.png", rises="depth").shape == (3, 20, 30)
