"""The base of every dataset: samples by id, kept in memory, and augmented by kind with draws from a generator each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import Dataset

from Utils.core.errors import UserError
from Utils.core.seeds import named_generator
from Utils.data.sample import AXES, Kinds, Sample, crop, draw_below, grid_size, mirror, tensors


@dataclass(frozen=True)
class TargetTransform:
    """How a task adds its target to a sample, after reading and before augmentation.

    Attributes:
        add: takes a sample and returns the entries to add.
        kinds: kinds of these entries.
    """

    add: Callable[[Sample], Sample]
    kinds: Kinds


class SampleDataset(Dataset[Sample], ABC):
    """Samples by id.

    Args:
        ids: the samples to serve, in order.
        flips: axes along which samples are mirrored at random, with an even chance for each sample and epoch.
        crop: side of a random square crop in pixels, 0 for whole samples.
        seed: crops and flips follow from it, the epoch and the id.
        cache_bytes: memory for samples before augmentation, in each process that reads.
        target: what the task adds to each sample.
        one_size: whether all samples must have one size; batches of one need not.

    Attributes:
        epoch: the epoch for which crops and flips are drawn; setting it reaches workers that already run.
    """

    def __init__(
        self,
        ids: Sequence[str],
        flips: Sequence[str] = (),
        crop: int = 0,
        seed: int = 0,
        cache_bytes: float = 0.0,
        target: TargetTransform | None = None,
        one_size: bool = True,
    ) -> None:
        self.ids = list(ids)
        self.flips = sorted(flips)
        self.crop = crop
        self.seed = seed
        self.cache_bytes = cache_bytes
        self.target = target
        self._one_size = one_size
        # Workers live longer than an epoch, so they read its number in memory that they share with the loop.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self._cache_left = cache_bytes
        self._cache: dict[str, Sample] = {}
        self._size: tuple[int, int] | None = None

    @property
    @abstractmethod
    def read_kinds(self) -> Kinds:
        """The kinds of the entries that ``read`` returns."""

    @abstractmethod
    def read(self, sample_id: str) -> Sample:
        """One sample from its files, in the files' own units, ``id`` included.

        Raises:
            UserError: a file that cannot be read.
        """

    @property
    def kinds(self) -> Kinds:
        """The kinds of a sample's entries."""
        return {**self.read_kinds, **(self.target.kinds if self.target else {})}

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        """One sample, augmented."""
        sample_id = self.ids[index]
        return self._augment(dict(self._prepared(sample_id)), sample_id)

    @property
    def epoch(self) -> int:
        """The epoch for which crops and flips are drawn."""
        return int(self._epoch)

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self._epoch.fill_(epoch)

    def mirrored(self, sample_id: str) -> list[str]:
        """The axes along which a sample is mirrored in this epoch; only where samples are not cropped."""
        assert not self.crop, "the crop is drawn before the flips"
        return self._draw_flips(self._generator(sample_id))

    def _prepared(self, sample_id: str) -> Sample:
        if sample_id in self._cache:
            return self._cache[sample_id]
        sample = self.read(sample_id)
        if self.target is not None:
            sample |= self.target.add(sample)
        self._check_size(sample_id, sample)
        size = sum(value.nbytes for value in tensors(sample))
        if size <= self._cache_left:
            self._cache_left -= size
            self._cache[sample_id] = sample
        return sample

    def _check_size(self, sample_id: str, sample: Sample) -> None:
        """Refuse a sample that was replaced during the run by one of another size, which fits no batch.

        Crops have one size whatever they are cut from; their samples may differ.
        """
        size = grid_size(sample, self.kinds)
        if self.crop:
            if size is not None and min(size) < self.crop:
                raise UserError(
                    f"'{self.place(sample_id)}' is {size[1]} x {size[0]} pixels, smaller than a crop of {self.crop}: "
                    "it has changed; restore it"
                )
            return
        if not self._one_size:
            return
        self._size = self._size or size
        if size is not None and self._size is not None and size != self._size:
            raise UserError(
                f"'{self.place(sample_id)}' is {size[1]} x {size[0]} pixels, unlike other tiles of the "
                f"dataset ({self._size[1]} x {self._size[0]}): it has changed; restore it"
            )

    def place(self, sample_id: str) -> object:
        """The name of a sample in errors: its first file, where it has one."""
        return sample_id

    def _generator(self, sample_id: str) -> torch.Generator:
        # Drawn from the epoch and the id, so that neither workers nor resuming change what is drawn.
        return named_generator(self.seed, "augmentation", self.epoch, sample_id)

    def _draw_flips(self, generator: torch.Generator) -> list[str]:
        return [axis for axis in AXES if axis in self.flips and draw_below(1, generator)]

    def _augment(self, sample: Sample, sample_id: str) -> Sample:
        generator = self._generator(sample_id)
        if side := self.crop:
            size = grid_size(sample, self.kinds)
            assert size is not None, "a sample without pixels cannot be cropped"
            top = draw_below(size[0] - side, generator)
            left = draw_below(size[1] - side, generator)
            sample = crop(sample, self.kinds, top, left, side, side)
        return mirror(sample, self.kinds, self._draw_flips(generator))
