"""Which pieces of the views show a tile of the ground, and how far heights move points in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from Systems.stereo.dsm.ground import GEOGRAPHIC
from Systems.stereo.dsm.views import Crop, View
from Utils.rasters.coordinates import transformed
from Utils.rasters.geometry import Geometry
from Utils.rasters.rational import RationalModel

__all__ = ["TileViews", "crops_of", "parallax"]

# Pixels around what the tile covers: windows reach over it, and other views are asked beside it.
_MARGIN = 16
# Views that show fewer pixels of a tile along one side are left out.
_LEAST_SIDE = 24


@dataclass(frozen=True)
class TileViews:
    """The pieces of the views that show a tile.

    Attributes:
        numbers: number of each view.
        crops: the piece of each.
    """

    numbers: tuple[int, ...]
    crops: tuple[Crop, ...]


def crops_of(views: Sequence[View], place: Geometry, heights: tuple[float, float], reduction: int = 1) -> TileViews:
    """The pieces of all views that show a tile of the ground at any height of a range.

    Args:
        views: the views.
        place: the tile.
        heights: lowest and highest height in metres.
        reduction: pixels that become one along each side.
    """
    xs, ys = place.outline(place.crs, points=9)
    longitude, latitude = transformed(place.crs, GEOGRAPHIC, xs, ys)
    numbers, crops = [], []
    for view in views:
        seen = [view.model.project(longitude, latitude, height) for height in np.linspace(*heights, 3)]
        columns, rows = (np.concatenate([each[i] for each in seen]) for i in (0, 1))
        if not (np.isfinite(columns).all() and np.isfinite(rows).all()):
            continue
        margin = _MARGIN * reduction
        left, top = (max(0, int(values.min()) - margin) for values in (columns, rows))
        right = min(view.source.width, int(columns.max()) + margin + 1)
        bottom = min(view.source.height, int(rows.max()) + margin + 1)
        if min(right - left, bottom - top) < _LEAST_SIDE * reduction:
            continue
        crop = view.crop(top, left, bottom - top, right - left, reduction)
        if np.isfinite(crop.pixels).any():
            numbers.append(view.number)
            crops.append(crop)
    return TileViews(tuple(numbers), tuple(crops))


def parallax(first: RationalModel, second: RationalModel, place: Geometry, height: float) -> float:
    """Pixels by which a metre of height moves a point in the second view, seen from a pixel of the first."""
    longitude, latitude = transformed(place.crs, GEOGRAPHIC, *([value] for value in place.centre))
    column, row = first.project(longitude, latitude, height)
    seen = [second.project(*first.locate(column, row, height + up), height + up) for up in (-0.5, 0.5)]
    return float(np.hypot(seen[1][0] - seen[0][0], seen[1][1] - seen[0][1])[0])
