"""Overlapping tiles over a scene of any size, and the window that blends them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Tile:
    """One tile of a scene; all numbers in pixels of the scene.

    Attributes:
        number: number of the tile in reading order.
        row: row of its upper left pixel.
        column: column of its upper left pixel.
        height: rows inside the scene.
        width: columns inside the scene.
    """

    number: int
    row: int
    column: int
    height: int
    width: int

    @property
    def rows(self) -> slice:
        """The rows of the scene that the tile covers."""
        return slice(self.row, self.row + self.height)

    @property
    def columns(self) -> slice:
        """The columns of the scene that the tile covers."""
        return slice(self.column, self.column + self.width)

    def common(self, other: Tile) -> tuple[tuple[slice, slice], tuple[slice, slice]] | None:
        """The pixels that both tiles cover, as slices of this tile and of the other; None where they do not overlap."""
        top, left = max(self.row, other.row), max(self.column, other.column)
        bottom = min(self.row + self.height, other.row + other.height)
        right = min(self.column + self.width, other.column + other.width)
        if top >= bottom or left >= right:
            return None
        mine, theirs = (
            (slice(top - tile.row, bottom - tile.row), slice(left - tile.column, right - tile.column))
            for tile in (self, other)
        )
        return mine, theirs


class TileGrid:
    """Tiles of one size, spread evenly, so that neighbours share at least ``overlap`` pixels.

    A scene smaller than a tile has one tile of the scene's own size.

    Args:
        height: rows of the scene.
        width: columns of the scene.
        size: pixels of a tile's side.
        overlap: the fewest pixels that neighbours share.

    Raises:
        ValueError: an overlap that is not below the size.
    """

    def __init__(self, height: int, width: int, size: int, overlap: int) -> None:
        if not (height > 0 and width > 0 and 0 <= overlap < size):
            raise ValueError(f"no tiles of {size} pixels with {overlap} in common cover {height} x {width}")
        self.height, self.width, self.size, self.overlap = height, width, size, overlap
        self.row_starts = _starts(height, size, overlap)
        self.column_starts = _starts(width, size, overlap)

    @cached_property
    def tiles(self) -> list[Tile]:
        """All tiles in reading order."""
        places = ((row, column) for row in self.row_starts for column in self.column_starts)
        return [
            Tile(number, row, column, min(self.size, self.height), min(self.size, self.width))
            for number, (row, column) in enumerate(places)
        ]

    def __len__(self) -> int:
        return len(self.row_starts) * len(self.column_starts)

    def pairs(self) -> Iterator[tuple[Tile, Tile]]:
        """All tiles that share pixels, each pair once, the earlier tile first; sorted by the later one."""
        columns = len(self.column_starts)
        reach = math.ceil(self.size / max(1, self.size - self.overlap))
        for number, tile in enumerate(self.tiles):
            row, column = divmod(number, columns)
            for other_row in range(max(0, row - reach), row + 1):
                for other_column in range(max(0, column - reach), min(columns, column + reach + 1)):
                    other = other_row * columns + other_column
                    if other < number and self.tiles[other].common(tile):
                        yield self.tiles[other], tile

    def weights(self, tile: Tile) -> NDArray[np.float32]:
        """The tile's share in a blend, (height, width) in (0, 1]: raised cosines over what it shares with neighbours.

        At the border of the scene, where there is no neighbour, it does not fall.
        """
        down = _ramps(self.row_starts, tile.row, tile.height)
        across = _ramps(self.column_starts, tile.column, tile.width)
        return (down[:, None] * across[None, :]).astype(np.float32)


def even_tiles(height: int, width: int, most: int) -> list[Tile]:
    """Tiles in reading order that cover a scene without sharing pixels, about equal in size.

    Args:
        height: rows of the scene.
        width: columns of the scene.
        most: most pixels along a side of a tile.
    """
    rows, columns = (
        np.linspace(0, length, math.ceil(length / most) + 1).round().astype(int) for length in (height, width)
    )
    places = [(row, column) for row in pairwise(rows.tolist()) for column in pairwise(columns.tolist())]
    return [
        Tile(number, top, left, bottom - top, right - left)
        for number, ((top, bottom), (left, right)) in enumerate(places)
    ]


def _starts(length: int, size: int, overlap: int) -> list[int]:
    """Where tiles begin along one side."""
    if length <= size:
        return [0]
    count = math.ceil((length - overlap) / (size - overlap))
    return [round(place * (length - size) / (count - 1)) for place in range(count)]


def _ramps(starts: list[int], start: int, length: int) -> NDArray[np.float64]:
    """One side of a tile's weights: 1 in the middle, falling over the pixels shared with the neighbours."""
    place = starts.index(start)
    weights = np.ones(length)
    if place > 0:
        weights *= _ramp(length, shared=starts[place - 1] + length - start)
    if place + 1 < len(starts):
        weights *= _ramp(length, shared=start + length - starts[place + 1])[::-1]
    return weights


def _ramp(length: int, shared: int) -> NDArray[np.float64]:
    """A ramp over the first ``shared`` pixels; it is never 0, so that a pixel of only one tile keeps its value."""
    return np.sin(np.minimum((np.arange(length) + 0.5) / max(shared, 1), 1.0) * np.pi / 2) ** 2
