"""Which images are cut with which DEMs, and which images show the same ground."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from Utils.core.errors import UserError
from Utils.data.cutting.heights import Dem
from Utils.data.cutting.placing import overlaps, spans
from Utils.data.cutting.scene import ImageHeader

__all__ = ["Pairs", "find_pairs"]

logger = logging.getLogger(__name__)

_LISTED = 5

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Pairs:
    """Images with their DEMs.

    Attributes:
        images: those that lie over a DEM.
        dems: for each of these, the DEMs under it.
        coarse: for each of these, the coarse DEMs under it.
        areas: numbers of images that show one area, first the one with the largest pixels, which measures the blocks.
    """

    images: list[ImageHeader]
    dems: list[list[Dem]]
    coarse: list[list[Dem]]
    areas: list[list[int]]


def find_pairs(images: Sequence[ImageHeader], dems: Sequence[Dem], coarse: Sequence[Dem], gap: int) -> Pairs:
    """Pair images and DEMs by where they overlap.

    Args:
        images: all images.
        dems: all DEMs.
        coarse: coarse DEMs; may be empty.
        gap: pixels within which images belong to one area.

    Raises:
        UserError: no image overlaps a DEM.
    """
    over = overlaps([image.own for image in images], [dem.grid for dem in dems])
    over_coarse = overlaps([image.own for image in images], [dem.grid for dem in coarse])
    _check(images, dems, over, "--height")
    kept = over.any(axis=1)
    if coarse:
        _check(images, coarse, over_coarse, "--coarse")
        kept &= over_coarse.any(axis=1)
        if not kept.any():
            raise UserError("no image overlaps both a DEM of --height and one of --coarse; give DEMs of the same place")
    chosen = np.flatnonzero(kept).tolist()
    return Pairs(
        [images[number] for number in chosen],
        [[dems[place] for place in np.flatnonzero(over[number]).tolist()] for number in chosen],
        [[coarse[place] for place in np.flatnonzero(over_coarse[number]).tolist()] for number in chosen],
        _areas([images[number] for number in chosen], gap),
    )


def _check(images: Sequence[ImageHeader], dems: Sequence[Dem], over: Mask, option: str) -> None:
    if not over.any():
        raise UserError(
            f"no image overlaps a DEM of {option}: the images span {spans([image.own for image in images])}, the DEMs "
            f"{spans([dem.grid for dem in dems])}; give rasters of the same place, or check their CRS"
        )
    images_alone = _alone([one.path for one in images], over)
    dems_alone = _alone([dem.path for dem in dems], over.T)
    for what, paths in (
        (f"images lie over no DEM of {option} and are left out", images_alone),
        (f"DEMs of {option} lie under no image and are not used", dems_alone),
    ):
        if paths:
            listed = ", ".join(str(path) for path in paths[:_LISTED]) + (", ..." if len(paths) > _LISTED else "")
            logger.warning("%d %s: %s", len(paths), what, listed)


def _alone(paths: Sequence[Path], paired: Mask) -> list[Path]:
    """The paths whose row of (N, M) has no partner."""
    return [path for path, row in zip(paths, paired, strict=True) if not row.any()]


def _areas(images: Sequence[ImageHeader], gap: int) -> list[list[int]]:
    """Groups of images that lie within ``gap`` pixels of one another."""
    grids = [image.grid for image in images]
    near = overlaps(grids, grids, margin=gap + 1)
    count, labels = connected_components(csr_matrix(near.astype(np.int8)), directed=False)

    def rank(number: int) -> tuple[float, int, int]:
        metres = images[number].metres
        # Rounded, because the same pixels have slightly other sizes at another latitude.
        size = round(math.log(metres[0] * metres[1]), 1) if metres else 0.0
        return -size, -grids[number].height * grids[number].width, number

    return [sorted(np.flatnonzero(labels == label).tolist(), key=rank) for label in range(count)]
