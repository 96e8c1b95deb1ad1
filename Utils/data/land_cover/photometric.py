"""Random changes of an image's colours, and of a relative depth map's scale; neither moves a pixel."""

from __future__ import annotations

import torch
from torch import Tensor

from Utils.config.land_cover_keys import ColourChange

__all__ = ["change_colours", "change_depth"]

# Largest change of brightness, contrast, saturation (as factors 1 +- x) and hue (as a share of the colour circle).
_STRENGTH: dict[ColourChange, tuple[float, float, float, float]] = {
    "mild": (0.2, 0.2, 0.2, 0.02),
    "strong": (0.5, 0.5, 0.7, 0.1),
}
_BLUR_SIGMA = (0.3, 1.5)  # pixels
# Gain 1 +- x, offset +- x, and exponent from 1 / x to x.
_GAIN, _OFFSET, _GAMMA = 0.2, 0.1, 1.5


def change_colours(image: Tensor, change: ColourChange, grey: float, blur: float, generator: torch.Generator) -> Tensor:
    """An image (3, H, W) in [0, 1] with other colours, in [0, 1].

    Args:
        image: the image.
        change: how much brightness, contrast, saturation and hue change; none leaves them.
        grey: chance of a grey image.
        blur: chance of a blurred one.
        generator: draws them.
    """
    if change == "none" and not grey and not blur:
        return image
    # Imported late: it takes long, and most commands read no image.
    from torchvision.transforms.functional import (
        adjust_brightness,
        adjust_contrast,
        adjust_hue,
        adjust_saturation,
        gaussian_blur,
        rgb_to_grayscale,
    )

    if change != "none":
        *factors, hue = _STRENGTH[change]
        for adjust, most in zip((adjust_brightness, adjust_contrast, adjust_saturation), factors, strict=True):
            image = adjust(image, 1.0 + most * _between(-1.0, 1.0, generator))
        image = adjust_hue(image, hue * _between(-1.0, 1.0, generator))
    if _between(0.0, 1.0, generator) < grey:
        image = rgb_to_grayscale(image, num_output_channels=3)
    if _between(0.0, 1.0, generator) < blur:
        image = gaussian_blur(image, [5, 5], [_between(*_BLUR_SIGMA, generator)] * 2)
    return image


def change_depth(depth: Tensor, jitter: bool, drop: float, generator: torch.Generator) -> Tensor:
    """A relative depth map (1, H, W) in [0, 1] with another gain, offset and gamma, clipped to [0, 1]; or dropped.

    Args:
        depth: the map.
        jitter: whether gain, offset and gamma change.
        drop: chance that the map becomes 0 everywhere, as a map that knows nothing is.
        generator: draws them; the same numbers are drawn whatever happens.
    """
    gain, offset = 1.0 + _GAIN * _between(-1.0, 1.0, generator), _OFFSET * _between(-1.0, 1.0, generator)
    gamma = _GAMMA ** _between(-1.0, 1.0, generator)
    dropped = _between(0.0, 1.0, generator) < drop
    if dropped or not bool(depth.any()):
        return torch.zeros_like(depth)
    return (gain * depth**gamma + offset).clamp(0.0, 1.0) if jitter else depth


def _between(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))
