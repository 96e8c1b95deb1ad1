"""Losses on height maps: hierarchical depth normalisation, its one-context form, L1 and averages of them.

Every loss is called as ``loss(prediction, target, valid=None)`` with maps of shape (B, 1, H, W), any range, and an
optional bool mask that is True where the target is known. What stands at masked pixels, NaN and inf included, changes
neither value nor gradient, and an image without valid pixels adds 0. The target is a constant: no gradient goes there.

The normalised losses compare maps after taking out shift and scale over a context U, a subset of the pixels:

    t = lower median over U,   s = sum_U |d - t| / (|U| + 1),   d^ = (d - t) / (s + 1e-6)

(Zhang et al., "Hierarchical Normalization for Robust Monocular Depth Estimation", NeurIPS 2022). They share one idea:
the pixels are put in an order in which every context is a contiguous run, so that no context needs a mask of its own.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

SCALE_EPSILON = 1e-6
# Added to the upper edge of every dr bin: it lets a tile of zeros fall into its own bins, and is lost in the rounding
# of any other constant.
UPPER_EDGE_EPSILON = 1e-30
FAMILIES = ("dr", "dp", "ds")

Run = tuple[int, int]


@dataclass(frozen=True)
class _Contexts:
    """The contexts of a batch, each a run of pixels in an order chosen to make it one.

    Attributes:
        order: (B, N) flat pixel indices, a permutation per image, valid pixels first.
        runs: per image the (start, stop) of every context within ``order``; empty ones have stop <= start.
        ascending: whether the target rises along ``order``, which makes its medians known by position.
    """

    order: Tensor
    runs: list[list[Run]]
    ascending: bool = False


def _flatten(prediction: Tensor, target: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Check a loss's arguments and return prediction, target (B, N) in fp32 or fp64, and valid (B, N) bool."""
    if prediction.ndim != 4 or prediction.shape[1] != 1 or target.shape != prediction.shape:
        raise ValueError(
            f"prediction and target must share one shape (B, 1, H, W); "
            f"got {tuple(prediction.shape)} and {tuple(target.shape)}"
        )
    if valid is None:
        valid = torch.ones_like(target, dtype=torch.bool)
    elif valid.shape != target.shape or valid.dtype != torch.bool:
        raise ValueError(
            f"valid must be a bool mask of shape {tuple(target.shape)}; got {valid.dtype} {tuple(valid.shape)}"
        )
    # Sums over a tile overflow or stall in half precision, so mixed-precision maps are compared in fp32.
    dtype = torch.promote_types(torch.promote_types(prediction.dtype, target.dtype), torch.float32)
    return prediction.to(dtype).flatten(1), target.detach().to(dtype).flatten(1), valid.flatten(1)


def _mean_over_images(per_image: Tensor, count: Tensor) -> Tensor:
    """Average (B,) losses over the images with any valid pixel; 0 if there is none."""
    return per_image.sum() / (count > 0).sum().clamp(min=1)


def _use_numpy(values: Tensor) -> bool:
    """Whether sorting and selecting go through numpy, which is several times faster than torch on the CPU."""
    return values.device.type == "cpu"


def _argsort(values: Tensor) -> Tensor:
    """Indices (B, N) that sort each row; ties in any order, the same one each time."""
    if _use_numpy(values):
        return torch.from_numpy(np.argsort(values.numpy(), axis=1))
    return values.argsort(dim=1, stable=True)


def _valid_first(order: Tensor, valid: Tensor) -> Tensor:
    """Move the valid pixels of ``order`` (N,) to the front, per row of ``valid`` (B, N), keeping their order."""
    valid = valid[:, order]
    count = valid.sum(dim=1, keepdim=True)
    place = torch.where(valid, valid.cumsum(1), count + (~valid).cumsum(1)) - 1
    return torch.empty_like(place).scatter_(1, place, order.expand_as(place))


def _lower_median(values: Tensor) -> tuple[Tensor, Tensor]:
    """The lower median of ``values`` (n,) and an index that holds it, both of shape (1,)."""
    middle = (values.numel() - 1) // 2
    if _use_numpy(values):
        array = values.numpy()
        median = np.partition(array, middle)[middle]
        index = int(np.argmax(array == median))
        return values[index : index + 1], torch.tensor([index])
    # torch.median may pick another of several equal pixels each time; a stable sort makes runs repeatable.
    ranked, indices = values.sort(stable=True)
    return ranked[middle : middle + 1], indices[middle : middle + 1]


