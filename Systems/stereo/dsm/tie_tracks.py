"""Tracks for the pointing correction: textured points of sample tiles, matched from view to view."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from Systems.stereo.dsm.crops import crops_of
from Systems.stereo.dsm.ground import GEOGRAPHIC
from Systems.stereo.dsm.height_range import CoarseCells
from Systems.stereo.dsm.pointing import Tracks
from Systems.stereo.dsm.tie_points import match_points, textured_points
from Systems.stereo.dsm.views import Crop, View
from Utils.rasters.coordinates import transformed
from Utils.rasters.geometry import Geometry

__all__ = ["SampleTile", "tracks_of"]

logger = logging.getLogger(__name__)

Floats = NDArray[np.float64]

# Corners tried in a tile.
_POINTS_A_TILE = 150
# Pixels within which a height must be known to start from.
_NEAR = 10.0


@dataclass(frozen=True)
class SampleTile:
    """A tile of the ground about whose heights something is known.

    Attributes:
        place: the tile.
        cells: what is known.
    """

    place: Geometry
    cells: CoarseCells


def tracks_of(views: Sequence[View], samples: Sequence[SampleTile]) -> Tracks:
    """Match corners of each sample tile; each view takes its turn as the one that corners are taken from.

    Args:
        views: all views.
        samples: tiles with rough heights.
    """
    parts = [_tracks(views, sample, turn) for turn, sample in enumerate(samples)]
    parts = [part for part in parts if part is not None]
    if not parts:
        return Tracks(np.zeros((0, len(views), 2)), np.zeros((0, 3)))
    return Tracks(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("seen", "places")))


def _tracks(views: Sequence[View], sample: SampleTile, turn: int) -> Tracks | None:
    span = (float(sample.cells.height.min()), float(sample.cells.height.max()))
    shown = crops_of(views, sample.place, span)
    if len(shown.numbers) < 2:
        return None
    first = turn % len(shown.numbers)
    reference = shown.crops[first]
    rows, columns = textured_points(reference.pixels, 4 * _POINTS_A_TILE)
    heights = _heights_at(reference, rows, columns, sample)
    known = np.nonzero(np.isfinite(heights))[0][:_POINTS_A_TILE]
    rows, columns, heights = rows[known], columns[known], heights[known]
    if not len(rows):
        return None
    seen = np.full((len(rows), len(views), 2), np.nan)
    for number, crop in zip(shown.numbers, shown.crops, strict=True):
        if crop is reference:
            found, good = (columns.astype(float), rows.astype(float)), np.ones(len(rows), bool)
        else:
            match = match_points(reference, crop, rows, columns, heights)
            found, good = (match.columns, match.rows), match.good
        # The piece counts from its corner, which is where its camera was shifted to.
        whole = views[number].model
        left, top = whole.direct[1] - crop.model.direct[1], whole.direct[0] - crop.model.direct[0]
        seen[good, number] = np.stack([found[0] + left, found[1] + top], axis=-1)[good]
    twice = np.isfinite(seen).all(axis=2).sum(axis=1) >= 2
    longitude, latitude = reference.model.locate(columns, rows, heights)
    places = np.stack([longitude, latitude, heights], axis=-1)
    return Tracks(seen[twice], places[twice])


def _heights_at(reference: Crop, rows: NDArray[np.intp], columns: NDArray[np.intp], sample: SampleTile) -> Floats:
    """The height (N,) of the known point that is seen nearest to each pixel; NaN where none is near."""
    longitude, latitude = transformed(sample.place.crs, GEOGRAPHIC, sample.cells.x, sample.cells.y)
    across, down = reference.model.project(longitude, latitude, sample.cells.height)
    distance, which = cKDTree(np.stack([across, down], axis=-1)).query(np.stack([columns, rows], axis=-1))
    return np.where(distance <= _NEAR, sample.cells.height[which], np.nan)
