"""A first look at the ground: sample tiles, matched with reduced images, say how high it lies and where to look."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from rasterio.crs import CRS

from Systems.stereo.dsm.ground import GEOGRAPHIC, common_ground, seen_by
from Systems.stereo.dsm.height_range import narrowed
from Systems.stereo.dsm.matchers import Matcher
from Systems.stereo.dsm.options import DsmOptions
from Systems.stereo.dsm.tie_tracks import SampleTile
from Systems.stereo.dsm.views import View
from Utils.core.errors import UserError
from Utils.rasters.coordinates import transformed
from Utils.rasters.geometry import Geometry
from Utils.scenes.tiles.tile_grid import even_tiles

__all__ = ["Survey", "survey"]

logger = logging.getLogger(__name__)

# Sample tiles at most, and pixels of the images along a side of one.
_MOST_SAMPLES, _SIDE = 16, 400
# Heights at which is asked whether two views see the middle of a tile.
_LEVELS = 7
# What is added to the range found, on both sides: a share of it, and metres.
_SHARE, _METRES = 0.3, 30.0


@dataclass(frozen=True)
class Survey:
    """What the first look found.

    Attributes:
        heights: lowest and highest height that is to be expected.
        samples: the tiles in which something was matched.
        asked: how many tiles were looked at.
    """

    heights: tuple[float, float]
    samples: list[SampleTile] = field(repr=False)
    asked: int


def survey(
    views: Sequence[View], limits: tuple[float, float], crs: CRS, pixel: float, matcher: Matcher, options: DsmOptions
) -> Survey:
    """Look at tiles that are spread over the common ground.

    Args:
        views: all views.
        limits: the range of heights in which is looked.
        crs: a projected system.
        pixel: metres of the images' pixels on the ground.
        matcher: finds heights.
        options: as for the run.

    Raises:
        UserError: nothing was matched anywhere.
    """
    ground = common_ground(views, limits, crs, pixel, options.aoi, options.aoi_crs)
    places = _places(views, ground, limits)
    samples = []
    low, high = np.inf, -np.inf
    for place in places:
        found = narrowed(views, place, limits, matcher, options, pixel)
        if found is None:
            continue
        low, high = min(low, found.heights[0]), max(high, found.heights[1])
        samples.append(SampleTile(place, found.cells))
    if not samples:
        raise UserError(
            f"nothing matched: of {len(places)} sample tiles none has heights on which two images agree between "
            f"{limits[0]:g} and {limits[1]:g} m; are the images of the same ground (and free of clouds there), do the "
            "RPCs belong to them with line and sample in order, and do --heights contain the ground? Nothing was "
            "written"
        )
    margin = _SHARE * (high - low) + _METRES
    heights = (max(limits[0], low - margin), min(limits[1], high + margin))
    logger.info(
        "first look: heights between %.0f and %.0f m in %d of %d sample tiles", low, high, len(samples), len(places)
    )
    return Survey(heights, samples, len(places))


def _places(views: Sequence[View], ground: Geometry, limits: tuple[float, float]) -> list[Geometry]:
    """Tiles spread over the ground whose middles two views may see."""
    grid = even_tiles(ground.height, ground.width, _SIDE)
    tiles = [ground.window(tile.row, tile.column, tile.height, tile.width) for tile in grid]
    centres = np.array([tile.centre for tile in tiles])
    longitude, latitude = transformed(ground.crs, GEOGRAPHIC, centres[:, 0], centres[:, 1])
    shared = np.zeros(len(tiles), bool)
    for height in np.linspace(*limits, _LEVELS):
        shared |= sum(seen_by(view, longitude, latitude, height).astype(np.intp) for view in views) >= 2
    chosen = np.nonzero(shared)[0] if shared.any() else np.arange(len(tiles))
    if len(chosen) > _MOST_SAMPLES:
        chosen = chosen[np.linspace(0, len(chosen) - 1, _MOST_SAMPLES).round().astype(int)]
    return [tiles[number] for number in chosen]
