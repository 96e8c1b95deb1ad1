"""The loss of detail that is added to a known surface: squared errors of heights and of slopes, bounded."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Errors beyond so many standard errors count as constant: cliffs, blunders and borders of voids teach nothing.
_HIGHEST = 6.0
_WEIGHT_OF_SLOPES = 2.0


class DetailLoss(nn.Module):
    """Mean squared error in units of the surface's standard error, plus twice that of differences to neighbours.

    Heights alone would let a network blur what it is unsure of; slopes count for those who use the result.
    """

    def forward(self, prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """A scalar; prediction and target (B, 1, H, W) in standard errors, valid alike and bool."""
        error = torch.where(valid, prediction - target, 0.0).clamp(-_HIGHEST, _HIGHEST)
        loss = _mean(error**2, valid)
        for axis in (-1, -2):
            size = valid.shape[axis] - 1
            both = valid.narrow(axis, 1, size) & valid.narrow(axis, 0, size)
            loss = loss + _WEIGHT_OF_SLOPES * _mean(error.diff(dim=axis) ** 2, both)
        return loss


def _mean(values: Tensor, valid: Tensor) -> Tensor:
    """The mean over images of their means over valid pixels; an image without valid pixels counts 0."""
    count = valid.sum(dim=(1, 2, 3))
    return ((values * valid).sum(dim=(1, 2, 3)) / count.clamp(min=1)).mean()
