"""Padding of images and maps to sizes that a network takes."""

from __future__ import annotations

import torch
from torch import Tensor


def pad_to_multiple(image: Tensor, multiple: int, margin: int = 0) -> Tensor:
    """Pad (B, C, H, W) by repeating its border: ``margin`` pixels all round, then on to multiples of ``multiple``.

    The remainder goes to the right and bottom, so the original is ``[..., margin : margin + H, margin : margin + W]``.
    """
    height, width = image.shape[-2:]
    right, bottom = -(width + 2 * margin) % multiple, -(height + 2 * margin) % multiple
    if right == bottom == margin == 0:
        return image
    around = (margin, margin + right, margin, margin + bottom)
    return torch.nn.functional.pad(image, around, mode="replicate")
