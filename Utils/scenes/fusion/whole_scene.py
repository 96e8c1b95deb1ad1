"""One fit for a whole scene, where a DEM's cells are so wide that no tile holds enough of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray

from Utils.core.errors import UserError
from Utils.rasters.geometry import Geometry
from Utils.scenes.fusion.anchors import FEWEST_HEIGHTS, Line, fit_line, supports_scale
from Utils.scenes.fusion.cells import CoarseHeights
from Utils.scenes.joining.tile_alignment import TileAlignment
from Utils.scenes.tiles.tile_grid import Tile

# Cells of a DEM resemble their neighbours, but such wide ones less than those of a fit within a tile.
_CELLS_AN_OBSERVATION = 4.0


def fit_whole_scene(
    reference: CoarseHeights,
    mosaic: Path,
    scene: Geometry,
    tiles: Sequence[Tile],
    alignment: TileAlignment,
    scale_known: bool = False,
) -> TileAlignment | None:
    """Bring tiles that are aligned with one another to metres, by one robust line for each group of them.

    Args:
        reference: the DEM.
        mosaic: the blended map of ``alignment``; NaN where invalid.
        scene: where its pixels lie.
        tiles: all tiles.
        alignment: scales and shifts that are right but for one scale and shift a group. A group with too few cells gets
            those of the group with the most.
        scale_known: whether the maps are in metres already, so that only shifts are to be found.

    Returns:
        The alignment in metres, or None where the DEM does not go with the model's map in any group.

    Raises:
        UserError: too few cells lie on valid pixels.
    """
    with rasterio.open(mosaic) as source:
        known, cells = reference.beside(rasterio.band(source, 1), scene)
    rows, columns = np.nonzero(np.isfinite(cells) & np.isfinite(known))
    values = cells[rows, columns].astype(np.float64)
    heights = known[rows, columns].astype(np.float64)
    places = scene.place(*reference.geometry.coordinates(rows + 0.5, columns + 0.5), reference.geometry.crs)
    group = _groups(*places, tiles, alignment.component)
    counts = {number: int((group == number).sum()) for number in np.unique(alignment.component)}
    most = max(counts, key=lambda number: counts[number])
    if counts[most] < FEWEST_HEIGHTS:
        raise UserError(
            f"--reference is too coarse: a cell is {reference.pixels_a_cell:.0f} pixels wide, and {counts[most]} cells "
            f"with heights lie wholly on valid pixels of the scene, where {FEWEST_HEIGHTS} or more are needed; give a "
            "finer DEM or --points. Nothing was written; the tiles stay for --resume"
        )
    lines: dict[int, Line] = {}
    for number, count in counts.items():
        if count >= FEWEST_HEIGHTS:
            line = fit_line(values[group == number], heights[group == number])
            if supports_scale(line, count, count / _CELLS_AN_OBSERVATION):
                steps = (heights - values)[group == number]
                lines[number] = replace(line, scale=1.0, shift=float(np.median(steps))) if scale_known else line
    if not lines:
        return None
    usual = lines.get(most, next(iter(lines.values())))
    chosen = [lines.get(int(number), usual) for number in alignment.component]
    factor, shift = (np.array([getattr(line, what) for line in chosen]) for what in ("scale", "shift"))
    return replace(
        alignment,
        scale=alignment.scale * factor,
        shift=alignment.shift * factor + shift,
        tilt=alignment.tilt * factor[:, None],
    )


def _groups(
    rows: NDArray[np.float64], columns: NDArray[np.float64], tiles: Sequence[Tile], component: NDArray[np.int32]
) -> NDArray[np.int64]:
    """The group (N,) of tiles on which each place lies; -1 where it is on tiles of several."""
    found = np.full(len(rows), -2)
    for tile in tiles:
        inside = (rows >= tile.row) & (rows < tile.row + tile.height)
        inside &= (columns >= tile.column) & (columns < tile.column + tile.width)
        number = int(component[tile.number])
        found[inside] = np.where((found[inside] == -2) | (found[inside] == number), number, -1)
    return found
