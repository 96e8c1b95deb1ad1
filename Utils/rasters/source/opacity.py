"""Whether a band that is tagged as opacity (alpha) is one: near infrared often is tagged so, and would make holes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp

__all__ = ["opacity_bands"]

# The look at a band has about this many pixels a side.
_SIDE = 1024
# A mask has few values, or one that most of its pixels share: opaque inside, with a soft edge.
_FEW_VALUES = 16
_MOST = 0.5


def opacity_bands(path: Path, dataset: Any, bands: Sequence[int], log: logging.Logger) -> tuple[int, ...]:
    """Give the numbers (1-based) of the bands that say where an open raster has data: pixels of opacity 0 have none.

    A band that the image is made of is none of them. One that is tagged as alpha and is plainly a picture is left
    alone, with a line in the log: many values, none of which most pixels have, and different colours where it is 0.

    Args:
        path: the file, for the log.
        dataset: the open raster.
        bands: the bands that make the image.
        log: where to say so.
    """
    found = []
    for number, kind in enumerate(dataset.colorinterp, start=1):
        if kind != ColorInterp.alpha or number in bands:
            continue
        values, colours = _look(dataset, [number])[0], _look(dataset, bands)
        if _is_opacity(values, colours):
            found.append(number)
            if len(np.unique(values)) == 2:
                _tell_hidden_picture(path, number, values == 0, colours, log)
            continue
        zero = f", and 0 in {100.0 * (values == 0).mean():.1f} % of the pixels" if (values == 0).any() else ""
        log.warning(
            "%s: band %d is tagged as opacity (alpha), but is a picture (%d different values%s), perhaps near "
            "infrared: it makes no holes. --bands with %d in it makes it part of the image; a mask has few values",
            path,
            number,
            len(np.unique(values)),
            zero,
            number,
        )
    return tuple(found)


def _look(dataset: Any, bands: Sequence[int]) -> NDArray[Any]:
    """Some bands, (C, h, w), decimated."""
    step = max(1.0, (dataset.height * dataset.width) ** 0.5 / _SIDE)
    shape = (max(1, round(dataset.height / step)), max(1, round(dataset.width / step)))
    return np.stack([dataset.read(band, out_shape=shape) for band in bands])


def _is_opacity(values: NDArray[Any], colours: NDArray[Any]) -> bool:
    levels, counts = np.unique(values[values > 0], return_counts=True)
    if len(levels) <= _FEW_VALUES or counts.max() >= _MOST * counts.sum():
        return True
    # Soft everywhere, but nothing to see where it is 0: holes there take nothing away.
    hidden = colours[:, values == 0]  # (C, n)
    return bool(hidden.size and (hidden == hidden[:, :1]).all())


def _tell_hidden_picture(
    path: Path, number: int, holes: NDArray[np.bool_], colours: NDArray[Any], log: logging.Logger
) -> None:
    """Say that a mask hides a picture: nobody can know whether its band is one, or infrared in two values."""
    hidden = colours[:, holes]
    if not hidden.size or max(len(np.unique(band)) for band in hidden) < _FEW_VALUES:
        return
    log.warning(
        "%s: band %d is tagged as opacity (alpha), and the %.1f %% of the pixels where it is 0 are taken as no data, "
        "though the other bands hold a picture there; if it is no mask, take the tag off (gdal_edit -colorinterp_%d "
        "undefined)",
        path,
        number,
        100.0 * holes.mean(),
        number,
    )
