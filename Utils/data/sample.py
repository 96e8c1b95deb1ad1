"""The sample contract: a dict whose entries have declared kinds, so that crops, flips and padding go by kind.

A dataset declares the kind of every entry once, in a mapping of the sample's own shape.  An entry may be nested (a dict
of entries), and an entry with several views has them in front: (V, C, H, W).  A batch is the same dict with one more
dimension in front of every tensor, and lists of texts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Sample = dict[str, Any]
Batch = dict[str, Any]


class Kind(StrEnum):
    """What an entry is.  The first four lie on the pixel grid, in their last two dimensions (..., H, W)."""

    IMAGE = "image"
    """Colours, (..., C, H, W) in [0, 1]."""
    MAP = "map"
    """Numbers such as heights, (..., 1, H, W) in any unit."""
    MASK = "mask"
    """Which pixels count, (..., 1, H, W) bool."""
    LABEL = "label"
    """Class numbers, (..., H, W) integers; ``IGNORED_LABEL`` where there is none."""
    VECTOR = "vector"
    """Numbers that do not lie on the pixel grid, such as a camera matrix; no augmentation changes them."""
    TEXT = "text"
    """A string, such as the tile's id."""


Kinds = Mapping[str, Any]
"""The kind of each entry; a nested entry has a nested mapping."""

IGNORED_LABEL = 255
ON_THE_GRID = (Kind.IMAGE, Kind.MAP, Kind.MASK, Kind.LABEL)

# The axes along which samples can be mirrored, with their dimensions, in the order of the random draws.
AXES = {"horizontal": -1, "vertical": -2}


def each_on_the_grid(sample: Sample, kinds: Kinds, change: Callable[[Tensor, Kind], Tensor]) -> Sample:
    """A sample (or batch) in which every entry that lies on the pixel grid went through ``change``.

    Raises:
        ValueError: an entry whose kind was not declared.
    """
    changed: Sample = {}
    for name, value in sample.items():
        kind = _kind(kinds, name)
        if isinstance(kind, Mapping):
            changed[name] = each_on_the_grid(value, kind, change)
        else:
            changed[name] = change(value, kind) if kind in ON_THE_GRID else value
    return changed


def _kind(kinds: Kinds, name: str) -> Kind | Kinds:
    if name not in kinds:
        raise ValueError(f"the sample's entry '{name}' has no declared kind; declare one of {', '.join(Kind)}")
    kind: Kind | Kinds = kinds[name]
    return kind


def mirror(sample: Sample, kinds: Kinds, axes: Sequence[str]) -> Sample:
    """Mirror what lies on the pixel grid along some of ``AXES``."""
    dimensions = [AXES[axis] for axis in axes]
    return each_on_the_grid(sample, kinds, lambda value, kind: value.flip(dimensions)) if axes else sample


def crop(sample: Sample, kinds: Kinds, top: int, left: int, height: int, width: int) -> Sample:
    """Cut a rectangle out of what lies on the pixel grid."""
    return each_on_the_grid(sample, kinds, lambda value, kind: value[..., top : top + height, left : left + width])


def pad(sample: Sample, kinds: Kinds, height: int, width: int) -> Sample:
    """Pad to ``height`` x ``width`` pixels at the right and the bottom.

    Images and maps repeat their border; what is added is masked out, and its labels are ``IGNORED_LABEL``.
    """

    def widen(value: Tensor, kind: Kind) -> Tensor:
        around = (0, width - value.shape[-1], 0, height - value.shape[-2])
        if kind == Kind.MASK:
            return functional.pad(value, around, value=False)
        if kind == Kind.LABEL:
            return functional.pad(value, around, value=IGNORED_LABEL)
        flat = value.reshape(1, -1, *value.shape[-2:])  # torch repeats borders of 4 dimensions only
        return functional.pad(flat, around, mode="replicate").reshape(*value.shape[:-2], height, width)

    return each_on_the_grid(sample, kinds, widen)


def tensors(sample: Sample) -> Iterator[Tensor]:
    """All tensors of a sample or batch, nested ones too."""
    for value in sample.values():
        if isinstance(value, Mapping):
            yield from tensors(dict(value))
        elif isinstance(value, Tensor):
            yield value


def grid_size(sample: Sample, kinds: Kinds) -> tuple[int, int] | None:
    """Height and width of the first entry that lies on the pixel grid; None where none does."""
    found: list[tuple[int, int]] = []

    def look(value: Tensor, kind: Kind) -> Tensor:
        found.append((value.shape[-2], value.shape[-1]))
        return value

    each_on_the_grid(sample, kinds, look)
    return found[0] if found else None


def take(batch: Mapping[str, Any], place: int) -> Batch:
    """One sample of a batch, as a batch of one."""
    return {
        name: take(value, place) if isinstance(value, Mapping) else value[place : place + 1]
        for name, value in batch.items()
    }


def item(batch: Mapping[str, Any], place: int) -> Sample:
    """One sample of a batch, without the batch dimension."""
    return {name: item(value, place) if isinstance(value, Mapping) else value[place] for name, value in batch.items()}


def batch_size(batch: Mapping[str, Any]) -> int:
    """Number of samples in a batch."""
    first = next(iter(batch.values()))
    return batch_size(first) if isinstance(first, Mapping) else len(first)


def draw_below(highest: int, generator: torch.Generator) -> int:
    """A whole number from 0 to ``highest``; 0 where that is negative."""
    return int(torch.randint(0, max(highest, 0) + 1, (), generator=generator))
