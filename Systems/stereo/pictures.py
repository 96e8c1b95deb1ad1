"""What pictures show of a stereo sample: the reference, by the names that the house's panels know."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from Utils.data.dataset import TargetTransform
from Utils.data.sample import Batch, Kind, Sample

# Of a standardised image, the deviations from its mean that are black and white.
_SHOWN = 2.5


def picture_entries(batch: Batch) -> Batch:
    """``image`` (B, 3, H, W) in [0, 1] and ``valid`` (B, 1, H, W) of a batch of standardised images."""
    return {"image": (batch["images"][:, 0] / (2 * _SHOWN) + 0.5).clamp(0, 1), "valid": batch["mask"]}


def with_pictures() -> TargetTransform:
    """The transform that adds the reference as ``image`` (3, H, W), and ``mask`` as ``valid``, to samples as read."""

    def add(sample: Sample) -> Sample:
        return {"image": _padded(sample["images"][0], sample["mask"].shape[-2:]), "valid": sample["mask"]}

    return TargetTransform(add, {"image": Kind.IMAGE, "valid": Kind.MASK})


def _padded(image: Tensor, size: torch.Size) -> Tensor:
    height, width = image.shape[-2:]
    return functional.pad(image, (0, size[1] - width, 0, size[0] - height))
