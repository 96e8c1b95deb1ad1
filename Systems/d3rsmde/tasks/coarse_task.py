"""Stage 1, seen from the training loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from Modules.d3rsmde.coarse import CoarseNet
from Modules.losses.height_losses import build_loss
from Systems.d3rsmde.tasks.common import MONITOR, plain_config
from Utils.data.sample import Batch
from Utils.reports.tile_panels import map_views
from Utils.scoring.height_scorer import HeightScorer
from Utils.scoring.scores import Scorer
from Utils.training.task import ParameterGroup, View, one_group


class CoarseTask:
    """Stage 1: it learns to draw a map from an image."""

    name = "coarse"
    monitor = MONITOR
    scorer: Scorer = HeightScorer()

    def __init__(self, network: CoarseNet, loss_types: Sequence[str]) -> None:
        self.network: nn.Module = network
        self._coarse = network
        self.loss_name = "+".join(loss_types)
        self._loss = build_loss(list(loss_types))

    def architecture(self) -> Mapping[str, Any]:
        """The network's config."""
        return plain_config(self._coarse.config)

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """All parameters in one group."""
        return one_group(self.network)

    def to(self, device: torch.device) -> None:
        """Move the network."""
        nn.Module.to(self.network, device)

    def loss(self, batch: Batch, generators: Sequence[torch.Generator]) -> Tensor:
        """The configured loss between drawn and true map; nothing is drawn at random."""
        return self._loss(self.network(batch["image"]), batch["height"], batch["valid"])

    @torch.no_grad()
    def predict(self, batch: Batch) -> Tensor:
        """The network's maps."""
        maps: Tensor = self.network(batch["image"])
        return maps

    def panels(self, batch: Batch) -> Sequence[View]:
        """Image, truth, map and error of each tile."""
        return map_views(batch, self.predict(batch))
