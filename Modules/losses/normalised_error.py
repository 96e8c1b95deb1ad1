"""The normalised error: |prediction^ - target^| within contexts, with its gradient in closed form.

Within a context U, a set of n pixels, a map d is freed of its shift and scale (Zhang et al., "Hierarchical
Normalization for Robust Monocular Depth Estimation", NeurIPS 2022):

    t = lower median over U,   s = sum_U |d - t| / (n + 1),   d^ = (d - t) / (s + 1e-6)

With u = d^ of the prediction, p = weight * sign(u - target^) and c = sum_U(p u) / (n + 1), the derivative of
sum_U weight * |u - target^| by a pixel of the prediction is

    (p - c * sign(d - t)) / (s + 1e-6),

and as t is itself one of the pixels, that pixel also receives minus the sum of all of it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from Modules.losses.contexts import Contexts, Layer, Run, Runs, take

SCALE_EPSILON = 1e-6
# Values in one operation on the CPU. From 32768 on torch hands it out to threads, which for so little work costs more
# than it saves, and on a busy machine many times more; and three or four maps of this size stay in the cache.
PIECE = 32767


def normalised_error(prediction: Tensor, target: Tensor, valid: Tensor, contexts: Contexts) -> Tensor:
    """Sum of |prediction^ - target^|, first as a mean over the contexts of a family that hold the pixel.

    Repeatable: no result depends on the order in which a device's threads finish.

    Args:
        prediction: (B, N) maps, fp32 or fp64; gradients go here alone.
        target: (B, N) maps of the same type and device.
        valid: (B, N) bool; what stands at the other pixels changes nothing.
        contexts: where to compare.

    Returns:
        (B,) sums over the pixels of each image and over the families.
    """
    with_gradient = torch.is_grad_enabled() and prediction.requires_grad
    sums: Tensor = _NormalisedError.apply(prediction, target, valid, contexts, with_gradient)
    return sums


class _NormalisedError(torch.autograd.Function):
    """Finds the gradient on the way forward: autograd would keep several maps for each context until it is wanted."""

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
    """Whether to go image by image and context by context, which is the fastest only where nothing is launched."""
    return values.device.type == "cpu"


# On the CPU


@dataclass
class _Context:
    """A context of one image: the places from start to stop of a layout, its medians, and sums over its pixels.

    x stands for the prediction and y for the target. What is computed from a sum is asked for when it is complete.
    """

    start: int
    stop: int
    x_median: float
    y_median: float
    x_spread: float = 0.0  # of |x - t|
    y_spread: float = 0.0
    pull: float = 0.0  # of p
    turn: float = 0.0  # of p * u
    sides: float = 0.0  # of sign(x - t)

    @cached_property
    def x_inverse(self) -> float:
        """1 / (s + 1e-6) of the prediction."""
        return 1 / (self.x_spread / (self.stop - self.start + 1) + SCALE_EPSILON)

    @cached_property
    def y_inverse(self) -> float:
        """1 / (s + 1e-6) of the target."""
        return 1 / (self.y_spread / (self.stop - self.start + 1) + SCALE_EPSILON)

    @cached_property
    def through_scale(self) -> float:
        """The derivative of the context's error by its scale: c in the module's docstring."""
        return self.turn / (self.stop - self.start + 1)


@dataclass
class _Piece:
    """Neighbouring places of a layout that the same contexts hold, few enough to be worked on in the cache."""

    x: Tensor
    y: Tensor
    gradient: Tensor | None
    holders: list[tuple[_Context, float]]  # with the weight of their errors here
    spare: tuple[Tensor, ...]  # three maps for results in between


def _sum_runs(prediction: Tensor, target: Tensor, valid: Tensor, contexts: Contexts, gradient: Tensor | None) -> Tensor:
    """See ``normalised_error``; adds the derivative of the sums to ``gradient`` (B, N) in place."""
    # One image at a time, in memory that is asked for once: fresh pages cost as much time as the arithmetic.
    x_memory, share_memory, spare = prediction.new_empty(3, prediction.shape[1])
    sums = []
    for image in range(len(prediction)):
        total = 0.0
        for layout in contexts.runs(target[image], valid[image]):
            count = len(layout.order)
            x = take(prediction[image], layout.order, out=x_memory[:count])
            if gradient is None:
                total += _add_layout(x, layout, None, spare)
            else:
                share = share_memory[:count]
                share.numpy().fill(0)
                total += _add_layout(x, layout, share, spare)
                gradient[image].index_add_(0, layout.order, share)
        sums.append(total)
    return prediction.new_tensor(sums)


def _add_layout(x: Tensor, layout: Runs, gradient: Tensor | None, spare: Tensor) -> float:
    """The error within all contexts of a layout, its derivative by x added to ``gradient`` in place.

    x is the prediction along the layout, gradient and ``spare`` are of its shape (n,).
    """
    # families can share a context, as dr and dp do their largest
    runs = {(start, stop) for start, stop in chain(*layout.families) if start < stop}
    contexts = {run: _find_medians(x, layout, run, spare) for run in runs}
    pieces = _cut(x, layout, gradient, contexts)
    _add_spreads(pieces)
    total = _add_errors(pieces)
    if gradient is not None:
        _add_sides(pieces)
        for context in contexts.values():
            is_median = x[context.start : context.stop].numpy() == context.x_median
            rest = context.x_inverse * (context.pull - context.through_scale * context.sides)
            gradient[context.start + int(np.argmax(is_median))] -= rest
    return total


def _find_medians(x: Tensor, layout: Runs, run: Run, spare: Tensor) -> _Context:
    """Begin a context; x and ``spare`` are of shape (n,)."""
    start, stop = run
    if layout.ascending:
        y_median = layout.target[(start + stop - 1) // 2].item()
    else:
        y_median = _lower_median(layout.target[start:stop], spare)
    return _Context(start, stop, _lower_median(x[start:stop], spare), y_median)


def _lower_median(values: Tensor, spare: Tensor) -> float:
    """The lower median of ``values`` (n,); numpy selects it many times faster than torch."""
    middle = (len(values) - 1) // 2
    ranked = spare[: len(values)].numpy()
    ranked[:] = values.numpy()
    ranked.partition(middle)
    return float(ranked[middle])


def _cut(x: Tensor, layout: Runs, gradient: Tensor | None, contexts: dict[Run, _Context]) -> list[_Piece]:
    """Cut a layout where contexts begin and end, and what is left into pieces of at most ``PIECE`` pixels."""
    memory = x.new_empty(3, min(len(x), PIECE))
    pieces = []
    for start, stop in pairwise(sorted({end for run in contexts for end in run})):
        weights: dict[Run, float] = defaultdict(float)
        for runs in layout.families:
            holders = [run for run in runs if run[0] <= start and stop <= run[1]]
            for run in holders:
                weights[run] += 1 / len(holders)
        shares = [(contexts[run], weight) for run, weight in weights.items()]
        number = math.ceil((stop - start) / PIECE)
        for first, last in pairwise(start + (stop - start) * part // number for part in range(number + 1)):
            spare = memory[:, : last - first].unbind()
            share = None if gradient is None else gradient[first:last]
            pieces.append(_Piece(x[first:last], layout.target[first:last], share, shares, spare))
    return pieces


def _add_spreads(pieces: list[_Piece]) -> None:
    """Add up the deviations that make the scales."""
    for piece in pieces:
        deviation, y_deviation, _ = piece.spare
        for context, _ in piece.holders:
            context.x_spread += torch.sub(piece.x, context.x_median, out=deviation).abs_().sum().item()
            context.y_spread += torch.sub(piece.y, context.y_median, out=y_deviation).abs_().sum().item()


def _add_errors(pieces: list[_Piece]) -> float:
    """The sum of weight * |x^ - y^|, and its derivative but for what comes through medians and scales."""
    total = 0.0
    for piece in pieces:
        normalised, difference, pull = piece.spare
        for context, weight in piece.holders:
            torch.sub(piece.x, context.x_median, out=normalised).mul_(context.x_inverse)
            torch.sub(piece.y, context.y_median, out=difference)
            torch.sub(normalised, difference, alpha=context.y_inverse, out=difference)
            if piece.gradient is not None:
                torch.sign(difference, out=pull)
                piece.gradient.add_(pull, alpha=weight * context.x_inverse)
                context.pull += weight * pull.sum().item()
                context.turn += weight * pull.mul_(normalised).sum().item()
            total += weight * difference.abs_().sum().item()
    return total


def _add_sides(pieces: list[_Piece]) -> None:
    """Add the derivative that comes through the scales."""
    for piece in pieces:
        side = piece.spare[0]
        for context, _ in piece.holders:
            torch.sub(piece.x, context.x_median, out=side).sign_()
            context.sides += side.sum().item()
            if piece.gradient is not None:
                piece.gradient.add_(side, alpha=-context.through_scale * context.x_inverse)


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
