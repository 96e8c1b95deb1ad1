"""The views moved onto one another: each camera looks a few pixels past where it says, which shows where rays miss.

Of the shift of a pair only the part across the way that points take with their height shows. What lies along it looks
like height, and what all views share looks like a place: of all shifts that explain the matches the smallest are taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from Systems.stereo.dsm.views import View

__all__ = ["Pointing", "Tracks", "solve_pointing"]

Floats = NDArray[np.float64]

# Pixels: how exact a match is, and beyond how many deviations it counts less.
_MATCH_DEVIATION, _HUBER = 0.3, 1.5
# What a shift must change in the pictures, as a share of what the most visible shift changes, squared.
_LEAST_TOLD = 0.02
_ROUNDS = 5
# Tracks that a view needs to be moved.  Up to a third of clear matches may be wrong; of four, two then often agree.
_LEAST_TRACKS = 10


@dataclass(frozen=True)
class Tracks:
    """Points of the ground, T of them, each seen by two of the V views or more.

    Attributes:
        seen: column and row at which each view sees each point (T, V, 2); NaN where it was not found.
        places: longitude, latitude and height from which the points are sought (T, 3).
    """

    seen: Floats
    places: Floats


@dataclass(frozen=True)
class Pointing:
    """What was found.

    Attributes:
        views: the views, moved.
        shifts: pixels by which each was moved, right and down (V, 2).
        before: how far rays miss the points that they share, in pixels of an image, a value a track.
        after: the same with the shifts.
        counts: tracks in which each view has a part.
        kept: why all views stay where their cameras put them; empty where some were moved.
    """

    views: list[View] = field(repr=False)
    shifts: Floats
    before: Floats = field(repr=False)
    after: Floats = field(repr=False)
    counts: NDArray[np.intp]
    kept: str = ""

    def too_few(self) -> list[View]:
        """The views that stay because too few tracks see them."""
        return [view for view, count in zip(self.views, self.counts, strict=True) if count < _LEAST_TRACKS]

    def describe(self) -> dict[str, Any]:
        """Shifts and residuals as plain JSON."""
        return {
            "matches": len(self.before),
            "kept": self.kept,
            "residual_before": _spread(self.before),
            "residual_after": _spread(self.after),
            "views": [
                {"view": view.name, "matches": int(count), "columns": round(float(x), 3), "rows": round(float(y), 3)}
                for view, count, (x, y) in zip(self.views, self.counts, self.shifts, strict=True)
            ],
        }


def solve_pointing(views: Sequence[View], tracks: Tracks) -> Pointing:
    """Find the shift of each view's image with which the rays of all tracks meet best.

    Gauss and Newton's method on shifts and points, the points eliminated track by track; matches that do not fit count
    less (Huber 1964). Of all shifts that explain the matches the smallest are taken. A view that fewer than ten tracks
    see stays, because a few wrong matches would move it; and all views stay where shifts bring the rays no nearer to
    one another in the median.

    Args:
        views: all views.
        tracks: what they see.
    """
    still = np.zeros((len(views), 2))
    counts = np.isfinite(tracks.seen).all(axis=2).sum(axis=0)
    before = _residuals(views, tracks, still)

    def unmoved(why: str) -> Pointing:
        return Pointing(list(views), still, before, before, counts, why)

    if not len(before):
        return unmoved("no match is clear")
    enough = _well_seen(tracks)
    if not len(enough.seen):
        return unmoved(f"{len(before)} clear matches are too few: a view needs {_LEAST_TRACKS}")
    shifts = _shifts(views, enough)
    after = _residuals(views, tracks, shifts)
    if np.median(after) >= np.median(before):
        return unmoved(
            f"rays miss one another by {np.median(before):.2f} pixels as they are, and no shift brings them nearer"
        )
    moved = [view.moved(*shift) for view, shift in zip(views, shifts, strict=True)]
    return Pointing(moved, shifts, before, after, counts)


def _well_seen(tracks: Tracks) -> Tracks:
    """The tracks without views that too few of them see, as far as two views are left to each."""
    seen = tracks.seen
    while True:
        known = np.asarray(np.isfinite(seen).all(axis=2), bool)
        count = known.sum(axis=0)
        poor = (count > 0) & (count < _LEAST_TRACKS)
        lonely = known.sum(axis=1) == 1
        if not (poor.any() or lonely.any()):
            break
        seen = np.where((known & ~poor & ~lonely[:, None])[..., None], seen, np.nan)
    kept = known.any(axis=1)
    return Tracks(seen[kept], tracks.places[kept])


def _shifts(views: Sequence[View], tracks: Tracks) -> Floats:
    """The shifts (V, 2) in pixels; 0 for views that no track sees."""
    shifts, places = np.zeros((len(views), 2)), tracks.places
    for _ in range(_ROUNDS):
        places, residual, bare = _nearest_points(views, tracks, places, shifts)
        missed = _lengths(tracks, residual, bare)
        weight = np.minimum(1.0, _HUBER * _MATCH_DEVIATION / np.maximum(missed, 1e-9)) / _MATCH_DEVIATION**2
        normal = np.einsum("t,tij->ij", weight, bare)
        right = np.einsum("t,tij,tj->i", weight, bare, residual)
        # Of what the matches hardly tell nothing is taken: it would be noise, and moves of metres on the ground.
        shifts = shifts + (np.linalg.pinv(normal, rcond=_LEAST_TOLD, hermitian=True) @ right).reshape(-1, 2)
    return shifts


def _residuals(views: Sequence[View], tracks: Tracks, shifts: Floats) -> Floats:
    """How far the rays of each track miss one another, in pixels (T,)."""
    if not len(tracks.seen):
        return np.zeros(0)
    _, residual, bare = _nearest_points(views, tracks, tracks.places, shifts)
    return _lengths(tracks, residual, bare)


def _lengths(tracks: Tracks, residual: Floats, bare: Floats) -> Floats:
    free = np.maximum(np.isfinite(tracks.seen).sum(axis=(1, 2)) - 3, 1)
    squares = np.einsum("ti,tij,tj->t", residual, bare, residual)
    # Rounding makes squares of what is exactly met a little negative.
    lengths: Floats = np.sqrt(np.maximum(squares, 0.0) / free)
    return lengths


def _nearest_points(
    views: Sequence[View], tracks: Tracks, places: Floats, shifts: Floats
) -> tuple[Floats, Floats, Floats]:
    """The points of the ground whose pictures are nearest to what was seen.

    Returns:
        Places (T, 3); how far their pictures miss (T, 2 V), 0 where nothing was seen; and the projection (T, 2 V, 2 V)
        onto what of such misses no move of the point explains, 0 where nothing was seen.
    """
    known = np.isfinite(tracks.seen)
    metres = np.array([1.0 / 111_000.0, 1.0 / 111_000.0, 1.0])
    count = len(places)

    def missed(where: Floats) -> Floats:
        pictures = np.stack([np.stack(view.model.project(*where.T), axis=-1) for view in views], axis=1)
        return np.where(known, tracks.seen - pictures - shifts, 0.0).reshape(count, -1)

    slopes = np.zeros((count, 2 * len(views), 3))
    for _ in range(2):
        sides = [(missed(places - step) - missed(places + step)) / 2 for step in np.diag(metres)]
        slopes = np.stack(sides, axis=-1)  # (T, 2 V, 3), pixels a metre
        places = places + np.einsum("tij,tj->ti", np.linalg.pinv(slopes), missed(places)) * metres
    seen = known.reshape(count, -1)
    bare = np.eye(seen.shape[1]) * seen[:, None] - slopes @ np.linalg.pinv(slopes)
    return places, missed(places), bare


def _spread(residuals: Floats) -> dict[str, float | None]:
    """Median and 90th percentile in pixels."""
    if not len(residuals):
        return {"median": None, "p90": None}
    return {"median": round(float(np.median(residuals)), 3), "p90": round(float(np.percentile(residuals, 90)), 3)}
