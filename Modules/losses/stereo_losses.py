"""The loss of multi-view stereo: losses of each stage's map, or of its scores, weighted and added up.

As everywhere in this folder, values outside the mask change nothing, and an image without valid pixels adds 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

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


class StageScores(NamedTuple):
    """What a stage says of its evenly spaced hypotheses.

    Attributes:
        scores: (B, D, h, w), logarithms of probabilities up to a constant.
        low: the first hypothesis of each pixel (B, h, w) in metres.
        step: metres from one to the next (B, h, w).
    """

    scores: Tensor
    low: Tensor
    step: Tensor


class CrossEntropyLoss(nn.Module):
    """-log of the probability of the truth, which lies between two hypotheses and is shared out between them.

    Pixels count whose truth lies between the first hypothesis and the last, or less than half a step beside them.
    Unlike the error of the expected value it tells two likely hypotheses from one in their middle, and what a
    hypothesis gets does not depend on how far away it lies.
    """

    def forward(self, stage: StageScores, target: Tensor, valid: Tensor) -> Tensor:
        """A scalar; target (B, 1, h, w) in metres, valid bool alike."""
        truth, known = torch.where(valid, target, 0)[:, 0], valid[:, 0]
        last = stage.scores.shape[1] - 1
        place = (truth - stage.low) / stage.step.clamp(min=1e-6)
        counts = known & (place > -0.5) & (place < last + 0.5)
        place = place.clamp(0, last)
        below = place.long().clamp(max=last - 1)
        logarithms = stage.scores.float().log_softmax(dim=1)
        lower, upper = (logarithms.gather(1, (below + side)[:, None])[:, 0] for side in (0, 1))
        share = place - below
        entropy = torch.where(counts, -(1 - share) * lower - share * upper, 0)
        count = counts.sum(dim=(1, 2))
        return mean_over_images(entropy.sum(dim=(1, 2)) / count.clamp(min=1), count)


class StereoLoss(nn.Module):
    """The losses of the stages, added up.

    Args:
        names: losses of a stage, which are averaged.
        weights: factor of each stage, coarse to fine.

    Raises:
        ValueError: an unknown name.
    """

    def __init__(self, names: Sequence[str] = ("SmoothL1Loss",), weights: Sequence[float] = STAGE_WEIGHTS) -> None:
        super().__init__()
        of_maps = [name for name in names if name != _OF_SCORES]
        self._of_map = build_loss(of_maps, STEREO) if of_maps or not names else None
        self._of_scores = CrossEntropyLoss() if len(of_maps) < len(names) else None
        self._share = len(of_maps) / max(len(names), 1)
        self.weights = tuple(weights)

    def forward(
        self, stages: Sequence[Tensor], target: Tensor, valid: Tensor, scores: Sequence[StageScores] = ()
    ) -> Tensor:
        """The loss, a scalar.

        Args:
            stages: each stage's map (B, ceil(H/s), ceil(W/s)) in metres; its pixel i stands at the truth's pixel i * s.
            target: (B, 1, H, W) metres.
            valid: (B, 1, H, W) bool.
            scores: each stage's scores, for the cross entropy.
        """
        total = target.new_zeros((), dtype=torch.float32)
        for number, (values, weight) in enumerate(zip(stages, self.weights, strict=True)):
            stride = -(-target.shape[-1] // values.shape[-1])
            truth, known = (entry[..., ::stride, ::stride] for entry in (target, valid))
            if self._of_map is not None:
                total = total + weight * self._share * self._of_map(values[:, None], truth, known)
            if self._of_scores is not None:
                total = total + weight * (1 - self._share) * self._of_scores(scores[number], truth, known)
        return total


_OF_SCORES = "CrossEntropyLoss"
STEREO: dict[str, Callable[[], nn.Module]] = {
    "SmoothL1Loss": SmoothL1Loss,
    "L1Loss": L1Loss,
    _OF_SCORES: CrossEntropyLoss,
}
"""The losses of a stage by name."""
