"""The training of a depth network, with folds for out-of-fold priors or without."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from Systems.depth.config import DepthTrainingConfig
from Systems.depth.depth_tiles import find_depth_tiles
from Systems.depth.known_depth import refuse_unknown, tiles_without_depth
from Systems.depth.monitor import monitored_score
from Systems.depth.unit_check import check_units
from Utils.core.errors import UserError
from Utils.data.fold_plan import plan_folds
from Utils.data.published_layout import TRAINING_PART
from Utils.data.scene_names import group_by_scene, shared_scenes
from Utils.data.stage_plan import RunSetup, StagePlan, Tiles
from Utils.data.tile_check import TileCheck
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
        """Find the tiles, divide them into stages, read each of them once, and look at what they know."""
        config = self.config
        if config.description:
            logger.info("%s", config.description)
        setup = super().check()
        for stage in setup.plan:
            _warn_of_shared_scenes(config, setup.tiles, stage)
        unknown = self._check_depth(setup.tiles, setup.plan[-1], setup.check)
        check_units(config, setup.tiles.training, setup.plan[-1].train)
        if config.direction is None and config.target != "summit":
            logger.warning(
                "the config does not say what rises in the maps: set direction to height, depth or inverse depth; "
                "without it predict.py needs --polarity, and the network cannot be stage 1 of D³-RSMDE"
            )
        return replace(setup, check=replace(setup.check, empty=unknown))

    @property
    def one_size(self) -> bool:
        """Tiles that are resized may differ in size, unless priors are drawn of them."""
        return self.config.image_size is None or bool(self.config.k_folds)

    def find(self) -> Tiles:
        """The tiles, with disparities as the config describes them."""
        return find_depth_tiles(self.config)

    def plan(self, tiles: Tiles) -> list[StagePlan]:
        """Validation holds out whole scenes, and folds keep them whole, unless the config says otherwise."""
        config = self.config
        drawn = not (config.val_split_text or config.not_split or config.validate_on == "test")
        dealt = isinstance(config.k_folds, int) and config.k_folds > 0
        remedy = "name them in a table's column scene, or validation tiles in val_split_text"

        def group(ids: Sequence[str]) -> Mapping[str, str] | None:
            return group_by_scene(tiles.training, ids, remedy)

        by_scene = config.split_by == "scene" and (drawn or dealt)
        return plan_folds(config, tiles, config.validation_share, group if by_scene else None)

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

    def new_network(self) -> EncDec:
        """The network that the config names."""
        from Systems.depth.build import build_depth

        return build_depth(self.config)

    def task(self, network: EncDec) -> Task:
        """Depth in the config's target."""
        from Systems.depth.task import DepthTask

        config = self.config
        losses = config.losses, config.loss_weights, config.silog_forgiveness
        return DepthTask(network, *losses, config.metres_per_unit)

    def target(self) -> TargetTransform:
        """Depth in the config's target."""
        from Systems.depth.targets import depth_target

        config = self.config
        unit = config.metres_per_unit, config.hole
        return depth_target(config.target, config.max_depth, *unit, seen_size(config.image_size), config.resize_depth)

    def draw_prior(self, network: EncDec, images: Tensor) -> Tensor:
        """The network's map as relative height."""
        size = seen_size(self.config.image_size)
        if size is None:
            return network.relative_height(images)
        from Utils.data.resizing import resize_image
        from Utils.scoring.depth.depth_scorer import resized

        return resized(network.relative_height(resize_image(images, size)), images.shape[-2:])

    def save(self, network: EncDec, setup: RunSetup, folder: Path) -> None:
        """The network, with the size of its tiles."""
        network.register_to_config(tile_size=min(self.config.image_size or setup.check.size))
        network.save_pretrained(folder)


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
