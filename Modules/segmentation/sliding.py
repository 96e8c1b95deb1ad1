"""Class probabilities of images that are larger than what a network was trained on, from overlapping windows."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Scores = Callable[[Tensor, Tensor | None], Tensor]
"""Images (B, 3, h, w) and maps (B, 1, h, w), or None, to class scores (B, classes, h, w)."""


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """Where windows begin along an axis: every ``stride`` pixels, the last one at the end of the image."""
    if length <= window:
        return [0]
    return [*range(0, length - window, stride), length - window]


def sliding_probabilities(
    scores: Scores, image: Tensor, depth: Tensor | None = None, window: int | None = None, stride: int | None = None
) -> Tensor:
    """Class probabilities, averaged over the windows that see a pixel.

    Args:
        scores: the network.
        image: (B, 3, H, W), RGB in [0, 1].
        depth: (B, 1, H, W), or None.
        window: side of a window in pixels; None for the whole image at once.
        stride: pixels from a window to the next; None for two thirds of a window.

    Returns:
        (B, classes, H, W) fp32, which add up to 1 over the classes.

    Raises:
        ValueError: a stride that leaves pixels out.
    """
    height, width = image.shape[-2:]
    if window is None or (height <= window and width <= window):
        return scores(image, depth).float().softmax(dim=1)
    step = max(1, 2 * window // 3) if stride is None else stride
    if not 1 <= step <= window:
        raise ValueError(f"a stride of {step} pixels leaves pixels out between windows of {window}; give 1 to {window}")
    total: Tensor | None = None
    count = torch.zeros(1, 1, height, width, device=image.device)
    for top in window_starts(height, window, step):
        for left in window_starts(width, window, step):
            place = (..., slice(top, top + window), slice(left, left + window))
            found = scores(image[place], None if depth is None else depth[place]).float().softmax(dim=1)
            if total is None:
                total = found.new_zeros(*found.shape[:2], height, width)
            total[place] += found
            count[place] += 1
    assert total is not None
    return total / count
