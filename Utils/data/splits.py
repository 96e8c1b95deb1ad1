"""Dividing tiles: split files, folds, hold-outs.

    python -m Utils.data.splits --dataset DIR --name J_K [--folds 5] [--seed 42] [--by scene]

writes ``Dataset/splitTextFiles/J_K/J_Kstage1-<fold>.txt``, one tile id a line, each tile in one fold.
"""

from __future__ import annotations

import argparse
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from Modules.common.plain_json import read_text
from Utils.core.command_line import run_script
from Utils.core.errors import UserError
from Utils.core.files import atomic_write_bytes
from Utils.core.seeds import named_generator
from Utils.data.published_layout import TRAINING_PART, TileFiles, natural
from Utils.data.scene_names import group_by_scene
from Utils.data.tile_sources import part_tiles

logger = logging.getLogger(__name__)

HELD_OUT_SHARE = 0.1
_TILE_LINE = re.compile(r"(?:tile_)?([\w-]+?)(?:\.(?i:png|tif|tiff|jpg|jpeg|npy))?")


def read_split(path: Path) -> list[str]:
    """Read one split file: tile ids, one a line; ``805``, ``tile_805`` and ``tile_805.png`` are the same tile.

    Raises:
        UserError: a missing or unreadable file, a line that is not an id, an id that occurs twice, or no id at all.
    """
    try:
        lines = read_text(path).splitlines()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"split file '{path}' cannot be read: {reason}; give a text file of tile ids, as "
            "python -m Utils.data.splits writes them"
        ) from error
    ids: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        match = _TILE_LINE.fullmatch(text)
        if match is None:
            raise UserError(f"split file '{path}', line {number}: '{text[:60]}' is no tile id; write one id a line")
        tile = match.group(1)
        if tile in ids:
            raise UserError(
                f"split file '{path}': tile id {tile} stands in line {ids[tile]} and again in line {number}; remove one"
            )
        ids[tile] = number
    if not ids:
        raise UserError(f"split file '{path}' holds no tile id; write one id a line")
    return list(ids)


def select(available: Sequence[str], split: str | Sequence[str] | None, where: str) -> list[str]:
    """The tiles that split files name, or all ``available`` ones when no file is given.

    Raises:
        UserError: an id that is not on disk; ``where`` names the place that was searched.
    """
    if not split:
        return list(available)
    on_disk = set(available)
    chosen: dict[str, Path] = {}
    for path in [Path(split)] if isinstance(split, str) else [Path(item) for item in split]:
        tiles = read_split(path)
        missing = [tile for tile in tiles if tile not in on_disk]
        if missing:
            raise UserError(
                f"split file '{path}' names tile id {missing[0]}, which is not in '{where}' ({len(missing)} of "
                f"{len(tiles)} ids are not); correct the file, or set dataset_path to the dataset it was made for"
            )
        for tile in tiles:
            chosen.setdefault(tile, path)
    return list(chosen)


def read_folds(paths: Sequence[str], available: Sequence[str], where: str) -> list[list[str]]:
    """Read folds from files, one file for each fold.

    Raises:
        UserError: an id in two folds, or not on disk.
    """
    home: dict[str, str] = {}
    folds: list[list[str]] = []
    for path in paths:
        fold = select(available, path, where)
        for tile in fold:
            if tile in home:
                raise UserError(f"tile id {tile} stands in two folds, '{home[tile]}' and '{path}'; keep it in one")
            home[tile] = path
        folds.append(fold)
    return folds


def make_folds(ids: Sequence[str], count: int, seed: int, scenes: Mapping[str, str] | None = None) -> list[list[str]]:
    """Deal ``ids`` into ``count`` folds at random; sizes differ by one at most.

    With ``scenes``, the scene of each id, all tiles of a scene go into one fold, and sizes are only about equal.

    Raises:
        UserError: fewer tiles, or scenes, than folds.
    """
    if scenes is not None:
        return _folds_of_scenes(ids, count, seed, scenes)
    if len(ids) < count:
        raise UserError(
            f"{count} folds need {count} training tiles or more, and there are {len(ids)}; ask for fewer folds"
        )
    shuffled = _shuffle(ids, seed, "folds")
    return [sorted(shuffled[fold::count], key=natural) for fold in range(count)]


def hold_out(
    ids: Sequence[str], seed: int, share: float = HELD_OUT_SHARE, scenes: Mapping[str, str] | None = None
) -> tuple[list[str], list[str]]:
    """Training and validation tiles: a seeded share is held out, one tile at least.

    With ``scenes``, the scene of each id, whole scenes are held out: about that share of the tiles, one scene at least.

    Raises:
        UserError: fewer than two tiles or scenes, or a share that leaves none to train on.
    """
    if len(ids) < 2:
        raise UserError(f"{len(ids)} training tile cannot be split for validation; set not_split, or add tiles")
    if scenes is not None:
        return _hold_out_scenes(ids, seed, share, scenes)
    shuffled = _shuffle(ids, seed, "hold-out")
    count = min(max(1, round(share * len(ids))), len(ids) - 1)
    return sorted(shuffled[count:], key=natural), sorted(shuffled[:count], key=natural)


