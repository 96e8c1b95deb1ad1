"""A first look at the ground: sample tiles, matched with reduced images, say how high it lies and where to look."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

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

# Sample tiles in which exchanged lines and samples are tried where nothing matches.
_TRIED_SWAPPED = 4
_USUAL_REASONS = (
    "Are the images of the same ground and free of clouds there, do the RPCs belong to them, and does the range "
    "contain the ground"
)


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
    samples, ends = [], []
    low, high = np.inf, -np.inf
    for place in places:
        found = narrowed(views, place, limits, matcher, options, pixel)
        if found is not None and found.heights is None:
            ends.append(found.at_ends)
        if found is None or found.heights is None:
            continue
        low, high = min(low, found.heights[0]), max(high, found.heights[1])
        samples.append(SampleTile(place, found.cells))
    if not samples:
        why = _swapped(views, places[:_TRIED_SWAPPED], limits, matcher, options, pixel) or _ends(ends) or _USUAL_REASONS
        raise UserError(
            f"nothing matched: of {len(places)} sample tiles none has heights on which two images agree between "
            f"{limits[0]:g} and {limits[1]:g} m. {why}. Nothing was written"
        )
    margin = _SHARE * (high - low) + _METRES
    heights = (max(limits[0], low - margin), min(limits[1], high + margin))
    logger.info(
        "first look: heights between %.0f and %.0f m in %d of %d sample tiles", low, high, len(samples), len(places)
    )
    return Survey(heights, samples, len(places))


def _ends(shares: Sequence[float]) -> str:
    share = float(np.mean(shares)) if shares else 0.0
    if not share:
        return ""
    return f"{100 * share:.0f} % of the best matches lie at the ends of this range: it seems to miss the ground"


def _swapped(
    views: Sequence[View],
    places: Sequence[Geometry],
    limits: tuple[float, float],
    matcher: Matcher,
    options: DsmOptions,
    pixel: float,
) -> str:
    """Whether the images match once line and sample of a view's camera are exchanged; which one's, in words."""
    for view in views:
        model = view.model.swapped().fitted_to(view.source.height, view.source.width)
        others = [replace(view, model=model) if other is view else other for other in views]
        for place in places:
            found = narrowed(others, place, limits, matcher, options, pixel)
            if found is not None and found.heights is not None:
                return f"'{view.name}' matches when line and sample of its RPC are exchanged: mend its RPC"
    return ""


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
