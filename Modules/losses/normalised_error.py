"""The normalised error: |prediction^ - target^| within contexts, with its gradient in closed form.

Within a context U, a set of n pixels, a map d is freed of its shift and scale (Zhang et al., "Hierarchical
Normalization for Robust Monocular Depth Estimation", NeurIPS 2022):

    t = lower median over U,   s = sum_U |d - t| / (n + 1),   d^ = (d - t) / (s + 1e-6)

With u = d^ of the prediction, p = weight * sign(u - target^) and c = sum_U(p u) / (n + 1), the derivative of
sum_U weight * |u - target^| by a pixel of the prediction is

    (p - c * sign(d - t)) / (s + 1e-6),

and because t is itself one of the pixels, that pixel also receives minus the sum of these derivatives.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from Modules.losses.contexts import Contexts, Layer, Run, Runs, take

SCALE_EPSILON = 1e-6
# Values in one operation on the CPU. From 32768 on torch hands it out to threads, which for so little work costs more
# than it saves, and on a busy machine many times more; and three or four maps of this size stay in the cache.
PIECE = 32767

Floats: TypeAlias = NDArray[np.floating]


def normalised_error(prediction: Tensor, target: Tensor, valid: Tensor, contexts: Contexts) -> Tensor:
    """Sum of |prediction^ - target^|, first as a mean over the contexts of a family that hold the pixel.

    Repeatable: no result depends on the order in which a device's threads finish.

    Args:
        prediction: (B, N) maps, fp32 or fp64; only they get a gradient.
        target: (B, N) maps of the same type and device.
        valid: (B, N) bool; values at other pixels change nothing.
        contexts: the sets of pixels within which the maps are compared.

    Returns:
        (B,) sums over the pixels of each image and over the families.
    """
    with_gradient = torch.is_grad_enabled() and prediction.requires_grad
    sums: Tensor = _NormalisedError.apply(prediction, target, valid, contexts, with_gradient)
    return sums


class _NormalisedError(torch.autograd.Function):
    """Computes the gradient in the forward pass: autograd would keep several maps a context for the backward pass."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, prediction: Tensor, target: Tensor, valid: Tensor, contexts: Contexts, with_gradient: bool
    ) -> Tensor:
        gradient = torch.zeros_like(prediction) if with_gradient else None
        work = _sum_runs if _slice_contexts(prediction) else _sum_layers
        sums = work(prediction, target, valid, contexts, gradient)
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return sums

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return gradient * grad_output[:, None], None, None, None, None


def _slice_contexts(values: Tensor) -> bool:
    """Whether to compute image by image and context by context, which is fastest only where no kernels are launched."""
    return values.device.type == "cpu"


# On the CPU


@dataclass(frozen=True)
class _Context:
    """A context of one image: the places from start to stop of a layout, its medians, and its scales' inverses.

    x stands for the prediction and y for the target; an inverse is 1 / (s + 1e-6).
    """

    start: int
    stop: int
    x_median: float
    y_median: float
    x_inverse: float
    y_inverse: float


@dataclass(frozen=True)
class _Piece:
    """Neighbouring places of a layout, at most ``PIECE``, whose pixels count with the same weight in a family."""

    start: int
    stop: int
    weight: float


@dataclass(frozen=True)
class _Maps:
    """What a layout is worked on in: x, y and gradient are (n,) along it, memory is (3, n or ``PIECE``)."""

    x: Floats
    y: Floats
    gradient: Floats | None
    memory: Floats


def _sum_runs(prediction: Tensor, target: Tensor, valid: Tensor, contexts: Contexts, gradient: Tensor | None) -> Tensor:
    """See ``normalised_error``; adds the derivative of the sums to ``gradient`` (B, N) in place."""
    # One image at a time, in memory that is asked for once: fresh pages cost as much time as the arithmetic.
    x_memory, share_memory = prediction.new_empty(2, prediction.shape[1])
    memory = prediction.new_empty(3, min(prediction.shape[1], PIECE)).numpy()
    sums = []
    for image in range(len(prediction)):
        total = 0.0
        for layout in contexts.runs(target[image], valid[image]):
            count = len(layout.order)
            x = take(prediction[image], layout.order, out=x_memory[:count]).numpy()
            share = None if gradient is None else share_memory[:count]
            if share is not None:
                share.numpy().fill(0)
            maps = _Maps(x, layout.target.numpy(), None if share is None else share.numpy(), memory)
            # A prediction that has diverged is for the training loop to report.
            with np.errstate(all="ignore"):
                total += _add_layout(maps, layout)
            if gradient is not None and share is not None:
                gradient[image].index_add_(0, layout.order, share)
        sums.append(total)
    return prediction.new_tensor(sums)


