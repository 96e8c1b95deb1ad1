"""Reading every tile once before the long work, so that a damaged file is found at the start and not hours later."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from Utils.core.errors import RasterError, UserError
from Utils.core.processes import progress_bar
from Utils.data.published_layout import TileFiles
from Utils.rasters.tile_files import image_scale, raster_size, read_height, read_image, read_prior

logger = logging.getLogger(__name__)

_LISTED_IDS = 8
# Images that were stretched reach their full scale somewhere; 14 bits in 16 reach a quarter of it.
_DARK = 0.25
_WHITE_16 = 65535.0


@dataclass(frozen=True)
class TileCheck:
    """The result of reading every tile once.

    Attributes:
        size: (height, width) that all tiles share; where they may differ, the smallest height and the smallest width.
        empty: ids without a valid pixel.
        flat: ids whose valid heights are all equal.
        with_gaps: ids with some invalid pixels.
        blank: ids whose image has one colour.
    """

    size: tuple[int, int]
    empty: list[str]
    flat: list[str]
    with_gaps: list[str]
    blank: list[str] = field(default_factory=list)


class _Look(NamedTuple):
    """What one tile looks like."""

    tile: str
    has_valid: bool
    is_whole: bool
    is_flat: bool
    is_blank: bool
    brightest: float


def check_tiles(
    files: Mapping[str, TileFiles],
    ids: Sequence[str],
    priors: Mapping[str, Path] | None = None,
    one_size: bool = True,
) -> TileCheck:
    """Read every tile once, in threads, so that a damaged file is found before the long work.

    Args:
        files: the files of the part's tiles.
        ids: the tiles to read.
        priors: prior file of each id, where priors are read.
        one_size: whether all tiles must have one size; not where the task crops or resizes them.

    Raises:
        UserError: an unreadable file, or tiles of different sizes.
    """
    first = ids[0]
    smallest = size = _size(files[first].image)
    for tile in ids:
        image_size = _size(files[tile].image)
        for path in (files[tile].height, *([priors[tile]] if priors else [])):
            same_size(files[tile].image, image_size, path, _size(path))
        if one_size:
            same_size(files[first].image, size, files[tile].image, image_size, "all tiles of a dataset")
        smallest = (min(smallest[0], image_size[0]), min(smallest[1], image_size[1]))

    def look(tile: str) -> _Look:
        try:
            image = read_image(files[tile].image, files[tile].full_scale)
            raster = read_height(files[tile].height, files[tile].coding)
            if priors:
                read_prior(priors[tile])
        except (RasterError, OSError) as error:
            raise UserError(str(error)) from error
        heights = raster.values[raster.valid]
        is_flat = bool(heights.size and heights.min() == heights.max())
        is_blank = bool((image.max(axis=(1, 2)) == image.min(axis=(1, 2))).all())
        return _Look(tile, bool(raster.valid.any()), bool(raster.valid.all()), is_flat, is_blank, float(image.max()))

    empty, flat, with_gaps, blank, brightest = [], [], [], [], 0.0
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        looked: Iterator[_Look] = pool.map(look, ids)
        for seen in progress_bar(looked, total=len(ids), desc="checking tiles", unit="tile"):
            brightest = max(brightest, seen.brightest)
            if not seen.has_valid:
                empty.append(seen.tile)
            elif not seen.is_whole:
                with_gaps.append(seen.tile)
            if seen.is_flat:
                flat.append(seen.tile)
            if seen.is_blank:
                blank.append(seen.tile)
    for found, what in (
        (blank, "an image of one colour, in which nothing can be seen"),
        (empty, "no valid height: they teach nothing and score nothing"),
        (flat, "flat heights: normalised, they are 0 everywhere"),
        (with_gaps, "some invalid pixels, which are masked"),
    ):
        if found:
            listed = ", ".join(found[:_LISTED_IDS]) + (", ..." if len(found) > _LISTED_IDS else "")
            logger.warning("%d of %d tiles have %s (tile ids: %s)", len(found), len(ids), what, listed)
    if said := dark_images(brightest, files[first], len(ids)):
        logger.warning("%s", said)
    return TileCheck(smallest, empty, flat, with_gaps, blank)


def dark_images(brightest: float, files: TileFiles, count: int) -> str:
    """What is to be said of a dataset whose images use only the lowest part of their range; empty for others.

    Args:
        brightest: the largest value of all images, where 1 is full scale.
        files: one of its tiles.
        count: how many images there are.
    """
    if files.full_scale is not None or not 0.0 < brightest <= _DARK:
        return ""
    share = f"the largest value of all {count} images is {100.0 * brightest:.2g} % of full scale: they are nearly black"
    if image_scale(files.image) != _WHITE_16:
        return f"{share}; stretch them"
    largest = round(brightest * _WHITE_16)
    bits = max(largest.bit_length(), 9)
    return (
        f"{share}, {largest} of 65535, as if they had {bits} bits. Set image_full_scale to the value that is white, "
        f"for example --set image_full_scale={2**bits - 1}, in training and evaluation; 65535 takes them as they are"
    )


def _size(path: Path) -> tuple[int, int]:
    try:
        return raster_size(path)
    except (RasterError, OSError) as error:
        raise UserError(str(error)) from error


def same_size(
    first: Path, size: Sequence[int], second: Path, other: Sequence[int], which: str = "image, map and prior of a tile"
) -> None:
    """Raise UserError where the sizes (height, width) of two files differ; ``which`` names what must have one size."""
    if tuple(size) != tuple(other):
        raise UserError(
            f"'{second}' is {other[1]} x {other[0]} pixels but '{first}' is {size[1]} x {size[0]}; "
            f"{which} must have one size: resample or remove it"
        )
