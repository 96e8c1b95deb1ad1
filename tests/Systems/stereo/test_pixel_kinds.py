"""Pixels without texture and hidden pixels, on scenes whose answer is known; baselines."""

from __future__ import annotations

import pytest
import torch

from Systems.stereo.baselines import constant_map, sweep_map
from Systems.stereo.pixel_kinds import occluded, textureless
from tests.Modules.stereo.cameras import row_of_cameras
from Utils.data.sample import Batch

SIZE = (32, 64)


def roof_batch(views: int = 2) -> Batch:
    """Ground 100 m below, a roof at 50 m, cameras 5 m apart with a focal length of 100 pixels.

    The source sees the roof 10 pixels to the left of where the reference does, and the ground 5: of the 5 pixels of
    ground beside the roof's left end it sees nothing.
    """
    target = torch.full((1, 1, *SIZE), 100.0)
    target[..., 8:24, 30:50] = 50.0
    return {
        "id": ["roof"],
        "images": torch.zeros(1, views, 3, *SIZE),
        "cameras": row_of_cameras(views, SIZE, base=5.0),
        "target": target,
        "mask": torch.ones_like(target, dtype=torch.bool),
        "value_range": torch.tensor([[40.0, 120.0]]),
        "interval": torch.tensor([[1.0]]),
    }


def test_ground_behind_a_roof_is_occluded() -> None:
    found = occluded(roof_batch())[0, 0]
    assert bool(found[10:22, 25:29].all())
    found[8:24, 24:31] = False
    assert not found.any()


def test_what_only_one_of_three_sources_hides_is_not() -> None:
    batch = roof_batch(4)
    batch["cameras"][:, 2:] = batch["cameras"][:, :1]  # two sources stand where the reference stands
    assert not occluded(batch).any()


def test_pixels_without_truth_are_of_no_kind() -> None:
    batch = roof_batch()
    batch["mask"][..., 20:30] = False
    assert not occluded(batch)[..., 20:30].any()


def test_flat_windows_are_textureless() -> None:
    torch.manual_seed(0)
    image = torch.randn(1, 3, 40, 60)
    image[..., 20:] *= 0.05
    found = textureless(image)[0, 0]
    assert not found[:, :12].any() and bool(found[:, 26:].all())


def test_the_constant_is_the_median_of_the_truth() -> None:
    batch = roof_batch()
    batch["mask"][..., :30] = False
    batch["target"][..., :30] = float("nan")
    batch["mask"][..., 40:46] = False
    assert torch.equal(constant_map(batch), torch.full((1, 1, *SIZE), 100.0))
    assert torch.equal(constant_map(batch | {"mask": batch["target"] == 50.0}), torch.full((1, 1, *SIZE), 50.0))


def test_the_sweep_finds_a_plane() -> None:
    """Views of a wall at 100 m, 5 m apart: the same picture, 5 pixels apart."""
    torch.manual_seed(0)
    wide = torch.randn(1, 3, 32, 80)
    batch = roof_batch() | {"images": torch.stack([wide[..., :64], wide[..., 5:69]], dim=1)}
    found = sweep_map(batch, 9, 64)
    assert found.shape == (1, 2, *SIZE)
    inside = found[0, :, 6:-6, 12:-6]
    assert float((inside[0] - 100).abs().median()) < 1.0 and float(inside[1].median()) > 0.95
    with pytest.raises(ValueError, match="odd"):
        sweep_map(batch, 8, 64)
