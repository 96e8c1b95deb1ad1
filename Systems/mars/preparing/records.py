"""What a preparation leaves beside its tiles: tiles.csv, pairs.csv, left_out.csv and split files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from Systems.mars.preparing.footprints import Footprint
from Systems.mars.preparing.options import PrepareOptions
from Systems.mars.preparing.pair_tiles import PairTiles, TileRow, tile_files
from Systems.mars.preparing.product_checks import CheckedPair
from Systems.mars.preparing.sides import SIDES, TEST, fold_of
from Utils.core.files import atomic_write_bytes
from Utils.core.tables import format_table, write_csv

__all__ = ["Prepared", "summarise", "write_records"]


@dataclass(frozen=True)
class Prepared:
    """A pair with all that is known of it.

    Attributes:
        pair: its products.
        footprint: where it lies.
        covered: the share of its heights that the image covers.
        group: the group of pairs that share ground or a source image with it.
        side: its side of the split.
    """

    pair: CheckedPair
    footprint: Footprint
    covered: float
    group: str
    side: str


def write_records(
    options: PrepareOptions,
    prepared: Sequence[Prepared],
    tiles: Mapping[str, PairTiles],
    refused: Sequence[tuple[str, str]],
) -> None:
    """Write the tables and the split files.

    Args:
        options: what was asked for.
        prepared: the pairs.
        tiles: the tiles of each pair, by its name.
        refused: pairs that could not be used, each with the reason.
    """
    output = options.output
    rows = [_tile_row(options, one, tile) for one in prepared for tile in tiles[one.pair.name].kept]
    write_csv(output / "tiles.csv", rows)
    write_csv(output / "pairs.csv", [_pair_row(one, tiles[one.pair.name]) for one in prepared])
    rows = [
        {"pair": one.pair.name, "row": tile.row, "column": tile.column, "reason": _reason(tile)}
        | {"image_void": tile.image_void, "height_void": tile.height_void}
        for one in prepared
        for tile in tiles[one.pair.name].tiles
        if not tile.kept
    ] + [{"pair": name, "reason": reason} for name, reason in refused]
    # With its header also where nothing is left out.
    header = ("pair", "row", "column", "reason", "image_void", "height_void")
    write_csv(output / "left_out.csv", [dict.fromkeys(header) | row for row in rows] or [dict.fromkeys(header)][:0])
    folder = output / "splits"
    folder.mkdir(exist_ok=True)
    for side in SIDES:
        ids = [_id(one, tile) for one in prepared if one.side == side for tile in tiles[one.pair.name].kept]
        _write_ids(folder / f"{side}.txt", ids)


def _write_ids(path: Path, ids: Sequence[str]) -> None:
    atomic_write_bytes(path, "".join(f"{name}\n" for name in ids).encode())


def _reason(tile: TileRow) -> str:
    return "heights" if tile.height_void >= tile.image_void else "image"


def _id(one: Prepared, tile: TileRow) -> str:
    return f"{one.pair.name}_{tile.place}"


def _tile_row(options: PrepareOptions, one: Prepared, tile: TileRow) -> dict[str, object]:
    image, height = tile_files(one.pair.name, tile.place)
    return {
        "id": _id(one, tile),
        "image": image.as_posix(),
        "height": height.as_posix(),
        # Validation tiles are training tiles that a split file names.
        "part": "test" if one.side == TEST else "train",
        "fold": fold_of(one.group, options.folds, options.seed) if options.folds and one.side != TEST else None,
        "scene": one.group,
        "row": tile.row,
        "column": tile.column,
        "image_void": tile.image_void,
        "height_void": tile.height_void,
        "lowest": tile.lowest,
        "highest": tile.highest,
    }


def _pair_row(one: Prepared, tiles: PairTiles) -> dict[str, object]:
    pair = one.pair
    heights = [value for tile in tiles.kept for value in (tile.lowest, tile.highest) if value is not None]
    longitude, latitude = one.footprint.centre
    return {
        "pair": pair.name,
        "side": one.side,
        "group": one.group,
        "dtm": pair.dtm.as_posix(),
        "ortho": pair.ortho.as_posix(),
        "sources": " ".join(pair.sources),
        "producer": pair.producer,
        "version": pair.version,
        "height_reference": pair.reference,
        "pixel_size_m": round(pair.metres, 6),
        "rows": pair.grid.height,
        "columns": pair.grid.width,
        "tiles": len(tiles.kept),
        "left_out": len(tiles.tiles) - len(tiles.kept),
        "covered_by_image": round(one.covered, 4),
        "saturated": round(sum(tile.saturated for tile in tiles.kept) / max(len(tiles.kept), 1), 6),
        "lowest": min(heights, default=None),
        "highest": max(heights, default=None),
        "longitude": round(longitude, 6),
        "latitude": round(latitude, 6),
        "sun_azimuth": None if pair.sun is None else round(pair.sun.azimuth, 4),
        "sun_elevation": None if pair.sun is None else round(pair.sun.elevation, 4),
        "crs": pair.grid.crs.to_wkt(),
    }


def summarise(prepared: Sequence[Prepared], tiles: Mapping[str, PairTiles] | None, places: Mapping[str, int]) -> str:
    """The sides in a table.

    Args:
        prepared: the pairs.
        tiles: the tiles of each pair; None before they are cut.
        places: how many places for tiles each pair has.
    """
    rows = []
    for side in SIDES:
        own = [one for one in prepared if one.side == side]
        groups = len({one.group for one in own})
        there = sum(places[one.pair.name] for one in own)
        kept = "" if tiles is None else str(sum(len(tiles[one.pair.name].kept) for one in own))
        rows.append([side, str(len(own)), str(groups), str(there), kept])
    return format_table(["side", "pairs", "groups", "places for tiles", "tiles"], rows)
