"""Reading every land-cover tile once before the long work: damaged files, bad masks, what teaches nothing."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from Utils.core.errors import UserError
from Utils.core.processes import progress_bar
from Utils.data.land_cover.land_cover_dataset import HowRead, read_land_cover
from Utils.data.land_cover.listing import LandCoverFiles
from Utils.data.sample import IGNORED_LABEL
from Utils.data.tile_check import TileCheck

__all__ = ["LandCoverCheck", "check_land_cover"]

logger = logging.getLogger(__name__)

_LISTED_IDS = 8


@dataclass(frozen=True)
class LandCoverCheck(TileCheck):
    """The result of reading every tile once.

    Attributes:
        pixels: labelled pixels of each class, over all tiles.
    """

    pixels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))


@dataclass(frozen=True)
class _Look:
    tile: str
    size: tuple[int, int]
    pixels: NDArray[np.int64]
    flat_depth: bool
    blank: bool


def check_land_cover(
    files: Mapping[str, LandCoverFiles], ids: Sequence[str], how: HowRead, one_size: bool, what: str = "tiles"
) -> LandCoverCheck:
    """Read every tile once, in threads.

    Args:
        files: the files of the tiles.
        ids: the tiles to read.
        how: how they are read.
        one_size: whether all must have one size.
        what: what the log calls them.

    Raises:
        UserError: a file that cannot be used; tiles of several sizes; masks of which no pixel is labelled.
    """

    def look(tile: str) -> _Look:
        sample = read_land_cover(tile, files[tile], how)
        label, image = sample["label"].numpy(), sample["image"].numpy()
        pixels = np.bincount(label[label != IGNORED_LABEL], minlength=len(how.table.names))
        flat = how.from_files and not bool(sample["depth"].any())
        blank = bool((image.max(axis=(1, 2)) == image.min(axis=(1, 2))).all())
        return _Look(tile, (label.shape[0], label.shape[1]), pixels, flat, blank)

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        looked = pool.map(look, ids)
        looks = list(progress_bar(looked, total=len(ids), desc=f"checking {what}", unit="tile"))
    if one_size:
        _refuse_sizes(files, looks)
    masked = [each for each in looks if files[each.tile].mask is not None]
    empty = [each.tile for each in masked if not each.pixels.any()]
    for found, says in (
        ([each.tile for each in looks if each.blank], "an image of one colour, in which nothing can be seen"),
        (empty, "no labelled pixel: they teach nothing and score nothing"),
        ([each.tile for each in looks if each.flat_depth], "a relative depth map of one value, which is read as 0"),
    ):
        if found:
            listed = ", ".join(found[:_LISTED_IDS]) + (", ..." if len(found) > _LISTED_IDS else "")
            logger.warning("%d of %d %s have %s (tile ids: %s)", len(found), len(ids), what, says, listed)
    if masked and len(empty) == len(masked):
        first = files[masked[0].tile].mask
        raise UserError(
            f"no pixel of the {len(masked)} masks, such as '{first}', is labelled: all are ignored values; check the "
            "masks and class_table"
        )
    pixels = np.sum([each.pixels for each in looks], axis=0)
    if masked:
        absent = [name for name, count in zip(how.table.names, pixels, strict=True) if not count]
        if absent:
            logger.warning(
                "%d of %d classes occur in none of the %s: %s", len(absent), len(pixels), what, ", ".join(absent)
            )
    smallest = min(each.size[0] for each in looks), min(each.size[1] for each in looks)
    gaps = [each.tile for each in masked if 0 < each.pixels.sum() < each.size[0] * each.size[1]]
    blank = [each.tile for each in looks if each.blank]
    return LandCoverCheck(smallest, empty, [], gaps, blank, pixels)


def _refuse_sizes(files: Mapping[str, LandCoverFiles], looks: Sequence[_Look]) -> None:
    first = looks[0]
    for other in looks:
        if other.size != first.size:
            raise UserError(
                f"'{files[other.tile].image}' is {other.size[1]} x {other.size[0]} pixels but "
                f"'{files[first.tile].image}' is {first.size[1]} x {first.size[0]}; whole tiles have one size: set "
                "augmentation.crop, or batch_size to 1"
            )
