"""What the JSON beside a scene says of its fits: each tile's, and how the result agrees with the known heights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from Utils.rasters.geometry import Geometry
from Utils.scenes.fusion.cells import CoarseHeights
from Utils.scenes.joining.tile_alignment import Anchor, TileAlignment
from Utils.scenes.options import SceneOptions
from Utils.scenes.tiles.tile_grid import TileGrid


def describe_tiles(
    grid: TileGrid, alignment: TileAlignment, anchors: Sequence[Anchor], options: SceneOptions
) -> dict[str, Any]:
    """Every tile's place, its scale and shift, and in metres how it was fitted to the known heights."""
    by_tile = {anchor.tile: anchor for anchor in anchors}
    rows = []
    for tile in grid.tiles:
        number, anchor = tile.number, by_tile.get(tile.number)
        row: dict[str, Any] = {
            "row": tile.row,
            "column": tile.column,
            "scale": float(alignment.scale[number]),
            "shift": float(alignment.shift[number]),
            "component": int(alignment.component[number]),
        }
        if options.tilt:
            row["tilt"] = alignment.tilt[number].tolist()
        if options.metric:
            row["heights"] = anchor.count if anchor else 0
            row["supported"] = bool(anchor and anchor.supports)
            row["correlation"] = _finite(anchor.correlation if anchor else math.nan)
            row["residual"] = _finite(anchor.residual if anchor else math.nan)
        rows.append(row)
    return {"components": int(alignment.component.max()) + 1, "tiles": rows}


def agreement(reference: CoarseHeights, output: Path, scene: Geometry) -> dict[str, Any]:
    """How the result, averaged to the reference's cells, differs from it."""
    with rasterio.open(output) as source:
        heights, cells = reference.beside(rasterio.band(source, 1), scene)
    return spread_of(cells - heights)


def spread_of(differences: NDArray[np.floating]) -> dict[str, Any]:
    """Count, mean, root mean square and robust standard deviation of differences; NaN is left out."""
    known = differences[np.isfinite(differences)].astype(np.float64)
    if not known.size:
        return {"count": 0}
    return {
        "count": int(known.size),
        "bias": float(known.mean()),
        "rmse": float(np.sqrt((known**2).mean())),
        "nmad": 1.4826 * float(np.median(np.abs(known - np.median(known)))),
    }


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
