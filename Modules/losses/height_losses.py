"""Losses on height maps: hierarchical depth normalisation, its one-context form, L1 and averages of them.

``drawing_l1`` is for autoencoders, which draw images as well.  Every other loss is called as
``loss(prediction, target, valid=None)`` with maps of shape (B, 1, H, W), any range, and an
optional bool mask that is True where the target is known. Values at masked pixels, NaN and inf included, change neither
the loss nor its gradient, and an image without valid pixels adds 0. The target is a constant: it gets no gradient.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from Modules.losses.contexts import FAMILIES, Hierarchy, WholeImage
from Modules.losses.normalised_error import normalised_error

_EDGE_WEIGHT = 0.5  # weight of gradient_l1 in drawing_l1


def check_maps(prediction: Tensor, target: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Check a loss's arguments and return prediction, target (B, 1, H, W) in fp32 or fp64, and valid alike, bool."""
    if prediction.ndim != 4 or prediction.shape[1] != 1 or target.shape != prediction.shape:
        raise ValueError(
            f"prediction and target must share one shape (B, 1, H, W); "
            f"got {tuple(prediction.shape)} and {tuple(target.shape)}"
        )
    if valid is None:
        valid = torch.ones_like(target, dtype=torch.bool)
    elif valid.shape != target.shape or valid.dtype != torch.bool:
        raise ValueError(
            f"valid must be a bool mask of shape {tuple(target.shape)}; got {valid.dtype} {tuple(valid.shape)}"
        )
    # Sums over a tile overflow or stall in half precision, so mixed-precision maps are compared in fp32.
    dtype = torch.promote_types(torch.promote_types(prediction.dtype, target.dtype), torch.float32)
    return prediction.to(dtype), target.detach().to(dtype), valid


