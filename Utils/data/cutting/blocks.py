"""Spatial blocks: where tiles may lie, and which block belongs to the test part or to a fold.

Blocks are squares on the ground with a strip between them that no tile touches. All tiles in a block are on one side,
so two tiles on different sides are at least that strip apart, also where several images show the same place.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from Utils.core.errors import UserError
from Utils.core.seeds import derive_seed
from Utils.rasters.geometry import Geometry

__all__ = ["TEST", "BlockLayout", "Place", "deal", "lay_tiles", "wanted_sides"]

TEST = "test"
"""The side of the test part; the other sides are the names of folds, "1" and so on."""

# The largest blocks are taken that leave so many for each side; more would give them a fairer share of all landscapes.
_BLOCKS_A_SIDE = 3
_LARGEST_BLOCK = 8
# Pixels by which a tile of a grid that does not fit the blocks' may be off.
_TOLERANCE = 0.01
_ALIGNED = 1e-3

Box = tuple[float, float, float, float]
BlockName = tuple[int, int, int]


@dataclass(frozen=True)
class Place:
    """Where a tile lies.

    Attributes:
        scene: number of its image.
        row: its first row on the image's grid.
        column: its first column.
        block: area, row and column of its block.
    """

    scene: int
    row: int
    column: int
    block: BlockName


@dataclass(frozen=True)
class BlockLayout:
    """How tiles lie in blocks; all numbers in pixels.

    Attributes:
        size: side of a tile.
        overlap: what neighbouring tiles of a block share.
        gap: the strip between blocks.
        tiles: tiles along the side of a block.
    """

    size: int
    overlap: int
    gap: int
    tiles: int

    @property
    def step(self) -> int:
        """From one tile to the next."""
        return self.size - self.overlap

    @property
    def side(self) -> int:
        """Side of a block without its gap."""
        return self.tiles * self.step + self.overlap

    @property
    def pitch(self) -> int:
        """From one block to the next."""
        return self.side + self.gap


def wanted_sides(test: float, folds: int) -> dict[str, float]:
    """The sides, with their shares of all tiles.

    Args:
        test: share of the test part; 0 for none.
        folds: folds of the training part; 0 or 1 for an undivided one.
    """
    count = max(folds, 1)
    sides = {str(number): (1.0 - test) / count for number in range(1, count + 1)}
    return {TEST: test, **sides} if test > 0.0 else sides


def lay_tiles(
    areas: Sequence[Sequence[int]], grids: Sequence[Geometry], layout: BlockLayout, sides: int
) -> tuple[list[Place], BlockLayout]:
    """Lay tiles into the blocks of all areas.

    Args:
        areas: numbers of the images that show one area, the one whose pixels measure the blocks first.
        grids: the grid of each image.
        layout: sizes; where its ``tiles`` is 0, the largest blocks are taken that leave enough of them for each side.
        sides: number of sides.

    Returns:
        All tiles that lie inside an image and a block, in reading order of areas, blocks and images, and the layout.
    """
    choices = [layout.tiles] if layout.tiles else range(_LARGEST_BLOCK, 0, -1)
    places: list[Place] = []
    for tiles in choices:
        layout = BlockLayout(layout.size, layout.overlap, layout.gap, tiles)
        places = [place for number, area in enumerate(areas) for place in _in_area(number, area, grids, layout)]
        if len({place.block for place in places}) >= _BLOCKS_A_SIDE * sides:
            break
    return places, layout


def deal(places: Sequence[Place], sides: Mapping[str, float], seed: int) -> dict[BlockName, str]:
    """Give each block a side, so that the tiles are shared out as wanted: at random, large blocks first.

    Args:
        places: the tiles that are kept.
        sides: share of each side.
        seed: from which the draw follows.

    Raises:
        UserError: fewer blocks than sides.
    """
    counts = Counter(place.block for place in places)
    if len(counts) < len(sides):
        raise UserError(
            f"{len(places)} tiles lie in {len(counts)} blocks, too few for {len(sides)} sides (test part and folds); "
            "give a smaller --size, --block or --gap, fewer --folds, --test 0, or more ground"
        )
    names = sorted(counts)
    order = np.random.default_rng(derive_seed(seed, "blocks")).permutation(len(names))
    drawn = sorted((names[place] for place in order), key=lambda name: -counts[name])
    found: dict[BlockName, str] = {}
    got = dict.fromkeys(sides, 0)
    for name in drawn:
        # The side that lacks the largest part of its share; at first all of them lack all.
        side = max(sides, key=lambda one: 1.0 - got[one] / (sides[one] * len(places)))
        found[name] = side
        got[side] += counts[name]
    return found


def _in_area(number: int, area: Sequence[int], grids: Sequence[Geometry], layout: BlockLayout) -> Iterator[Place]:
    reference = grids[area[0]]
    found: list[tuple[BlockName, int, int, int]] = []
    for scene in area:
        grid = grids[scene]
        rows, columns = reference.outline_of(grid)
        known = np.isfinite(rows) & np.isfinite(columns)
        for block_row in _blocks(rows[known], layout.pitch):
            for block_column in _blocks(columns[known], layout.pitch):
                name = (number, block_row, block_column)
                for row, column in _in_block(reference, grid, name, layout):
                    found.append((name, scene, row, column))
    for name, scene, row, column in sorted(found):
        yield Place(scene, row, column, name)


def _blocks(places: NDArray[np.float64], pitch: int) -> range:
    return range(math.floor(places.min() / pitch + 1e-9), math.ceil(places.max() / pitch - 1e-9))


def _in_block(reference: Geometry, grid: Geometry, name: BlockName, layout: BlockLayout) -> Iterator[tuple[int, int]]:
    """First rows and columns of a scene's tiles that lie inside a block."""
    _, block_row, block_column = name
    top, left = float(block_row * layout.pitch), float(block_column * layout.pitch)
    block = (top, left, top + layout.side, left + layout.side)
    same = grid is reference
    first_row, first_column, last_row, last_column = block if same else _inscribed(reference, grid, block, layout.size)
    first_row, first_column = max(0, math.ceil(first_row - _ALIGNED)), max(0, math.ceil(first_column - _ALIGNED))
    last_row = min(grid.height, math.floor(last_row + _ALIGNED))
    last_column = min(grid.width, math.floor(last_column + _ALIGNED))
    for row in range(first_row, last_row - layout.size + 1, layout.step):
        for column in range(first_column, last_column - layout.size + 1, layout.step):
            if same or _lies_inside(reference, grid.window(row, column, layout.size, layout.size), block):
                yield row, column


