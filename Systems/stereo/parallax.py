"""How far a metre of depth or height moves points from view to view."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from Modules.stereo.geometry import Geometry, geometry_of
from Utils.data.stereo.reading import read_stereo
from Utils.data.stereo.view_files import StereoFiles

__all__ = ["interval_parallax", "parallax_rate"]

# Pixels along each side of the reference at which parallax is measured.
_NODES = 5
_SAMPLES = 8  # of a dataset


def parallax_rate(geometry: Geometry, views: int, values: tuple[float, float], size: tuple[int, int]) -> float:
    """Pixels that a metre of depth or height moves a point in the source that sees it move most, near the middle.

    Args:
        geometry: the cameras of one sample.
        views: how many there are.
        values: lowest and highest value in metres; the rate is that between them and their middle.
        size: height and width of the images.
    """
    stride = max(1, min(size) // _NODES)
    grid = (max(1, size[0] // stride), max(1, size[1] // stride))
    middle, step = sum(values) / 2, (values[1] - values[0]) / 100
    tried = torch.tensor([middle - step, middle + step], dtype=torch.float64)
    rates = [0.0]
    for source in range(1, views):
        found = geometry.positions(source, tried[None, :, None, None].expand(1, 2, *grid), stride, size)
        moved = torch.hypot(found.x[0, 1] - found.x[0, 0], found.y[0, 1] - found.y[0, 0]) * stride / (2 * step)
        placed = found.placed[0].all(dim=0)
        if placed.any():
            rates.append(float(moved[placed].double().median()))
    return max(rates)


def interval_parallax(samples: Sequence[StereoFiles]) -> float:
    """Pixels of parallax of one interval: the median over some samples.

    A network learns steps of intervals. Where cameras stand otherwise, an interval of as many pixels is what it knows.

    Raises:
        UserError: a file that cannot be read.
    """
    found = []
    for files in samples[:: max(1, len(samples) // _SAMPLES)]:
        arrays = read_stereo(files)
        geometry = geometry_of(files.kind, torch.from_numpy(arrays.cameras)[None])
        height, width = arrays.images[0].shape[-2:]
        rate = parallax_rate(geometry, len(arrays.cameras), arrays.value_range, (height, width))
        found.append(rate * arrays.interval)
    return float(np.median(found))
