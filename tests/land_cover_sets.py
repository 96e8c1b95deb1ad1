"""Small land-cover datasets for tests: LoveDA's folders, classes that colours and heights tell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.conftest import write_raster

CLASSES = ("background", "building", "road", "water", "barren", "forest", "agriculture")
# Of classes 0 to 3; the others do not occur.
COLOURS = np.array([(90, 160, 60), (200, 80, 60), (120, 120, 125), (30, 60, 150)], np.float64)
HEIGHTS = np.array([0.2, 0.9, 0.2, 0.0])


def tile_classes(seed: int, size: int = 64) -> NDArray[np.uint8]:
    """Class numbers (size, size): blocks of buildings, a road, a pond."""
    random = np.random.default_rng(seed)
    labels = np.zeros((size, size), np.uint8)
    road = int(random.integers(size // 8, size - size // 8))
    labels[road : road + size // 8] = 2
    for _ in range(6):
        y, x = random.integers(0, size - size // 4, 2)
        labels[y : y + size // 4, x : x + size // 4] = 1 + 2 * int(random.integers(0, 2))
    return labels


def write_tile(folder: Path, name: str, seed: int, size: int = 64, masks: bool = True, depth: bool = True) -> None:
    """Image, mask and relative depth map of one tile; an eighth of the mask's first row is no data."""
    random = np.random.default_rng(seed + 1000)
    labels = tile_classes(seed, size)
    colours = COLOURS[labels] + random.normal(0, 8, (size, size, 3))
    image = np.moveaxis(np.clip(colours, 0, 255), -1, 0).astype(np.uint8)
    write_raster(folder / "images_png" / f"{name}.png", image)
    values = labels + 1
    values[0, : size // 8] = 0
    if masks:
        write_raster(folder / "masks_png" / f"{name}.png", values)
    if depth:
        heights = HEIGHTS[labels] * 50_000 + random.normal(0, 500, labels.shape) + 2000
        write_raster(folder / "depth_png" / f"{name}.png", np.clip(heights, 0, 65535).astype(np.uint16))


def write_loveda(
    folder: Path, size: int = 64, parts: Sequence[str] = ("Train", "Val", "Test"), depth: bool = True
) -> Path:
    """Two domains: of each 3 training, 2 validation and 2 test tiles."""
    for part in parts:
        for shift, domain in ((0, "Urban"), (50, "Rural")):
            for number in range(3 if part == "Train" else 2):
                seed = shift + number + 10 * ("Train", "Val", "Test").index(part)
                write_tile(folder / part / domain, str(number), seed, size, part != "Test", depth)
    return folder
