"""Boundary IoU: how well the outlines of classes agree (Cheng et al., CVPR 2021, arXiv 2103.16562)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["boundary_counts", "boundary_width"]

# Of the image's diagonal, as in the paper.
_SHARE_OF_DIAGONAL = 0.02


def boundary_width(size: tuple[int, int]) -> int:
    """Pixels from an outline inwards that count as boundary, for images of a size: 2 % of the diagonal, 1 at least."""
    return max(1, round(_SHARE_OF_DIAGONAL * math.hypot(*size)))


def boundary_counts(
    label: NDArray[np.integer], guess: NDArray[np.integer], counted: NDArray[np.bool_], classes: int, width: int
) -> NDArray[np.int64]:
    """Pixels in the boundaries of truth and prediction, and in either, of each class.

    A class's boundary is what lies within ``width`` pixels (along rows and columns) of its outline, inside of it; the
    edge of the image is an outline, as in the paper. Pixels that do not count are in no boundary and make none.

    Args:
        label: (H, W) true class numbers.
        guess: (H, W) predicted ones.
        counted: (H, W) the pixels that count.
        classes: how many classes there are.
        width: pixels from the outline inwards.

    Returns:
        (classes, 2): pixels in both boundaries, and in one or both.
    """
    found = np.zeros((classes, 2), np.int64)
    for number in range(classes):
        truth, drawn = (counted & (values == number) for values in (label, guess))
        if truth.any() or drawn.any():
            first, second = _boundary(truth, counted, width), _boundary(drawn, counted, width)
            found[number] = (first & second).sum(), (first | second).sum()
    return found


def _boundary(mask: NDArray[np.bool_], counted: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """The pixels of a mask that a square of ``2 width + 1`` pixels around them would leave."""
    inner = (mask | ~counted).astype(np.uint8)
    for axis in (0, 1):
        inner = ndimage.minimum_filter1d(inner, 2 * width + 1, axis=axis, mode="constant", cval=0)
    return mask & (inner == 0)
