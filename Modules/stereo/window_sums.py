"""Sums over square windows in a few additions a pixel, whatever the window's size."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

__all__ = ["window_sums"]


def window_sums(maps: Tensor, window: int) -> Tensor:
    """The sum of the window around each pixel; zeros lie outside.

    Sums of 1, 2, 4, ... neighbours are made from one another, and a window from those that its binary number names: no
    running sum along a line, whose rounding would grow with the line.

    Args:
        maps: [..., H, W].
        window: pixels along a side, odd.

    Returns:
        [..., H, W]
    """
    half = window // 2
    padded = functional.pad(maps, (half, half, half, half))
    return _runs(_runs(padded, -1, window), -2, window)


def _runs(maps: Tensor, dim: int, length: int) -> Tensor:
    """Sums of so many neighbours along one dimension, which gets shorter by one less than that."""
    wanted = maps.shape[dim] - length + 1
    power, run, start, total = maps, 1, 0, None
    while True:
        if length & run:
            part = power.narrow(dim, start, wanted)
            total = part if total is None else total + part
            start += run
        if 2 * run > length:
            return total if total is not None else power
        there = power.shape[dim] - run
        power, run = power.narrow(dim, 0, there) + power.narrow(dim, run, there), 2 * run
