"""Cost volumes: how much the features of all views differ at each hypothesis, in the memory of the volume alone.

Written out with torch's own operations, every source adds several tensors of the volume's size to the graph. Here the
views are added up in place, a block of hypotheses at a time, and the backward pass warps the features again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from Modules.stereo.geometry import Positions, sample
from Modules.stereo.names import Counting

_BLOCK = 2**22  # numbers: 16 MiB a tensor in fp32


def variance_volume(
    reference: Tensor,
    sources: Sequence[Tensor],
    positions: Sequence[Positions],
    counting: Counting = "all",
    block: int = _BLOCK,
) -> Tensor:
    """Variance of the features over the views, for each channel, hypothesis and pixel of the reference.

    ``all``: mean of squares minus square of the mean over all views; where a source does not see the point its feature
    is 0, as published. ``visible``: over those views that see it. Where no source does, one view alone would have no
    variance at all and look like a perfect match: there sources count as zeros, as in ``all``.

    Args:
        reference: (B, C, h, w).
        sources: (B, C, H, W) for each source.
        positions: for each source, where the reference's hypotheses lie in it: (B, D, h, w).
        counting: which views count.
        block: how many numbers of the volume are computed at once; memory beyond the volume's own grows with it.

    Returns:
        (B, C, D, h, w) in the reference's number format, summed in fp32. Gradients reach all features.
    """
    places = [part for found in positions for part in (found.x, found.y, found.valid)]
    volume: Tensor = _Variance.apply(counting == "visible", block, len(sources), reference, *sources, *places)
    return volume


class _Variance(torch.autograd.Function):
    """The variance with d variance / d view = 2 (view - mean) / number of views."""

    @staticmethod
    def forward(ctx: Any, visible: bool, block_size: int, count: int, reference: Tensor, *rest: Tensor) -> Tensor:
        sources, places = rest[:count], rest[count:]
        ctx.save_for_backward(reference, *rest)
        ctx.visible, ctx.block_size, ctx.count = visible, block_size, count
        depth = places[0].shape[1]
        volume = reference.new_empty(*reference.shape[:2], depth, *reference.shape[2:])
        for block in _blocks(reference, depth, block_size):
            total = reference.float()[:, :, None].expand(-1, -1, block.stop - block.start, -1, -1).clone()
            squares = total.square()
            views = _views(places, block, visible)
            for source, found in zip(sources, _positions(places, block), strict=True):
                warped = _warp(source, found, visible)
                total += warped
                squares.addcmul_(warped, warped)
            total /= views
            volume[:, :, block] = (squares / views).addcmul_(total, total, value=-1)
        return volume

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        reference, *rest = ctx.saved_tensors
        sources, places = rest[: ctx.count], rest[ctx.count :]
        of_reference = torch.zeros_like(reference, dtype=torch.float32)
        of_sources = [torch.zeros_like(source, dtype=torch.float32) for source in sources]
        leaves = [source.detach().float().requires_grad_() for source in sources]
        for block in _blocks(reference, places[0].shape[1], ctx.block_size):
            with torch.enable_grad():
                warps = [
                    _warp(leaf, found, ctx.visible)
                    for leaf, found in zip(leaves, _positions(places, block), strict=True)
                ]
            views = _views(places, block, ctx.visible)
            own = reference.float()[:, :, None]
            mean = own.expand_as(warps[0]).clone()
            for warped in warps:
                mean += warped.detach()
            mean /= views
            scaled = gradient[:, :, block].float() * (2 / views)
            of_reference += (scaled * (own - mean)).sum(2)
            for place, (leaf, warped) in enumerate(zip(leaves, warps, strict=True)):
                (found,) = torch.autograd.grad(warped, leaf, scaled * (warped.detach() - mean))
                of_sources[place] += found
        found = [of_reference.to(reference.dtype), *(value.to(reference.dtype) for value in of_sources)]
        return (None, None, None, *found, *(None for _ in places))


def _blocks(reference: Tensor, depth: int, numbers: int) -> Iterator[slice]:
    """Blocks of hypotheses with about so many numbers of the volume each."""
    size = max(1, numbers // reference.numel())
    for first in range(0, depth, size):
        yield slice(first, min(first + size, depth))


def _positions(places: Sequence[Tensor], block: slice) -> Iterator[Positions]:
    """The positions of a block, source by source."""
    for start in range(0, len(places), 3):
        x, y, valid = (part[:, block] for part in places[start : start + 3])
        yield Positions(x, y, valid)


def _warp(source: Tensor, positions: Positions, visible: bool) -> Tensor:
    """A source's features (B, C, D, h, w) in fp32; 0 where it does not see the point, if only what is seen counts."""
    warped = sample(source.float(), positions)
    return warped * positions.valid[:, None] if visible else warped


def _views(places: Sequence[Tensor], block: slice, visible: bool) -> Tensor | float:
    """How many views count, (B, 1, D, h, w) or one number for all."""
    every = 1.0 + len(places) // 3
    if not visible:
        return every
    seen = torch.stack([found.valid for found in _positions(places, block)]).sum(0)[:, None]
    return torch.where(seen > 0, 1.0 + seen, every)
