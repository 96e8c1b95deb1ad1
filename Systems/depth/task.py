"""A depth network, seen from the training loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from Modules.depth.enc_dec import EncDec
from Modules.depth.names import DEPTH_TASK, Target
from Modules.losses.depth_losses import build_depth_loss
from Systems.depth.monitor import monitored_score
from Utils.data.sample import Batch
from Utils.pictures.quantity import DEPTH, DEPTH_IN_METRES, HEIGHT, Quantity
from Utils.reports.tile_panels import map_views
from Utils.scoring.depth.depth_limits import DepthLimits
from Utils.scoring.depth.depth_scorer import DepthScorer
from Utils.scoring.height_scorer import HeightScorer
from Utils.scoring.scores import Scorer
from Utils.training.task import Monitor, ParameterGroup, View, one_group


class DepthTask:
    """It learns to draw depth from an image: ``depth`` of a batch, as ``depth_target`` makes it."""

    name = DEPTH_TASK

    def __init__(
        self,
        network: EncDec,
        loss_types: Sequence[str],
        loss_weights: Sequence[float] | None = None,
        silog_forgiveness: float = 0.85,
        metres_per_unit: float = 1.0,
    ) -> None:
        self.network: nn.Module = network
        self._depth = network
        self.loss_name = "+".join(loss_types)
        target, max_depth = network.config["target"], network.config["max_depth"]
        self._loss = build_depth_loss(list(loss_types), max_depth or 1.0, loss_weights, silog_forgiveness)
        self.monitor = Monitor(monitored_score(target))
        self.scorer: Scorer
        if target == "metres":
            self.scorer = DepthScorer(DepthLimits(), truth="depth")
        else:
            self.scorer = HeightScorer(metres_per_unit=metres_per_unit, metres=target == "summit")

    def architecture(self) -> Mapping[str, Any]:
        """The network's config."""
        # Without the library's private entries it is fit for JSON, and for the class itself.
        return {key: value for key, value in self._depth.config.items() if not key.startswith("_")}

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """All parameters in one group."""
        return one_group(self.network)

    def to(self, device: torch.device) -> None:
        """Move the network."""
        nn.Module.to(self.network, device)

    def loss(self, batch: Batch, generators: Sequence[torch.Generator]) -> Tensor:
        """The configured loss between drawn and true map; nothing is drawn at random."""
        return self._loss(self.network(batch["image"]), batch["depth"], batch["valid"])

    @torch.no_grad()
    def predict(self, batch: Batch) -> Tensor:
        """The maps that are scored, upwards like the files' where the network draws metres below the summit."""
        return upwards(self.network(batch["image"]), self._depth.config["target"])

    def panels(self, batch: Batch) -> Sequence[View]:
        """Image, truth, map and error of each tile."""
        return map_views(
            batch, self.predict(batch), quantity_of(self._depth.config["target"], self._depth.config["direction"])
        )


def upwards(depth: Tensor, target: Target) -> Tensor:
    """Drawn maps (B, 1, H, W) in the direction of the files': metres below the summit become metres above it."""
    return -depth if target == "summit" else depth


def quantity_of(target: Target, direction: str | None) -> Quantity:
    """What drawn maps show, in the direction of the files; ``direction`` is the network's."""
    if target == "summit":
        return HEIGHT
    drawn = DEPTH_IN_METRES if target == "metres" else DEPTH
    return replace(HEIGHT, unit=drawn.unit, truth=drawn.truth) if direction == "height" else drawn
