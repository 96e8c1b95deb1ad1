"""Resizing: means of what is known, nearest pixels, and images."""

from __future__ import annotations

import pytest
import torch

from Utils.data.resizing import resize_image, resize_map


def test_area_takes_the_mean_of_what_is_known() -> None:
    values = torch.tensor([[[1.0, 3.0, 7.0, 9.0], [5.0, 99.0, 99.0, 99.0]]])
    valid = torch.tensor([[[True, True, True, False], [True, False, False, False]]])
    small, known = resize_map(values, valid, (1, 2), "area")
    # Three of four pixels are known on the left; on the right a quarter is, which is too little.
    assert known.tolist() == [[[True, False]]] and small.tolist() == [[[3.0, 0.0]]]
    half = torch.tensor([[[True, True, True, True], [False, False, False, False]]])
    assert resize_map(values, half, (1, 2), "area")[0].tolist() == [[[2.0, 8.0]]]


def test_nearest_keeps_the_share_of_a_lidar() -> None:
    generator = torch.Generator().manual_seed(0)
    valid = torch.rand(1, 375, 1242, generator=generator) < 0.2
    values = torch.rand(1, 375, 1242, generator=generator) * 80
    small, known = resize_map(values, valid, (240, 320), "nearest")
    assert known.float().mean().item() == pytest.approx(0.2, abs=0.01)
    assert small.shape == known.shape == (1, 240, 320)
    assert torch.isin(small[known], values[valid]).all() and (small[~known] == 0).all()
    assert resize_map(values, valid, (240, 320), "area")[1].float().mean() < 0.2


def test_what_is_unknown_plays_no_part() -> None:
    values = torch.rand(1, 9, 13, generator=torch.Generator().manual_seed(1))
    valid = torch.rand(1, 9, 13, generator=torch.Generator().manual_seed(2)) < 0.7
    for way in ("area", "nearest"):
        for size in ((4, 5), (9, 13), (20, 20)):
            clean, known = resize_map(values.where(valid, 0.0), valid, size, way)
            spoilt, again = resize_map(values.where(valid, torch.inf), valid, size, way)
            assert torch.equal(clean, spoilt) and torch.equal(known, again) and clean.isfinite().all()


def test_images_are_averaged() -> None:
    image = torch.tensor([0.0, 1.0, 0.5, 0.5]).view(1, 2, 2).expand(3, 2, 2)
    assert resize_image(image, (1, 1)).tolist() == [[[0.5]]] * 3
    assert resize_image(image, (2, 2)) is image
    assert torch.equal(resize_image(image[None], (1, 1))[0], resize_image(image, (1, 1))), "a batch"
