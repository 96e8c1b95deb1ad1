"""Random squares of a sample, at random scale, in which no class has nearly everything; the same of all its entries."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from Utils.data.sample import IGNORED_LABEL, Kind, Kinds, Sample, crop, draw_below, each_on_the_grid, grid_size, pad

__all__ = ["random_window", "rescaled", "turn"]

_TRIALS = 10


def random_window(
    sample: Sample,
    kinds: Kinds,
    side: int,
    scales: tuple[float, float],
    largest_share: float,
    generator: torch.Generator,
) -> Sample:
    """A random square of a sample, at a random scale.

    Args:
        sample: the sample.
        kinds: kinds of its entries; ``label`` among them.
        side: side of the result in pixels.
        scales: smallest and largest factor by which the sample is enlarged; drawn evenly in the logarithm.
        largest_share: the share of the labelled pixels that one class may have; up to ten windows are drawn, and the
            last one is taken whatever it shows.
        generator: draws scale and place.
    """
    low, high = (float(torch.tensor(scale).log()) for scale in scales)
    scale = float(torch.tensor(low + (high - low) * float(torch.rand((), generator=generator))).exp())
    window = max(1, round(side / scale))
    size = grid_size(sample, kinds)
    assert size is not None, "a sample without pixels has no window"
    sample = pad(sample, kinds, max(window, size[0]), max(window, size[1]))
    free = max(window, size[0]) - window, max(window, size[1]) - window
    place = 0, 0
    for _ in range(_TRIALS if any(free) else 1):
        place = draw_below(free[0], generator), draw_below(free[1], generator)
        label = sample["label"][place[0] : place[0] + window, place[1] : place[1] + window]
        if _share_of_the_largest(label) <= largest_share:
            break
    return rescaled(crop(sample, kinds, *place, window, window), kinds, (side, side))


def _share_of_the_largest(label: Tensor) -> float:
    counts = torch.bincount(label[label != IGNORED_LABEL].flatten())
    return float(counts.max() / counts.sum()) if counts.numel() and counts.sum() else 1.0


def rescaled(sample: Sample, kinds: Kinds, size: tuple[int, int]) -> Sample:
    """What lies on the pixel grid in another height and width: images and maps smoothly, masks and labels by pixel."""

    def resize(value: Tensor, kind: Kind) -> Tensor:
        if tuple(value.shape[-2:]) == size:
            return value
        flat = value.reshape(1, -1, *value.shape[-2:])
        if kind in (Kind.MASK, Kind.LABEL):
            found = functional.interpolate(flat.float(), size, mode="nearest-exact").to(value.dtype)
        else:
            found = functional.interpolate(flat, size, mode="bilinear", align_corners=False, antialias=True)
        return found.reshape(*value.shape[:-2], *size)

    return each_on_the_grid(sample, kinds, resize)


def turn(sample: Sample, kinds: Kinds, quarters: int) -> Sample:
    """What lies on the pixel grid turned by quarters of a circle, against the clock."""
    return each_on_the_grid(sample, kinds, lambda value, kind: value.rot90(quarters, (-2, -1)))
