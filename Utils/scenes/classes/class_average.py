"""The tiles' probabilities as one map: averaged with smooth windows, strip by strip."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from Utils.scenes.tiles.tile_grid import TileGrid
from Utils.scenes.tiles.tile_store import TileStore

__all__ = ["averaged", "relative_entropy"]

_ROWS = 128
"""The most rows of a strip: what is made of a strip needs several times its memory."""


def averaged(grid: TileGrid, store: TileStore, classes: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Average all tiles into full-width strips of few rows, from the top to the bottom.

    Args:
        grid: the tiles.
        store: their probabilities, a layer a class, NaN where the scene is invalid.
        classes: how many there are.

    Yields:
        A strip's first row, and its probabilities (classes, rows, width), which add up to 1; NaN where the scene is
        invalid.
    """
    rows = min(grid.size, grid.height)
    sums = np.zeros((classes, rows, grid.width), np.float32)
    weight = np.zeros((rows, grid.width), np.float32)
    columns = len(grid.column_starts)
    for place, start in enumerate(grid.row_starts):
        for tile in grid.tiles[place * columns : (place + 1) * columns]:
            layers = store.load_all(tile).astype(np.float32)
            shares = np.where(np.isfinite(layers[0]), grid.weights(tile), np.float32(0.0))
            weight[:, tile.columns] += shares
            sums[:, :, tile.columns] += shares * np.nan_to_num(layers, nan=0.0)
        following = grid.row_starts[place + 1] if place + 1 < len(grid.row_starts) else grid.height
        done = following - start
        for first in range(0, done, _ROWS):
            part = slice(first, min(first + _ROWS, done))
            # They are kept with few digits, and so add up to 1 nearly.
            total = sums[:, part].sum(axis=0)
            total[weight[part] == 0] = np.nan
            yield start + first, sums[:, part] / total
        for band in (sums, weight):
            band[..., :-done, :] = band[..., done:, :].copy()
            band[..., -done:, :] = 0


def relative_entropy(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """How undecided probabilities (classes, H, W) are: 0 for one sure class, 1 where all classes are equally likely."""
    logs = np.log(np.where(probabilities > 0, probabilities, np.float32(1.0)))
    found: NDArray[np.float32] = -(probabilities * logs).sum(axis=0) / np.float32(np.log(len(probabilities)))
    return found
