"""How well pieces match that show different ground: what a match has to be better than."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from Systems.stereo.dsm.matchers import Matcher
from Systems.stereo.dsm.views import Crop

__all__ = ["least_trust"]

# Pixels by which other views are moved beside the way that points take with their height: no pointing is so far off.
_BESIDE = 40.0
# The control sees this part of the reference along each side, and at least so many pixels.
_PART, _LEAST_SIDE = 3, 64
# Matches of the control from which it is believed.
_LEAST_MATCHES = 200


def least_trust(
    crops: Sequence[Crop], heights: tuple[float, float], step: float, matcher: Matcher, percentile: float
) -> float:
    """The trust that a match must exceed: that of a percentage of matches that can only be wrong.

    The same matcher looks for the same heights in a piece of the reference, but in other views that are moved aside, so
    that each shows ground beside. Texture that resembles itself everywhere gives high scores there too.

    Args:
        crops: the pieces that are matched; the first is the reference.
        heights: the range that is searched.
        step: as for ``Matcher.match``.
        matcher: finds heights.
        percentile: this percentage of the wrong matches must be worse.
    """
    rows, columns = (_middle(length) for length in crops[0].pixels.shape)
    piece = Crop(crops[0].pixels[rows, columns], crops[0].model.shifted(columns.start, rows.start))
    middle = sum(heights) / 2
    moved = [replace(crop, model=crop.model.shifted(*_aside(piece, crop, middle))) for crop in crops[1:]]
    trust = matcher.match([piece, *moved], heights, step)[1]
    known = trust[np.isfinite(trust)]
    return float(np.percentile(known, percentile)) if len(known) >= _LEAST_MATCHES else -np.inf


def _middle(length: int) -> slice:
    side = min(length, max(length // _PART, _LEAST_SIDE))
    return slice((length - side) // 2, (length - side) // 2 + side)


def _aside(piece: Crop, other: Crop, height: float) -> NDArray[np.float64]:
    """Columns and rows across the way that the middle of a piece takes in another view as it rises."""
    rows, columns = piece.pixels.shape
    seen = [
        np.array(other.model.project(*piece.model.locate(columns / 2, rows / 2, height + up), height + up))
        for up in (-0.5, 0.5)
    ]
    along = seen[1] - seen[0]
    return np.array([-along[1], along[0]]) / max(float(np.hypot(*along)), 1e-12) * _BESIDE
