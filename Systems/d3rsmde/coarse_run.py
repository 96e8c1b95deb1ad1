"""A ViT run: stage 1 of D³-RSMDE, with folds for out-of-fold priors or without."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from Systems.d3rsmde.config import ViTTrainingConfig
from Systems.d3rsmde.monitor import MONITORED_SCORE
from Utils.data.stage_plan import RunSetup
from Utils.training.runs.cross_fitting import CrossFittingRun

if TYPE_CHECKING:
    from torch import Tensor

    from Modules.d3rsmde.coarse import CoarseNet
    from Utils.data.dataset import TargetTransform
    from Utils.training.task import Task


class CoarseRun(CrossFittingRun["CoarseNet"]):
    """The training of stage 1."""

    script = "trainViT.py"
    kind = "ViT"
    monitor = MONITORED_SCORE

    def __init__(self, config: ViTTrainingConfig) -> None:
        super().__init__(config)
        self.config: ViTTrainingConfig = config

    def new_network(self) -> CoarseNet:
        """The network that the config names."""
        from Systems.d3rsmde.build import build_coarse

        return build_coarse(self.config)

    def task(self, network: CoarseNet) -> Task:
        """Heights stretched to [0, 1]."""
        from Systems.d3rsmde.tasks.coarse_task import CoarseTask

        return CoarseTask(network, self.config.losses)

    def target(self) -> TargetTransform:
        """Heights stretched to [0, 1]."""
        from Systems.d3rsmde.targets import RELATIVE_HEIGHT

        return RELATIVE_HEIGHT

    def draw_prior(self, network: CoarseNet, images: Tensor) -> Tensor:
        """The network's own map."""
        return network(images)

    def save(self, network: CoarseNet, setup: RunSetup, folder: Path) -> None:
        """A model without stage 2."""
        from Modules.d3rsmde.pipeline import D3RSMDE

        D3RSMDE(coarse=network, tile_size=min(setup.check.size)).save_pretrained(folder)
