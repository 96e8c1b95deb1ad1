"""Labelled tiles, each with a tile of another domain without labels beside it, for a mean teacher and its student."""

from __future__ import annotations

import torch
from torch import Tensor

from Utils.config.land_cover_keys import SelfTrainingSection
from Utils.core.seeds import named_generator
from Utils.data.dataset import SampleDataset
from Utils.data.land_cover.land_cover_dataset import LandCoverDataset
from Utils.data.sample import IGNORED_LABEL, Kind, Kinds, Sample, draw_below

__all__ = ["SelfTrainingDataset", "paste_classes"]


class SelfTrainingDataset(SampleDataset):
    """The samples of a labelled dataset, each with ``unlabelled``: a square of a tile without labels, drawn at random.

    ``unlabelled`` holds
    - ``image`` (3, H, W) and, with relative depth, ``depth`` (1, H, W): the square as it was read, for the teacher;
    - ``changed_image`` and ``changed_depth``: what the student sees of it, with other colours and another scale of the
      map, and with classes of the labelled square pasted onto it;
    - ``pasted`` (H, W): the true classes of what was pasted, ``IGNORED_LABEL`` elsewhere;
    - ``id``: the tile.

    Args:
        labelled: tiles with labels, cut to squares.
        unlabelled: tiles whose labels are not read, cut to squares of the same size.
        options: how the student's image changes, and whether classes are pasted.
    """

    def __init__(self, labelled: LandCoverDataset, unlabelled: LandCoverDataset, options: SelfTrainingSection) -> None:
        super().__init__(labelled.ids, seed=labelled.seed)
        assert labelled.augmentation is not None and labelled.augmentation.crop is not None, "the config cuts squares"
        self.labelled = labelled
        self.unlabelled = unlabelled
        self._options = options
        student = {"colours": options.colours, "grey": options.grey, "blur": options.blur}
        self._student = labelled.augmentation.model_copy(update=student)

    @property
    def read_kinds(self) -> Kinds:
        """The kinds of a sample's entries."""
        images = {"image": Kind.IMAGE, "changed_image": Kind.IMAGE, "pasted": Kind.LABEL, "id": Kind.TEXT}
        maps = {"depth": Kind.MAP, "changed_depth": Kind.MAP} if "depth" in self.labelled.kinds else {}
        return {**self.labelled.kinds, "unlabelled": images | maps}

    def read(self, sample_id: str) -> Sample:
        """The labelled tile from its files."""
        return self.labelled.read(sample_id)

    def place(self, sample_id: str) -> object:
        """The labelled tile's image."""
        return self.labelled.place(sample_id)

    def __getitem__(self, index: int) -> Sample:
        """One labelled sample, with a square without labels."""
        tile = self.ids[index]
        generator = self._generator(tile)
        moved = self.labelled.moved(tile, generator)
        sample = self.labelled.recoloured(moved, self.labelled.augmentation, generator)
        # Of its own draws, so that the labelled samples are those of a training without self-training.
        other = named_generator(self.seed, "unlabelled", self.epoch, tile)
        name = self.unlabelled.ids[draw_below(len(self.unlabelled) - 1, other)]
        seen = self.unlabelled.moved(name, other)
        mixed, pasted = dict(seen), torch.full_like(seen["label"], IGNORED_LABEL)
        if self._options.class_mix:
            mixed, pasted = paste_classes(moved, seen, other)
        changed = self.unlabelled.recoloured(mixed, self._student, other)
        # With None nothing changes but for the control that sees a grey copy of the image.
        teacher = self.unlabelled.recoloured(seen, None, other)
        square: Sample = {"image": teacher["image"], "changed_image": changed["image"], "pasted": pasted, "id": name}
        if "depth" in teacher:
            square |= {"depth": teacher["depth"], "changed_depth": changed["depth"]}
        return sample | {"unlabelled": square}

    @property
    def epoch(self) -> int:
        """The epoch for which squares are drawn."""
        return self.labelled.epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self.labelled.epoch = epoch


def paste_classes(above: Sample, below: Sample, generator: torch.Generator) -> tuple[Sample, Tensor]:
    """Paste half of the classes of a labelled square, rounded up, onto another square (ClassMix, arXiv 2007.07936).

    Args:
        above: with ``image``, ``label`` and, perhaps, ``depth``.
        below: the other square, with the same entries and of the same size.
        generator: draws the classes.

    Returns:
        The mixed square, and the labels (H, W) of what was pasted, ``IGNORED_LABEL`` elsewhere.
    """
    label = above["label"]
    classes = label[label != IGNORED_LABEL].unique()
    order = torch.randperm(len(classes), generator=generator)
    chosen = classes[order[: (len(classes) + 1) // 2]]
    pasted = torch.isin(label, chosen)
    mixed = dict(below)
    for name in ("image", "depth"):
        if name in below:
            mixed[name] = torch.where(pasted, above[name], below[name])
    return mixed, torch.where(pasted, label, torch.full_like(label, IGNORED_LABEL))
