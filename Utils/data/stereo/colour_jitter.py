"""Random changes of colour, contrast, brightness and sharpness, drawn for each view by itself."""

from __future__ import annotations

import torch
from torch import Tensor

from Utils.config.stereo_keys import Jitter

__all__ = ["jitter_colours"]

# Smallest and largest factor of colour, brightness, contrast and sharpness; 1 leaves an image as it is.
_FACTORS: dict[Jitter, tuple[tuple[float, float], ...]] = {
    "mild": ((0.6, 1.4), (0.7, 1.3), (0.7, 1.3), (0.5, 1.5)),
    "published": ((0.01, 3.0), (0.1, 2.0), (0.1, 2.0), (0.0, 3.0)),
}


def jitter_colours(image: Tensor, jitter: Jitter, generator: torch.Generator) -> Tensor:
    """An image (3, H, W) in [0, 1] with changed colours, in [0, 1].

    Args:
        image: the image.
        jitter: how much; none gives the image itself.
        generator: draws the factors.
    """
    if jitter == "none":
        return image
    # Imported late: it takes long, and most commands read no image.
    from torchvision.transforms.functional import (
        adjust_brightness,
        adjust_contrast,
        adjust_saturation,
        adjust_sharpness,
    )

    changes = (adjust_saturation, adjust_brightness, adjust_contrast, adjust_sharpness)
    for change, (low, high) in zip(changes, _FACTORS[jitter], strict=True):
        factor = low + (high - low) * float(torch.rand((), generator=generator))
        image = change(image, factor)
    return image
