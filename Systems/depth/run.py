"""The training of a depth network, in one stage."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from Systems.depth.config import DepthTrainingConfig
from Systems.depth.monitor import monitored_score
from Systems.depth.unit_check import check_units
from Utils.core.processes import on_main
from Utils.core.seeds import derive_seed
from Utils.data.splits import select
from Utils.data.stage_plan import RunSetup, StagePlan, Tiles, check_stages, find_tiles, split_stage, stage_datasets
from Utils.training.run_files import MODEL_FOLDER
from Utils.training.runs.run import Run

if TYPE_CHECKING:
    from Modules.depth.enc_dec import EncDec

logger = logging.getLogger(__name__)

FINAL_STAGE = "final"


class DepthRun(Run):
    """The training of a depth network."""

    script = "trainDepth.py"
    kind = "Depth"

    def __init__(self, config: DepthTrainingConfig) -> None:
        self.config: DepthTrainingConfig = config
        self.monitor = monitored_score(config.target)
        self._network: EncDec | None = None

    def check(self) -> RunSetup:
        """Find the tiles, and read each of them once."""
        tiles = find_tiles(self.config)
        plan = plan_depth(self.config, tiles)
        check = check_stages(plan, tiles)
        check_units(self.config, tiles.training, plan[0].train)
        return RunSetup(tiles, plan, check)

    def build(self, setup: RunSetup) -> None:
        """Build the network."""
        import torch

        from Systems.depth.build import build_depth

        torch.manual_seed(derive_seed(self.config.seed, FINAL_STAGE, "weights"))
        self._network = build_depth(self.config)

    def train(self, setup: RunSetup, stage: StagePlan, folder: Path) -> None:
        """Train the network and save it."""
        from Systems.depth.targets import depth_target
        from Systems.depth.task import DepthTask
        from Utils.training.loop import fit
        from Utils.training.runs.run_folder import loop_settings, save_folder

        config, network = self.config, self._network
        assert network is not None, "the driver builds before it trains"
        target = depth_target(config.target, config.max_depth, config.metres_per_unit, config.hole)
        fit(
            DepthTask(network, config.losses),
            *stage_datasets(config, setup.tiles, stage, empty=setup.check.empty, target=target),
            loop_settings(config),
            folder / stage.name,
        )
        on_main(lambda: save_folder(folder / MODEL_FOLDER, network.save_pretrained))

    def finish(self, setup: RunSetup, folder: Path, whole: bool) -> None:
        """Log where the model is."""
        if (folder / MODEL_FOLDER).is_dir():
            logger.info("model: %s", folder / MODEL_FOLDER)


def plan_depth(config: DepthTrainingConfig, tiles: Tiles) -> list[StagePlan]:
    """The one stage of the run.

    Raises:
        UserError: split files that do not fit the dataset or one another.
    """
    ids = select(list(tiles.training), config.split_text, config.dataset_path)
    return [split_stage(config, tiles, FINAL_STAGE, ids)]
