"""By what level and plane known heights differ from a scene whose tiles are in metres, for each group of tiles.

Overlaps join tiles of metres to a scene whose level nobody knows, and whose slope adds up from the slopes that the
model gave its tiles. Known heights tell both: how large the plane is says how far the scene would lean without them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from Utils.scenes.joining.tile_alignment import Anchor, TileAlignment
from Utils.scenes.tiles.tile_grid import Tile

logger = logging.getLogger(__name__)


def removed_planes(tiles: Sequence[Tile], free: TileAlignment, anchors: Sequence[Anchor]) -> list[dict[str, Any]]:
    """The level and plane, in metres, that fit known heights less a scene that was joined without them.

    Args:
        tiles: all tiles.
        free: the alignment by overlaps alone, of maps in metres.
        anchors: known heights beside the values of tiles.

    Returns:
        JSON, an entry for each group of tiles that touch and that known heights reach: the group's number, the heights'
        count, ``level``, ``rise_down`` and ``rise_across`` from edge to edge of the scene, and ``rest``, the mean size
        of what neither level nor plane explains.
    """
    height = max(tile.row + tile.height for tile in tiles)
    width = max(tile.column + tile.width for tile in tiles)
    found = []
    for group in np.unique(free.component[[anchor.tile for anchor in anchors]]):
        own = [anchor for anchor in anchors if free.component[anchor.tile] == group]
        rows = np.concatenate([anchor.rows for anchor in own]) / height
        columns = np.concatenate([anchor.columns for anchor in own]) / width
        drawn = [anchor.values + _free_heights(tiles[anchor.tile], free, anchor) for anchor in own]
        step = np.concatenate([anchor.heights for anchor in own]) - np.concatenate(drawn)
        # Of heights on one line the flattest plane.
        terms = np.column_stack([np.ones(len(step)), rows - rows.mean(), columns - columns.mean()])
        factors = np.linalg.lstsq(terms, step, rcond=None)[0]
        rest = float(np.abs(step - terms @ factors).mean())
        level, down, across = (float(factor) for factor in factors)
        names = {"component": int(group), "count": sum(anchor.count for anchor in own)}
        found.append(names | {"level": level, "rise_down": down, "rise_across": across, "rest": rest})
        logger.info(
            "group %d: %d known heights differ from the joined tiles by %+.2f m, by a plane that rises %+.2f m down "
            "the scene and %+.2f m across it, which are taken away, and by %.2f m beyond that",
            group,
            names["count"],
            level,
            down,
            across,
            rest,
        )
    return found


def _free_heights(tile: Tile, free: TileAlignment, anchor: Anchor) -> Any:
    """What the alignment adds to a tile's values at the places of known heights."""
    down = (anchor.rows - tile.row - (tile.height - 1) / 2) / tile.height
    across = (anchor.columns - tile.column - (tile.width - 1) / 2) / tile.width
    return free.shift[tile.number] + free.tilt[tile.number, 0] * down + free.tilt[tile.number, 1] * across
