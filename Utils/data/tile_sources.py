"""The tiles of a dataset, whichever kind it is: a folder in the published layout, or a table.

Everything that lists tiles or priors asks here, and does not need to know the kind.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from Utils.config.training_keys import DataConfig
from Utils.core.errors import UserError
from Utils.data.dataset_table import PARTS, read_table
from Utils.data.published_layout import TEST_PART, TRAINING_PART, TileFiles, natural, prior_file
from Utils.data.published_layout import find_priors as find_laid_out_priors
from Utils.data.published_layout import list_tiles as list_laid_out_tiles
from Utils.data.table_paths import TablePaths

logger = logging.getLogger(__name__)

_TABLE_SUFFIX = ".csv"


def is_table(dataset: Path) -> bool:
    """Whether a dataset is a table; a missing one is what its suffix says."""
    # Not Path.is_file, which raises where a name is too long.
    return os.path.isfile(dataset) or (dataset.suffix.lower() == _TABLE_SUFFIX and not os.path.isdir(dataset))


def config_tiles(config: DataConfig, part: str) -> dict[str, TileFiles]:
    """The tiles of one part of a config's dataset; see ``part_tiles``."""
    root = Path(config.root) if config.root else None
    return part_tiles(Path(config.dataset_path), part, config.image_full_scale, root)


def part_tiles(
    dataset: Path, part: str, full_scale: float | None = None, root: Path | None = None
) -> dict[str, TileFiles]:
    """The tiles of one part of a dataset, by id, in natural order.

    Args:
        dataset: a folder in the published layout, or a table.
        part: ``TRAINING_PART`` or ``TEST_PART``.
        full_scale: the value that counts as 1 in its 16-bit images; None for what the files say.
        root: where a table's paths start; None for its own folder.

    Raises:
        UserError: a dataset or files that are missing, a table that cannot be used, no tile.
    """
    if not is_table(dataset):
        check_root(dataset, root)
        return list_laid_out_tiles(dataset, part, full_scale)
    listed = table_files(dataset, part, full_scale, root)
    if listed.missing:
        line, first = listed.missing[0]
        raise UserError(
            f"table '{dataset}': {len(listed.missing)} files do not exist, first '{first}' in line {line}; "
            f"{listed.paths.remedy(first)}"
        )
    if not listed.found:
        name = next(name for name, folder in PARTS.items() if folder == part)
        raise UserError(f"table '{dataset}' has no tile of the part '{name}'; mark some in its column part")
    return listed.found


def check_root(dataset: Path, root: Path | None) -> None:
    """Raise UserError where there is a root for a dataset that is no table, and would be ignored."""
    if root is not None:
        raise UserError(f"root belongs to a table, and dataset_path '{dataset}' is a folder; remove root")


@dataclass(frozen=True)
class TableFiles:
    """The files of one part of a table.

    Attributes:
        found: the tiles whose files exist, in natural order.
        missing: line and path of every file that does not exist.
        paths: what found them.
    """

    found: dict[str, TileFiles]
    missing: list[tuple[int, str]]
    paths: TablePaths


def table_files(dataset: Path, part: str, full_scale: float | None, root: Path | None) -> TableFiles:
    """Look for the files of one part of a table.

    Raises:
        UserError: a table that cannot be used.
    """
    table = read_table(dataset)
    rows = table.of_part(part)
    paths = TablePaths(dataset, root, [row.image for row in table.rows])
    found: dict[str, TileFiles] = {}
    missing: list[tuple[int, str]] = []
    for row in rows:
        image, height = paths.find(row.image), paths.find(row.height)
        prior = paths.find(row.prior) if row.prior else None
        sides = ((row.image, image), (row.height, height))
        absent = [(row.line, text) for text, path in sides if not os.path.isfile(path)]
        missing += absent
        if not absent:
            found[row.id] = TileFiles(image, height, full_scale, row.coding, prior, row.fold, row.scene or None)
    if part == TEST_PART and not table.has_parts and not missing:
        logger.warning(
            "'%s' has no column part, so all its %d tiles are test tiles: the model must have learnt from none of them",
            dataset,
            len(rows),
        )
    return TableFiles({tile: found[tile] for tile in sorted(found, key=natural)}, missing, paths)


def prior_of(folder: Path, part: str, tile: str, files: TileFiles) -> Path | None:
    """Where a tile's coarse prior is: in ``folder``, or where a table names it; None where a table names none."""
    return files.prior if is_table(folder) else prior_file(folder, part, tile)


def part_priors(folder: Path, part: str, files: Mapping[str, TileFiles], ids: Sequence[str]) -> dict[str, Path]:
    """The prior file of every id.

    Args:
        folder: the config's ``prior_path``, or else its ``dataset_path``: the priors are then those of the dataset.
        part: ``TRAINING_PART`` or ``TEST_PART``.
        files: the tiles of that part.
        ids: the tiles whose priors are wanted.

    Raises:
        UserError: a missing prior; the line says how priors are made.
    """
    if not is_table(folder):
        return find_laid_out_priors(folder, part, ids)
    priors = {tile: path for tile in ids if (path := files[tile].prior) is not None and os.path.isfile(path)}
    missing = [tile for tile in ids if tile not in priors]
    if missing:
        make = "trainViT.py with k_folds" if part == TRAINING_PART else "evaluateViT.py"
        named = files[missing[0]].prior
        what = f"no coarse prior for tile {missing[0]}" if named is None else f"coarse prior '{named}' not found"
        raise UserError(
            f"table '{folder}': {what} ({len(missing)} of {len(ids)} are missing); fill its column prior, or make them "
            f"with {make}, and set prior_path to the folder that it names"
        )
    return priors
