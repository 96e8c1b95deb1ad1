"""Looking at every place before anything is written: which tiles have too little data to be kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from Utils.data.cutting.blocks import Place
from Utils.data.cutting.coarse import CoarseReader
from Utils.data.cutting.heights import HeightReader
from Utils.data.cutting.scene import SceneReader

__all__ = ["KEPT", "REASONS", "Look", "look"]

KEPT = "kept"
REASONS = {
    "image": "too much of the image has no data",
    "heights": "too many heights are missing",
    "coarse": "too much of the coarse DEM is missing",
}
"""Why tiles are left out."""


@dataclass(frozen=True)
class Look:
    """What a tile holds.

    Attributes:
        verdict: ``KEPT``, or one of ``REASONS``.
        image_void: share of its pixels without image; None where it was not looked at, as for the others.
        height_void: share of its pixels without height.
        lowest: its lowest height in metres.
        highest: its highest height in metres.
    """

    verdict: str
    image_void: float
    height_void: float | None = None
    lowest: float | None = None
    highest: float | None = None

    def as_json(self) -> dict[str, Any]:
        """The fields."""
        return asdict(self)


def look(
    place: Place,
    size: int,
    most: float,
    scene: SceneReader,
    heights: HeightReader,
    coarse: CoarseReader | None,
) -> Look:
    """Look at one place.

    Args:
        place: where the tile lies.
        size: its side in pixels.
        most: largest share of it that may lack image or height.
        scene: its image.
        heights: the DEMs.
        coarse: the coarse DEM, where one is asked for.
    """
    _, valid = scene.read(place.row, place.column, size)
    image_void = _share(~valid)
    if image_void > most:
        return Look("image", image_void)
    target = scene.header.grid.window(place.row, place.column, size, size)
    found = heights.read(target)
    height_void = _share(np.isnan(found))
    known = found[np.isfinite(found) & valid]
    if _share(np.isnan(found) | ~valid) > most or not known.size:
        return Look("heights", image_void, height_void)
    if coarse is not None and _share(np.isnan(coarse.read(scene.header.grid, place, size))) > most:
        return Look("coarse", image_void, height_void)
    return Look(KEPT, image_void, height_void, float(known.min()), float(known.max()))


def _share(mask: NDArray[np.bool_]) -> float:
    return float(mask.mean())


def count_reasons(looks: Sequence[Look]) -> dict[str, int]:
    """How many tiles each verdict has; ``KEPT`` first."""
    return {verdict: sum(one.verdict == verdict for one in looks) for verdict in (KEPT, *REASONS)}
