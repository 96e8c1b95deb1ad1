"""Pictures of ground that is known everywhere, as satellites with rational polynomial cameras see it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.rational_cameras import METRES_PER_DEGREE, camera, write_image
from Utils.rasters.rational import RationalModel

Heights = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]

TILTS = ((0.1, -0.3), (0.15, 0.3), (-0.3, 0.05))
"""Pixels that a metre of height moves points by, along lines and samples, in three views."""


def texture(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """A picture of the ground at metres, with detail of 3 to 40 m."""
    drawn = np.random.default_rng(4).normal(size=(60, 3))
    waves = 2 * np.pi / np.geomspace(3.0, 40.0, 60)
    return sum(
        np.cos(wave * (x * np.cos(turn) + y * np.sin(turn)) + 9 * phase) / wave**0.5
        for wave, (turn, phase, _) in zip(waves, drawn * 3, strict=True)
    )


def hills(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Heights at metres east and north of 0 N, 10 E: slopes up to a third."""
    return 40.0 + 12.0 * np.sin(x / 40.0) + 10.0 * np.cos(y / 35.0)


def metres(longitude: NDArray[np.float64], latitude: NDArray[np.float64]) -> tuple[NDArray, NDArray]:
    """East and north of 0 N, 10 E."""
    return (longitude - 10.0) * METRES_PER_DEGREE, latitude * METRES_PER_DEGREE


def picture(model: RationalModel, size: tuple[int, int], heights: Heights = hills) -> NDArray[np.float64]:
    """What a camera sees of the ground, (h, w): each ray is followed down to where it meets the ground."""
    rows, columns = np.mgrid[: size[0], : size[1]].astype(float)
    found = np.zeros(size)
    for _ in range(25):
        x, y = metres(*model.locate(columns, rows, found))
        found = heights(x, y)
    return texture(x, y)


def write_views(
    folder: Path,
    count: int = 2,
    size: tuple[int, int] = (120, 126),
    heights: Heights = hills,
    moved: Sequence[tuple[float, float]] = (),
) -> list[Path]:
    """Images of 11 bits with their cameras in the tags; returns their paths.

    Args:
        folder: where they go.
        count: up to three.
        size: rows and columns.
        heights: the ground.
        moved: pixels (columns, rows) by which each camera says its image lies wrongly.
    """
    paths = []
    for number, tilt in enumerate(TILTS[:count]):
        model = camera(tilt, size)
        pixels = picture(model, size, heights)
        counts = np.rint(600 + 300 * (pixels - pixels.mean()) / pixels.std()).clip(1, 2047).astype(np.uint16)
        told = model.shifted(*moved[number]) if moved else model
        paths.append(write_image(folder / f"view_{number + 1}.tif", counts, told))
    return paths
