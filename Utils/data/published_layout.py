"""The published layout of tiles on disk.

<dataset>/singleRGBNormalization/png-stretched-unique/tile_<id>.png      image
<dataset>/singleRGBNormalization/DEM_255-unique/tile_<id>.tif            height
<prior folder>/singleRGBNormalization/stage1_depth/tile_<id>_pred_depth.png
and the same under singleRGBNormalizationTest/
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from Utils.core.errors import UserError

TRAINING_PART = "singleRGBNormalization"
TEST_PART = "singleRGBNormalizationTest"
IMAGE_FOLDER = "png-stretched-unique"
HEIGHT_FOLDER = "DEM_255-unique"
PRIOR_FOLDER = "stage1_depth"


@dataclass(frozen=True)
class TileFiles:
    """One tile's image and height map."""

    image: Path
    height: Path


def prior_file(folder: Path, part: str, tile: str) -> Path:
    """Where a tile's coarse prior lies."""
    return folder / part / PRIOR_FOLDER / f"tile_{tile}_pred_depth.png"


def list_tiles(dataset: Path, part: str) -> dict[str, TileFiles]:
    """The tiles of one part, by id, in natural order.

    Raises:
        UserError: a missing folder, no tile, an image without map or a map without image.
    """
    images = _by_id(dataset, part, IMAGE_FOLDER, ".png")
    heights = _by_id(dataset, part, HEIGHT_FOLDER, ".tif")
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
    return {tile: TileFiles(images[tile], heights[tile]) for tile in sorted(images, key=natural)}


def tile_name(suffix: str) -> re.Pattern[str]:
    """The pattern of a tile's whole file name; its first group is the tile's id."""
    return re.compile(rf"tile_([\w-]+){re.escape(suffix)}")


def natural(tile: str) -> tuple[int, int, str]:
    """Sorting key of tile ids: 9 comes before 10, numbers before names."""
    return (0, int(tile), tile) if tile.isdecimal() else (1, 0, tile)


def _by_id(dataset: Path, part: str, folder: str, suffix: str) -> dict[str, Path]:
    place = dataset / part / folder
    if not place.is_dir():
        raise UserError(
            f"dataset folder '{place}' not found; set dataset_path to the folder that holds '{TRAINING_PART}' "
            "(layout: Dataset/README.md)"
        )
    pattern = tile_name(suffix)
    try:
        matches = [(pattern.fullmatch(name), name) for name in os.listdir(place)]
    except OSError as error:
        raise UserError(f"dataset folder '{place}' cannot be read: {error.strerror}; check its permissions") from error
    return {match.group(1): place / name for match, name in matches if match}


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