def _inscribed(reference: Geometry, grid: Geometry, block: Box, size: int) -> Box:
    """The upright box inside a block, seen on another grid; around it where the grids are turned against each other."""
    top, left, bottom, right = block
    corners = reference.coordinates([top, top, bottom, bottom], [left, right, left, right])
    rows, columns = (np.sort(places) for places in grid.place(*corners, reference.crs))
    if not (np.isfinite(rows).all() and np.isfinite(columns).all()):
        return 0.0, 0.0, 0.0, 0.0
    aligned = max(np.abs(rows - np.rint(rows)).max(), np.abs(columns - np.rint(columns)).max()) < _ALIGNED
    # Sides of a block are a little bent on the grid of another projection.
    inside = 0.0 if aligned else 1.0
    box = float(rows[1]) + inside, float(columns[1]) + inside, float(rows[2]) - inside, float(columns[2]) - inside
    if min(box[2] - box[0], box[3] - box[1]) < size:
        return float(rows[0]), float(columns[0]), float(rows[3]), float(columns[3])
    return box


def _lies_inside(reference: Geometry, tile: Geometry, block: Box) -> bool:
    rows, columns = reference.outline_of(tile, points=3)
    return bool(
        np.isfinite(rows).all()
        and rows.min() >= block[0] - _TOLERANCE
        and columns.min() >= block[1] - _TOLERANCE
        and rows.max() <= block[2] + _TOLERANCE
        and columns.max() <= block[3] + _TOLERANCE
    )
