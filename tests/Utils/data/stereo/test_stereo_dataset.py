"""Stereo samples as networks see them: standardised, padded to 32 pixels, with colours that change by the seed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.stereo_sets import copy_set
from Utils.config.stereo_keys import WithViews
from Utils.data.loaders import make_loader
from Utils.data.sample import Kind
from Utils.data.stereo.sets import find_samples
from Utils.data.stereo.stereo_dataset import StereoDataset, standardised
from Utils.rasters.pfm import read_pfm


def dataset(folder, **options) -> StereoDataset:
    keys = WithViews(views=3, relative_depth_folder="depthAnything")
    samples = find_samples(folder, "train", keys)
    return StereoDataset(samples, list(samples), **options)


def test_a_sample_has_what_networks_need(tmp_path) -> None:
    tiles = dataset(copy_set(tmp_path))
    sample = tiles[0]
    assert sample["images"].shape == sample["relative_depth"].shape == (3, 3, 32, 64)
    for name in ("images", "relative_depth"):
        flat = sample[name].flatten(2)
        torch.testing.assert_close(flat.mean(dim=2), torch.zeros(3, 3), atol=1e-5, rtol=0)
        torch.testing.assert_close(flat.std(dim=2, correction=0), torch.ones(3, 3), atol=1e-4, rtol=0)
    assert sample["cameras"].shape == (3, 4, 4) and sample["cameras"].dtype == torch.float64
    assert sample["target"].shape == sample["mask"].shape == (1, 32, 64) and sample["mask"].all()
    assert sample["value_range"].shape == (2,) and sample["interval"].tolist() == pytest.approx([0.14])
    assert (sample["id"], sample["name"], sample["view"]) == ("town0000_0000-1", "town0000_0000", "1")
    assert set(sample) == set(tiles.kinds) and tiles.kinds["cameras"] == Kind.VECTOR
    (batch,) = make_loader(tiles, 2, 0)
    assert batch["cameras"].shape == (2, 3, 4, 4) and batch["interval"].shape == (2, 1) and len(batch["id"]) == 2


def test_sizes_that_are_no_multiple_of_32_are_padded_and_masked(tmp_path) -> None:
    folder = copy_set(tmp_path, size=(40, 50))
    sample = dataset(folder)[0]
    assert sample["images"].shape == (3, 3, 64, 64) and sample["sizes"].tolist() == [[40, 50]] * 3
    inside = torch.zeros(1, 64, 64, dtype=torch.bool)
    inside[:, :40, :50] = True
    torch.testing.assert_close(sample["mask"], inside)
    for name in ("images", "relative_depth"):
        assert (sample[name][..., ~inside[0]] == 0).all()
        own = sample[name][..., :40, :50].flatten(2)
        torch.testing.assert_close(own.mean(dim=2), torch.zeros(3, 3), atol=1e-5, rtol=0)
        torch.testing.assert_close(own.std(dim=2, correction=0), torch.ones(3, 3), atol=1e-4, rtol=0)
    depth = read_pfm(folder / "train" / "depth" / "1" / "town0000_0000.pfm")
    np.testing.assert_array_equal(sample["target"][0, :40, :50], depth)


def test_colours_change_by_seed_epoch_and_view_and_nothing_else_does(tmp_path) -> None:
    folder = copy_set(tmp_path)
    plain, changed = dataset(folder), dataset(folder, jitter="published", seed=3, cache_bytes=1e9)
    first, again = changed[0], dataset(folder, jitter="published", seed=3)[0]
    torch.testing.assert_close(first["images"], again["images"], atol=0, rtol=0)
    changed.epoch = 1
    assert not torch.equal(first["images"], changed[0]["images"])
    for name in ("relative_depth", "cameras", "target", "mask"):
        torch.testing.assert_close(first[name], plain[0][name], atol=0, rtol=0)
    differences = (first["images"] - plain[0]["images"]).abs().mean(dim=(1, 2, 3))
    assert (differences > 0.01).all() and len({round(float(value), 4) for value in differences}) == 3


def test_a_flat_map_is_zero_and_not_noise() -> None:
    for grey in (0.0, 0.1, 128 / 255, 1.0):
        assert (standardised(torch.full((3, 32, 32), grey)) == 0).all()


def test_a_camera_cannot_be_mirrored(tmp_path) -> None:
    with pytest.raises(AssertionError, match="cannot be mirrored"):
        dataset(copy_set(tmp_path), flips=["horizontal"])
