"""One scale and shift (and tilt) for every tile, found together, so that tiles agree where they overlap.

Each tile of an affine-invariant model is correct up to an unknown scale and shift. Scales come first, as
logarithms: each overlap gives a difference of two of them, so the system is linear, no scale can become negative, and
"all zero" is not a solution. With the scales known, shifts and tilts are linear as well.  Both systems are sparse,
and both are solved robustly: an overlap or a cell that contradicts its neighbours loses its weight (Huber, by
reweighting).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import spsolve

from Utils.scenes.joining.overlaps import Overlap
from Utils.scenes.tiles.tile_grid import Tile

Floats = NDArray[np.float64]

_HUBER = 1.345  # 95 % efficient for Gaussian noise
_MAD_TO_SIGMA = 1.4826
_ITERATIONS = 30
# No overlap is trusted to better than 1 % in scale: otherwise one perfect pair would outweigh all others.
_LEAST_LOG_ERROR = 0.01
# Without any evidence a tile gets the usual scale. The prior allows a factor of e^10, so any evidence outweighs it.
_PRIOR_LOG_ERROR = 10.0
# Size of the term that makes a system regular, relative to its equations.
_GAUGE = 1e-10
# Usual tilt of a tile from edge to edge, as a share of the range of its values.
_PRIOR_TILT = 0.3
# Then the usual tilt is taken from the solution, so many times, and is no less than this share.
_PRIOR_ROUNDS, _LEAST_TILT = 2, 1e-3


@dataclass(frozen=True)
class Anchor:
    """The fit of one tile to heights in metres.

    Attributes:
        tile: its number.
        log_scale: log of its scale in metres, NaN where its map does not correlate with the heights.
        log_scale_error: its standard error.
        rows: (K,) rows of the heights, in pixels of the scene.
        columns: (K,) columns of the heights.
        values: (K,) values of the tile's map there.
        heights: (K,) heights in metres.
        correlation: of values and heights.
        residual: robust standard deviation of the heights about the fitted values, in metres.
        count: number of heights behind the fit; ``rows`` and so on are means of groups of them.
    """

    tile: int
    log_scale: float
    log_scale_error: float
    rows: Floats
    columns: Floats
    values: Floats
    heights: Floats
    correlation: float
    residual: float
    count: int

    @property
    def supports(self) -> bool:
        """Whether the heights determine the tile's scale."""
        return bool(np.isfinite(self.log_scale))


@dataclass(frozen=True)
class TileAlignment:
    """What turns each tile's map into the scene's heights: ``scale * map + shift + tilt . (row, column)``.

    Attributes:
        scale: (N,) positive.
        shift: (N,) at each tile's centre.
        tilt: (N, 2) rise over the tile's height and over its width.
        component: (N,) number of the group of tiles that overlaps connect; scales and shifts of different groups can be
            compared only where heights in metres tie them.
    """

    scale: Floats
    shift: Floats
    tilt: Floats
    component: NDArray[np.int32]

    def apply(self, tile: Tile, values: NDArray[np.floating]) -> NDArray[np.float64]:
        """Heights of a tile (H, W) from its map."""
        heights = self.scale[tile.number] * values.astype(np.float64) + self.shift[tile.number]
        if self.tilt[tile.number].any():
            down, across = self.tilt[tile.number]
            rows = (np.arange(tile.height) - (tile.height - 1) / 2) / tile.height
            columns = (np.arange(tile.width) - (tile.width - 1) / 2) / tile.width
            heights += down * rows[:, None] + across * columns[None, :]
        return heights


