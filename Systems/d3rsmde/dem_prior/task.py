"""A refiner of DEMs, seen from the training loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from Modules.d3rsmde.dem_refiner import DemRefiner, error_unit
from Modules.losses.detail_loss import DetailLoss
from Systems.d3rsmde.dem_prior.monitor import MONITORED_SCORE
from Systems.d3rsmde.tasks.common import plain_config
from Utils.data.sample import Batch
from Utils.pictures.comparison import Panel
from Utils.scoring.detail import DetailScorer
from Utils.scoring.scores import Scorer
from Utils.training.task import Monitor, ParameterGroup, View, one_group

DEM_TASK = "dem refiner"
# What the network sees, in the order of its arguments.
_GIVEN = ("surface", "error", "relief", "image")
# What varies from sensor to sensor: colours change places or vanish, and bands differ in contrast.
_REORDERED, _GREY, _CONTRAST = 0.3, 0.2, 0.2


class DemTask:
    """It learns the heights about the surface that a coarse DEM shows.

    Args:
        network: the refiner.
        without_image: share of the draws that do not see the image.
    """

    name = DEM_TASK
    loss_name = "detail"
    monitor = Monitor(MONITORED_SCORE)
    scorer: Scorer = DetailScorer()

    def __init__(self, network: DemRefiner, without_image: float) -> None:
        self.network: nn.Module = network
        self._refiner, self._without_image, self._loss = network, without_image, DetailLoss()

    def architecture(self) -> Mapping[str, Any]:
        """The network's config."""
        return plain_config(self._refiner.config)

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """All parameters in one group."""
        return one_group(self.network)

    def to(self, device: torch.device) -> None:
        """Move the network."""
        nn.Module.to(self.network, device)

    def loss(self, batch: Batch, generators: Sequence[torch.Generator]) -> Tensor:
        """The loss in standard errors of the surface; each sample is turned, and its image changed, at random."""
        turns = [int(torch.randint(4, (), generator=generator)) for generator in generators]
        turned = {name: _turned(batch[name], turns) for name in (*_GIVEN, "truth", "valid")}
        image = torch.stack([self._seen(one, g) for one, g in zip(turned["image"], generators, strict=True)])
        unit = error_unit(turned["error"])
        drawn = self.network(turned["surface"], turned["error"], turned["relief"], image)
        return self._loss(drawn / unit, (turned["truth"] - turned["surface"]) / unit, turned["valid"])

    def _seen(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """An image (3, H, W) as another sensor might show it, or nothing."""
        hidden, kind = torch.rand(2, generator=generator).tolist()
        order = torch.randperm(3, generator=generator)
        contrast = torch.randn(3, generator=generator).mul(_CONTRAST).exp().to(image.device)
        if hidden < self._without_image:
            return torch.zeros_like(image)
        if kind < _GREY:
            image = image.mean(dim=0, keepdim=True).expand_as(image)
        elif kind < _GREY + _REORDERED:
            image = image[order.to(image.device)]
        return image * contrast[:, None, None]

    @torch.no_grad()
    def predict(self, batch: Batch) -> Tensor:
        """Heights about the surface (B, 1, H, W), in the unit of the truth."""
        return self.network(*(batch[name] for name in _GIVEN))

    def panels(self, batch: Batch) -> Sequence[View]:
        """Image, truth, the ground as the DEM alone shows it, the map, and their errors."""
        drawn = self.predict(batch)
        views = []
        for place, name in enumerate(batch["id"]):
            image = np.nan_to_num(batch["image"][place].cpu().numpy())
            truth, alone, added = (
                values[place, 0].float().cpu().numpy() for values in (batch["truth"], batch["surface"], drawn)
            )
            valid = batch["valid"][place, 0].cpu().numpy()
            panels = [Panel("image", image.clip(0.0, 1.0), "image"), Panel("truth", truth, "height")]
            panels += [Panel("DEM alone", alone, "height"), Panel("map", alone + added, "height")]
            panels += [
                Panel("error, DEM alone", alone - truth, "error"),
                Panel("error, map", alone + added - truth, "error"),
            ]
            views.append(View(name, panels, valid))
        return views


def _turned(values: Tensor, quarters: Sequence[int]) -> Tensor:
    """Maps (B, ..., H, W) of as many rows as columns, each turned by some quarters."""
    return torch.stack([torch.rot90(one, count, (-2, -1)) for one, count in zip(values, quarters, strict=True)])
