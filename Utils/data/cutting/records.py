"""What a cut leaves beside its tiles: tiles.csv, left_out.csv, split files, and the summary."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from Utils.core.files import atomic_write_bytes
from Utils.core.tables import format_table, write_csv
from Utils.data.cutting.blocks import TEST, BlockLayout, BlockName, Place
from Utils.data.cutting.options import CutOptions
from Utils.data.cutting.pairs import Pairs
from Utils.data.cutting.survey import KEPT, REASONS, Look, count_reasons
from Utils.data.cutting.tile_writer import TilePaths
from Utils.data.published_layout import TEST_PART, TRAINING_PART

__all__ = ["TEST_APART", "Tile", "label_of", "part_of", "summarise", "write_records"]

# The split file of test tiles that share no pixels.
TEST_APART = "test-apart.txt"


@dataclass(frozen=True)
class Tile:
    """A tile that is kept: its id, where it lies, what it holds, and the side of its block."""

    id: str
    place: Place
    look: Look
    side: str


def part_of(side: str) -> str:
    """The part of the dataset that a side belongs to."""
    return TEST_PART if side == TEST else TRAINING_PART


def label_of(side: str, sides: Collection[str]) -> str:
    """What a side is called, of all of them."""
    if side == TEST:
        return "test"
    return f"training, fold {side}" if len(set(sides) - {TEST}) > 1 else "training"


def write_records(
    options: CutOptions,
    pairs: Pairs,
    tiles: Sequence[Tile],
    places: Sequence[Place],
    looks: Sequence[Look],
    layout: BlockLayout,
) -> dict[str, Any]:
    """Write the tables and the split files; gives what ``cut.json`` tells of the result."""
    output = options.output
    write_csv(output / "tiles.csv", [_row(options, pairs, tile) for tile in tiles])
    left_out = [(place, one) for place, one in zip(places, looks, strict=True) if one.verdict != KEPT]
    rows: list[dict[str, object]] = [
        {**_where(pairs, place), "reason": one.verdict, "image_void": one.image_void, "height_void": one.height_void}
        for place, one in left_out
    ]
    # With its header also where no tile is left out.
    header = ("scene", "row", "column", "block", "reason", "image_void", "height_void")
    write_csv(output / "left_out.csv", rows or [dict.fromkeys(header)][:0])
    if options.folds:
        write_folds(output / "splits", tiles)
    if options.overlap and any(tile.side == TEST for tile in tiles):
        _write_ids(output / "splits" / TEST_APART, tiles_apart(tiles, options.size))
    return {
        "block_tiles": layout.tiles,
        "tiles": {side: sum(tile.side == side for tile in tiles) for side in sorted({tile.side for tile in tiles})},
        "left_out": {reason: count for reason, count in count_reasons(looks).items() if reason != KEPT},
        "images": [
            {
                "path": image.path.as_posix(),
                "crs": image.own.crs.to_string(),
                "metres_per_pixel": image.metres,
                "heights": [dem.path.as_posix() for dem in dems],
            }
            for image, dems in zip(pairs.images, pairs.dems, strict=True)
        ],
    }


def write_folds(folder: Path, tiles: Sequence[Tile]) -> list[Path]:
    """Write a split file for each fold, as the key ``k_folds`` reads them."""
    paths = []
    for side in sorted({tile.side for tile in tiles} - {TEST}, key=int):
        paths.append(folder / f"fold-{side}.txt")
        _write_ids(paths[-1], [tile for tile in tiles if tile.side == side])
    return paths


def tiles_apart(tiles: Sequence[Tile], size: int) -> list[Tile]:
    """Test tiles of which no two of one image share a pixel, as many as are found row by row.

    A standard error over tiles that overlap counts the same ground several times, and is too small.

    Args:
        tiles: all tiles, of which those of the test part are chosen from.
        size: side of a tile in pixels.
    """
    # By square of a tile's size, in which no two of them begin.
    chosen: dict[tuple[int, int, int], Tile] = {}
    for tile in tiles:
        scene, down, right = tile.place.scene, tile.place.row // size, tile.place.column // size
        beside = (chosen.get((scene, down + i, right + j)) for i in (-1, 0, 1) for j in (-1, 0, 1))
        if tile.side == TEST and not any(_touch(tile.place, one.place, size) for one in beside if one):
            chosen[scene, down, right] = tile
    return list(chosen.values())


def _touch(one: Place, other: Place, size: int) -> bool:
    return max(abs(one.row - other.row), abs(one.column - other.column)) < size


def _write_ids(path: Path, tiles: Sequence[Tile]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_bytes(path, "".join(f"{tile.id}\n" for tile in tiles).encode())


def _where(pairs: Pairs, place: Place) -> dict[str, object]:
    return {
        "scene": pairs.images[place.scene].path.as_posix(),
        "row": place.row,
        "column": place.column,
        "block": "/".join(str(number) for number in place.block),
    }


def _row(options: CutOptions, pairs: Pairs, tile: Tile) -> dict[str, object]:
    paths = TilePaths.of(Path(), part_of(tile.side), tile.id, options.has_coarse)
    files = {"id": tile.id, "image": paths.image.as_posix(), "height": paths.height.as_posix()}
    if paths.prior is not None and paths.coarse is not None:
        files |= {"prior": paths.prior.as_posix(), "coarse": paths.coarse.as_posix()}
    return {
        **files,
        "part": "test" if tile.side == TEST else "train",
        "fold": tile.side if tile.side != TEST and options.folds else None,
        **_where(pairs, tile.place),
        "image_void": tile.look.image_void,
        "height_void": tile.look.height_void,
        "lowest": tile.look.lowest,
        "highest": tile.look.highest,
    }


def summarise(
    tiles: Sequence[Tile],
    places: Sequence[Place],
    looks: Sequence[Look],
    layout: BlockLayout,
    sides: Mapping[BlockName, str],
) -> str:
    """The cut in words: a table of the sides, and how many tiles are left out for which reason."""
    names = sorted({tile.side for tile in tiles}, key=lambda side: (side != TEST, side.zfill(4)))
    rows = []
    for side in names:
        own = [tile.look for tile in tiles if tile.side == side]
        lowest = min(one.lowest for one in own if one.lowest is not None)
        highest = max(one.highest for one in own if one.highest is not None)
        blocks = sum(value == side for value in sides.values())
        rows.append([label_of(side, names), str(len(own)), str(blocks), f"{lowest:.1f} to {highest:.1f}"])
    tested = [tile for tile in tiles if tile.side == TEST]
    apart = tiles_apart(tiles, layout.size)
    lines = [
        f"{len(places)} tiles of {layout.size} x {layout.size} pixels in {len({place.block for place in places})} "
        f"blocks of up to {layout.tiles} x {layout.tiles} tiles, {layout.gap} pixels apart",
        "",
        format_table(["side", "tiles", "blocks", "heights (m)"], rows),
        "",
        f"kept {len(tiles)} of {len(places)} tiles",
    ]
    for reason, count in count_reasons(looks).items():
        if reason != KEPT and count:
            lines.append(f"left out {count}: {REASONS[reason]}")
    if len(apart) < len(tested):
        lines.append(
            f"test tiles overlap: {len(apart)} of {len(tested)} share no pixels (splits/{TEST_APART}, for "
            "test_split_text); the standard errors of the others are too small"
        )
    return "\n".join(lines)
