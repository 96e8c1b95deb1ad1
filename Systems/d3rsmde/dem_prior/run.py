"""The training of a refiner of DEMs: one stage, on coarse DEMs that are made of true heights."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from Systems.d3rsmde.dem_prior.config import DemTrainingConfig
from Systems.d3rsmde.dem_prior.monitor import MONITORED_SCORE
from Utils.core.errors import UserError
from Utils.core.processes import on_main
from Utils.core.seeds import derive_seed
from Utils.data.splits import select
from Utils.data.stage_plan import RunSetup, StagePlan, Tiles, check_stages, find_tiles, split_stage
from Utils.training.run_files import MODEL_FOLDER
from Utils.training.runs.run import Run

if TYPE_CHECKING:
    from Modules.d3rsmde.dem_refiner import DemRefiner
    from Systems.d3rsmde.dem_prior.ground import Grounds

logger = logging.getLogger(__name__)

_STAGE = "refiner"
_SAMPLES = "samples"
_BYTES = 2**30


class DemRun(Run):
    """The training of a refiner of DEMs."""

    script = "trainDiffusion.py"
    kind = "diffusion"
    monitor = MONITORED_SCORE

    def __init__(self, config: DemTrainingConfig) -> None:
        self.config: DemTrainingConfig = config
        self._network: DemRefiner | None = None

    def check(self) -> RunSetup:
        """Find tiles and scenes, and read each tile once."""
        config = self.config
        tiles = find_tiles(config)
        stage = plan_dem(config, tiles)
        setup = RunSetup(tiles, [stage], check_stages([stage], tiles, one_size=False))
        unknown = sorted(set(setup.check.empty) & {*stage.train, *stage.validation})
        if unknown:
            raise UserError(f"tile {unknown[0]} has no valid height ({len(unknown)} such tiles); take it out")
        from Systems.d3rsmde.dem_prior.draws import fitting_factors

        fitting_factors(config.dem, config.crop_size, setup.check.size, f"tile {stage.train[0]}")
        ground = self._grounds(setup)
        for name in ground.further:
            fitting_factors(config.dem, config.crop_size, ground.size(name), name)
        logger.info("beside the tiles: %d parts of scenes", len(ground.further))
        return setup

    def _grounds(self, setup: RunSetup, part: str | None = None) -> Grounds:
        from Systems.d3rsmde.dem_prior.ground import Grounds

        config = self.config
        tiles = setup.tiles.training if part is None else setup.tiles.part(part)
        return Grounds(tiles, config.scenes, config.synthetic, config.seed)

    def build(self, setup: RunSetup) -> None:
        """Build the network."""
        import torch

        from Systems.d3rsmde.dem_prior.build import build_dem_refiner

        torch.manual_seed(derive_seed(self.config.seed, _STAGE, "weights"))
        self._network = build_dem_refiner(self.config)

    def train(self, setup: RunSetup, stage: StagePlan, folder: Path) -> None:
        """Train the refiner and save it."""
        from torch import nn

        from Systems.d3rsmde.dem_prior.draws import DrawnDems
        from Systems.d3rsmde.dem_prior.task import DemTask
        from Utils.training.loop import fit
        from Utils.training.runs.run_folder import loop_settings, save_folder

        assert self._network is not None, "build comes before train"
        config, network = self.config, self._network
        cache = config.cache_gigabytes * _BYTES / max(config.num_workers, 1)
        ground = self._grounds(setup)
        train = DrawnDems(
            ground,
            [*stage.train, *ground.further],
            config.dem,
            folder / _SAMPLES / "training",
            config.crop_size,
            flips=config.flips,
            crop=config.crop_size,
            seed=config.seed,
            cache_bytes=cache * 0.9,
        )
        validation = None
        if stage.validation:
            validation = DrawnDems(
                self._grounds(setup, stage.validation_part),
                stage.validation,
                config.dem,
                folder / _SAMPLES / "validation",
                config.crop_size,
                crop=config.crop_size,
                seed=derive_seed(config.seed, "validation") % 2**31,
                cache_bytes=cache * 0.1,
            )
        fit(DemTask(network, config.without_image), train, validation, loop_settings(config), folder / stage.name)
        nn.Module.to(network, "cpu")
        on_main(lambda: save_folder(folder / MODEL_FOLDER, lambda place: network.save_pretrained(place)))

    def finish(self, setup: RunSetup, folder: Path, whole: bool) -> None:
        """Log where the model is."""
        if (folder / MODEL_FOLDER).is_dir():
            logger.info("model: %s (predict.py --reference takes it)", folder / MODEL_FOLDER)


def plan_dem(config: DemTrainingConfig, tiles: Tiles) -> StagePlan:
    """The one stage, with its tiles.

    Raises:
        UserError: split files that do not fit the dataset.
    """
    return split_stage(config, tiles, _STAGE, select(list(tiles.training), config.split_text, config.dataset_path))