def _tiles_by_scene(ids: Sequence[str], scenes: Mapping[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for tile in sorted(ids, key=natural):
        found.setdefault(scenes[tile], []).append(tile)
    return found


def _folds_of_scenes(ids: Sequence[str], count: int, seed: int, scenes: Mapping[str, str]) -> list[list[str]]:
    by_scene = _tiles_by_scene(ids, scenes)
    if len(by_scene) < count:
        raise UserError(
            f"{count} folds by scene need {count} scenes or more, and there are {len(by_scene)}; ask for fewer folds"
        )
    folds: list[list[str]] = [[] for _ in range(count)]
    # The largest scenes first, each to the smallest fold, so that sizes come out about equal.
    for scene in sorted(_shuffle(list(by_scene), seed, "folds"), key=lambda scene: -len(by_scene[scene])):
        min(folds, key=len).extend(by_scene[scene])
    return [sorted(fold, key=natural) for fold in folds]


def _hold_out_scenes(
    ids: Sequence[str], seed: int, share: float, scenes: Mapping[str, str]
) -> tuple[list[str], list[str]]:
    by_scene = _tiles_by_scene(ids, scenes)
    if len(by_scene) < 2:
        raise UserError(f"{len(ids)} training tiles of one scene cannot be split by scene for validation")
    held: list[str] = []
    wanted = share * len(ids)
    for scene in _shuffle(list(by_scene), seed, "hold-out"):
        more = len(held) + len(by_scene[scene])
        # A scene is taken where that brings the share nearer to what is wanted.
        if abs(more - wanted) < abs(len(held) - wanted) and more < len(ids):
            held += by_scene[scene]
    held = held or min(by_scene.values(), key=len)
    kept = set(ids) - set(held)
    return sorted(kept, key=natural), sorted(held, key=natural)


def table_folds(tiles: Mapping[str, TileFiles], where: str) -> list[list[str]]:
    """The folds that the column ``fold`` of a table names, in the order of their numbers.

    Raises:
        UserError: a tile without fold, or fewer than two folds; ``where`` names the dataset.
    """
    without = [tile for tile, files in tiles.items() if files.fold is None]
    if without:
        raise UserError(
            f"k_folds is table, and {len(without)} of {len(tiles)} training tiles of '{where}' have no fold (first: "
            f"{without[0]}); fill the column fold of a table, or give a number of folds"
        )
    numbers = sorted({files.fold for files in tiles.values() if files.fold is not None})
    if len(numbers) < 2:
        raise UserError(
            f"k_folds is table, and all training tiles of '{where}' are in fold {numbers[0]}; name two or more"
        )
    return [[tile for tile, files in tiles.items() if files.fold == number] for number in numbers]


def warn_of_other_folds(tiles: Mapping[str, TileFiles], where: str) -> None:
    """Say that folds are dealt at random although the dataset has folds of its own."""
    own = len({files.fold for files in tiles.values() if files.fold is not None})
    if own > 1:
        logger.warning("'%s' names %d folds, and others are dealt at random: k_folds table takes its own", where, own)


def write_splits(
    dataset: Path,
    name: str,
    folds: int,
    seed: int,
    folder: Path,
    root: Path | None = None,
    by_scene: bool = False,
) -> list[Path]:
    """Write one split file a fold for a dataset's training tiles, as ``<folder>/<name>/<name>stage1-<fold>.txt``."""
    tiles = part_tiles(dataset, TRAINING_PART, root=root)
    warn_of_other_folds(tiles, str(dataset))
    scenes = group_by_scene(tiles, list(tiles), "name them in a table's column scene") if by_scene else None
    dealt = make_folds(list(tiles), folds, seed, scenes)
    paths = []
    for number, fold in enumerate(dealt, start=1):
        path = folder / name / f"{name}stage1-{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_bytes(path, "".join(f"{tile}\n" for tile in fold).encode())
        paths.append(path)
    return paths


def _shuffle(ids: Sequence[str], seed: int, stream: str) -> list[str]:
    # From a sorted list, so that the order in which a disk lists its files does not matter.
    import torch

    ordered = sorted(ids, key=natural)
    order = torch.randperm(len(ordered), generator=named_generator(seed, stream))
    return [ordered[place] for place in order.tolist()]


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: write split files."""
    parser = argparse.ArgumentParser(prog="python -m Utils.data.splits", description="write k-fold split files")
    parser.add_argument("--dataset", type=Path, required=True, help="folder in the published layout, or a CSV table")
    parser.add_argument("--root", type=Path, help="where the paths in a table start (its own folder)")
    parser.add_argument("--name", required=True, help="name of the split, and of its folder")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--output", type=Path, default=Path("Dataset/splitTextFiles"))
    parser.add_argument("--by", choices=("frame", "scene"), default="frame", help="what stays whole (frame)")
    given = parser.parse_args(arguments)

    def write() -> None:
        if given.folds < 2:
            raise UserError(f"--folds {given.folds}: give 2 or more")
        chosen = given.dataset, given.name, given.folds, given.seed, given.output, given.root
        for path in write_splits(*chosen, by_scene=given.by == "scene"):
            print(path)

    return run_script(write)


if __name__ == "__main__":
    raise SystemExit(main())
