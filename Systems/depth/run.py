"""The training of a depth network, in one stage."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from Systems.depth.config import DepthTrainingConfig
from Systems.depth.depth_tiles import find_depth_tiles
from Systems.depth.known_depth import refuse_unknown, tiles_without_depth
from Systems.depth.monitor import monitored_score
from Systems.depth.unit_check import check_units
from Utils.core.errors import UserError
from Utils.core.processes import on_main
from Utils.core.seeds import derive_seed
from Utils.data.published_layout import TRAINING_PART
from Utils.data.scene_names import group_by_scene, shared_scenes
from Utils.data.splits import select
from Utils.data.stage_plan import RunSetup, StagePlan, Tiles, check_stages, split_stage, stage_datasets
from Utils.data.tile_check import TileCheck
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
        if self.config.description:
            logger.info("%s", self.config.description)
        tiles = find_depth_tiles(self.config)
        plan = plan_depth(self.config, tiles)
        check = check_stages(plan, tiles, one_size=self.config.image_size is None)
        _warn_of_shared_scenes(self.config, tiles, plan[0])
        unknown = self._check_depth(tiles, plan[0], check)
        check_units(self.config, tiles.training, plan[0].train)
        return RunSetup(tiles, plan, replace(check, empty=unknown))

    def _check_depth(self, tiles: Tiles, stage: StagePlan, check: TileCheck) -> list[str]:
        """The training tiles that know no depth; refuse tiles from which nothing can be learnt or chosen."""
        config = self.config
        unknown = tiles_without_depth(config, tiles.training, check, config.target == "metres")
        refuse_unknown(config, tiles.training, stage.train, unknown, "training")
        if stage.validation_part == TRAINING_PART:
            refuse_unknown(config, tiles.training, stage.validation, unknown, "validation")
        first, count = tiles.training[stage.train[0]], len(stage.train)
        if config.target != "metres" and {*unknown, *check.flat}.issuperset(stage.train):
            raise UserError(
                f"nothing can be learnt: the maps of all {count} training tiles, such as '{first.height}', hold one "
                "value each, and what counts is how depth differs; name other files"
            )
        if set(check.blank).issuperset(stage.train):
            raise UserError(
                f"nothing can be learnt: the images of all {count} training tiles, such as '{first.image}', have one "
                "colour each; name other files"
            )
        return unknown

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
        unit = config.metres_per_unit, config.hole
        target = depth_target(config.target, config.max_depth, *unit, seen_size(config.image_size), config.resize_depth)
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
    drawn = not (config.val_split_text or config.not_split or config.validate_on == "test")
    remedy = "name them in a table's column scene, or validation tiles in val_split_text"
    scenes = group_by_scene(tiles.training, ids, remedy) if drawn and config.split_by == "scene" else None
    return [split_stage(config, tiles, FINAL_STAGE, ids, share=config.validation_share, scenes=scenes)]


def seen_size(size: Sequence[int] | None) -> tuple[int, int] | None:
    """A config's ``image_size`` as (height, width)."""
    return None if size is None else (size[0], size[1])


def _warn_of_shared_scenes(config: DepthTrainingConfig, tiles: Tiles, stage: StagePlan) -> None:
    """Say where frames of one scene are trained on and validated on: that looks better than it is."""
    if stage.validation_part != TRAINING_PART or not stage.validation:
        return
    both = shared_scenes(tiles.training, stage.train, stage.validation)
    if both:
        remedy = "split_by scene keeps them apart" if config.split_by == "frame" else "val_split_text says which"
        logger.warning(
            "%d scenes, such as %s, have frames in training and in validation, which then looks better than it is; %s",
            len(both),
            both[0],
            remedy,
        )
