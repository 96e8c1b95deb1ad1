"""Losses of class scores against labels, of which some pixels are ignored."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

IGNORED = 255
"""Label of pixels that count nowhere."""


class CrossEntropyLoss(nn.Module):
    """Cross entropy, averaged over each image's labelled pixels, then over images.

    Each image counts the same, whatever its number of labelled pixels, so that the loss of a batch is the mean over its
    images in any number of processes; one without a labelled pixel counts as 0.

    Args:
        weights: weight of each class in an image's mean; None for equal ones.

    Raises:
        ValueError: weights below 0, or all 0.
    """

    def __init__(self, weights: Sequence[float] | None = None) -> None:
        super().__init__()
        if weights is not None and (min(weights) < 0 or max(weights) == 0):
            raise ValueError(f"class weights {list(weights)}: give none below 0, and one above")
        values = None if weights is None else torch.tensor(weights, dtype=torch.float32)
        self.register_buffer("weights", values, persistent=False)

    def forward(self, scores: Tensor, label: Tensor) -> Tensor:
        """The loss, a scalar.

        Args:
            scores: (B, classes, H, W) before softmax.
            label: (B, H, W) class numbers, ``IGNORED`` where there is none.
        """
        weights = self.weights if isinstance(self.weights, Tensor) else None
        if weights is not None:
            weights = weights.to(scores.device)
        each = functional.cross_entropy(
            scores.float(), label.long(), weight=weights, ignore_index=IGNORED, reduction="none"
        )
        counted = label != IGNORED
        share = counted.float()
        if weights is not None:
            share = weights[label.long().where(counted, 0)] * counted
        sums = each.flatten(1).sum(dim=1), share.flatten(1).sum(dim=1)
        return (sums[0] / sums[1].clamp_min(torch.finfo(torch.float32).tiny)).mean()


def build_segmentation_loss(
    names: Sequence[str], weights: Sequence[float] | None = None
) -> Callable[[Tensor, Tensor], Tensor]:
    """The mean of the losses with some names.

    Args:
        names: of ``SEGMENTATION_LOSSES`` in ``Modules.segmentation.names``.
        weights: weight of each class; None for equal ones.

    Raises:
        ValueError: an unknown name.
    """
    unknown = [name for name in names if name != "CrossEntropyLoss"]
    if unknown or not names:
        raise ValueError(f"unknown loss '{unknown[0] if unknown else ''}'; known: CrossEntropyLoss")
    # There is one, so that its mean over any list of names is itself.
    return CrossEntropyLoss(weights)
