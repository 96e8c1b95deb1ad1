"""Maps that know nothing of the image, for scoring beside a model's: a plane, and heights without their details.

Both are made of the truth itself, so they are better than what anybody has without measuring heights.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, map_coordinates

from Utils.scoring.map_pairs import BoolArray

Map = NDArray[np.float32]


def plane_of(truth: Map, valid: BoolArray) -> Map:
    """The plane that fits a map best in least squares.

    Args:
        truth: (H, W), any unit.
        valid: (H, W); the pixels that are fitted.

    Returns:
        (H, W), known everywhere; 0 where no pixel is valid. Of pixels on one line the flattest such plane.
    """
    rows, columns = np.indices(truth.shape, dtype=np.float64)
    # From the middle, so that large row numbers cost no digits.
    terms = np.stack([rows - rows.mean(), columns - columns.mean(), np.ones_like(rows)], axis=-1)
    if not valid.any():
        return np.zeros_like(truth)
    factors = np.linalg.lstsq(terms[valid], truth[valid].astype(np.float64), rcond=None)[0]
    return (terms @ factors).astype(np.float32)


def low_pass(truth: Map, valid: BoolArray, cell: int) -> Map:
    """A map as a coarse DEM without errors would know it: means of cells, and straight lines between their centres.

    Args:
        truth: (H, W), any unit.
        valid: (H, W); the pixels that means are taken of.
        cell: pixels along a side of a cell; those at the lower and right edge may be smaller.

    Returns:
        (H, W), known everywhere: a cell without a valid pixel is as the nearest with one; 0 where there is none.
    """
    if not valid.any():
        return np.zeros_like(truth)
    height, width = truth.shape
    rows, columns = (math.ceil(side / cell) for side in (height, width))
    margins = ((0, rows * cell - height), (0, columns * cell - width))
    inside = np.pad(valid, margins).reshape(rows, cell, columns, cell)
    values = np.pad(np.where(valid, truth, 0.0).astype(np.float64), margins).reshape(rows, cell, columns, cell)
    counts = inside.sum(axis=(1, 3))
    means = values.sum(axis=(1, 3)) / np.maximum(counts, 1)
    nearest = distance_transform_edt(counts == 0, return_distances=False, return_indices=True)
    places = np.meshgrid(*((np.arange(side) + 0.5) / cell - 0.5 for side in (height, width)), indexing="ij")
    return map_coordinates(means[tuple(nearest)], places, order=1, mode="nearest").astype(np.float32)
