"""Contexts, the sets of pixels within which the normalised losses compare maps, in the two forms for computing them.

On the CPU an image's pixels are put in an order in which every context is a contiguous run, so that a context costs no
more than its own pixels. On other devices a loop over such runs would launch thousands of small kernels and read
their bounds back to the host; there, contexts that share no pixel are numbered in one map, a layer, and the layers of
all images are computed at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

# Added to the upper edge of every dr bin: it lets a tile of zeros fall into its own bins; for any other constant it
# vanishes in the rounding.
UPPER_EDGE_EPSILON = 1e-30
FAMILIES = ("dr", "dp", "ds")

Run = tuple[int, int]
Edges = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Runs:
    """One image's valid pixels in an order that makes every context of some families a run.

    Attributes:
        order: (n,) flat indices of the valid pixels.
        target: (n,) the target's values along ``order``.
        families: per family the (start, stop) of its contexts within ``order``, finest level first; stop <= start for
            an empty one.
        ascending: whether the target rises along ``order``, which makes its medians known by position.
    """

    order: Tensor
    target: Tensor
    families: list[list[Run]]
    ascending: bool = False


@dataclass(frozen=True)
class Layer:
    """Contexts of a whole batch that share no pixel.

    Attributes:
        label: (B, N) int64, the number of the context that holds the pixel; ``size`` where none does.
        size: number of contexts an image.
    """

    label: Tensor
    size: int


class Contexts(Protocol):
    """Makes the contexts of a normalised loss, in images of N pixels; masked pixels are in no context."""

    def runs(self, target: Tensor, valid: Tensor) -> Iterator[Runs]:
        """The contexts of one image on the CPU; target and valid are of shape (N,)."""

    def layers(self, target: Tensor, valid: Tensor) -> Iterator[list[Layer]]:
        """Per family the contexts of a batch; target and valid are of shape (B, N)."""


class WholeImage:
    """One context an image: all its valid pixels."""

    def runs(self, target: Tensor, valid: Tensor) -> Iterator[Runs]:
        """See ``Contexts``."""
        order = _positions(valid)
        yield Runs(order, take(target, order), [[(0, len(order))]])

    def layers(self, target: Tensor, valid: Tensor) -> Iterator[list[Layer]]:
        """See ``Contexts``."""
        yield [Layer((~valid).long(), 1)]


class Hierarchy:
    """Contexts of several sizes: bins of the target's values (families dr and dp) and cells of square grids (ds)."""

    def __init__(self, families: Sequence[str], divisions: Sequence[int], height: int, width: int) -> None:
        """Take the families, and per level the number of bins (cells a side), each half of the one before."""
        self._by_value = [family for family in families if family != "ds"]
        self._by_place = "ds" in families
        self._divisions = divisions
        self._height, self._width = height, width

    def runs(self, target: Tensor, valid: Tensor) -> Iterator[Runs]:
        """See ``Contexts``."""
        count = np.count_nonzero(valid.numpy())
        if not count:
            return
        everywhere = count == len(valid)
        if self._by_value:
            known = None if everywhere else _positions(valid)
            values = target if known is None else take(target, known)
            order = _argsort(values)
            ranked = take(values, order)
            bins = self._bins(ranked[None], torch.tensor([[count]]))
            runs = [[run for edges in levels for run in _runs_between(ranked, edges)] for levels in bins]
            yield Runs(order if known is None else take(known, order), ranked, runs, ascending=True)
        if self._by_place:
            order, ends = self._z_curve
            if not everywhere:
                # places on the curve of the valid pixels, and how many of them lie before the end of each finest cell
                places = _positions(take(valid, order))
                order, ends = take(order, places), torch.searchsorted(places, ends)
            yield Runs(order, take(target, order), [_grid_runs(ends.tolist(), self._divisions)])

    def layers(self, target: Tensor, valid: Tensor) -> Iterator[list[Layer]]:
        """See ``Contexts``."""
        if self._by_value:
            ranked = target.masked_fill(~valid, torch.inf).sort(dim=1).values
            for family, levels in zip(self._by_value, self._bins(ranked, valid.sum(1, keepdim=True)), strict=True):
                # Neighbours in dr can share the pixels of value 0, so every other bin goes to a second layer.
                stride = 2 if family == "dr" else 1
                yield [
                    _label_bins(target, valid, (lower[:, first::stride], upper[:, first::stride]))
                    for lower, upper in levels
                    for first in range(min(stride, lower.shape[1]))
                ]
        if self._by_place:
            yield [_label_cells(valid, self._height, self._width, side) for side in self._divisions]

    @cached_property
    def _z_curve(self) -> tuple[Tensor, Tensor]:
        return _z_curve(self._height, self._width, self._divisions[0])

    def _bins(self, ranked: Tensor, count: Tensor) -> Iterator[list[Edges]]:
        """Per family the edges of each level; ``ranked`` (B, N) rises, its first ``count`` (B, 1) values are known."""
        for family in self._by_value:
            edges = _equal_width if family == "dr" else _equal_count
            yield [edges(ranked, (count - 1).clamp(min=0), bins) for bins in self._divisions]