def align(
    tiles: Sequence[Tile],
    overlaps: Sequence[Overlap],
    anchors: Sequence[Anchor] = (),
    tilt: bool = False,
    scale_known: bool = False,
) -> TileAlignment:
    """Solve for all tiles together.

    Args:
        tiles: all tiles of the scene, in the order of their numbers.
        overlaps: comparisons of neighbouring tiles.
        anchors: fits of tiles to known heights; without any, every connected group gets a mean log scale and shift of
            0.
        tilt: whether each tile gets a slope as well.
        scale_known: whether the maps are in metres already: every scale is then 1.
    """
    component = _components(len(tiles), overlaps)
    scale = np.ones(len(tiles)) if scale_known else np.exp(_log_scales(component, overlaps, anchors))
    # The range of a tile's values: 1 for maps that were stretched, whatever the ground has for those in metres.
    span = _usual_span(overlaps) if scale_known else 1.0
    shift, slopes = _shifts(tiles, component, scale, overlaps, anchors, tilt, span)
    return TileAlignment(scale, shift, slopes, component)


def _components(count: int, overlaps: Sequence[Overlap]) -> NDArray[np.int32]:
    first = [overlap.first for overlap in overlaps]
    second = [overlap.second for overlap in overlaps]
    graph = sparse.coo_array((np.ones(len(first)), (first, second)), shape=(count, count))
    labels: NDArray[np.int32] = connected_components(graph, directed=False)[1]
    return labels


def _usual_span(overlaps: Sequence[Overlap]) -> float:
    """The median range of values in an overlap, in the maps' unit; 1 where there is none."""
    spans = [float(np.ptp(overlap.first_values)) for overlap in overlaps]
    return max(float(np.median(spans)), 1e-6) if spans else 1.0


def _log_scales(component: NDArray[np.int32], overlaps: Sequence[Overlap], anchors: Sequence[Anchor]) -> Floats:
    """Stage one: (N,) log scales."""
    pairs = [overlap for overlap in overlaps if np.isfinite(overlap.log_ratio)]
    held = [anchor for anchor in anchors if anchor.supports]
    usual = float(np.median([anchor.log_scale for anchor in held])) if held else 0.0
    system = _System(len(component))
    for overlap in pairs:
        error = float(np.hypot(overlap.log_ratio_error, _LEAST_LOG_ERROR))
        system.add([overlap.first, overlap.second], [1.0, -1.0], overlap.log_ratio, error, group=0)
    for anchor in held:
        error = float(np.hypot(anchor.log_scale_error, _LEAST_LOG_ERROR))
        system.add([anchor.tile], [1.0], anchor.log_scale - usual, error, group=1)
    solved = system.solve(np.full(len(component), _PRIOR_LOG_ERROR**-2), np.ones(len(component), bool))
    return _centred(solved, component, held) + usual


def _shifts(
    tiles: Sequence[Tile],
    component: NDArray[np.int32],
    scale: Floats,
    overlaps: Sequence[Overlap],
    anchors: Sequence[Anchor],
    tilt: bool,
    span: float,
) -> tuple[Floats, Floats]:
    """Stage two: (N,) shifts and (N, 2) tilts, the scales given; ``span`` is the usual range of a tile's values."""
    count, size = len(tiles), 3 if tilt else 1
    usual = float(np.median(scale))
    level = float(np.median(np.concatenate([anchor.heights for anchor in anchors]))) if anchors else 0.0

    def plane(number: int, row: float, column: float) -> tuple[list[int], list[float]]:
        tile = tiles[number]
        down = (row - tile.row - (tile.height - 1) / 2) / tile.height
        across = (column - tile.column - (tile.width - 1) / 2) / tile.width
        return [size * number + place for place in range(size)], [1.0, down, across][:size]

    system = _System(size * count)
    for overlap in overlaps:
        steps = scale[overlap.second] * overlap.second_values - scale[overlap.first] * overlap.first_values
        errors = usual * np.sqrt(overlap.counts.mean() / overlap.counts)
        for row, column, step, error in zip(overlap.rows, overlap.columns, steps, errors, strict=True):
            places, factors = plane(overlap.first, row, column)
            others, minus = plane(overlap.second, row, column)
            system.add([*places, *others], [*factors, *(-factor for factor in minus)], step, error, group=0)
    for anchor in anchors:
        steps = anchor.heights - level - scale[anchor.tile] * anchor.values
        # All heights of a tile together weigh as much as the few cells of one overlap: they fix its level, not its
        # seams.
        error = usual * np.sqrt(max(len(steps), 1) / 12.0)
        for row, column, step in zip(anchor.rows, anchor.columns, steps, strict=True):
            places, factors = plane(anchor.tile, row, column)
            system.add(places, factors, step, error, group=1)
    # One tile of each group stands where it is: to hold all of them would tilt a scene whose tiles' shifts rise.
    held = np.zeros((count, size), bool)
    held[np.unique(component, return_index=True)[1], 0] = True
    ridge = np.zeros((count, size))
    prior = _PRIOR_TILT * usual * span
    for _ in range(1 + tilt * _PRIOR_ROUNDS):
        ridge[:, 1:] = prior**-2
        solved = system.solve(ridge.ravel(), held.ravel()).reshape(count, size)
        # Noise looks like tilts: they are believed as far as they are usual in this scene.
        prior = max(float(np.sqrt(np.mean(solved[:, 1:] ** 2))), _LEAST_TILT * usual * span) if tilt else prior
    shift = _centred(solved[:, 0], component, anchors) + level
    return shift, solved[:, 1:] if tilt else np.zeros((count, 2))


