"""A mean teacher: pseudo-labels from the averaged weights of a network, and the loss of the network on them.

Mean teacher: arXiv 1703.01780. Only pixels of which the teacher is sure: FixMatch, arXiv 2001.07685. All pixels, by the
share of the image of which it is sure: DACS, arXiv 2007.08702.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

__all__ = ["pseudo_labels", "taught_loss", "teacher_probabilities"]

_NONE = 255


@torch.no_grad()
def teacher_probabilities(
    network: nn.Module, average: Mapping[str, Tensor], image: Tensor, depth: Tensor | None
) -> Tensor:
    """Class probabilities (B, classes, H, W) fp32 of a network with other weights, in evaluation mode.

    Args:
        network: the network; its own weights, statistics and modes are as before afterwards.
        average: the teacher's parameters and buffers by name.
        image: (B, 3, H, W), RGB in [0, 1].
        depth: (B, 1, H, W) in [0, 1]; None where the network sees none.
    """
    with _in_evaluation(network):
        scores: Tensor = functional_call(network, dict(average), (image, depth))
    return scores.float().softmax(dim=1)


def pseudo_labels(probabilities: Tensor, confidence: float, by_image: bool) -> tuple[Tensor, Tensor]:
    """The most probable class of each pixel, and how far it is trusted.

    Args:
        probabilities: (B, classes, H, W).
        confidence: the probability from which a pixel counts as sure.
        by_image: whether all pixels of an image are trusted by the share of them that are sure, not each by itself.

    Returns:
        Class numbers (B, H, W), and their weights in [0, 1], (B, H, W), or (B, 1, 1) by image.
    """
    most, label = probabilities.max(dim=1)
    sure = (most >= confidence).float()
    return label, sure.mean(dim=(1, 2), keepdim=True) if by_image else sure


def taught_loss(scores: Tensor, label: Tensor, trust: Tensor, pasted: Tensor) -> Tensor:
    """Cross entropy on pseudo-labels weighted by trust, and on pasted labels in full; the mean over all pixels.

    Args:
        scores: (B, classes, H, W) of the student, before softmax.
        label: (B, H, W) the teacher's classes.
        trust: (B, H, W) or (B, 1, 1) in [0, 1], the weight of the teacher's classes.
        pasted: (B, H, W) true classes of what was pasted, 255 elsewhere.
    """
    known = pasted != _NONE
    each = functional.cross_entropy(scores.float(), torch.where(known, pasted.long(), label), reduction="none")
    return (each * torch.where(known, 1.0, trust)).mean()


@contextmanager
def _in_evaluation(network: nn.Module) -> Iterator[None]:
    """The network in evaluation mode; afterwards each of its parts is in the mode that it was in."""
    modes = [(part, part.training) for part in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode
