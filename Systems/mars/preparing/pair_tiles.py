"""Cuts one pair into tiles, and remembers that it did: a second run keeps what is there and whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from Systems.mars.preparing.options import PrepareOptions
from Systems.mars.preparing.pair_reader import PairReader
from Systems.mars.preparing.product_checks import CheckedPair
from Utils.core.files import atomic_write_bytes
from Utils.core.tables import write_json
from Utils.rasters.geometry import Geometry
from Utils.rasters.georeferenced_tile import encode_tile
from Utils.rasters.planetary.product_label import label_beside
from Utils.rasters.planetary.special_values import NULL, SATURATED_8_BITS

__all__ = ["PairTiles", "TileRow", "cut_pair", "starts", "tile_places"]

_IMAGES, _HEIGHTS, _RECORDS = "images", "heights", "records"


@dataclass(frozen=True)
class TileRow:
    """A tile, kept or left out.

    Attributes:
        row: its first row in the DTM's grid.
        column: its first column.
        image_void: share of its pixels without image.
        height_void: share of its pixels without height.
        saturated: share of its pixels that are saturated in the image.
        lowest: lowest height in metres that is seen; None for none.
        highest: likewise the highest.
        kept: whether it is a tile of the dataset.
    """

    row: int
    column: int
    image_void: float
    height_void: float
    saturated: float
    lowest: float | None
    highest: float | None
    kept: bool

    @property
    def place(self) -> str:
        """Row and column as a part of names."""
        return f"{self.row:05d}_{self.column:05d}"


@dataclass(frozen=True)
class PairTiles:
    """The tiles of a pair, and whether they were there already."""

    tiles: list[TileRow]
    was_there: bool

    @property
    def kept(self) -> list[TileRow]:
        """The tiles of the dataset."""
        return [tile for tile in self.tiles if tile.kept]


def starts(length: int, size: int, step: int) -> list[int]:
    """Where tiles begin along a side; the last one touches the edge. None where the side is shorter than a tile."""
    if length < size:
        return []
    found = list(range(0, length - size + 1, step))
    return found if found[-1] + size == length else [*found, length - size]


def tile_places(grid: Geometry, size: int, step: int) -> Iterator[tuple[int, int]]:
    """Rows and columns at which the tiles of a grid begin, column after column.

    The archive's images have no tiles of their own: GDAL decodes them in strips from top to bottom, and across the
    image each strip would be decoded again for every row of tiles.
    """
    for column in starts(grid.width, size, step):
        for row in starts(grid.height, size, step):
            yield row, column


def tile_files(pair: str, place: str) -> tuple[Path, Path]:
    """Image and heights of a tile, below the folder of the dataset."""
    return Path(_IMAGES, pair, f"{place}.tif"), Path(_HEIGHTS, pair, f"{place}.tif")


def cut_pair(pair: CheckedPair, options: PrepareOptions) -> PairTiles:
    """Write the tiles of a pair, unless a former run has written just these.

    Raises:
        RasterError: a file that turns out to be damaged.
        OSError: a tile cannot be written.
    """
    request = _request(pair, options)
    record = options.output / _RECORDS / f"{pair.name}.json"
    there = _recorded(record, request, pair, options.output)
    if there is not None:
        return PairTiles(there, True)
    record.unlink(missing_ok=True)
    for name in (_IMAGES, _HEIGHTS):
        folder = options.output / name / pair.name
        shutil.rmtree(folder, ignore_errors=True)  # tiles of another size would stay between these
        folder.mkdir(parents=True)
    with PairReader(pair) as reader:
        tiles = [
            _cut_tile(reader, options, row, column)
            for row, column in tile_places(pair.grid, options.size, options.step)
        ]
    record.parent.mkdir(exist_ok=True)
    write_json(record, {"request": request, "tiles": [asdict(tile) for tile in tiles]})
    return PairTiles(tiles, False)


def _request(pair: CheckedPair, options: PrepareOptions) -> dict[str, Any]:
    files = [pair.dtm, pair.ortho, label_beside(pair.dtm), label_beside(pair.ortho)]
    states = [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in files if path is not None]
    return {**options.of_tiles(), "files": states}


def _recorded(path: Path, request: dict[str, Any], pair: CheckedPair, output: Path) -> list[TileRow] | None:
    """The tiles that a former run wrote for the same request, if all of them are there."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["request"] != request:
            return None
        tiles = [TileRow(**tile) for tile in found["tiles"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    files = [output / file for tile in tiles if tile.kept for file in tile_files(pair.name, tile.place)]
    return tiles if all(file.is_file() for file in files) else None


def _cut_tile(reader: PairReader, options: PrepareOptions, row: int, column: int) -> TileRow:
    pair, size = reader.pair, options.size
    image, seen, heights, known = reader.read(row, column, size, size)
    both = seen & known
    void = 1.0 - float(both.mean())
    tile = TileRow(
        row,
        column,
        round(1.0 - float(seen.mean()), 6),
        round(1.0 - float(known.mean()), 6),
        round(float(np.isin(image[seen], SATURATED_8_BITS).mean()) if seen.any() else 0.0, 6),
        float(heights[both].min()) if both.any() else None,
        float(heights[both].max()) if both.any() else None,
        bool(both.any()) and void <= options.most_void,
    )
    if tile.kept:
        _write(pair, options.output, tile, image, np.where(both, heights, NULL))
    return tile


def _write(
    pair: CheckedPair, output: Path, tile: TileRow, image: NDArray[np.uint8], heights: NDArray[np.float32]
) -> None:
    """Write image and heights; what cannot be seen has no height either, so that nobody learns or scores it."""
    place = pair.grid.window(tile.row, tile.column, *image.shape)
    tags: dict[str, object] = {
        "PAIR": pair.name,
        "ROW": tile.row,
        "COLUMN": tile.column,
        "PRODUCER": pair.producer,
        "HEIGHT_REFERENCE": pair.reference,
        "PIXEL_SIZE": f"{pair.metres:.6f}",
    }
    if pair.sun is not None:
        tags |= {"SUN_AZIMUTH": f"{pair.sun.azimuth:.4f}", "SUN_ELEVATION": f"{pair.sun.elevation:.4f}"}
    of_image, of_heights = (output / file for file in tile_files(pair.name, tile.place))
    atomic_write_bytes(of_image, encode_tile(image, place, 0, tags=tags))
    atomic_write_bytes(of_heights, encode_tile(heights.astype(np.float32), place, float(NULL), "m", tags))