def _centred(values: Floats, component: NDArray[np.int32], anchors: Sequence[Anchor]) -> Floats:
    """Give every group that no anchor ties a mean of 0."""
    free = ~np.isin(component, component[[anchor.tile for anchor in anchors]])
    sums = np.bincount(component, values)
    means = sums / np.bincount(component)
    return np.where(free, values - means[component], values)


class _System:
    """A sparse linear system, solved by robust least squares."""

    def __init__(self, unknowns: int) -> None:
        self._unknowns = unknowns
        self._rows: list[int] = []
        self._columns: list[int] = []
        self._factors: list[float] = []
        self._values: list[float] = []
        self._errors: list[float] = []
        self._groups: list[int] = []

    def add(self, places: Sequence[int], factors: Sequence[float], value: float, error: float, group: int) -> None:
        """Add one equation; the equations of a group share the scale of their errors."""
        self._rows += [len(self._values)] * len(places)
        self._columns += places
        self._factors += factors
        self._values.append(value)
        self._errors.append(error)
        self._groups.append(group)

    def solve(self, ridge: Floats, held: NDArray[np.bool_]) -> Floats:
        """The unknowns; ``ridge`` (unknowns,) pulls each towards 0, and so, hardly, does what ``held`` marks.

        Huber's estimate by iteratively reweighted least squares.  The scale of the residuals is their median size,
        group by group, because overlaps and heights differ in accuracy by an unknown amount.
        """
        if not self._values:
            return np.zeros(self._unknowns)
        shape = (len(self._values), self._unknowns)
        matrix = sparse.csr_array((self._factors, (self._rows, self._columns)), shape=shape)
        values, errors, groups = np.array(self._values), np.array(self._errors), np.array(self._groups)
        least = 1e-4 * max(float(np.abs(values / errors).max()), 1e-12)
        robust, solved = np.ones(len(values)), np.zeros(self._unknowns)
        spread = np.ones(len(values))
        for _ in range(_ITERATIONS):
            weights = robust / (errors * spread) ** 2
            normal = sparse.csc_array(matrix.T @ sparse.diags_array(weights) @ matrix)
            # The common shift of a group, which no equation fixes, must not make the system singular.
            normal = sparse.csc_array(normal + sparse.diags_array(ridge + held * _GAUGE * normal.diagonal().max()))
            before, solved = solved, np.atleast_1d(spsolve(normal, matrix.T @ (weights * values)))
            standardised = np.abs(values - matrix @ solved) / errors
            for group in np.unique(groups):
                sigma = _MAD_TO_SIGMA * float(np.median(standardised[groups == group]))
                spread[groups == group] = max(sigma, least)
            robust = np.minimum(1.0, _HUBER * spread / np.maximum(standardised, 1e-300))
            if np.abs(solved - before).max() <= 1e-9 * max(np.abs(solved).max(), 1e-300):
                break
        return solved
