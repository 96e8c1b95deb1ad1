"""A network of land cover, seen from the training loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from Modules.losses.segmentation_losses import build_segmentation_loss
from Modules.segmentation.mean_teacher import pseudo_labels, taught_loss, teacher_probabilities
from Modules.segmentation.names import SEGMENTATION_TASK
from Modules.segmentation.networks import SegmentationNetwork
from Modules.segmentation.sliding import sliding_probabilities
from Systems.segmentation.build import table_of
from Systems.segmentation.monitor import MONITORED
from Systems.segmentation.pictures import class_panels
from Systems.segmentation.rates import decayed_groups
from Utils.config.land_cover_keys import SelfTrainingSection
from Utils.data.sample import Batch, item
from Utils.scoring.land_cover.class_scorer import ClassScorer
from Utils.scoring.land_cover.rule_names import AbsentClasses
from Utils.scoring.scores import Scorer
from Utils.training.task import Monitor, ParameterGroup, View


@dataclass(frozen=True)
class LandCoverSettings:
    """How the network is trained and validated, with the names of the config."""

    layer_decay: float = 1.0
    auxiliary_weight: float = 0.0
    class_weights: Sequence[float] | None = None
    losses: Sequence[str] = ("CrossEntropyLoss",)
    window: int | None = None
    stride: int | None = None
    absent_classes: AbsentClasses = "count as 0"
    self_training: SelfTrainingSection | None = None


class SegmentationTask:
    """It learns to draw the classes of an image: ``label`` of a batch of ``LandCoverDataset``.

    With self-training it learns from images without labels as well: ``unlabelled`` of ``SelfTrainingDataset``.
    """

    name = SEGMENTATION_TASK
    monitor = Monitor(MONITORED, lower_is_better=False)

    def __init__(self, network: SegmentationNetwork, settings: LandCoverSettings) -> None:
        self.network: nn.Module = network
        self._segmentation = network
        self._settings = settings
        self.loss_name = "+".join(settings.losses)
        self._loss = build_segmentation_loss(settings.losses, settings.class_weights)
        self._table = table_of(network)
        self._average: Callable[[], Mapping[str, Tensor]] = dict
        # Outlines take seconds a tile: they are for evaluations.
        self.scorer: Scorer = ClassScorer(self._table.names, settings.absent_classes, boundaries=False)

    def architecture(self) -> Mapping[str, Any]:
        """The network's config."""
        # Without the library's private entries it is fit for JSON, and for the class itself.
        return {key: value for key, value in self._segmentation.config.items() if not key.startswith("_")}

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """All parameters, with rates that fall towards the encoders' first blocks."""
        return decayed_groups(self._segmentation, self._settings.layer_decay)

    def to(self, device: torch.device) -> None:
        """Move the network."""
        nn.Module.to(self.network, device)

    def be_taught(self, average: Callable[[], Mapping[str, Tensor]]) -> None:
        """Remember the averaged weights, which are the teacher."""
        self._average = average

    def loss(self, batch: Batch, generators: Sequence[torch.Generator]) -> Tensor:
        """The loss of the head and, weighted, of the auxiliary head and of self-training; nothing is drawn here."""
        scores, *others = self._segmentation.all_scores(batch["image"], batch.get("depth"))
        loss = self._loss(scores, batch["label"])
        for other in others:
            loss = loss + self._settings.auxiliary_weight * self._loss(other, batch["label"])
        if self._settings.self_training is not None:
            loss = loss + self._self_training_loss(batch["unlabelled"], self._settings.self_training)
        return loss

    def _self_training_loss(self, batch: Batch, options: SelfTrainingSection) -> Tensor:
        """The weighted loss on images without labels, against what the teacher draws of them."""
        found = teacher_probabilities(self._segmentation, self._average(), batch["image"], batch.get("depth"))
        label, trust = pseudo_labels(found, options.confidence, options.trust == "image")
        scores = self._segmentation(batch["changed_image"], batch.get("changed_depth"))
        return options.weight * taught_loss(scores, label, trust, batch["pasted"])

    @torch.no_grad()
    def predict(self, batch: Batch) -> Tensor:
        """Class probabilities (B, classes, H, W), from windows."""
        settings = self._settings
        return sliding_probabilities(
            self._segmentation, batch["image"], batch.get("depth"), settings.window, settings.stride
        )

    def panels(self, batch: Batch) -> Sequence[View]:
        """Image, relative depth, true and drawn classes of each tile."""
        drawn = self.predict(batch).argmax(dim=1).cpu().numpy()
        return [
            View(name, class_panels(item(batch, place), drawn[place], self._table))
            for place, name in enumerate(batch["id"])
        ]
