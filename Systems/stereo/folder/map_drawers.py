"""What draws the depth or height of a sample's reference: the sweep, or a trained network."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from Modules.stereo.plane_sweep import plane_sweep
from Systems.stereo.build import identity, load_fitting
from Systems.stereo.parallax import parallax_rate
from Systems.stereo.task import batch_geometry, estimates
from Utils.data.sample import Batch
from Utils.data.stereo.view_files import CameraKind

__all__ = ["MapDrawer", "NetworkDrawer", "SweepDrawer"]

logger = logging.getLogger(__name__)

# Pixels of parallax from one plane of the sweep to the next, and the most planes.
_STEP, _MOST_PLANES = 0.5, 4096


class MapDrawer(Protocol):
    """Draws maps of references."""

    name: str

    def draw(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Values (H, W) in metres and confidence (H, W) in [0, 1] of a batch of one; NaN where there is no value."""

    def describe(self) -> Mapping[str, Any]:
        """All that its results depend on, as plain JSON."""


class SweepDrawer:
    """The plane sweep by normalised cross-correlation, in steps of half a pixel of parallax; needs no weights."""

    name = "NCC sweep"

    def __init__(self, window: int, device: torch.device) -> None:
        self._window, self._device = window, device

    @torch.no_grad()
    def draw(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """See ``MapDrawer.draw``."""
        grey = batch["images"].float().mean(dim=2, keepdim=True)
        for view, (height, width) in enumerate(batch["sizes"][0].tolist()):
            grey[:, view, :, height:], grey[:, view, :, :, width:] = torch.nan, torch.nan
        geometry = batch_geometry(batch)
        low, high = batch["value_range"][0].double().tolist()
        rate = parallax_rate(geometry, grey.shape[1], (low, high), (grey.shape[-2], grey.shape[-1]))
        wanted = math.ceil((high - low) * rate / _STEP) + 1
        if wanted > _MOST_PLANES:
            logger.warning(
                "%s: half a pixel of parallax a step would be %d planes; %d are swept: give a narrower --values",
                batch["id"][0],
                wanted,
                _MOST_PLANES,
            )
        count = max(3, min(wanted, _MOST_PLANES))
        values = torch.linspace(low, high, count, dtype=torch.float64, device=self._device)[None]
        found = plane_sweep(grey, geometry, values, self._window)
        # No correlation below 0 is any match.
        return found.values[0], found.score[0].nan_to_num(0.0).clamp(0, 1)

    def describe(self) -> Mapping[str, Any]:
        """The window's size."""
        return {"name": self.name, "window": self._window}


class NetworkDrawer:
    """A trained network.

    Args:
        path: a run, a model folder or a checkpoint.
        cameras: of the samples.
        relative: whether they have relative depth maps.
        device: where it runs.

    Raises:
        UserError: no network, or one that learnt from other cameras or needs maps that are not there.
    """

    def __init__(self, path: Path, cameras: CameraKind, relative: bool, device: torch.device) -> None:
        self._network = load_fitting(path, cameras, relative, "give their folder with --relative-depth")
        nn.Module.to(self._network, device).eval()
        self.name = f"{self._network.config['network']} ({path.name})"

    @torch.inference_mode()
    def draw(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """See ``MapDrawer.draw``."""
        found = estimates(self._network, batch)[-1]
        return found.values[0].float(), found.confidence[0].float()

    def describe(self) -> Mapping[str, Any]:
        """The network and a digest of its weights."""
        return {"name": self.name, **identity(self._network)}
