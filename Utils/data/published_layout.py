"""The published layout of tiles on disk.

<dataset>/singleRGBNormalization/png-stretched-unique/tile_<id>.png      image
<dataset>/singleRGBNormalization/DEM_255-unique/tile_<id>.tif            height; other suffixes: see below
<prior folder>/singleRGBNormalization/stage1_depth/tile_<id>_pred_depth.png
and the same under singleRGBNormalizationTest/
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from Utils.core.errors import UserError
from Utils.rasters.height_coding import AS_THE_FILE_SAYS, HeightCoding

TRAINING_PART = "singleRGBNormalization"
TEST_PART = "singleRGBNormalizationTest"
IMAGE_FOLDER = "png-stretched-unique"
HEIGHT_FOLDER = "DEM_255-unique"
PRIOR_FOLDER = "stage1_depth"
# What a file holds is seen from its first bytes; the suffix only says that it is meant as a tile.
IMAGE_SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg")
HEIGHT_SUFFIXES = (".tif", ".tiff", ".png", ".npy")
_TILE_NAME = re.compile(r"tile_(?P<id>[\w-]+)(?P<suffix>\.\w+)")


@dataclass(frozen=True)
class TileFiles:
    """One tile's image and height map, and what a table says of them.

    Attributes:
        image: file of the image.
        height: file of the height map.
        full_scale: the value that counts as 1 in an image of 16 bits; None for what the file says, or 65535.
        coding: what the numbers in the height map mean, where a table says it.
        prior: file of the coarse prior that a table names; None for none.
        fold: number of the fold that a table names; None for none.
        scene: the scene that a table names; None for none. ``Utils.data.scene_names`` knows more.
    """

    image: Path
    height: Path
    full_scale: float | None = None
    coding: HeightCoding = AS_THE_FILE_SAYS
    prior: Path | None = None
    fold: int | None = None
    scene: str | None = None


def prior_file(folder: Path, part: str, tile: str) -> Path:
    """Where a tile's coarse prior lies, or is to be written; a file whose suffix is in capitals is found too."""
    path = folder / part / PRIOR_FOLDER / f"tile_{tile}_pred_depth.png"
    capitals = path.with_suffix(".PNG")
    return capitals if not path.exists() and capitals.is_file() else path


def list_tiles(dataset: Path, part: str, full_scale: float | None = None) -> dict[str, TileFiles]:
    """The tiles of one part, by id, in natural order.

    Args:
        dataset: folder of the dataset.
        part: folder of the part.
        full_scale: the value that counts as 1 in its 16-bit images, as the config says; None for what the files say.

    Raises:
        UserError: a missing folder, no tile, an image without map or a map without image.
    """
    images = _by_id(dataset, part, IMAGE_FOLDER, IMAGE_SUFFIXES)
    heights = _by_id(dataset, part, HEIGHT_FOLDER, HEIGHT_SUFFIXES)
    sides = ((images, heights, "image", "height map"), (heights, images, "height map", "image"))
    for has, lacks, what, lacking in sides:
        alone = sorted(set(has) - set(lacks), key=natural)
        if alone:
            others = f" (and {len(alone) - 1} more)" if len(alone) > 1 else ""
            raise UserError(f"{what} '{has[alone[0]]}' has no {lacking}{others}; add it or remove the {what}")
    if not images:
        raise UserError(
            f"no tile_<id>.png in '{dataset / part / IMAGE_FOLDER}'; put the images there (layout: Dataset/README.md)"
        )
    return {tile: TileFiles(images[tile], heights[tile], full_scale) for tile in sorted(images, key=natural)}


def match_tiles(names: Iterable[str], suffixes: Sequence[str]) -> dict[str, str]:
    """The file of each tile id among the names in a folder: ``tile_<id>`` and a suffix, capitals or not.

    Where an id has several files, the suffix that stands first is taken, small letters before capitals.
    """
    found: dict[str, tuple[tuple[int, bool, str], str]] = {}
    for name in names:
        match = _TILE_NAME.fullmatch(name)
        if match is None or match["suffix"].lower() not in suffixes:
            continue
        rank = (suffixes.index(match["suffix"].lower()), match["suffix"] != match["suffix"].lower(), name)
        if match["id"] not in found or rank < found[match["id"]][0]:
            found[match["id"]] = (rank, name)
    return {tile: name for tile, (_, name) in found.items()}


def natural(tile: str) -> tuple[int, int, str]:
    """Sorting key of tile ids: 9 comes before 10, numbers before names."""
    return (0, int(tile), tile) if tile.isdecimal() else (1, 0, tile)


def _by_id(dataset: Path, part: str, folder: str, suffixes: Sequence[str]) -> dict[str, Path]:
    place = dataset / part / folder
    if not place.is_dir():
        raise UserError(
            f"dataset folder '{place}' not found; set dataset_path to the folder that holds '{TRAINING_PART}' "
            "(layout: Dataset/README.md)"
        )
    try:
        names = os.listdir(place)
    except OSError as error:
        raise UserError(f"dataset folder '{place}' cannot be read: {error.strerror}; check its permissions") from error
    return {tile: place / name for tile, name in match_tiles(names, suffixes).items()}


def find_priors(folder: Path, part: str, ids: Sequence[str]) -> dict[str, Path]:
    """The prior file of every id.

    Raises:
        UserError: a missing prior; the line says how priors are made.
    """
    priors = {tile: prior_file(folder, part, tile) for tile in ids}
    missing = [tile for tile, path in priors.items() if not path.is_file()]
    if missing:
        make = "trainViT.py with k_folds" if part == TRAINING_PART else "evaluateViT.py"
        raise UserError(
            f"coarse prior '{priors[missing[0]]}' not found ({len(missing)} of {len(ids)} are missing); "
            f"make them with {make}, and set prior_path to the folder that it names"
        )
    return priors
