"""Whether cameras fit their images: views that are put on top of one another by the truth must look alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from Utils.data.stereo.reading import StereoArrays, geometry_of_view
from Utils.data.stereo.view_choice import ViewGeometry
from Utils.data.stereo.view_files import StereoFiles

__all__ = ["Agreement", "agreements"]

Floats = NDArray[np.float64]

_SMOOTH = 2.0  # pixels; only finer detail counts, because colours agree although they are pixels off
_BESIDE = 3.0  # pixels of parallax by which the truth is moved for comparison
_LEAST_PIXELS = 200


@dataclass(frozen=True)
class Agreement:
    """How well a source agrees with the reference, as correlations of fine detail; NaN where too little is seen.

    Attributes:
        at_truth: where the truth puts the reference's pixels.
        beside: the better one of where truths put them that are 3 pixels of parallax too large and too small.
    """

    at_truth: float
    beside: float


def agreements(files: StereoFiles, arrays: StereoArrays) -> list[Agreement]:
    """How well each source agrees with the reference.

    Args:
        files: the sample.
        arrays: the same, read.

    Raises:
        UserError: a camera or image that cannot be read.
    """
    reference, *sources = (geometry_of_view(files, view) for view in files.views)
    fine = [_fine(image) for image in arrays.images]
    rows, columns = (axis.astype(float) for axis in np.nonzero(arrays.known))
    truth = arrays.target[arrays.known].astype(float)
    if len(truth) < _LEAST_PIXELS:
        return [Agreement(np.nan, np.nan) for _ in sources]
    return [
        _agreement(reference, source, fine[0][arrays.known], image, columns, rows, truth)
        for source, image in zip(sources, fine[1:], strict=True)
    ]


def _fine(image: NDArray[np.float32]) -> Floats:
    grey = image.mean(axis=0).astype(float)
    detail: Floats = grey - ndimage.gaussian_filter(grey, _SMOOTH)
    return detail


def _agreement(
    reference: ViewGeometry,
    source: ViewGeometry,
    seen: Floats,
    image: Floats,
    columns: Floats,
    rows: Floats,
    truth: Floats,
) -> Agreement:
    here = source.pixels(reference.ground(columns, rows, truth))
    there = source.pixels(reference.ground(columns, rows, truth + 1.0))
    parallax = float(np.nanmedian(np.linalg.norm(there - here, axis=1)))  # pixels a metre
    if not parallax > 0.0:
        return Agreement(np.nan, np.nan)
    moved = [
        source.pixels(reference.ground(columns, rows, truth + off)) for off in (_BESIDE / parallax, -_BESIDE / parallax)
    ]
    at_truth, *others = (_correlation(seen, image, places) for places in (here, *moved))
    return Agreement(at_truth, max(others))


def _correlation(seen: Floats, image: Floats, places: Floats) -> float:
    height, width = image.shape
    with np.errstate(invalid="ignore"):
        inside = (places >= 0).all(axis=1) & (places[:, 0] <= width - 1) & (places[:, 1] <= height - 1)
    if inside.sum() < _LEAST_PIXELS:
        return float("nan")
    found = ndimage.map_coordinates(image, [places[inside, 1], places[inside, 0]], order=1)
    if found.std() == 0.0 or seen[inside].std() == 0.0:
        return float("nan")
    return float(np.corrcoef(seen[inside], found)[0, 1])