def _inverse_scale(deviation: Tensor) -> Tensor:
    """1 / (s + 1e-6) of the deviations (n,) from the median."""
    return 1 / (deviation.abs().sum() / (deviation.numel() + 1) + SCALE_EPSILON)


def _add_context(
    prediction: Tensor, target: Tensor, target_median: Tensor, weight: Tensor, gradient: Tensor | None
) -> Tensor:
    """The sum over one context of weight * |prediction^ - target^|; everything is of shape (n,), the median (1,).

    Adds the derivative by the prediction to ``gradient`` in place. With x the prediction, d = x - t, u = d / (s + eps)
    and r = weight * sign(u - target^), it is r / (s + eps) - sign(d) * sum(r u) / ((s + eps) (n + 1)) for d; and as t
    is one of the pixels, that pixel also receives minus the sum of all of it.
    """
    median, index = _lower_median(prediction)
    deviation = prediction - median
    inverse = _inverse_scale(deviation)
    normalised = deviation * inverse
    target_deviation = target - target_median
    difference = normalised - target_deviation.mul_(_inverse_scale(target_deviation))
    if gradient is None:
        return difference.abs_().mul_(weight).sum()
    pull = difference.sign().mul_(weight)
    total = (difference * pull).sum()
    through_scale = (pull * normalised).sum() / (deviation.numel() + 1)
    pull.addcmul_(deviation.sign_(), through_scale, value=-1).mul_(inverse)
    gradient += pull
    gradient.index_add_(0, index, pull.sum().reshape(1), alpha=-1)
    return total


def _weights(runs: list[Run], like: Tensor) -> Tensor:
    """1 / (number of contexts that hold the pixel) along the order, shape of ``like`` (N,)."""
    held = torch.zeros_like(like)
    for start, stop in runs:
        held[start:stop] += 1
    return held.clamp_(min=1).reciprocal_()


