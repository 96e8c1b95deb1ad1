"""Squares without labels beside labelled ones: what the teacher sees, what the student sees, and what is never read."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch.utils.data import default_collate

from tests.land_cover_sets import write_loveda
from Utils.config.land_cover_keys import AugmentationSection, SelfTrainingSection
from Utils.data.land_cover.class_table import LOVEDA
from Utils.data.land_cover.land_cover_dataset import HowRead, LandCoverDataset
from Utils.data.land_cover.listing import list_land_cover
from Utils.data.land_cover.self_training import SelfTrainingDataset, paste_classes
from Utils.data.sample import IGNORED_LABEL, take

CUT = AugmentationSection(crop=32, scales=[0.8, 1.2])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labelled Urban tiles, and Rural ones whose masks are gone; read only."""
    made = write_loveda(tmp_path_factory.mktemp("loveda"), parts=["Train"])
    shutil.rmtree(made / "Train" / "Rural" / "masks_png")
    return made


def dataset(folder: Path, domain: str, how: HowRead) -> LandCoverDataset:
    files = list_land_cover(folder, "Train", [domain], "depth_png" if how.from_files else None, domain == "Urban")
    return LandCoverDataset(files, list(files), how, CUT, flips=["horizontal"], seed=3)


def pairs(folder: Path, source: str = "true", **options: object) -> SelfTrainingDataset:
    how = HowRead(LOVEDA, source)  # type: ignore[arg-type]
    section = SelfTrainingSection(domains=["Rural"], **options)  # type: ignore[arg-type]
    return SelfTrainingDataset(dataset(folder, "Urban", how), dataset(folder, "Rural", how), section)


def test_labelled_samples_are_those_of_a_training_without(folder: Path) -> None:
    both, alone = pairs(folder), dataset(folder, "Urban", HowRead(LOVEDA))
    for epoch in (1, 2):
        both.epoch = alone.epoch = epoch
        for place in range(3):
            sample, expected = both[place], alone[place]
            assert sample.keys() - expected.keys() == {"unlabelled"}
            assert all(torch.equal(sample[name], expected[name]) for name in ("image", "label", "depth", "valid"))


def test_the_student_alone_sees_other_colours_and_pasted_classes(folder: Path) -> None:
    plain = pairs(folder, colours="none", grey=0.0, blur=0.0)
    changed = pairs(folder)
    unmixed = pairs(folder, class_mix=False)
    pasted_somewhere = False
    for place in range(3):
        one, two, three = plain[place]["unlabelled"], changed[place]["unlabelled"], unmixed[place]["unlabelled"]
        assert one["id"] == two["id"] and one["id"].startswith("Rural-")
        assert torch.equal(one["image"], two["image"]) and torch.equal(one["depth"], two["depth"])
        kept = one["pasted"] == IGNORED_LABEL
        assert torch.equal(one["image"][:, kept], one["changed_image"][:, kept])
        assert not torch.equal(two["image"][:, kept], two["changed_image"][:, kept])
        pasted_somewhere |= bool((~kept).any())
        assert (three["pasted"] == IGNORED_LABEL).all()
    assert pasted_somewhere


def test_what_is_pasted_keeps_image_map_and_label_together(folder: Path) -> None:
    above = dataset(folder, "Urban", HowRead(LOVEDA)).moved("Urban-1", torch.Generator().manual_seed(0))
    below = dataset(folder, "Rural", HowRead(LOVEDA)).moved("Rural-0", torch.Generator().manual_seed(1))
    mixed, pasted = paste_classes(above, below, torch.Generator().manual_seed(2))
    known = pasted != IGNORED_LABEL
    present = above["label"][above["label"] != IGNORED_LABEL].unique()
    assert len(pasted[known].unique()) == (len(present) + 1) // 2
    assert torch.equal(pasted[known], above["label"][known])
    for name in ("image", "depth"):
        assert torch.equal(mixed[name][:, known], above[name][:, known])
        assert torch.equal(mixed[name][:, ~known], below[name][:, ~known])


def test_squares_follow_from_the_epoch_and_fit_into_batches(folder: Path) -> None:
    first, again = pairs(folder), pairs(folder)
    again.epoch = 5
    other = [again[place]["unlabelled"]["image"] for place in range(3)]
    again.epoch = 0
    assert all(torch.equal(first[n]["unlabelled"]["image"], again[n]["unlabelled"]["image"]) for n in range(3))
    assert any(not torch.equal(first[n]["unlabelled"]["image"], other[n]) for n in range(3))
    batch = default_collate([first[0], first[1]])
    assert batch["unlabelled"]["changed_image"].shape == (2, 3, 32, 32)
    assert torch.equal(take(batch, 1)["unlabelled"]["pasted"][0], first[1]["unlabelled"]["pasted"])


def test_the_control_with_a_grey_copy_is_one_for_teacher_and_student(folder: Path) -> None:
    square = pairs(folder, "grey")[0]["unlabelled"]
    weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    for image, depth in (("image", "depth"), ("changed_image", "changed_depth")):
        torch.testing.assert_close(square[depth][0], (square[image] * weights).sum(dim=0))