def take(values: Tensor, order: Tensor, out: Tensor | None = None) -> Tensor:
    """``values[order]`` on the CPU, (N,) and (n,) to (n,); by numpy, as torch would start threads for so little."""
    taken = np.take(values.numpy(), order.numpy(), out=None if out is None else out.numpy(), mode="clip")
    return torch.from_numpy(taken)


def _argsort(values: Tensor) -> Tensor:
    """Indices (n,) that sort ``values`` on the CPU, equal ones in order; by numpy, many times faster than torch."""
    array = values.numpy()
    if array.dtype != np.float32:
        return torch.from_numpy(array.argsort(kind="stable"))
    # Value and index in one integer: sorting numbers takes half the time of sorting indices. As integers the bits of
    # positive floats rise with the value; those of negative ones fall until all but the sign are flipped.
    bits = array.view(np.int32)
    packed = (bits ^ (bits >> 31 & 0x7FFFFFFF)).astype(np.int64) << 32 | np.arange(len(bits))
    packed.sort()
    return torch.from_numpy(packed & 0xFFFFFFFF)


def _positions(valid: Tensor) -> Tensor:
    """Flat indices of the True places of ``valid`` (N,) on the CPU; numpy finds them faster than torch."""
    return torch.from_numpy(np.flatnonzero(valid.numpy()))


def _equal_width(ranked: Tensor, last: Tensor, bins: int) -> Edges:
    """Lower and upper edges (B, bins) of equal steps over the target's range."""
    low, high = ranked[:, :1], ranked.gather(1, last)
    edges = low + (high - low) * torch.arange(bins + 1, device=low.device) * (1 / bins)
    return edges[:, :-1], edges[:, 1:] + UPPER_EDGE_EPSILON


def _equal_count(ranked: Tensor, last: Tensor, bins: int) -> Edges:
    """Lower and upper edges (B, bins) at the target's linearly interpolated quantiles."""
    rank = last * torch.arange(bins + 1, device=last.device)
    below = rank // bins
    above = (below + 1).minimum(last)
    fraction = (rank % bins).to(ranked.dtype) / bins
    edges = torch.lerp(ranked.gather(1, below), ranked.gather(1, above), fraction)
    return edges[:, :-1], edges[:, 1:]


def _runs_between(ranked: Tensor, edges: Edges) -> list[Run]:
    """Where the bins [lower, upper) of one image lie in its rising values (n,)."""
    starts, stops = (torch.searchsorted(ranked, edge[0]).tolist() for edge in edges)
    return list(zip(starts, stops, strict=True))


def _label_bins(target: Tensor, valid: Tensor, edges: Edges) -> Layer:
    """A layer of the bins [lower, upper); the last of several that hold a pixel has it."""
    size = edges[0].shape[1]
    label = torch.full_like(target, size, dtype=torch.int64)
    for context, (lower, upper) in enumerate(zip(*(edge.split(1, dim=1) for edge in edges), strict=True)):
        label.masked_fill_((target >= lower) & (target < upper) & valid, context)
    return Layer(label, size)


def _label_cells(valid: Tensor, height: int, width: int, side: int) -> Layer:
    """A layer of the cells of a square grid; cell i of g spans rows (or columns) i*H//g .. (i+1)*H//g."""
    row, column = (
        torch.searchsorted(
            torch.arange(1, side, device=valid.device) * length // side,
            torch.arange(length, device=valid.device),
            right=True,
        )
        for length in (height, width)
    )
    cell = (row[:, None] * side + column).flatten()
    return Layer(torch.where(valid, cell, side * side), side * side)


def _z_curve(height: int, width: int, side: int) -> tuple[Tensor, Tensor]:
    """The flat indices (H*W,) of all pixels, cell after cell of a grid along a Z-curve, and the cells' bounds in it.

    The bounds (side^2 + 1,) begin with 0. Along the curve the cells of the coarser grids, two by two of the next finer
    ones (i*H//g is the same edge as 2*i*H//(2*g)), are runs too.
    """
    pixels = torch.arange(height * width).view(height, width)
    pieces: list[Tensor] = []
    for place in range(side * side):
        row, column = _z_curve_cell(place)
        rows = slice(row * height // side, (row + 1) * height // side)
        columns = slice(column * width // side, (column + 1) * width // side)
        pieces.append(pixels[rows, columns].flatten())
    return torch.cat(pieces), torch.tensor([0, *(piece.numel() for piece in pieces)]).cumsum(0)


def _grid_runs(ends: list[int], divisions: Sequence[int]) -> list[Run]:
    """Runs of the cells of all grids, row by row, from the bounds of the finest cells along the Z-curve."""
    runs = []
    for side in divisions:
        step = (divisions[0] // side) ** 2  # finest cells in a cell of this grid
        place_of = {_z_curve_cell(place): place for place in range(side * side)}
        places = [place_of[row, column] for row in range(side) for column in range(side)]
        runs += [(ends[place * step], ends[(place + 1) * step]) for place in places]
    return runs


def _z_curve_cell(place: int) -> tuple[int, int]:
    """Row and column of a place on the Z-curve: its odd and its even bits."""
    row = column = bit = 0
    while place >> (2 * bit):
        column |= (place >> (2 * bit) & 1) << bit
        row |= (place >> (2 * bit + 1) & 1) << bit
        bit += 1
    return row, column
