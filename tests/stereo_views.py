"""What the tests of stereo data share: how well views agree with each other, given depth and cameras."""

from __future__ import annotations

import numpy as np
from scipy import ndimage


def seen_in(reference: np.ndarray, source: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Columns and rows (H, W, 2) at which a source (P, 4 x 4) sees the pixels of a reference that have a depth."""
    rows, columns = np.mgrid[: depth.shape[0], : depth.shape[1]]
    pixels = np.stack([columns * depth, rows * depth, depth, np.ones_like(depth)], axis=-1)
    seen = pixels @ (source @ np.linalg.inv(reference)).T
    return seen[..., :2] / seen[..., 2:3]


def agreement(reference: np.ndarray, source: np.ndarray, places: np.ndarray) -> float:
    """Correlation of a reference image (H, W) with a source image (H, W) at the places where it sees its pixels.

    Only fine detail counts: the colours of roofs agree although they are pixels off.
    """
    height, width = source.shape
    inside = (places >= 0).all(axis=-1) & (places[..., 0] <= width - 1) & (places[..., 1] <= height - 1)
    fine = [image - ndimage.gaussian_filter(image, 2.0) for image in (reference.astype(float), source.astype(float))]
    found = ndimage.map_coordinates(fine[1], [places[..., 1][inside], places[..., 0][inside]], order=1)
    return float(np.corrcoef(fine[0][inside], found)[0, 1])
