"""How heights are found in pieces of views: the sweep, or a trained network behind the same call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from Modules.stereo.geometry import RationalGeometry
from Modules.stereo.plane_sweep import plane_sweep
from Systems.stereo.dsm.views import Crop

__all__ = ["Matched", "Matcher", "SweepMatcher", "stacked"]

Matched = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Heights (h, w) in metres and how far they are to be trusted (0 to 1), of a reference's pixels; NaN where there is
none."""


class Matcher(Protocol):
    """Finds the heights of a reference's pixels."""

    name: str

    def match(self, crops: Sequence[Crop], heights: tuple[float, float], step: float) -> Matched:
        """Find heights.

        Args:
            crops: pieces of two views or more; the first is the reference.
            heights: lowest and highest height to search, in metres.
            step: metres that move a point by half a pixel in the source that sees it move most.
        """

    def describe(self) -> Mapping[str, Any]:
        """All that its results depend on, as plain JSON."""


class SweepMatcher:
    """The plane sweep by normalised cross-correlation; knows nothing but the images."""

    name = "NCC sweep"

    def __init__(self, window: int, device: torch.device) -> None:
        self._window, self._device = window, device

    def match(self, crops: Sequence[Crop], heights: tuple[float, float], step: float) -> Matched:
        """Find heights; see ``Matcher.match``."""
        images, geometry = stacked(crops, self._device)
        planes = max(3, int(np.ceil((heights[1] - heights[0]) / step)) + 1)
        values = torch.linspace(heights[0], heights[1], planes, dtype=torch.float64, device=geometry.device)[None]
        found = plane_sweep(images, geometry, values, self._window)
        rows, columns = crops[0].pixels.shape
        heights_found, score = (part[0, :rows, :columns].cpu().numpy() for part in found)
        return heights_found, score

    def describe(self) -> Mapping[str, Any]:
        """The window's size."""
        return {"name": self.name, "window": self._window}


def stacked(crops: Sequence[Crop], device: torch.device) -> tuple[torch.Tensor, RationalGeometry]:
    """Images [1, V, 1, H, W] of one size, NaN where a piece is smaller, and their cameras, on a device."""
    shape = tuple(max(crop.pixels.shape[i] for crop in crops) for i in (0, 1))
    images = np.full((len(crops), *shape), np.nan, np.float32)
    for image, crop in zip(images, crops, strict=True):
        image[: crop.pixels.shape[0], : crop.pixels.shape[1]] = crop.pixels
    cameras = torch.from_numpy(np.stack([crop.model.parameters for crop in crops]))
    exact = device if device.type != "mps" else torch.device("cpu")  # no double precision there
    return torch.from_numpy(images)[None, :, None].to(device), RationalGeometry(cameras[None].to(exact))