def _flatten(prediction: Tensor, target: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Check a loss's arguments and return prediction, target (B, N) in fp32 or fp64, and valid (B, N) bool."""
    checked = check_maps(prediction, target, valid)
    return checked[0].flatten(1), checked[1].flatten(1), checked[2].flatten(1)


def mean_over_images(per_image: Tensor, count: Tensor) -> Tensor:
    """Average (B,) losses over the images with any valid pixel; 0 if there is none.

    Args:
        per_image: the loss of each image, 0 for one without valid pixels.
        count: valid pixels of each image.
    """
    return per_image.sum() / (count > 0).sum().clamp(min=1)


class HDNLoss(nn.Module):
    """Hierarchical depth normalisation (Zhang et al., NeurIPS 2022): normalised L1 within contexts of several sizes.

    Per pixel the mean of |prediction^ - target^| over the contexts that hold it, summed over the pixels and divided by
    B*H*W, pixels in no context included; then averaged over the families:

    - ``dr``: bins of equal width over the target's range, [low, high);
    - ``dp``: bins of equal count between the target's quantiles, [low, high);
    - ``ds``: cells of square grids.
    """

    def __init__(self, level: int = 3, families: Sequence[str] = FAMILIES) -> None:
        """Set up 2^(level-1), ..., 2, 1 bins (cells a side) for each of ``families``."""
        super().__init__()
        if level < 1:
            raise ValueError(f"HDNLoss: level must be at least 1, got {level}")
        unknown = [family for family in families if family not in FAMILIES]
        if unknown or not families or len(set(families)) != len(families):
            raise ValueError(f"HDNLoss: families must be a choice from {list(FAMILIES)}, each once; got {families!r}")
        self.families = tuple(families)
        self.divisions = [2**power for power in reversed(range(level))]

    def per_family(self, prediction: Tensor, target: Tensor, valid: Tensor | None = None) -> dict[str, Tensor]:
        """The scalar loss of each family; prediction, target (B, 1, H, W), valid bool alike or None."""
        return {family: self._mean((family,), prediction, target, valid) for family in self.families}

    def forward(self, prediction: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
        """The mean over the families, a scalar; prediction, target (B, 1, H, W), valid bool alike or None."""
        return self._mean(self.families, prediction, target, valid)

    def _mean(self, families: Sequence[str], prediction: Tensor, target: Tensor, valid: Tensor | None) -> Tensor:
        values, truth, known = _flatten(prediction, target, valid)
        contexts = Hierarchy(families, self.divisions, *prediction.shape[-2:])
        return normalised_error(values, truth, known, contexts).sum() / (values.numel() * len(families))


class SSIMAELoss(nn.Module):
    """Scale- and shift-invariant mean absolute error: both maps normalised over all valid pixels, then L1.

    Per image the mean over its valid pixels, then the mean over the images that have any.
    """

    def forward(self, prediction: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
        """A scalar; prediction, target (B, 1, H, W), valid bool alike or None."""
        prediction, target, valid = _flatten(prediction, target, valid)
        count = valid.sum(dim=1)
        error = normalised_error(prediction, target, valid, WholeImage())
        return mean_over_images(error / count.clamp(min=1), count)


class L1Loss(nn.Module):
    """Mean absolute error: per image over its valid pixels, then over the images that have any."""

    def forward(self, prediction: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
        """A scalar; prediction, target (B, 1, H, W), valid bool alike or None."""
        prediction, target, valid = _flatten(prediction, target, valid)
        # The mask comes before the absolute value: a NaN times a zero gradient would still be NaN.
        error = torch.where(valid, prediction - target, 0).abs()
        count = valid.sum(dim=1)
        return mean_over_images(error.sum(dim=1) / count.clamp(min=1), count)


class CombinedLoss(nn.Module):
    """The mean of several losses, each multiplied by its weight.

    Args:
        losses: at least one, each called as ``loss(prediction, target, valid)``.
        weights: a factor for each; None for 1.
    """

    def __init__(self, losses: Sequence[nn.Module], weights: Sequence[float] | None = None) -> None:
        super().__init__()
        if not losses:
            raise ValueError("CombinedLoss: give at least one loss")
        if weights is not None and len(weights) != len(losses):
            raise ValueError(f"CombinedLoss: {len(weights)} weights for {len(losses)} losses")
        self.losses = nn.ModuleList(losses)
        self.weights = tuple(weights or [1.0] * len(losses))

    def forward(self, prediction: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
        """A scalar; prediction, target (B, 1, H, W), valid bool alike or None."""
        parts = zip(self.losses, self.weights, strict=True)
        return torch.stack([weight * loss(prediction, target, valid) for loss, weight in parts]).mean()


LOSSES: dict[str, Callable[[], nn.Module]] = {"HDNLoss": HDNLoss, "L1Loss": L1Loss, "SSIMAELoss": SSIMAELoss}


def build_loss(
    names: Sequence[str],
    known: Mapping[str, Callable[[], nn.Module]] = LOSSES,
    weights: Sequence[float] | None = None,
) -> nn.Module:
    """Build the loss that a list of names asks for; several names are averaged.

    Args:
        names: names of losses.
        known: builds each loss that there is, by name.
        weights: a factor for each loss before they are averaged; None for 1.

    Raises:
        ValueError: an unknown name.
    """
    if isinstance(names, str) or not names:
        raise ValueError(f"loss names must be a non-empty list chosen from {list(known)}, got {names!r}")
    for name in names:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0)[0]
            raise ValueError(f"unknown loss {name!r}; allowed: {list(known)}; did you mean {nearest!r}?")
    losses = [known[name]() for name in names]
    return losses[0] if len(losses) == 1 and weights is None else CombinedLoss(losses, weights)


def drawing_l1(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """How far drawn pixels are from the truth in value and in edges: mean absolute error and half ``gradient_l1``.

    Args:
        prediction: (B, C, H, W).
        target: the same shape.
        valid: (B, 1, H, W) bool; values at other pixels do not matter, and an image without valid pixels adds 0.
    """
    error = torch.where(valid, prediction - target, 0.0)
    return _mean_where(error.abs(), valid) + _EDGE_WEIGHT * gradient_l1(prediction, target, valid)


def gradient_l1(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Mean absolute difference of the forward differences, along rows plus along columns; called as ``drawing_l1``.

    The mean absolute error alone is nearly as small for an edge that is smeared over some pixels as for a sharp one in
    the same place. This term tells them apart, which matters because slopes are computed from ridges and valleys. It is
    the gradient matching of Li and Snavely ("MegaDepth", CVPR 2018) at the finest scale, without the logarithm.  A
    difference counts where both of its pixels are valid: the border of a void is no edge of the ground.
    """
    error = torch.where(valid, prediction - target, 0.0)
    along_rows = _mean_where(error.diff(dim=-1).abs(), valid[..., 1:] & valid[..., :-1])
    along_columns = _mean_where(error.diff(dim=-2).abs(), valid[..., 1:, :] & valid[..., :-1, :])
    return along_rows + along_columns


def _mean_where(values: Tensor, valid: Tensor) -> Tensor:
    """The mean over images of their means over valid pixels; an image without valid pixels counts 0."""
    count = valid.sum(dim=(1, 2, 3)) * values.shape[1]
    return ((values * valid).sum(dim=(1, 2, 3)) / count.clamp(min=1)).mean()
