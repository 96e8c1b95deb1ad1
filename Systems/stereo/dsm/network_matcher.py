"""A trained stereo network as what finds heights in pieces of views."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from Modules.stereo.networks import StereoNetwork
from Systems.stereo.build import identity, load_stereo
from Systems.stereo.dsm.matchers import Matched, stacked
from Systems.stereo.dsm.relative_crops import RelativeCrops
from Systems.stereo.dsm.views import Crop
from Utils.core.errors import UserError

__all__ = ["NetworkMatcher"]

logger = logging.getLogger(__name__)

# Steps of half a pixel of parallax in a pixel.
_STEPS_A_PIXEL = 2.0
# Pixels of parallax of an interval, where a network does not say what it has learnt.
_INTERVAL = 1.0


class NetworkMatcher:
    """A network finds heights; what it is confident of counts as trust.

    Args:
        path: a run, a model folder or a checkpoint.
        device: where it runs.
        relative: draws relative depth maps of the pieces; None for none.

    Raises:
        UserError: there is no such network, or it needs relative depth maps.
    """

    def __init__(self, path: Path, device: torch.device, relative: RelativeCrops | None = None) -> None:
        self._network: StereoNetwork = load_stereo(path).to(device).eval()  # type: ignore[arg-type]
        if self._network.uses_relative_depth and relative is None:
            raise UserError(
                f"--model '{path}': this network needs relative depth maps of the images; name a model that draws them "
                "with --relative-depth"
            )
        if relative is not None and not self._network.uses_relative_depth:
            logger.warning("%s uses no relative depth: --relative-depth changes nothing", path)
        self._relative = relative if self._network.uses_relative_depth else None
        if self._network.config["geometry"] == "pinhole":
            logger.warning(
                "%s has learnt depths from pinhole cameras; here it estimates heights, which fall where depths rise",
                path,
            )
        # The ranges of later stages are so many intervals wide: what counts is how many pixels that is.
        learnt = self._network.config["interval_parallax"]
        if learnt is None:
            logger.warning("%s does not say how many pixels its interval is; %g is assumed", path, _INTERVAL)
        self._interval = _STEPS_A_PIXEL * (learnt or _INTERVAL)
        self._device = device
        self.name = f"{self._network.config['network']} ({path.name})"

    def match(self, crops: Sequence[Crop], heights: tuple[float, float], step: float) -> Matched:
        """Find heights; see ``Matcher.match``."""
        images, geometry = stacked(crops, self._device)
        seen = torch.isfinite(images)
        images = torch.where(seen, _standardised(images, seen), 0.0).expand(-1, -1, 3, -1, -1)
        values = torch.tensor([heights], dtype=torch.float32, device=self._device)
        interval = torch.tensor([self._interval * step], dtype=torch.float32, device=self._device)
        maps = self._maps(crops, (images.shape[-2], images.shape[-1]))
        with torch.inference_mode():
            found = self._network(images, geometry, values, interval, maps)[-1]
        rows, columns = crops[0].pixels.shape
        parts = [part.float()[0, :rows, :columns].cpu().numpy() for part in (found.values, found.confidence)]
        known = seen[0, 0, 0, :rows, :columns].cpu().numpy()
        metres, trust = (np.where(known, part, np.float32(np.nan)) for part in parts)
        return metres, trust

    def _maps(self, crops: Sequence[Crop], size: tuple[int, int]) -> torch.Tensor | None:
        """Relative depth [1, V, 3, H, W] of the pieces, 0 beside them; None where the network uses none."""
        if self._relative is None:
            return None
        # A network that is guided looks at the reference's map alone.
        needed = crops[:1] if self._network.config["relative_depth"] == "guided" else crops
        maps = torch.zeros(1, len(crops), 3, *size)
        for place, crop in enumerate(needed):
            rows, columns = crop.pixels.shape
            maps[0, place, :, :rows, :columns] = self._relative.draw(crop.pixels)
        return maps.to(self._device)

    def describe(self) -> Mapping[str, Any]:
        """The network, a digest of its weights, and what draws relative depth."""
        drawn = {} if self._relative is None else {"relative_depth": dict(self._relative.describe())}
        return {"name": self.name, **identity(self._network), **drawn}


def _standardised(images: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Images [1, V, 1, H, W], each with mean 0 and deviation 1 over the pixels that it has."""
    count = seen.sum(dim=(-2, -1), keepdim=True).clamp(min=1)
    mean = torch.where(seen, images, 0.0).sum(dim=(-2, -1), keepdim=True) / count
    variance = torch.where(seen, (images - mean).square(), 0.0).sum(dim=(-2, -1), keepdim=True) / count
    return (images - mean) / (variance.sqrt() + 1e-8)
