"""A tile of the ground, from the pieces of the views that show it to its cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from Systems.stereo.dsm.cell_fusion import Points, fuse_points, islands, joined, unsupported
from Systems.stereo.dsm.consistency import Agreement, agreement
from Systems.stereo.dsm.control import least_trust
from Systems.stereo.dsm.crops import crops_of, parallax
from Systems.stereo.dsm.ground import GEOGRAPHIC, ground_pixel, seen_by
from Systems.stereo.dsm.matchers import Matcher
from Systems.stereo.dsm.options import DsmOptions
from Systems.stereo.dsm.views import View
from Utils.rasters.coordinates import transformed
from Utils.rasters.geometry import Geometry

__all__ = ["AT_END", "FILLED", "LAYERS", "NO_MATCH", "UNSEEN", "TilePoints", "dsm_tile", "tile_points"]

Floats = NDArray[np.float64]

FILLED, UNSEEN, NO_MATCH, AT_END = 1, 2, 4, 8
"""Flags of a cell: filled from around it; seen by fewer than two views; seen, but without heights that agree; its
height lies at an end of the range that was searched."""

LAYERS = ("height", "uncertainty", "views", "flags")

# Cells around a tile that are made with it, so that filters see the same at its border as in its middle.
_RIM = 8
# Pixels of parallax from one plane to the next.
_STEP = 0.5
# Percentage of the control's matches that must be worse than one that counts: in a tile, where what stands alone is
# taken out later, and in a first look, from which is judged whether anything matches.
_WORSE, _WORSE_REDUCED = 50.0, 90.0
# Share of the pixels around one that must have been matched to about the same height.
_LEAST_DENSITY = 0.4
# The same of the cells around one.
_LEAST_SUPPORT = 0.25
# The best that a window's peak is believed, as deviation in pixels; measured on the real pair of docs/stereo.md.
_LEAST_DEVIATION = 0.15
# Base to height that matches best: less is inexact, more shows too different sides.
_BEST_BASE = 0.4
# Planes from an end of the range at which a height counts as lying there.
_END = 1.5


@dataclass(frozen=True)
class TilePoints:
    """What was matched in a tile.

    Attributes:
        points: points on which enough views agree.
        best: heights of all matched pixels of the references, whether others agree or not (M,).
        deviation: metres of the least deviation that a height is believed to have.
        tolerance: metres by which views may disagree.
        step: metres from plane to plane.
    """

    points: Points
    best: Floats
    deviation: float
    tolerance: float
    step: float

    @property
    def agree(self) -> float:
        """The share of matched pixels on which enough views agree."""
        return len(self.points.height) / max(len(self.best), 1)

    def at_ends(self, limits: tuple[float, float]) -> float:
        """The share of all best matches that lie at the ends of a range."""
        near = _END * self.step
        ends = (self.best <= limits[0] + near) | (self.best >= limits[1] - near)
        return float(np.count_nonzero(ends)) / max(len(self.best), 1)


def tile_points(
    views: Sequence[View],
    place: Geometry,
    heights: tuple[float, float],
    matcher: Matcher,
    options: DsmOptions,
    reduction: int = 1,
) -> TilePoints | None:
    """Match the pieces of all views that show a tile, and keep what they agree upon; None where no two show it.

    Args:
        views: all views.
        place: the tile.
        heights: lowest and highest height to search, in metres.
        matcher: finds heights.
        options: references, sources and tolerance.
        reduction: pixels that are taken together along each side first.
    """
    shown = crops_of(views, place, heights, reduction)
    middle = sum(heights) / 2
    moves = np.array(
        [[parallax(a.model, b.model, place, middle) if a is not b else 0.0 for b in shown.crops] for a in shown.crops]
    )
    if len(shown.crops) < 2 or not moves.max() > 0:
        return None
    pixel = reduction * ground_pixel(views[shown.numbers[0]], middle)
    wanted = [i for i, number in enumerate(shown.numbers) if _is_reference(number, options)]
    sources = [_sources(moves[i] * pixel, options.sources) for i in range(len(moves))]
    needed = {*wanted, *(source for i in wanted for source in sources[i])}
    maps = [np.full(crop.pixels.shape, np.nan, np.float32) for crop in shown.crops]
    trust, least = list(maps), [-np.inf] * len(maps)
    for i in sorted(needed):
        crops = [shown.crops[i], *(shown.crops[source] for source in sources[i])]
        step = _STEP / moves[i, sources[i]].max()
        maps[i], trust[i] = matcher.match(crops, heights, step)
        strict = _WORSE_REDUCED if reduction > 1 else _WORSE
        least[i] = least_trust(crops, heights, step, matcher, strict)
    tolerances = options.tolerance / np.maximum(moves, 1e-9)
    found = [(i, agreement(i, shown.crops, maps, tolerances[i])) for i in wanted]
    if not found:
        return None
    parts = [_kept(each, trust[i], least[i], place, options) for i, each in found]
    largest = moves.max()
    return TilePoints(
        joined(parts),
        np.concatenate([each.height for _, each in found]),
        _LEAST_DEVIATION / largest,
        options.tolerance / largest,
        _STEP / largest,
    )


def dsm_tile(
    views: Sequence[View],
    place: Geometry,
    heights: tuple[float, float],
    limits: tuple[float, float],
    matcher: Matcher,
    options: DsmOptions,
    pixel: float,
) -> tuple[NDArray[np.float32], TilePoints | None]:
    """The layers (4, h, w) of a tile in the order of ``LAYERS``, and what they were made of.

    Args:
        views: all views.
        place: the tile.
        heights: lowest and highest height to search here.
        limits: the range of heights of the whole run; what lies at its ends is flagged.
        matcher: finds heights.
        options: how points become cells.
        pixel: metres of the images' pixels on the ground.
    """
    wide = place.grown(_RIM)
    layers = np.full((4, place.height, place.width), np.nan, np.float32)
    layers[2], layers[3] = 0.0, np.where(_seen_twice(views, place, sum(heights) / 2), NO_MATCH, UNSEEN)
    found = tile_points(views, wide, heights, matcher, options)
    if found is None or not len(found.points.height):
        return layers, found
    resolution = abs(place.transform.a)
    reach = round(pixel / resolution)
    cells = fuse_points(found.points, wide, reach, apart=4 * found.tolerance)
    height = cells.height.copy()
    height[unsupported(height, 2 * found.tolerance, _LEAST_SUPPORT)] = np.nan
    height[islands(np.isfinite(height))] = np.nan
    inner = (slice(_RIM, -_RIM), slice(_RIM, -_RIM))
    height, spread, count = height[inner], cells.spread[inner], cells.views[inner]
    known = np.isfinite(height)
    layers[0] = height
    layers[1][known] = np.maximum(spread[known], found.deviation)
    layers[2][known] = count[known]
    near = _END * found.step
    at_end = (height <= limits[0] + near) | (height >= limits[1] - near)  # False for NaN
    layers[3][known] = np.where(at_end[known], AT_END, 0)
    return layers, found


def _is_reference(number: int, options: DsmOptions) -> bool:
    return options.references is None or number in options.references


def _sources(bases: Floats, most: int) -> list[int]:
    """The views that a reference is matched with: those whose base to height is nearest to the best one."""
    others = np.nonzero(bases > 0)[0]
    ranked = others[np.argsort(np.abs(np.log(bases[others] / _BEST_BASE)), kind="stable")]
    return [int(other) for other in ranked[:most]]


def _kept(found: Agreement, score: NDArray[np.float32], least: float, place: Geometry, options: DsmOptions) -> Points:
    """The points that count, in the grid's system.

    Enough views agree on them, they match better than wrong ones do, and the pixels around them say the same: of wrong
    matches some agree by chance, but few, and not with one another.
    """
    keep = (found.agreeing >= options.agreeing) & (score[found.rows, found.columns] > least)
    kept = np.full(score.shape, np.nan)
    kept[found.rows[keep], found.columns[keep]] = found.height[keep]
    alone = unsupported(kept, 2 * found.tolerance, _LEAST_DENSITY)
    keep &= ~alone[found.rows, found.columns]
    x, y = transformed(GEOGRAPHIC, place.crs, found.longitude[keep], found.latitude[keep])
    trust = np.clip(score[found.rows[keep], found.columns[keep]], 0.05, 1.0).astype(np.float64)
    return Points(x, y, found.height[keep], trust, found.agreeing[keep] + 1)


def _seen_twice(views: Sequence[View], place: Geometry, height: float) -> NDArray[np.bool_]:
    """Whether two views or more see each cell (h, w), at one height."""
    rows, columns = np.mgrid[: place.height, : place.width]
    xs, ys = place.coordinates(rows.ravel() + 0.5, columns.ravel() + 0.5)
    longitude, latitude = transformed(place.crs, GEOGRAPHIC, xs, ys)
    seen = sum(seen_by(view, longitude, latitude, height).astype(np.intp) for view in views)
    return np.asarray(seen >= 2).reshape(place.height, place.width)
