"""One height raster of all scenes of a dataset folder."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from Systems.stereo.dsm.cell_fusion import Points, fuse_points, islands, joined, unsupported
from Systems.stereo.dsm.tile_heights import NO_MATCH, UNSEEN
from Systems.stereo.folder.scene_points import LOCAL, KeptScene, ScenePoints, grid_of, seen_twice
from Utils.core.errors import UserError
from Utils.rasters.geometry import Geometry
from Utils.scenes.output.height_writer import Band, HeightWriter

__all__ = ["write_folder_dsm"]

logger = logging.getLogger(__name__)

# Cells of a strip, and rows beside it that are made with it, so that filters see the same at its border.
_STRIP, _RIM = 2_000_000, 8
_MOST_CELLS = 1_000_000_000
_LEAST_SUPPORT = 0.25
# Share of cells in which scenes differ from which they are suspected to lie in different worlds.
_MANY_APART = 0.2


def write_folder_dsm(
    path: Path, scenes: Sequence[KeptScene], resolution: float, crs: Any, tags: Mapping[str, str], datum: str
) -> dict[str, Any]:
    """Write the raster, strip by strip; gives its grid and coverage.

    Args:
        path: GeoTIFF to write.
        scenes: what it is made of.
        resolution: metres of a cell.
        crs: its system; ``LOCAL`` writes none.
        tags: of the file.
        datum: what its heights refer to, in words.

    Raises:
        UserError: too many cells, or a file that cannot be written.
    """
    ground = grid_of(scenes, crs, resolution)
    if ground.height * ground.width > _MOST_CELLS:
        raise UserError(
            f"--dsm: {ground.width} x {ground.height} cells of {resolution:g} m span all scenes; give a coarser "
            "--resolution, or scenes that lie together"
        )
    named = None if crs == LOCAL else crs
    found, cells = 0, 0
    shared, apart = 0, 0
    with HeightWriter(path, ground.height, ground.width, _bands(datum), named, ground.transform, tags) as writer:
        rows = max(1, min(ground.height, _STRIP // ground.width))
        for row in range(0, ground.height, rows):
            layers, conflicts = _strip(ground.window(row, 0, min(rows, ground.height - row), ground.width), scenes)
            shared, apart = shared + conflicts[0], apart + conflicts[1]
            known = np.isfinite(layers[0])
            seen = known | (layers[3] != UNSEEN)
            found, cells = found + int(known.sum()), cells + int(seen.sum())
            writer.write(row, layers)
    if apart > _MANY_APART * shared:
        logger.warning(
            "%.0f %% of the %d cells that several scenes cover have heights that differ from scene to scene: do all "
            "cameras lie in one world, or does each scene need a raster of its own?",
            100 * apart / shared,
            shared,
        )
    return {
        "grid": {
            "crs": None if named is None else named.to_string(),
            "resolution": resolution,
            "left": ground.transform.c,
            "top": ground.transform.f,
            "width": ground.width,
            "height": ground.height,
        },
        "coverage": {"cells": cells, "found": found, "share": round(found / max(cells, 1), 4)},
    }


def _bands(datum: str) -> list[Band]:
    return [
        Band("height", f"height in metres above {datum}", "metre"),
        Band("uncertainty", "one standard deviation of the height in metres", "metre"),
        Band("views", "how many views agree about the cell", ""),
        Band("flags", f"{UNSEEN}: seen by fewer than two views, {NO_MATCH}: seen but without heights that agree", ""),
    ]


def _strip(place: Geometry, scenes: Sequence[KeptScene]) -> tuple[NDArray[np.float32], tuple[int, int]]:
    """The layers (4, h, w) of a part of the grid; cells with points of several scenes, and those where they differ."""
    wide = place.grown(_RIM)
    west, north = wide.transform.c, wide.transform.f
    east, south = wide.transform @ (wide.width, wide.height)
    inside = [s for s in scenes if s.bounds[0] <= east and s.bounds[2] >= west and s.bounds[1] <= north]
    inside = [scene for scene in inside if scene.bounds[3] >= south]
    layers = np.full((4, place.height, place.width), np.nan, np.float32)
    twice = np.zeros((place.height, place.width), bool)
    for scene in inside:
        twice |= seen_twice(scene, place)
    layers[2], layers[3] = 0.0, np.where(twice, NO_MATCH, UNSEEN)
    parts = [scene.load().within(west, south, east, north) for scene in inside]
    if not sum(len(part.points.height) for part in parts):
        return layers, (0, 0)
    _fuse(layers, wide, parts, max(scene.pixel for scene in inside))
    return layers, _conflicts(place, parts)


def _conflicts(place: Geometry, parts: Sequence[ScenePoints]) -> tuple[int, int]:
    """Cells with points of two scenes or more, and how many of them lie further apart than those of one surface."""
    count = place.height * place.width
    low, high, scenes = np.full(count, np.inf), np.full(count, -np.inf), np.zeros(count, np.intp)
    for part in parts:
        rows, columns = (np.floor(axis).astype(int) for axis in place.place(part.points.x, part.points.y, place.crs))
        inside = (rows >= 0) & (rows < place.height) & (columns >= 0) & (columns < place.width)
        index = rows[inside] * place.width + columns[inside]
        number = np.bincount(index, minlength=count)
        mean = np.bincount(index, part.points.height[inside], count) / np.maximum(number, 1)
        there = number > 0
        low[there], high[there] = np.minimum(low[there], mean[there]), np.maximum(high[there], mean[there])
        scenes += there
    shared = scenes >= 2
    apart = 4 * min(part.tolerance for part in parts)
    return int(shared.sum()), int((shared & (high - low > apart)).sum())


def _fuse(layers: NDArray[np.float32], wide: Geometry, parts: Sequence[ScenePoints], pixel: float) -> None:
    """Fill the layers from points."""
    tolerance = min(part.tolerance for part in parts)
    points: Points = joined([part.points for part in parts])
    cells = fuse_points(points, wide, round(pixel / abs(wide.transform.a)), apart=4 * tolerance)
    height = cells.height.copy()
    height[unsupported(height, 2 * tolerance, _LEAST_SUPPORT)] = np.nan
    height[islands(np.isfinite(height))] = np.nan
    inner = (slice(_RIM, -_RIM), slice(_RIM, -_RIM))
    known = np.isfinite(height[inner])
    least = float(np.median(np.concatenate([part.deviation for part in parts])))
    layers[0] = height[inner]
    layers[1][known] = np.maximum(cells.spread[inner][known], least)
    layers[2][known] = cells.views[inner][known]
    layers[3][known] = 0.0
