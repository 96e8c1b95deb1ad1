"""Tiles on disk in the published layout, and the dataset that reads them.

<dataset>/singleRGBNormalization/png-stretched-unique/tile_<id>.png      image
<dataset>/singleRGBNormalization/DEM_255-unique/tile_<id>.tif            height
<prior folder>/singleRGBNormalization/stage1_depth/tile_<id>_pred_depth.png
and the same under singleRGBNormalizationTest/
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from Modules.common.normalisation import MinMaxNormalisation
from Utils.core.errors import UserError
from Utils.core.processes import progress_bar
from Utils.core.seeds import named_generator
from Utils.rasters.tile_files import RasterError, raster_size, read_height, read_image, read_prior

logger = logging.getLogger(__name__)

TRAINING_PART = "singleRGBNormalization"
TEST_PART = "singleRGBNormalizationTest"
IMAGE_FOLDER = "png-stretched-unique"
HEIGHT_FOLDER = "DEM_255-unique"
PRIOR_FOLDER = "stage1_depth"

# The axes that tiles can be mirrored along, in the order in which they are drawn for, with their dimensions.
AXES = {"horizontal": -1, "vertical": -2}

_LISTED_IDS = 8

Batch = dict[str, Any]


@dataclass(frozen=True)
class TileFiles:
    """One tile's image and height map."""

    image: Path
    height: Path


@dataclass(frozen=True)
class TileCheck:
    """What reading every tile once found.

    Attributes:
        size: (height, width) that all tiles share.
        empty: ids without a valid pixel.
        flat: ids whose valid heights are all equal.
        with_gaps: ids with some invalid pixels.
    """

    size: tuple[int, int]
    empty: list[str]
    flat: list[str]
    with_gaps: list[str]


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
    """What a whole file name must match to be a tile's; its first group is the tile's id."""
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


class TileDataset(Dataset[Batch]):
    """Tiles as tensors.

    An item holds ``image`` (3, H, W) in [0, 1]; ``target`` (1, H, W), the map in the file's unit; ``height``, the
    same stretched to [0, 1] over its valid pixels; ``valid`` (1, H, W) bool; ``id``; and, with priors, ``prior``
    (1, H, W) in [0, 1].

    Args:
        files: the part's tiles.
        ids: those to serve, in order.
        priors: prior file of each id, None for none.
        flips: axes that are mirrored at random, by a coin per tile and epoch.
        crop: side of a random square crop, 0 for whole tiles.
        seed: of crops and flips.
        cache_bytes: decoded tiles are kept up to this much memory, in each process that reads them.

    Attributes:
        epoch: what crops and flips are drawn from, besides seed and tile; setting it reaches running workers too.
    """

    def __init__(
        self,
        files: Mapping[str, TileFiles],
        ids: Sequence[str],
        priors: Mapping[str, Path] | None = None,
        flips: Sequence[str] = (),
        crop: int = 0,
        seed: int = 0,
        cache_bytes: float = 0.0,
    ) -> None:
        self.files = files
        self.ids = list(ids)
        self.priors = priors
        self.flips = sorted(flips)
        self.crop = crop
        self.seed = seed
        self.cache_bytes = cache_bytes
        # Workers outlive an epoch: they see its number in memory that they share with the loop.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self._cache_left = cache_bytes
        self._cache: dict[str, Batch] = {}
        self._size: tuple[int, ...] | None = None

    def __len__(self) -> int:
        """Number of tiles."""
        return len(self.ids)

    def __getitem__(self, index: int) -> Batch:
        """One tile."""
        tile = self.ids[index]
        return self._augment(dict(self._read(tile)), tile)

    @property
    def epoch(self) -> int:
        """The epoch that is drawn for."""
        return int(self._epoch)

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self._epoch.fill_(epoch)

    def mirrored(self, tile: str) -> list[str]:
        """The axes along which a tile, where tiles are not cropped, is mirrored in this epoch."""
        assert not self.crop, "the crop is drawn before the flips"
        return self._draw_flips(self._generator(tile))

    def _read(self, tile: str) -> Batch:
        if tile in self._cache:
            return self._cache[tile]
        item = self._decode(tile)
        self._check_size(tile, item)
        size = sum(value.nbytes for value in item.values() if isinstance(value, Tensor))
        if size <= self._cache_left:
            self._cache_left -= size
            self._cache[tile] = item
        return item

    def _check_size(self, tile: str, item: Batch) -> None:
        """A tile that was replaced in mid-run by one of another size fits no batch."""
        sizes = [tuple(value.shape[-2:]) for name, value in item.items() if name in ("image", "height")]
        if not sizes:
            return
        self._size = self._size or sizes[0]
        if sizes[0] != self._size:
            raise UserError(
                f"'{self.files[tile].image}' is {sizes[0][1]} x {sizes[0][0]} pixels, unlike other tiles of the "
                f"dataset ({self._size[1]} x {self._size[0]}): it has changed; restore it"
            )

    def _decode(self, tile: str) -> Batch:
        """What is read from a tile's files, before it is augmented."""
        return read_tile(tile, self.files[tile], self.priors[tile] if self.priors is not None else None)

    def _generator(self, tile: str) -> torch.Generator:
        # Drawn from the epoch and the tile, so that neither workers nor resuming change what is drawn.
        return named_generator(self.seed, "augmentation", self.epoch, tile)

    def _draw_flips(self, generator: torch.Generator) -> list[str]:
        return [axis for axis in AXES if axis in self.flips and _draw(1, generator)]

    def _augment(self, item: Batch, tile: str) -> Batch:
        generator = self._generator(tile)
        if self.crop:
            height, width = item["image"].shape[-2:]
            top = _draw(height - self.crop, generator)
            left = _draw(width - self.crop, generator)
            item = _each_map(item, lambda value: value[..., top : top + self.crop, left : left + self.crop])
        return mirror(item, self._draw_flips(generator))


