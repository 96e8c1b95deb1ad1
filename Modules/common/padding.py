"""Padding of images and maps to sizes that a network takes."""

from __future__ import annotations

import torch
from torch import Tensor


def pad_to_multiple(image: Tensor, multiple: int, margin: int = 0, least: int = 0) -> Tensor:
    """Pad (B, C, H, W) by repeating its border: ``margin`` pixels all round, then on to multiples of ``multiple``.

    The remainder goes to the right and bottom, so the original is ``[..., margin : margin + H, margin : margin + W]``.
    The result has ``least`` pixels or more along both axes, which is itself a multiple of ``multiple``.
    """
    height, width = (size + 2 * margin for size in image.shape[-2:])
    right, bottom = (_missing(size, multiple, least) for size in (width, height))
    if right == bottom == margin == 0:
        return image
    around = (margin, margin + right, margin, margin + bottom)
    return torch.nn.functional.pad(image, around, mode="replicate")


def _missing(size: int, multiple: int, least: int) -> int:
    """Pixels that a side lacks.

    An exporter has symbols here, with bounds. These decide the comparison with ``least``, which therefore stands alone;
    and it fails where a negative size is divided, as ``-size % multiple`` would.
    """
    missing = (size + multiple - 1) // multiple * multiple - size
    return max(missing, least - size) if size < least else missing
