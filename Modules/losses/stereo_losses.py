"""The loss of multi-view stereo: a loss on each stage's map, weighted and added up.

As everywhere in this folder, values outside the mask change nothing, and an image without valid pixels adds 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from Modules.losses.height_losses import L1Loss, build_loss, check_maps, mean_over_images

STAGE_WEIGHTS = (0.5, 1.0, 2.0)


class SmoothL1Loss(nn.Module):
    """e^2 / 2 below 1 m of absolute error, e - 1/2 above; per image over its valid pixels, then over the images."""

    def forward(self, prediction: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
        """A scalar; prediction, target (B, 1, H, W) in metres, valid bool alike or None."""
        prediction, target, valid = check_maps(prediction, target, valid)
        # The mask comes before any arithmetic: a NaN times a zero gradient would still be NaN.
        error = torch.where(valid, prediction - target, 0).abs()
        loss = torch.where(error < 1, 0.5 * error.square(), error - 0.5)
        count = valid.sum(dim=(1, 2, 3))
        return mean_over_images(loss.sum(dim=(1, 2, 3)) / count.clamp(min=1), count)


class StereoLoss(nn.Module):
    """The losses of the stages, added up.

    Args:
        names: losses of a stage's map, which are averaged.
        weights: factor of each stage, coarse to fine.
    """

    def __init__(self, names: Sequence[str] = ("SmoothL1Loss",), weights: Sequence[float] = STAGE_WEIGHTS) -> None:
        super().__init__()
        self._loss = build_loss(list(names), STEREO)
        self.weights = tuple(weights)

    def forward(self, stages: Sequence[Tensor], target: Tensor, valid: Tensor) -> Tensor:
        """The loss, a scalar.

        Args:
            stages: each stage's map (B, ceil(H/s), ceil(W/s)) in metres; its pixel i stands at the truth's pixel i * s.
            target: (B, 1, H, W) metres.
            valid: (B, 1, H, W) bool.
        """
        total = target.new_zeros((), dtype=torch.float32)
        for values, weight in zip(stages, self.weights, strict=True):
            stride = -(-target.shape[-1] // values.shape[-1])
            truth, known = (entry[..., ::stride, ::stride] for entry in (target, valid))
            total = total + weight * self._loss(values[:, None], truth, known)
        return total


STEREO: dict[str, Callable[[], nn.Module]] = {"SmoothL1Loss": SmoothL1Loss, "L1Loss": L1Loss}
"""The losses of a stage by name."""