def _draw(highest: int, generator: torch.Generator) -> int:
    return int(torch.randint(0, max(highest, 0) + 1, (), generator=generator))


def mirror(item: Batch, axes: Sequence[str]) -> Batch:
    """Mirror every map (..., H, W) of an item or a batch along some of ``AXES``."""
    return _each_map(item, lambda value: value.flip([AXES[axis] for axis in axes])) if axes else item


def _each_map(item: Batch, change: Any) -> Batch:
    return {key: change(value) if isinstance(value, Tensor) else value for key, value in item.items()}


def read_tile(tile: str, files: TileFiles, prior: Path | None = None) -> Batch:
    """Read one tile as ``TileDataset`` serves it.

    Raises:
        UserError: a file that cannot be read, or an image, map and prior that differ in size.
    """
    try:
        image = read_image(files.image)
        coarse = None if prior is None else read_prior(prior)
    except (RasterError, OSError) as error:
        raise UserError(str(error)) from error
    item: Batch = {"image": torch.from_numpy(image), "id": tile}
    item |= read_truth(files.height)
    _same_size(files.image, image.shape[-2:], files.height, item["target"].shape[-2:])
    if coarse is not None and prior is not None:
        _same_size(files.image, image.shape[-2:], prior, coarse.shape)
        item["prior"] = torch.from_numpy(coarse)[None]
    return item


def read_truth(path: Path) -> Batch:
    """A tile's ``target``, ``height`` and ``valid``, as ``TileDataset`` serves them.

    Raises:
        UserError: a file that cannot be read.
    """
    try:
        raster = read_height(path)
    except (RasterError, OSError) as error:
        raise UserError(str(error)) from error
    target = torch.from_numpy(raster.values)[None]
    valid = torch.from_numpy(raster.valid)[None]
    height, _ = MinMaxNormalisation().forward(target[None], valid[None])
    return {"target": target, "height": height[0], "valid": valid}


def _same_size(
    first: Path, size: Sequence[int], second: Path, other: Sequence[int], which: str = "image, map and prior of a tile"
) -> None:
    if tuple(size) != tuple(other):
        raise UserError(
            f"'{second}' is {other[1]} x {other[0]} pixels but '{first}' is {size[1]} x {size[0]}; "
            f"{which} must have one size: resample or remove it"
        )


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


def check_tiles(
    files: Mapping[str, TileFiles], ids: Sequence[str], priors: Mapping[str, Path] | None = None
) -> TileCheck:
    """Read every tile once, in threads, so that a damaged file is found before the long work and not in its middle.

    Raises:
        UserError: an unreadable file, or tiles of different sizes.
    """
    first = ids[0]
    size = _size(files[first].image)
    for tile in ids:
        image_size = _size(files[tile].image)
        for path in (files[tile].height, *([priors[tile]] if priors else [])):
            _same_size(files[tile].image, image_size, path, _size(path))
        _same_size(files[first].image, size, files[tile].image, image_size, "all tiles of a dataset")

    def look(tile: str) -> tuple[str, bool, bool, bool]:
        item = read_tile(tile, files[tile], priors[tile] if priors else None)
        valid = item["valid"]
        heights = item["target"][valid]
        return tile, bool(valid.any()), bool(valid.all()), bool(heights.numel() and heights.min() == heights.max())

    empty, flat, with_gaps = [], [], []
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        looked: Iterator[tuple[str, bool, bool, bool]] = pool.map(look, ids)
        bar = progress_bar(looked, total=len(ids), desc="checking tiles", unit="tile")
        for tile, has_valid, is_whole, is_flat in bar:
            if not has_valid:
                empty.append(tile)
            elif not is_whole:
                with_gaps.append(tile)
            if is_flat:
                flat.append(tile)
    for found, what in (
        (empty, "no valid height: they teach nothing and score nothing"),
        (flat, "flat heights: normalised, they are 0 everywhere"),
        (with_gaps, "some invalid pixels, which are masked"),
    ):
        if found:
            listed = ", ".join(found[:_LISTED_IDS]) + (", ..." if len(found) > _LISTED_IDS else "")
            logger.warning("%d of %d tiles have %s (tile ids: %s)", len(found), len(ids), what, listed)
    return TileCheck(size, empty, flat, with_gaps)


def _size(path: Path) -> tuple[int, int]:
    try:
        return raster_size(path)
    except (RasterError, OSError) as error:
        raise UserError(str(error)) from error
