"""The training of a depth network, with folds for out-of-fold priors or without."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from Systems.depth.config import DepthTrainingConfig
from Systems.depth.monitor import monitored_score
from Systems.depth.unit_check import check_units
from Utils.data.stage_plan import RunSetup
from Utils.training.runs.cross_fitting import CrossFittingRun

if TYPE_CHECKING:
    from torch import Tensor

    from Modules.depth.enc_dec import EncDec
    from Utils.data.dataset import TargetTransform
    from Utils.training.task import Task

logger = logging.getLogger(__name__)


class DepthRun(CrossFittingRun["EncDec"]):
    """The training of a depth network."""

    script = "trainDepth.py"
    kind = "Depth"

    def __init__(self, config: DepthTrainingConfig) -> None:
        super().__init__(config)
        self.config: DepthTrainingConfig = config
        self.monitor = monitored_score(config.target)

    def check(self) -> RunSetup:
        """Find the tiles, divide them into stages, read each of them once, and look at their unit."""
        setup = super().check()
        check_units(self.config, setup.tiles.training, setup.plan[0].train)
        if self.config.direction is None and self.config.target != "summit":
            logger.warning(
                "the config does not say what rises in the maps: set direction to height, depth or inverse depth; "
                "without it predict.py needs --polarity, and the network cannot be stage 1 of D³-RSMDE"
            )
        return setup

    def new_network(self) -> EncDec:
        """The network that the config names."""
        from Systems.depth.build import build_depth

        return build_depth(self.config)

    def task(self, network: EncDec) -> Task:
        """Depth in the config's target."""
        from Systems.depth.task import DepthTask

        return DepthTask(network, self.config.losses)

    def target(self) -> TargetTransform:
        """Depth in the config's target."""
        from Systems.depth.targets import depth_target

        config = self.config
        return depth_target(config.target, config.max_depth, config.metres_per_unit, config.hole)

    def draw_prior(self, network: EncDec, images: Tensor) -> Tensor:
        """The network's map as relative height."""
        return network.relative_height(images)

    def save(self, network: EncDec, setup: RunSetup, folder: Path) -> None:
        """The network, with the size of its tiles."""
        network.register_to_config(tile_size=min(setup.check.size))
        network.save_pretrained(folder)
