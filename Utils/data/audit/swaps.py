"""Maps with the wrong id: for tiles whose image and map have nothing in common, every map is tried on every image.

Only a map that lies exactly on another tile's image is reported, so water and plains, which fit nowhere, are not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from Utils.core.processes import progress_bar
from Utils.data.audit.findings import WARNING, Finding
from Utils.data.audit.inspection import Inspection, stretched
from Utils.data.audit.map_shifts import correlate, height_spectra, image_spectra, middle
from Utils.data.audit.rules import name_of
from Utils.data.published_layout import TileFiles
from Utils.data.tile_dataset import read_tile

_MOST_CANDIDATES = 24


@dataclass(frozen=True)
class _Spectra:
    image: list[NDArray[np.complex64]]
    height: list[NDArray[np.complex64]]


def find_swaps(inspections: Sequence[Inspection], files: Mapping[str, TileFiles]) -> list[Finding]:
    """Look for the maps of one part's tiles under the ids of other tiles.

    At most 24 candidates are tried, in natural order, because the cost grows with the square of their number. If the
    ids of a part are off by one, these show it.

    Args:
        inspections: the inspections of the tiles of one part.
        files: the part's tiles.
    """
    lost = [
        item
        for item in inspections
        if item.alignment is not None and not item.alignment.trusted and not item.row.orientation
    ][:_MOST_CANDIDATES]
    if len(lost) < 2:
        return []
    spectra = [_read(item.row.id, files[item.row.id]) for item in lost]
    found = []
    for owner, own in zip(progress_bar(lost, desc="looking for swapped maps"), spectra, strict=True):
        for other, others in zip(lost, spectra, strict=True):
            sizes = {(item.row.height, item.row.width) for item in (owner, other)}
            if other is owner or len(sizes) > 1:
                continue
            size = middle(np.empty((owner.row.height or 0, owner.row.width or 0), bool)).shape
            if correlate(own.image, others.height, (size[0], size[1])).fits:
                found.append(f"the image of {name_of(owner.row)} fits the map of {name_of(other.row)}")
                owner.row.note(WARNING, found[-1])
    return [Finding(WARNING, "swapped", "maps that belong to another tile's image", found)] if found else []


def _read(tile: str, files: TileFiles) -> _Spectra:
    item = read_tile(tile, files)
    image, height, valid = (middle(values.numpy()) for values in (item["image"], stretched(item), item["valid"]))
    return _Spectra(image_spectra(image), height_spectra(height[0], valid[0]))
