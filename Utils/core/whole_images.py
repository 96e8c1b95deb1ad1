"""Whole images through a predictor, at the size that suits its model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from Utils.core.predictor import Predictor

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["draw_whole"]

_LARGEST_SIDE = 32768


def draw_whole(predictor: Predictor, images: Tensor, side: int | None) -> Tensor:
    """Maps (B, H, W), fp32, that rise with the ground, of images (B, 3, H, W) in [0, 1].

    Args:
        predictor: the model.
        images: of one size.
        side: shorter side in pixels at which the model sees them; None for that of the images.
    """
    from torch.nn.functional import interpolate

    if side is None:
        return predictor(images).float()
    size = images.shape[-2:]
    seen = _seen_size(size, side, predictor.multiple)
    shrunk = interpolate(images, seen, mode="bicubic", antialias=True).clamp(0.0, 1.0)
    return interpolate(predictor(shrunk).float()[:, None], size, mode="bicubic", antialias=True)[:, 0]


def _seen_size(size: Sequence[int], side: int, multiple: int) -> tuple[int, int]:
    """(height, width) near the image's shape whose shorter side is ``side``, in multiples of pixels."""
    scale = side / min(size)
    height, width = (min(max(round(scale * each / multiple), 1) * multiple, _LARGEST_SIDE) for each in size)
    return height, width