class _ContextSums(torch.autograd.Function):
    """Per image, the sum over pixels of the mean of |prediction^ - target^| over the contexts that hold the pixel.

    The gradient has a closed form, so it is accumulated on the way forward: autograd would keep several maps for each
    context alive until the backward pass, and pad the gradient of every run to a whole map.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx, prediction: Tensor, target: Tensor, contexts: _Contexts, with_gradient: bool
    ) -> Tensor:
        """Return (B,) sums for prediction and target of shape (B, N)."""
        sums = prediction.new_zeros(len(prediction))
        saved = torch.zeros_like(prediction) if with_gradient else None
        for image, runs in enumerate(contexts.runs):
            runs = [(start, stop) for start, stop in runs if start < stop]
            if not runs:
                continue
            order = contexts.order[image]
            x, y = prediction[image].index_select(0, order), target[image].index_select(0, order)
            weight = _weights(runs, x)
            gradient = torch.zeros_like(x) if with_gradient else None
            parts = []
            for start, stop in runs:
                run = slice(start, stop)
                middle = (start + stop - 1) // 2
                median = y[middle : middle + 1] if contexts.ascending else _lower_median(y[run])[0]
                share = None if gradient is None else gradient[run]
                parts.append(_add_context(x[run], y[run], median, weight[run], share))
            sums[image] = torch.stack(parts).sum()
            if saved is not None and gradient is not None:
                saved[image].scatter_(0, order, gradient)
        if saved is not None:
            ctx.save_for_backward(saved)
        return sums

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the gradient of each image, found on the way forward."""
        (saved,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return saved * grad_output[:, None], None, None, None


def _context_sums(prediction: Tensor, target: Tensor, contexts: _Contexts) -> Tensor:
    with_gradient = torch.is_grad_enabled() and prediction.requires_grad
    sums: Tensor = _ContextSums.apply(prediction, target, contexts, with_gradient)
    return sums


def _runs(starts: Tensor, stops: Tensor) -> list[list[Run]]:
    """(B, K) starts and stops as Python numbers, in one transfer from the device."""
    return [list(zip(*image, strict=True)) for image in torch.stack((starts, stops), dim=1).tolist()]


class _ValueBins:
    """Contexts of the families dr and dp: bins of the target's values, half open, found in its sorted order."""

    def __init__(self, target: Tensor, valid: Tensor) -> None:
        """Sort target (B, N) over the valid pixels (B, N)."""
        ranked = target.masked_fill(~valid, torch.inf)
        self.order = _argsort(ranked)
        self.sorted = ranked.gather(1, self.order)
        self.count = valid.sum(dim=1, keepdim=True)
        self.last = (self.count - 1).clamp(min=0)

    def _between(self, lower: list[Tensor], upper: list[Tensor]) -> _Contexts:
        starts, stops = (
            torch.searchsorted(self.sorted, torch.cat(edges, dim=1)).minimum(self.count) for edges in (lower, upper)
        )
        return _Contexts(self.order, _runs(starts, stops), ascending=True)

    def equal_width(self, bins_per_level: list[int]) -> _Contexts:
        """Family dr: bins of equal width over the target's range."""
        low, high = self.sorted[:, :1], self.sorted.gather(1, self.last)
        lower, upper = [], []
        for bins in bins_per_level:
            edges = low + (high - low) * torch.arange(bins + 1, device=low.device) * (1 / bins)
            lower.append(edges[:, :-1])
            upper.append(edges[:, 1:] + UPPER_EDGE_EPSILON)
        return self._between(lower, upper)

    def equal_count(self, bins_per_level: list[int]) -> _Contexts:
        """Family dp: bins between the target's linearly interpolated quantiles."""
        lower, upper = [], []
        for bins in bins_per_level:
            rank = self.last * torch.arange(bins + 1, device=self.order.device)
            below = rank // bins
            above = (below + 1).minimum(self.last)
            fraction = (rank % bins).to(self.sorted.dtype) / bins
            edges = torch.lerp(self.sorted.gather(1, below), self.sorted.gather(1, above), fraction)
            lower.append(edges[:, :-1])
            upper.append(edges[:, 1:])
        return self._between(lower, upper)


def _grid_cells(valid: Tensor, height: int, width: int, cells_per_side: list[int]) -> _Contexts:
    """Contexts of the family ds: the cells of square grids; cell i of g spans rows (or columns) i*H//g .. (i+1)*H//g.

    The finest cells are laid out along a Z-curve, so that the cells of the coarser grids, two by two of the next finer
    ones (i*H//g is the same edge as 2*i*H//(2*g)), are runs too. ``valid`` is (B, H*W).
    """
    finest = max(cells_per_side)
    pixels = torch.arange(height * width, device=valid.device).view(height, width)
    pieces: list[Tensor] = []
    for code in range(finest * finest):
        row, column = _z_curve_cell(code)
        rows = slice(row * height // finest, (row + 1) * height // finest)
        columns = slice(column * width // finest, (column + 1) * width // finest)
        pieces.append(pixels[rows, columns].flatten())
    order = torch.cat(pieces)
    ends = np.cumsum([0, *(piece.numel() for piece in pieces)])

    starts: list[int] = []
    stops: list[int] = []
    for side in cells_per_side:
        codes_per_cell = (finest // side) ** 2
        code_of = {_z_curve_cell(code): code * codes_per_cell for code in range(side * side)}
        for first in (code_of[row, column] for row in range(side) for column in range(side)):
            starts.append(int(ends[first]))
            stops.append(int(ends[first + codes_per_cell]))

    passed = nn.functional.pad(valid[:, order].cumsum(1), (1, 0))  # (B, N + 1): valid pixels before each place
    return _Contexts(_valid_first(order, valid), _runs(passed[:, starts], passed[:, stops]))


def _z_curve_cell(code: int) -> tuple[int, int]:
    """Row and column of a place on the Z-curve: the odd and the even bits of ``code``."""
    row = column = bit = 0
    while code >> (2 * bit):
        column |= (code >> (2 * bit) & 1) << bit
        row |= (code >> (2 * bit + 1) & 1) << bit
        bit += 1
    return row, column


class HDNLoss(nn.Module):
    """Hierarchical depth normalisation (Zhang et al., NeurIPS 2022): normalised L1 within contexts of several sizes.

    Per pixel the mean of |prediction^ - target^| over the contexts that hold it, summed over the pixels and divided by
    B*H*W, pixels in no context included; then averaged over the families:

    - ``dr``: bins of equal width over the target's range, [low, high);
    - ``dp``: bins of equal count between the target's quantiles, [low, high);
    - ``ds``: cells of square grids.
    """

    def __init__(self, level: int = 3, families: Sequence[str] = FAMILIES) -> None:
        """Set up 2^(level-1), ..., 2, 1 bins (cells a side) for each of ``families``."""
        super().__init__()
        if level < 1:
            raise ValueError(f"HDNLoss: level must be at least 1, got {level}")
        unknown = [family for family in families if family not in FAMILIES]
        if unknown or not families or len(set(families)) != len(families):
            raise ValueError(f"HDNLoss: families must be a choice from {list(FAMILIES)}, each once; got {families!r}")
        self.families = tuple(families)
        self.divisions = [2**power for power in reversed(range(level))]

    def _contexts(self, target: Tensor, valid: Tensor, height: int, width: int) -> dict[str, _Contexts]:
        """The contexts of each family, finest level first, bins rising, cells row by row; target, valid (B, H*W)."""
        found: dict[str, _Contexts] = {}
        bins = _ValueBins(target, valid) if {"dr", "dp"} & set(self.families) else None
        for family in self.families:
            if family == "ds" or bins is None:
                found[family] = _grid_cells(valid, height, width, self.divisions)
            elif family == "dr":
                found[family] = bins.equal_width(self.divisions)
            else:
                found[family] = bins.equal_count(self.divisions)
        return found

    def per_family(self, prediction: Tensor, target: Tensor, valid: Tensor | None = None) -> dict[str, Tensor]:
        """The scalar loss of each family; prediction, target (B, 1, H, W), valid bool alike or None."""
        values, truth, known = _flatten(prediction, target, valid)
        contexts = self._contexts(truth, known, *prediction.shape[-2:])
        return {
            family: _context_sums(values, truth, found).sum() / values.numel() for family, found in contexts.items()
        }

    def forward(self, prediction: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
        """The mean over the families, a scalar; prediction, target (B, 1, H, W), valid bool alike or None."""
        return torch.stack(list(self.per_family(prediction, target, valid).values())).mean()


class SSIMAELoss(nn.Module):
    """Scale- and shift-invariant mean absolute error: both maps normalised over all valid pixels, then L1.

    Per image the mean over its valid pixels, then the mean over the images that have any.
    """

    def forward(self, prediction: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
        """A scalar; prediction, target (B, 1, H, W), valid bool alike or None."""
        prediction, target, valid = _flatten(prediction, target, valid)
        count = valid.sum(dim=1)
        order = _valid_first(torch.arange(valid.shape[1], device=valid.device), valid)
        contexts = _Contexts(order, _runs(torch.zeros_like(count)[:, None], count[:, None]))
        return _mean_over_images(_context_sums(prediction, target, contexts) / count.clamp(min=1), count)


class L1Loss(nn.Module):
    """Mean absolute error: per image over its valid pixels, then over the images that have any."""

    def forward(self, prediction: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
        """A scalar; prediction, target (B, 1, H, W), valid bool alike or None."""
        prediction, target, valid = _flatten(prediction, target, valid)
        # The mask comes before the absolute value: a NaN times a zero gradient would still be NaN.
        error = torch.where(valid, prediction - target, 0).abs()
        count = valid.sum(dim=1)
        return _mean_over_images(error.sum(dim=1) / count.clamp(min=1), count)


class CombinedLoss(nn.Module):
    """The mean of several losses."""

    def __init__(self, losses: Sequence[nn.Module]) -> None:
        """Take at least one loss, each called as ``loss(prediction, target, valid)``."""
        super().__init__()
        if not losses:
            raise ValueError("CombinedLoss: give at least one loss")
        self.losses = nn.ModuleList(losses)

    def forward(self, prediction: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
        """A scalar; prediction, target (B, 1, H, W), valid bool alike or None."""
        return torch.stack([loss(prediction, target, valid) for loss in self.losses]).mean()


LOSSES: dict[str, Callable[[], nn.Module]] = {"HDNLoss": HDNLoss, "L1Loss": L1Loss, "SSIMAELoss": SSIMAELoss}


def build_loss(names: Sequence[str]) -> nn.Module:
    """Build the loss that a list of names asks for; several names are averaged."""
    if isinstance(names, str) or not names:
        raise ValueError(f"loss names must be a non-empty list chosen from {list(LOSSES)}, got {names!r}")
    for name in names:
        if name not in LOSSES:
            nearest = difflib.get_close_matches(name, LOSSES, n=1, cutoff=0)[0]
            raise ValueError(f"unknown loss {name!r}; allowed: {list(LOSSES)}; did you mean {nearest!r}?")
    losses = [LOSSES[name]() for name in names]
    return losses[0] if len(losses) == 1 else CombinedLoss(losses)
