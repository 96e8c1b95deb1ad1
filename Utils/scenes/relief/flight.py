"""A flight over a surface: a closed path of a camera that stays above the ground and looks ahead."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter1d, map_coordinates, maximum_filter1d

from Utils.scenes.relief.relief_grid import ReliefGrid

__all__ = ["Flight", "plan_flight"]

FRAMES = 240
"""Places of the camera on its way round; the viewer goes smoothly from one to the next."""

# In shares of the longer side: the half axes of the way round, and how far the camera stays above the ground.
_HALF_AXES = 0.36
_CLEARANCE = 0.1
_SMOOTHING = 10.0  # frames
# The camera looks this many frames ahead, and between there and the middle of the scene.
_AHEAD = 26
_TO_THE_MIDDLE = 0.45


@dataclass(frozen=True)
class Flight:
    """Where a camera is and where it looks, in glTF's axes (x to the east, y up, z to the south).

    Attributes:
        eyes: (N, 3); the last place is followed by the first.
        targets: (N, 3).
    """

    eyes: NDArray[np.float64]
    targets: NDArray[np.float64]

    def as_json(self) -> dict[str, list[list[float]]]:
        """The path, rounded to a centimetre (or to a hundredth of a pixel)."""
        return {"eyes": np.round(self.eyes, 2).tolist(), "targets": np.round(self.targets, 2).tolist()}


def plan_flight(grid: ReliefGrid) -> Flight:
    """Plan a way round the middle of a surface; over holes, the ground is that of the nearest known place."""
    turn = np.linspace(0.0, 2.0 * np.pi, FRAMES, endpoint=False)
    half_width, half_height = (_HALF_AXES * float(np.ptp(values)) for values in (grid.east, grid.north))
    east, north = half_width * np.sin(turn), half_height * np.cos(turn)
    ground = _ground_under(grid, east, north)
    # Lifted before it is smoothed, so that no ridge on the way is higher than the camera.
    lifted = maximum_filter1d(ground, size=2 * int(2 * _SMOOTHING) + 1, mode="wrap")
    up = gaussian_filter1d(lifted, _SMOOTHING, mode="wrap", truncate=2.0) + _CLEARANCE * grid.side
    eyes = np.stack([east, up, -north], axis=1)
    ahead = np.roll(np.stack([east, ground, -north], axis=1), -_AHEAD, axis=0)
    middle = np.array([0.0, float(np.nanmean(grid.heights)), 0.0])
    return Flight(eyes, (1.0 - _TO_THE_MIDDLE) * ahead + _TO_THE_MIDDLE * middle)


def _ground_under(grid: ReliefGrid, east: NDArray[np.float64], north: NDArray[np.float64]) -> NDArray[np.float64]:
    """The ground's heights at some places, in the grid's unit."""
    known = np.isfinite(grid.heights)
    nearest = distance_transform_edt(~known, return_distances=False, return_indices=True)
    filled = grid.heights[tuple(nearest)]
    # The grid is regular, so that rows and columns follow from the ends of its first row and column.
    rows, columns = filled.shape
    right = np.array([grid.east[0, -1] - grid.east[0, 0], grid.north[0, -1] - grid.north[0, 0]]) / (columns - 1)
    down = np.array([grid.east[-1, 0] - grid.east[0, 0], grid.north[-1, 0] - grid.north[0, 0]]) / (rows - 1)
    offset = np.stack([east - grid.east[0, 0], north - grid.north[0, 0]])
    column, row = np.linalg.solve(np.stack([right, down], axis=1), offset)
    return np.asarray(map_coordinates(filled, [row, column], order=1, mode="nearest"), np.float64)
