"""Samples by kind: what crops, flips and padding do to each kind, in nested samples and with several views."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch.utils.data import default_collate

from Utils.data.dataset import SampleDataset, TargetTransform
from Utils.data.sample import (
    IGNORED_LABEL,
    Kind,
    Kinds,
    Sample,
    batch_size,
    crop,
    each_on_the_grid,
    grid_size,
    item,
    mirror,
    pad,
    take,
    tensors,
)

KINDS: Kinds = {
    "image": Kind.IMAGE,
    "height": Kind.MAP,
    "valid": Kind.MASK,
    "label": Kind.LABEL,
    "camera": Kind.VECTOR,
    "id": Kind.TEXT,
    "views": {"image": Kind.IMAGE, "camera": Kind.VECTOR},
}


def make_sample(number: int = 0, height: int = 4, width: int = 6) -> Sample:
    grid = torch.arange(height * width).reshape(height, width)
    return {
        "image": (grid + number).float().expand(3, -1, -1) / 100.0,
        "height": (grid + number).float()[None],
        "valid": (grid % 2 == 0)[None],
        "label": grid % 5,
        "camera": torch.arange(9.0).reshape(3, 3),
        "id": str(number),
        "views": {"image": torch.stack([grid, grid + 50]).float()[:, None], "camera": torch.eye(4).expand(2, -1, -1)},
    }


def test_what_lies_on_the_grid_is_mirrored_and_nothing_else() -> None:
    sample = make_sample()
    turned = mirror(sample, KINDS, ["horizontal"])
    for name in ("image", "height", "valid", "label"):
        assert torch.equal(turned[name], sample[name].flip(-1)), name
    assert torch.equal(turned["views"]["image"], sample["views"]["image"].flip(-1)), "every view"
    assert torch.equal(turned["camera"], sample["camera"]) and turned["id"] == "0"
    assert torch.equal(turned["views"]["camera"], sample["views"]["camera"]), "a camera is never mirrored"
    assert mirror(sample, KINDS, []) is sample


def test_a_crop_takes_the_same_place_of_every_entry() -> None:
    part = crop(make_sample(), KINDS, top=1, left=2, height=2, width=3)
    corner = torch.tensor([[8, 9, 10], [14, 15, 16]])
    assert torch.equal(part["height"][0], corner.float())
    assert torch.equal(part["label"], corner % 5)
    assert torch.equal(part["views"]["image"][1, 0], corner.float() + 50)
    assert part["camera"].shape == (3, 3)
    assert grid_size(part, KINDS) == (2, 3)


def test_padding_goes_by_kind() -> None:
    sample = make_sample()
    wide = pad(sample, KINDS, height=5, width=8)
    assert torch.equal(wide["height"][..., :4, :6], sample["height"])
    assert (wide["height"][0, :4, 6:] == sample["height"][0, :, -1:]).all(), "a map's border is repeated"
    assert not wide["valid"][..., 6:].any() and not wide["valid"][..., 4:, :].any()
    assert (wide["label"][:, 6:] == IGNORED_LABEL).all()
    assert wide["views"]["image"].shape == (2, 1, 5, 8)


def test_an_entry_without_a_declared_kind_is_an_error() -> None:
    with pytest.raises(ValueError, match="entry 'extra' has no declared kind; declare one of image, map, mask"):
        mirror(make_sample() | {"extra": torch.zeros(1)}, KINDS, ["vertical"])


def test_batches_are_nested_as_samples_are() -> None:
    samples = [make_sample(number) for number in range(3)]
    batch = default_collate(samples)
    assert batch_size(batch) == 3 and batch["views"]["image"].shape == (3, 2, 1, 4, 6)
    one = take(batch, 1)
    assert one["id"] == ["1"] and one["views"]["image"].shape == (1, 2, 1, 4, 6)
    again = item(batch, 1)
    assert again["id"] == "1"
    assert all(torch.equal(a, b) for a, b in zip(tensors(again), tensors(samples[1]), strict=True))
    assert batch_size({"views": batch["views"]}) == 3
    turned = mirror(batch, KINDS, ["vertical"])
    assert torch.equal(turned["views"]["image"], batch["views"]["image"].flip(-2))


def test_changes_are_told_the_kind() -> None:
    seen: list[Kind] = []
    each_on_the_grid(make_sample(), KINDS, lambda value, kind: (seen.append(kind), value)[1])
    assert seen == [Kind.IMAGE, Kind.MAP, Kind.MASK, Kind.LABEL, Kind.IMAGE]


class Views(SampleDataset):
    """Samples of several views, in memory."""

    def __init__(self, ids: Sequence[str], **options: Any) -> None:
        super().__init__(ids, **options)
        self.read_ids: list[str] = []

    @property
    def read_kinds(self) -> Kinds:
        return KINDS

    def read(self, sample_id: str) -> Sample:
        self.read_ids.append(sample_id)
        return make_sample(int(sample_id), 8, 8)


def test_a_dataset_augments_all_of_a_sample_alike() -> None:
    data = Views(["1", "2"], crop=4, flips=["horizontal", "vertical"], seed=3)
    for epoch in range(6):
        data.epoch = epoch
        sample = data[0]
        assert torch.equal(sample["height"][0] - 1, sample["views"]["image"][0, 0])
        assert torch.equal(sample["label"], (sample["height"][0] - 1).long() % 5)
    data.epoch = 4
    first = data[1]
    assert all(torch.equal(a, b) for a, b in zip(tensors(data[1]), tensors(first), strict=True)), "from the epoch alone"


def test_the_task_transforms_the_target_before_augmentation_and_once() -> None:
    """A crop's target is a part of the whole sample's, as its range is."""
    calls: list[str] = []

    def summit(sample: Sample) -> Sample:
        calls.append(sample["id"])
        return {"below_summit": sample["height"].max() - sample["height"]}

    target = TargetTransform(summit, {"below_summit": Kind.MAP})
    data = Views(["1"], crop=4, seed=1, target=target, cache_bytes=1e6)
    for epoch in range(3):
        data.epoch = epoch
        sample = data[0]
        assert torch.equal(sample["below_summit"], 64.0 - sample["height"])
    assert calls == ["1"] and data.read_ids == ["1"]
    assert data.kinds["below_summit"] == Kind.MAP
