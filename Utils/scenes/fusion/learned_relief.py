"""Relief from a network that has learnt what DEMs leave open, drawn window by window and joined without seams."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from Utils.scenes.fusion.least_error.joined_windows import SAMPLES_A_CELL, Axis, new_map

Map = NDArray[np.float32]

DrawDetail = Callable[[Map, Map, Map, Map], Map]
"""Surface, its standard error and the relief from shading (H, W) in metres, and an image (3, H, W), NaN where unknown,
to heights (H, W) about the surface in metres."""

# A window and what neighbours share, in cells: the network looks a dozen cells far.
_WINDOW, _SHARED = 64, 24


def learned_relief(
    draw: DrawDetail, surface: Map, error: Map, relief: Map, image: Map, file: Path | None = None
) -> Map:
    """Draw the heights about a surface.

    Args:
        draw: the network.
        surface: (h * SAMPLES_A_CELL, w * SAMPLES_A_CELL) metres.
        error: (h, w) its standard error in metres.
        relief: shaped as the surface.
        image: (3, ...) likewise.
        file: where the result is kept, for the caller to remove; None to keep it in memory.
    """
    joined = new_map(file, surface.shape)
    rows, columns = (Axis(length, _WINDOW, _SHARED) for length in error.shape)
    times = SAMPLES_A_CELL
    down, across = rows.weights(times), columns.weights(times)
    for row, weights_down in zip(rows.starts, down, strict=True):
        for column, weights_across in zip(columns.starts, across, strict=True):
            place = np.s_[row * times : (row + rows.size) * times, column * times : (column + columns.size) * times]
            cells = error[row : row + rows.size, column : column + columns.size]
            fine = np.kron(cells, np.ones((times, times), np.float32))
            drawn = draw(np.asarray(surface[place]), fine, np.asarray(relief[place]), np.asarray(image[:, *place]))
            # Half precision may overflow where the ground is far from all that was learnt: nothing is added there.
            drawn = np.nan_to_num(drawn, nan=0.0, posinf=0.0, neginf=0.0)
            joined[place] += drawn * (weights_down[:, None] * weights_across).astype(np.float32)
    return joined