def _add_layout(maps: _Maps, layout: Runs) -> float:
    """The error within all contexts of a layout; its derivative by x is added to the maps' gradient in place."""
    contexts: dict[Run, _Context] = {}  # families can share one, as dr and dp do their largest
    total = 0.0
    for runs in layout.families:
        filled = [run for run in runs if run[0] < run[1]]
        weighted = _weigh(filled)
        for run in filled:
            if run not in contexts:
                contexts[run] = _begin(maps, run, layout.ascending)
            total += _add_context(maps, contexts[run], _cut(weighted, run))
    return total


def _weigh(runs: Sequence[Run]) -> list[_Piece]:
    """Where the runs of a family lie, and the weight there: 1 / how many of them hold a place."""
    weighted: list[_Piece] = []
    for start, stop in pairwise(sorted({end for run in runs for end in run})):
        holders = sum(run[0] <= start and stop <= run[1] for run in runs)
        if not holders:
            continue
        last = weighted[-1] if weighted else None
        if last is not None and last.stop == start and last.weight == 1 / holders:
            weighted[-1] = _Piece(last.start, stop, last.weight)
        else:
            weighted.append(_Piece(start, stop, 1 / holders))
    return weighted


def _cut(weighted: Sequence[_Piece], run: Run) -> list[_Piece]:
    """The part of a family's pieces that lies in a run, each cut into as many as ``PIECE`` asks for."""
    pieces = []
    for piece in weighted:
        start, stop = max(piece.start, run[0]), min(piece.stop, run[1])
        number = math.ceil((stop - start) / PIECE)
        ends = [start + (stop - start) * part // number for part in range(number + 1)] if start < stop else []
        pieces += [_Piece(first, last, piece.weight) for first, last in pairwise(ends)]
    return pieces


def _begin(maps: _Maps, run: Run, ascending: bool) -> _Context:
    """Find a context's medians and scales."""
    start, stop = run
    x, y = maps.x[start:stop], maps.y[start:stop]
    x_median = _lower_median(x)
    y_median = float(y[(len(y) - 1) // 2]) if ascending else _lower_median(y)
    x_scale, y_scale = (_scale(maps, values, median) for values, median in ((x, x_median), (y, y_median)))
    return _Context(start, stop, x_median, y_median, 1 / (x_scale + SCALE_EPSILON), 1 / (y_scale + SCALE_EPSILON))


def _lower_median(values: Floats) -> float:
    """The lower median of ``values`` (n,); numpy selects it many times faster than torch."""
    middle = (len(values) - 1) // 2
    return float(np.partition(values, middle)[middle])


def _scale(maps: _Maps, values: Floats, median: float) -> float:
    """The scale s of a context's ``values`` (n,) about their median."""
    step, total = maps.memory.shape[1], 0.0
    for first in range(0, len(values), step):
        piece = values[first : first + step]
        deviation = np.subtract(piece, median, out=maps.memory[0, : len(piece)])
        total += _sum(np.abs(deviation, out=deviation))
    return total / (len(values) + 1)


def _add_context(maps: _Maps, context: _Context, pieces: Sequence[_Piece]) -> float:
    """The sum of weight * |x^ - y^| within a context, and its derivative by x."""
    total = pulls = turns = sides = 0.0  # sums of weight * |x^ - y^|, of p, of p * u, of sign(x - t)
    for piece in pieces:
        place = slice(piece.start, piece.stop)
        normalised, difference, sign = maps.memory[:, : piece.stop - piece.start]
        np.subtract(maps.x[place], context.x_median, out=normalised)
        if maps.gradient is not None:
            sides += _sum(_sign(normalised, sign))
        normalised *= context.x_inverse
        np.subtract(maps.y[place], context.y_median, out=difference)
        difference *= context.y_inverse
        np.subtract(normalised, difference, out=difference)
        if maps.gradient is not None:
            pull = _sign(difference, sign)
            pulls += piece.weight * _sum(pull)
            _add_scaled(maps.gradient[place], pull, piece.weight * context.x_inverse)
            pull *= normalised
            turns += piece.weight * _sum(pull)
        total += piece.weight * _sum(np.abs(difference, out=difference))
    if maps.gradient is not None:
        _add_through_scale(maps, context, pulls, turns / (context.stop - context.start + 1), sides)
    return total


def _add_through_scale(maps: _Maps, context: _Context, pulls: float, through_scale: float, sides: float) -> None:
    """Add the derivative that comes through a context's scale and median; through_scale is the docstring's c."""
    assert maps.gradient is not None
    step = maps.memory.shape[1]
    for first in range(context.start, context.stop, step):
        place = slice(first, min(first + step, context.stop))
        side = np.subtract(maps.x[place], context.x_median, out=maps.memory[0, : place.stop - first])
        _add_scaled(maps.gradient[place], _sign(side, side), -through_scale * context.x_inverse)
    is_median = maps.x[context.start : context.stop] == context.x_median
    rest = context.x_inverse * (pulls - through_scale * sides)
    maps.gradient[context.start + int(np.argmax(is_median))] -= rest


# Contexts have few values: numpy takes half of torch's time for a difference or product of them, but a multiple of it
# for what follows.


def _sum(values: Floats) -> float:
    return torch.from_numpy(values).sum().item()


def _sign(values: Floats, out: Floats) -> Floats:
    torch.sign(torch.from_numpy(values), out=torch.from_numpy(out))
    return out


def _add_scaled(total: Floats, values: Floats, factor: float) -> None:
    torch.from_numpy(total).add_(torch.from_numpy(values), alpha=factor)


# On other devices


def _sum_layers(
    prediction: Tensor, target: Tensor, valid: Tensor, contexts: Contexts, gradient: Tensor | None
) -> Tensor:
    """As ``_sum_runs``, all images at once and without waiting for the device.

    Only sorts, gathers and sums along a row: unlike scattered additions they give the same bits each time.
    """
    maps = torch.stack([prediction, target])  # (2, B, N)
    order = maps.argsort(dim=2, stable=True)
    sums = prediction.new_zeros(len(prediction))
    for layers in contexts.layers(target, valid):
        held = torch.stack([layer.label < layer.size for layer in layers]).sum(0)
        weight = held.clamp_(min=1).to(prediction.dtype).reciprocal_()
        for layer in layers:
            sums += _add_layer(maps, order, layer, weight, gradient)
    return sums


def _add_layer(maps: Tensor, order: Tensor, layer: Layer, weight: Tensor, gradient: Tensor | None) -> Tensor:
    """As ``_add_layout`` for a layer of C contexts an image.

    ``maps`` (2, B, N) are prediction and target, and ``order`` the indices that sort them; weight and gradient are
    (B, N). Returns (B,) sums.
    """
    pixels = maps.shape[2]

    def per_context(values: Tensor) -> Tensor:  # (..., B, N) -> (..., B, C), summed
        held = [values.masked_fill(layer.label != context, 0).sum(-1) for context in range(layer.size)]
        return torch.stack(held, dim=-1)

    def per_pixel(values: Tensor, elsewhere: float = 0) -> Tensor:  # (..., B, C) -> (..., B, N)
        padded = nn.functional.pad(values, (0, 1), value=elsewhere)
        return padded.gather(-1, layer.label.expand(*values.shape[:-1], pixels))

    # the pixels of each context together, rising: a stable sort by context of the pixels sorted by value
    labels, by_context = layer.label.expand_as(order).gather(2, order).int().sort(dim=2, stable=True)
    bounds = torch.arange(layer.size + 1, device=labels.device, dtype=labels.dtype).expand(labels.shape[1], -1)
    bounds = torch.searchsorted(labels[0], bounds.contiguous())  # (B, C + 1)
    count = bounds.diff()
    middle = (bounds[:, :-1] + (count - 1).clamp(min=0) // 2).clamp(max=pixels - 1)  # an empty context finds any pixel
    median = order.gather(2, by_context.gather(2, middle.expand(2, -1, -1)))  # (2, B, C), where it is

    deviation = (maps - per_pixel(maps.gather(2, median))).masked_fill_(layer.label == layer.size, 0)
    inverse = 1 / (per_context(deviation.abs()) / (count + 1) + SCALE_EPSILON)
    normalised = deviation * per_pixel(inverse)
    difference = normalised[0] - normalised[1]
    if gradient is not None:
        pull, side = difference.sign() * weight, deviation[0].sign()
        pulls, through_scale, sides = per_context(torch.stack([pull, pull * normalised[0], side]))
        through_scale = through_scale / (count + 1)
        rest = per_pixel(pulls - through_scale * sides)
        is_median = per_pixel(median[0], elsewhere=-1) == torch.arange(pixels, device=maps.device)
        share = pull - side * per_pixel(through_scale) - rest.masked_fill_(~is_median, 0)
        gradient.addcmul_(share, per_pixel(inverse[0]))
    return (difference.abs_() * weight).sum(1)
