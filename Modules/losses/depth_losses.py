"""Losses of depth networks: structure, edges and L1 together as published, SILog, and gradients; called as all others.

See ``height_losses`` for the call and for what a mask does. Each image counts the same, whatever its number of valid
pixels, so that the loss of a batch is the mean over its tiles in any number of processes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from Modules.losses.height_losses import LOSSES, build_loss, check_maps, gradient_l1, mean_over_images
from Modules.losses.structural_similarity import structural_similarity

# Weights of the three parts of the published loss.
_SSIM, _EDGE, _L1 = 1.0, 1.0, 0.3
_LEAST_DEPTH = 1e-6
# Under the root of SILog, whose slope at 0 has no bound.
_ROOT_EPSILON = 1e-6
_SCALES = 4


class SSIMEdgeL1Loss(nn.Module):
    """The loss of Enc-Dec-IRv2 (arXiv 2410.11610): SSIM + edges + 0.3 L1, over maps divided by their range.

    - SSIM: (1 - SSIM) / 2 of each image, clipped to [0, 1].
    - Edges: |difference downwards| + |difference to the right| of the error, 0 in the last row or column, as a mean
      over the pixels. A difference counts where both of its pixels are valid.
    - L1: mean absolute error.

    Args:
        data_range: largest value of the maps: 1 for relative depth, ``max_depth`` for metres.
    """

    def __init__(self, data_range: float = 1.0) -> None:
        super().__init__()
        if not 0 < data_range < float("inf"):
            raise ValueError(f"SSIMEdgeL1Loss: data_range must be positive and finite, got {data_range}")
        self.data_range = data_range

    def parts(self, prediction: Tensor, target: Tensor, valid: Tensor | None = None) -> dict[str, Tensor]:
        """The three parts, before they are weighted; prediction, target (B, 1, H, W), valid bool alike or None."""
        prediction, target, valid = check_maps(prediction, target, valid)
        # The mask comes before any arithmetic: a NaN times a zero gradient would still be NaN.
        prediction, target = (torch.where(valid, values / self.data_range, 0) for values in (prediction, target))
        count = valid.sum(dim=(1, 2, 3))
        error = prediction - target
        down = error.diff(dim=-2).abs() * (valid[..., 1:, :] & valid[..., :-1, :])
        right = error.diff(dim=-1).abs() * (valid[..., 1:] & valid[..., :-1])
        edges = down.sum(dim=(1, 2, 3)) + right.sum(dim=(1, 2, 3))
        similarity = structural_similarity(prediction, target, valid)
        pixels = count.clamp(min=1)
        return {
            "ssim": mean_over_images(((1 - similarity) / 2).clamp(0, 1), count),
            "edge": mean_over_images(edges / pixels, count),
            "l1": mean_over_images(error.abs().sum(dim=(1, 2, 3)) / pixels, count),
        }

    def forward(self, prediction: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
        """A scalar; prediction, target (B, 1, H, W), valid bool alike or None."""
        parts = self.parts(prediction, target, valid)
        return _SSIM * parts["ssim"] + _EDGE * parts["edge"] + _L1 * parts["l1"]


class SILogLoss(nn.Module):
    """Scale-invariant logarithmic error (Eigen et al., NeurIPS 2014): sqrt(mean(d^2) - forgiveness mean(d)^2).

    d = log(prediction) - log(target), over valid pixels with a target above 0, image by image; predictions below 1e-6
    count as 1e-6. It needs maps in a unit, such as metres, or at least of one sign.

    Args:
        forgiveness: share of the squared mean that is taken away: 1 would forgive any scale, 0 none. 0.85 is usual,
            GLPN has 0.5.
    """

    def __init__(self, forgiveness: float = 0.85) -> None:
        super().__init__()
        if not 0 <= forgiveness <= 1:
            raise ValueError(f"SILogLoss: forgiveness must lie in [0, 1], got {forgiveness}")
        self.forgiveness = forgiveness

    def forward(self, prediction: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
        """A scalar; prediction, target (B, 1, H, W), valid bool alike or None."""
        prediction, target, valid = check_maps(prediction, target, valid)
        valid = valid & (target > 0)
        # Where nothing is known, both logarithms are 0.
        guess = torch.where(valid, prediction, 1).clamp(min=_LEAST_DEPTH)
        difference = guess.log() - torch.where(valid, target, 1).clamp(min=_LEAST_DEPTH).log()
        count = valid.sum(dim=(1, 2, 3))
        mean = difference.sum(dim=(1, 2, 3)) / count.clamp(min=1)
        square = difference.square().sum(dim=(1, 2, 3)) / count.clamp(min=1)
        # Rounding can take it below 0.
        rest = (square - self.forgiveness * mean.square()).clamp(min=0)
        return mean_over_images((rest + _ROOT_EPSILON).sqrt() - _ROOT_EPSILON**0.5, count)


class OffsetFreeL1Loss(nn.Module):
    """Mean absolute error about the mean error of each image: maps that differ by a constant are equal.

    For maps in a unit whose zero no image shows, such as metres below the highest place.
    """

    def forward(self, prediction: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
        """A scalar; prediction, target (B, 1, H, W), valid bool alike or None."""
        prediction, target, valid = check_maps(prediction, target, valid)
        error = torch.where(valid, prediction - target, 0)
        count = valid.sum(dim=(1, 2, 3))
        pixels = count.clamp(min=1)
        mean = error.sum(dim=(1, 2, 3)) / pixels
        about = (error - mean[:, None, None, None]).abs() * valid
        return mean_over_images(about.sum(dim=(1, 2, 3)) / pixels, count)


class GradientLoss(nn.Module):
    """Gradient matching at four scales: ``gradient_l1`` of every pixel, every 2nd, 4th and 8th, averaged.

    Li and Snavely, "MegaDepth", CVPR 2018, without the logarithm. It says nothing about the level of a map, so it is
    meant to stand beside another loss.
    """

    def forward(self, prediction: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
        """A scalar; prediction, target (B, 1, H, W), valid bool alike or None."""
        prediction, target, valid = check_maps(prediction, target, valid)
        steps = [2**power for power in range(_SCALES) if 2**power < max(prediction.shape[-2:])] or [1]
        found = [gradient_l1(*(maps[..., ::step, ::step] for maps in (prediction, target, valid))) for step in steps]
        return torch.stack(found).mean()


def depth_losses(data_range: float = 1.0, forgiveness: float = 0.85) -> dict[str, Callable[[], nn.Module]]:
    """The losses of depth networks by name.

    Args:
        data_range: the largest value of the maps.
        forgiveness: of ``SILogLoss``.
    """
    own: dict[str, Callable[[], nn.Module]] = {
        "SSIMEdgeL1Loss": lambda: SSIMEdgeL1Loss(data_range),
        "SILogLoss": lambda: SILogLoss(forgiveness),
        "OffsetFreeL1Loss": OffsetFreeL1Loss,
        "GradientLoss": GradientLoss,
    }
    return own | LOSSES


def build_depth_loss(
    names: Sequence[str],
    data_range: float = 1.0,
    weights: Sequence[float] | None = None,
    forgiveness: float = 0.85,
) -> nn.Module:
    """Build the loss that a list of names asks for; several names are averaged.

    Args:
        names: names of losses.
        data_range: the largest value of the maps.
        weights: a factor for each loss before they are averaged; None for 1.
        forgiveness: of ``SILogLoss``.

    Raises:
        ValueError: an unknown name.
    """
    return build_loss(names, depth_losses(data_range, forgiveness), weights)
