"""The training of a network of land cover."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from Systems.segmentation.config import SegmentationTrainingConfig
from Systems.segmentation.monitor import MONITORED
from Systems.segmentation.tiles import TRAIN, VALIDATE, class_table, find_land_cover, how_read
from Utils.core.errors import UserError
from Utils.core.processes import on_main
from Utils.core.seeds import derive_seed
from Utils.data.fold_plan import FINAL_STAGE
from Utils.data.land_cover.class_table import ClassTable
from Utils.data.land_cover.land_cover_check import LandCoverCheck, check_land_cover
from Utils.data.land_cover.land_cover_dataset import HowRead
from Utils.data.land_cover.listing import LandCoverFiles, domains_of
from Utils.data.splits import select
from Utils.data.stage_plan import RunSetup, StagePlan, Tiles, split_stage
from Utils.training.run_files import MODEL_FOLDER
from Utils.training.runs.run import Run

if TYPE_CHECKING:
    from Modules.segmentation.networks import SegmentationNetwork
    from Utils.data.dataset import SampleDataset
    from Utils.data.land_cover.land_cover_dataset import LandCoverDataset

logger = logging.getLogger(__name__)

_BYTES = 2**30


@dataclass(frozen=True)
class LandCoverSetup(RunSetup):
    """What the training works on.

    Attributes:
        training: the training tiles by id.
        validation: the tiles that select the weights, by id: the same, or those of another part.
        how: how tiles are read.
        unlabelled: the tiles whose images are learnt from without labels, by id.
    """

    training: Mapping[str, LandCoverFiles] = field(default_factory=dict)
    validation: Mapping[str, LandCoverFiles] = field(default_factory=dict)
    how: HowRead = field(default_factory=lambda: HowRead(ClassTable((), (), ())))
    unlabelled: Mapping[str, LandCoverFiles] = field(default_factory=dict)


class SegmentationRun(Run):
    """The training of a network of land cover, in one stage."""

    script = "trainSegmentation.py"
    kind = "Segmentation"
    monitor = MONITORED
    lower_is_better = False
    config: SegmentationTrainingConfig

    def __init__(self, config: SegmentationTrainingConfig) -> None:
        self.config = config
        self._network: SegmentationNetwork | None = None

    def check(self) -> LandCoverSetup:
        """Find the tiles, divide them, and read each of them once."""
        config = self.config
        if config.description:
            logger.info("%s", config.description)
        if config.validate_on == "test":
            raise UserError("validate_on is test, and the part Test has no labels: remove it, or name an oracle")
        table = class_table(config)
        self._check_weights(table)
        how = how_read(config, table, config.model.fusion != "none")
        training = find_land_cover(config, TRAIN, config.source, how)
        validation, part = self._validation_tiles(how)
        stage = self._plan(training, validation, part)
        one_size = config.batch_size > 1
        whole = config.augmentation.crop is None
        check = check_land_cover(training, stage.train, how, one_size and whole, "training tiles")
        if stage.validation:
            chosen = validation or training
            check_land_cover(chosen, stage.validation, how, one_size, "validation tiles")
        if np.count_nonzero(check.pixels) < 2:
            only = [name for name, count in zip(table.names, check.pixels, strict=True) if count]
            raise UserError(
                f"nothing can be learnt: the {len(stage.train)} training tiles hold one class alone, '{only[0]}'; "
                "check the masks and class_table"
            )
        unlabelled = self._unlabelled_tiles(how)
        return LandCoverSetup(Tiles({}, {}), [stage], check, {}, training, validation or training, how, unlabelled)

    def _unlabelled_tiles(self, how: HowRead) -> dict[str, LandCoverFiles]:
        """The tiles of self-training, without their masks; none without it."""
        section = self.config.self_training
        if section is None:
            return {}
        tiles = find_land_cover(self.config, section.part, section.domains, how, masks=False)
        check_land_cover(tiles, list(tiles), how, False, "tiles without labels")
        logger.info(
            "self-training: %d images of %s are learnt from without labels; results say so",
            len(tiles),
            ", ".join(section.domains),
        )
        return tiles

    def _check_weights(self, table: ClassTable) -> None:
        weights = self.config.class_weights
        if isinstance(weights, list) and len(weights) != len(table.names):
            raise UserError(f"class_weights has {len(weights)} numbers, and there are {len(table.names)} classes")
        if isinstance(weights, list) and not any(weights):
            raise UserError("class_weights are all 0: nothing would be learnt; give one above 0")

    def _validation_tiles(self, how: HowRead) -> tuple[dict[str, LandCoverFiles], str]:
        """The tiles of the part Val that select the weights, and what they are called; none where they are held out."""
        config = self.config
        if config.oracle:
            logger.warning(
                "oracle: labels of %s select the weights; no result of this run is one without labels of the target",
                ", ".join(config.oracle),
            )
            return find_land_cover(config, VALIDATE, config.oracle, how), f"{VALIDATE} (oracle)"
        if config.not_split or config.val_split_text:
            return {}, TRAIN
        known = domains_of(Path(config.dataset_path), VALIDATE)
        missing = [domain for domain in config.source if domain not in known]
        if not missing:
            return find_land_cover(config, VALIDATE, config.source, how), VALIDATE
        logger.info(
            "'%s' has no %s: %.0f %% of the training tiles are held out for validation",
            Path(config.dataset_path) / VALIDATE,
            ", ".join(missing),
            100 * config.validation_share,
        )
        return {}, TRAIN

    def _plan(
        self, training: Mapping[str, LandCoverFiles], validation: Mapping[str, LandCoverFiles], part: str
    ) -> StagePlan:
        config = self.config
        ids = select(list(training), config.split_text, config.dataset_path)
        if validation:
            return StagePlan(FINAL_STAGE, ids, list(validation), part, [])
        # Only their names are asked for, which these tiles have as all have.
        tiles = Tiles(cast(Any, training), {})
        return split_stage(config, tiles, FINAL_STAGE, ids, (), config.validation_share)

    def build(self, setup: RunSetup) -> None:
        """Build the network."""
        import torch

        from Systems.segmentation.build import build_segmentation

        assert isinstance(setup, LandCoverSetup)
        torch.manual_seed(derive_seed(self.config.seed, FINAL_STAGE, "weights"))
        self._network = build_segmentation(self.config, setup.how.table)

    def train(self, setup: RunSetup, stage: StagePlan, folder: Path) -> None:
        """Train the network and save it."""
        from Systems.segmentation.task import LandCoverSettings, SegmentationTask
        from Utils.training.loop import fit
        from Utils.training.runs.run_folder import loop_settings, save_folder

        assert isinstance(setup, LandCoverSetup) and self._network is not None
        network, config = self._network, self.config
        settings = LandCoverSettings(
            config.layer_decay,
            config.auxiliary_weight,
            self._weights(setup),
            config.losses,
            config.window,
            config.stride,
            config.absent_classes,
            config.self_training,
        )
        network.register_to_config(tile_size=config.augmentation.crop or min(setup.check.size))
        task = SegmentationTask(network, settings)
        fit(task, *self._datasets(setup, stage), loop_settings(config), folder / stage.name)
        on_main(lambda: save_folder(folder / MODEL_FOLDER, network.save_pretrained))

    def _weights(self, setup: LandCoverSetup) -> list[float] | None:
        """The weights of the classes in the loss."""
        if self.config.class_weights != "balanced":
            return self.config.class_weights
        assert isinstance(setup.check, LandCoverCheck)
        pixels = setup.check.pixels.astype(float)
        median = float(np.median(pixels[pixels > 0]))
        # A class that does not occur is never asked for.
        weights = [median / count if count else 0.0 for count in pixels]
        named = zip(setup.how.table.names, weights, strict=True)
        logger.info("class weights: %s", ", ".join(f"{name} {weight:.3g}" for name, weight in named))
        return weights

    def _datasets(self, setup: LandCoverSetup, stage: StagePlan) -> tuple[SampleDataset, LandCoverDataset | None]:
        from Utils.data.land_cover.land_cover_dataset import LandCoverDataset
        from Utils.data.land_cover.self_training import SelfTrainingDataset

        config = self.config
        # Every worker has a separate cache.
        cache = config.cache_gigabytes * _BYTES / max(config.num_workers, 1)
        empty = set(setup.check.empty)
        one_size = config.batch_size > 1
        common: dict[str, Any] = {"flips": config.flips, "seed": config.seed, "one_size": one_size}
        share = 0.9 if config.self_training is None else 0.45
        labelled = LandCoverDataset(
            setup.training,
            [tile for tile in stage.train if tile not in empty],
            setup.how,
            config.augmentation,
            cache_bytes=share * cache,
            **common,
        )
        train: SampleDataset = labelled
        if config.self_training is not None:
            # Without labels no square has too much of one class.
            cut = config.augmentation.model_copy(update={"largest_share": 1.0})
            tiles = setup.unlabelled
            others = LandCoverDataset(tiles, list(tiles), setup.how, cut, cache_bytes=share * cache, **common)
            train = SelfTrainingDataset(labelled, others, config.self_training)
        if not stage.validation:
            return train, None
        chosen = setup.validation
        return train, LandCoverDataset(chosen, stage.validation, setup.how, cache_bytes=0.1 * cache, one_size=one_size)

    def finish(self, setup: RunSetup, folder: Path, whole: bool) -> None:
        """Log where the model is."""
        if (folder / MODEL_FOLDER).is_dir():
            logger.info("model: %s", folder / MODEL_FOLDER)
