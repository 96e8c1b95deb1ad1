"""A stereo network, seen from the training loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from Modules.losses.stereo_losses import STAGE_WEIGHTS, StageScores, StereoLoss
from Modules.stereo.geometry import Geometry, geometry_of
from Modules.stereo.hypotheses import Estimate
from Modules.stereo.names import STEREO_TASK
from Modules.stereo.networks import StereoNetwork
from Systems.stereo.monitor import MONITORED
from Systems.stereo.pictures import picture_entries
from Utils.data.sample import Batch
from Utils.pictures.quantity import DEPTH_IN_METRES, HEIGHT, Quantity
from Utils.reports.tile_panels import map_views
from Utils.scoring.scores import Scorer
from Utils.scoring.stereo.stereo_scorer import StereoScorer
from Utils.training.task import Monitor, ParameterGroup, View, one_group

_MATRIX_SIDE = 4


class StereoTask:
    """It learns to draw the depth or height of a reference from several views: a batch of ``StereoDataset``."""

    name = STEREO_TASK
    monitor = Monitor(MONITORED)

    def __init__(
        self, network: StereoNetwork, loss_types: Sequence[str], stage_weights: Sequence[float] = STAGE_WEIGHTS
    ) -> None:
        self.network: nn.Module = network
        self._stereo = network
        self.loss_name = "+".join(loss_types)
        self._loss = StereoLoss(loss_types, stage_weights)
        self.scorer: Scorer = StereoScorer()

    def architecture(self) -> Mapping[str, Any]:
        """The network's config."""
        # Without the library's private entries it is fit for JSON, and for the class itself.
        return {key: value for key, value in self._stereo.config.items() if not key.startswith("_")}

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """All parameters in one group."""
        return one_group(self.network)

    def to(self, device: torch.device) -> None:
        """Move the network."""
        nn.Module.to(self.network, device)

    def loss(self, batch: Batch, generators: Sequence[torch.Generator]) -> Tensor:
        """The weighted sum of the stages' losses; nothing is drawn at random."""
        stages = estimates(self._stereo, batch)
        scores = [StageScores(stage.scores, stage.low, stage.step) for stage in stages if stage.scores is not None]
        return self._loss([stage.values for stage in stages], batch["target"], batch["mask"], scores)

    @torch.no_grad()
    def predict(self, batch: Batch) -> Tensor:
        """Values and confidence (B, 2, H, W) of the last stage."""
        return scored_maps(estimates(self._stereo, batch)[-1])

    def panels(self, batch: Batch) -> Sequence[View]:
        """Reference, truth, map and error of each sample."""
        quantity = quantity_of(self._stereo.config["geometry"])
        return map_views(batch | picture_entries(batch), self.predict(batch)[:, :1], quantity)


def estimates(network: StereoNetwork, batch: Batch) -> list[Estimate]:
    """The stages' estimates for a batch of ``StereoDataset``."""
    return network(
        batch["images"],
        batch_geometry(batch),
        batch["value_range"],
        batch["interval"],
        batch.get("relative_depth") if network.uses_relative_depth else None,
    )


def batch_geometry(batch: Batch) -> Geometry:
    """The cameras of a batch: (B, V, 4, 4) projections, or (B, V, 170) numbers of rational functions."""
    cameras = batch["cameras"]
    return geometry_of("pinhole" if cameras.shape[-1] == _MATRIX_SIDE else "rpc", cameras)


def scored_maps(found: Estimate) -> Tensor:
    """What ``StereoScorer`` takes of an estimate: (B, 2, H, W), metres and confidence."""
    return torch.stack([found.values.float(), found.confidence.float()], dim=1)


def quantity_of(cameras: str | None) -> Quantity:
    """What the maps show: heights with rational cameras, else depth."""
    metres = replace(DEPTH_IN_METRES, truth="target")
    return replace(HEIGHT, unit="m") if cameras == "rpc" else metres
