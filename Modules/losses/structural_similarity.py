"""Structural similarity as a loss needs it: differentiable, with a mask, in whole windows."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

SIDE = 11
"""Side of the Gaussian window in pixels: 3.5 standard deviations to either side, as scikit-image cuts it."""
_SIGMA = 1.5
_C1, _C2 = 0.01**2, 0.03**2


def structural_similarity(first: Tensor, second: Tensor, valid: Tensor) -> Tensor:
    """SSIM (Wang et al., 2004) of maps whose values span 0 to 1, with a Gaussian window of 11 x 11, sigma 1.5.

    Only windows that lie in the image count. In a window with masked pixels the weights of the others are scaled up to
    sum to 1, and it counts by the share of the weights that was valid; so voids neither look like edges nor silence
    the measure where depth is sparse. Without masked pixels this is scikit-image's SSIM (``gaussian_weights``, no
    sample covariance) without its border of 5 pixels.

    Args:
        first: (B, 1, H, W) fp32 or fp64, H and W at least 11, 0 where masked.
        second: the same.
        valid: (B, 1, H, W) bool.

    Returns:
        (B,) means over the windows; 1 for an image without valid pixels.

    Raises:
        ValueError: maps smaller than the window.
    """
    if min(first.shape[-2:]) < SIDE:
        size = " x ".join(str(side) for side in first.shape[-2:])
        raise ValueError(f"the window of SSIM is {SIDE} pixels wide, and the maps are {size}; take larger tiles")
    # Half precision would lose the variances, which are differences of nearly equal numbers.
    with torch.autocast(first.device.type, enabled=False):
        share, *sums = _blur(
            torch.cat([valid.to(first.dtype), first, second, first * first, second * second, first * second])
        ).chunk(6)
        least = torch.finfo(share.dtype).tiny  # nothing is divided by 0
        x, y, xx, yy, xy = (value / share.clamp(min=least) for value in sums)
        top = (2 * x * y + _C1) * (2 * (xy - x * y) + _C2)
        bottom = (x * x + y * y + _C1) * ((xx - x * x) + (yy - y * y) + _C2)
        weight = share.sum(dim=(1, 2, 3))
        mean = (top / bottom * share).sum(dim=(1, 2, 3)) / weight.clamp(min=least)
        return torch.where(weight > 0, mean, torch.ones_like(mean))


def _blur(maps: Tensor) -> Tensor:
    """Means of (B, 1, H, W) under the window, (B, 1, H - 10, W - 10)."""
    weights = [math.exp(-0.5 * ((place - SIDE // 2) / _SIGMA) ** 2) for place in range(SIDE)]
    window = maps.new_tensor([weight / sum(weights) for weight in weights])
    return functional.conv2d(functional.conv2d(maps, window.view(1, 1, SIDE, 1)), window.view(1, 1, 1, SIDE))
