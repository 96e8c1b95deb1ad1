"""A ViT run: the folds one after another, each writing the priors of its held-out tiles, then the final model."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from Systems.d3rsmde.config import ViTTrainingConfig
from Systems.d3rsmde.monitor import MONITORED_SCORE
from Systems.d3rsmde.priors import PRIORS_FOLDER, write_priors
from Utils.core.errors import UserError, write_error
from Utils.core.processes import everywhere, on_main
from Utils.core.seeds import derive_seed
from Utils.core.tables import write_json
from Utils.data.published_layout import TRAINING_PART, prior_file
from Utils.data.splits import make_folds, read_folds, select, table_folds, warn_of_other_folds
from Utils.data.stage_plan import RunSetup, StagePlan, Tiles, check_stages, find_tiles, split_stage, stage_datasets
from Utils.training.run_files import MODEL_FOLDER, best_checkpoint
from Utils.training.runs.run import Run

if TYPE_CHECKING:
    from Modules.d3rsmde.coarse import CoarseNet

logger = logging.getLogger(__name__)

FINAL_STAGE = "final"
_MANIFEST = "priors.json"


class CoarseRun(Run):
    """The training of stage 1."""

    script = "trainViT.py"
    kind = "ViT"
    monitor = MONITORED_SCORE

    def __init__(self, config: ViTTrainingConfig) -> None:
        self.config: ViTTrainingConfig = config
        self._first: CoarseNet | None = None

    def check(self) -> RunSetup:
        """Find the tiles, divide them into stages, and read each of them once."""
        tiles = find_tiles(self.config)
        plan = plan_coarse(self.config, tiles)
        return RunSetup(tiles, plan, check_stages(plan, tiles))

    def build(self, setup: RunSetup) -> None:
        """Build the first stage's network."""
        self._first = self._build(setup.plan[0])

    def _build(self, stage: StagePlan) -> CoarseNet:
        """The network of a stage: all start from the same pretrained weights, or each from other random ones."""
        import torch

        from Systems.d3rsmde.build import build_coarse

        torch.manual_seed(derive_seed(self.config.seed, stage.name, "weights"))
        return build_coarse(self.config)

    def train(self, setup: RunSetup, stage: StagePlan, folder: Path) -> None:
        """Train a fold and write its priors, or train the final network and save it."""
        from Modules.d3rsmde.pipeline import D3RSMDE
        from Systems.d3rsmde.targets import RELATIVE_HEIGHT
        from Systems.d3rsmde.tasks.coarse_task import CoarseTask
        from Utils.training.loop import fit
        from Utils.training.runs.run_folder import loop_settings, save_folder

        first, self._first = self._first, None
        network = first if first is not None and stage == setup.plan[0] else self._build(stage)
        fit(
            CoarseTask(network, self.config.losses),
            *stage_datasets(self.config, setup.tiles, stage, empty=setup.check.empty, target=RELATIVE_HEIGHT),
            loop_settings(self.config),
            folder / stage.name,
        )
        if stage.held_out:
            self._write_held_out_priors(network, setup.tiles, stage, folder)
        if stage.name == FINAL_STAGE:
            model = D3RSMDE(coarse=network, tile_size=min(setup.check.size))
            on_main(lambda: save_folder(folder / MODEL_FOLDER, model.save_pretrained))

    def finish(self, setup: RunSetup, folder: Path, whole: bool) -> None:
        """Log where priors and model are."""
        if len(setup.plan) > 1 and whole:
            count = sum(len(stage.held_out) for stage in setup.plan)
            logger.info("out-of-fold priors of %d tiles: %s", count, self._priors_folder(folder))
        if (folder / MODEL_FOLDER).is_dir():
            logger.info("model: %s", folder / MODEL_FOLDER)

    def _priors_folder(self, folder: Path) -> Path:
        return Path(self.config.prior_path) if self.config.prior_path else folder / PRIORS_FOLDER

    def _write_held_out_priors(self, network: CoarseNet, tiles: Tiles, stage: StagePlan, folder: Path) -> None:
        """Predict the tiles that this stage never saw; the manifest, written last, marks the work as done."""
        from Utils.data.tile_dataset import TileDataset
        from Utils.training.checkpoint import load_checkpoint

        priors, manifest = self._priors_folder(folder), folder / stage.name / _MANIFEST
        on_main(lambda: _remove_half_written(priors, stage.held_out))
        chosen = everywhere(lambda: load_checkpoint(best_checkpoint(folder / stage.name))).progress
        # Decided by one process: others may see a shared disk differently, and all must do the same.
        if on_main(lambda: _epoch_of_priors(manifest) == chosen.epoch):
            return
        dataset = TileDataset(tiles.training, stage.held_out)
        write_priors(network, dataset, TRAINING_PART, priors, self.config.batch_size, self.config.num_workers)
        facts = {"prior_path": str(priors), "epoch": chosen.epoch, "out_of_fold": True, "tiles": stage.held_out}

        def mark_as_done() -> None:
            try:
                write_json(manifest, facts)
            except OSError as error:
                raise write_error(manifest, error, "continue with --resume") from error

        on_main(mark_as_done)


def plan_coarse(config: ViTTrainingConfig, tiles: Tiles) -> list[StagePlan]:
    """The stages of a ViT run: one a fold, then the final one.

    Raises:
        UserError: split files that do not fit the dataset or one another.
    """
    available = list(tiles.training)
    if config.k_folds == "table" and config.split_text:
        raise UserError("split_text and k_folds table are both given; remove one of them")
    if isinstance(config.k_folds, list) and config.split_text:
        raise UserError("split_text and split files in k_folds are both given; remove one of them")
    if not isinstance(config.k_folds, int):
        folds = (
            read_folds(config.k_folds, available, config.dataset_path)
            if isinstance(config.k_folds, list)
            else table_folds(tiles.training, config.dataset_path)
        )
        ids = [tile for fold in folds for tile in fold]
    else:
        ids = select(available, config.split_text, config.dataset_path)
        folds = make_folds(ids, config.k_folds, config.seed) if config.k_folds else []
        if folds:
            warn_of_other_folds(tiles.training, config.dataset_path)
    plan = []
    for number, fold in enumerate(folds, start=1):
        rest = [tile for tile in ids if tile not in set(fold)]
        plan.append(split_stage(config, tiles, f"fold-{number}", rest, fold))
    plan.append(split_stage(config, tiles, FINAL_STAGE, ids))
    return plan


def _remove_half_written(priors: Path, tiles: Sequence[str]) -> None:
    """Remove half-written priors of these tiles, left by a killed process; other folds may be writing theirs."""
    names = {prior_file(priors, TRAINING_PART, tile).name for tile in tiles}
    for leftover in prior_file(priors, TRAINING_PART, "").parent.glob(".*.tmp"):
        if leftover.name[1:].rsplit(".", 2)[0] in names:
            leftover.unlink(missing_ok=True)


def _epoch_of_priors(manifest: Path) -> int | None:
    """The epoch whose weights drew the priors (a longer run may find a better one), None before they were drawn."""
    try:
        return int(json.loads(manifest.read_text(encoding="utf-8"))["epoch"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
