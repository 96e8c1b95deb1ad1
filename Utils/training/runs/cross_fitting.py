"""A cross-fitted run: the folds in turn, each writing the priors of its held-out tiles, then the final model."""

from __future__ import annotations

import json
import logging
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from Utils.config.cross_fitting_keys import CrossFittingConfig
from Utils.core.errors import write_error
from Utils.core.processes import everywhere, on_main
from Utils.core.seeds import derive_seed
from Utils.core.tables import write_json
from Utils.data.fold_plan import FINAL_STAGE, plan_folds
from Utils.data.published_layout import TRAINING_PART, prior_file
from Utils.data.stage_plan import RunSetup, StagePlan, Tiles, check_stages, find_tiles, stage_datasets
from Utils.training.priors import PRIORS_FOLDER, write_priors
from Utils.training.run_files import MODEL_FOLDER, best_checkpoint
from Utils.training.runs.run import Run

if TYPE_CHECKING:
    from torch import Tensor, nn

    from Utils.data.dataset import TargetTransform
    from Utils.training.task import Task

logger = logging.getLogger(__name__)

Network = TypeVar("Network", bound="nn.Module")
_MANIFEST = "priors.json"


class CrossFittingRun(Run, Generic[Network]):
    """The training of a network that draws a map from an image, with folds for out-of-fold priors or without."""

    config: CrossFittingConfig

    def __init__(self, config: CrossFittingConfig) -> None:
        self.config = config
        self._first: Network | None = None

    @abstractmethod
    def new_network(self) -> Network:
        """A network with its first weights: pretrained ones, or random ones from torch's generator.

        Raises:
            UserError: names, sizes or weights that do not fit.
        """

    @abstractmethod
    def task(self, network: Network) -> Task:
        """What the network learns."""

    @abstractmethod
    def target(self) -> TargetTransform:
        """What the task adds to each tile."""

    @abstractmethod
    def draw_prior(self, network: Network, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] to priors (B, 1, H, W) in [0, 1], which rise with the ground."""

    @abstractmethod
    def save(self, network: Network, setup: RunSetup, folder: Path) -> None:
        """Write the model folder."""

    def check(self) -> RunSetup:
        """Find the tiles, divide them into stages, and read each of them once."""
        tiles = self.find()
        plan = self.plan(tiles)
        return RunSetup(tiles, plan, check_stages(plan, tiles, one_size=self.one_size))

    @property
    def one_size(self) -> bool:
        """Whether all tiles must have one size."""
        return True

    def find(self) -> Tiles:
        """The tiles that the config uses."""
        return find_tiles(self.config)

    def plan(self, tiles: Tiles) -> list[StagePlan]:
        """The stages, with the tiles of each."""
        return plan_folds(self.config, tiles)

    def build(self, setup: RunSetup) -> None:
        """Build the first stage's network."""
        self._first = self._build(setup.plan[0])

    def _build(self, stage: StagePlan) -> Network:
        """The network of a stage: all start from the same pretrained weights, or each from other random ones."""
        import torch

        torch.manual_seed(derive_seed(self.config.seed, stage.name, "weights"))
        return self.new_network()

    def train(self, setup: RunSetup, stage: StagePlan, folder: Path) -> None:
        """Train a fold and write its priors, or train the final network and save it."""
        from Utils.training.loop import fit
        from Utils.training.runs.run_folder import loop_settings, save_folder

        first, self._first = self._first, None
        network = first if first is not None and stage == setup.plan[0] else self._build(stage)
        fit(
            self.task(network),
            *stage_datasets(self.config, setup.tiles, stage, empty=setup.check.empty, target=self.target()),
            loop_settings(self.config),
            folder / stage.name,
        )
        if stage.held_out:
            self._write_held_out_priors(network, setup.tiles, stage, folder)
        if stage.name == FINAL_STAGE:
            on_main(lambda: save_folder(folder / MODEL_FOLDER, lambda place: self.save(network, setup, place)))

    def finish(self, setup: RunSetup, folder: Path, whole: bool) -> None:
        """Log where priors and model are."""
        if len(setup.plan) > 1 and whole:
            count = sum(len(stage.held_out) for stage in setup.plan)
            logger.info("out-of-fold priors of %d tiles: %s", count, self._priors_folder(folder))
        if (folder / MODEL_FOLDER).is_dir():
            logger.info("model: %s", folder / MODEL_FOLDER)

    def _priors_folder(self, folder: Path) -> Path:
        return Path(self.config.prior_path) if self.config.prior_path else folder / PRIORS_FOLDER

    def _write_held_out_priors(self, network: Network, tiles: Tiles, stage: StagePlan, folder: Path) -> None:
        """Predict the tiles that this stage never saw; the manifest, written last, marks the work as done."""
        from Utils.data.tile_dataset import TileDataset
        from Utils.training.checkpoint import load_checkpoint

        config = self.config
        priors, manifest = self._priors_folder(folder), folder / stage.name / _MANIFEST
        on_main(lambda: _remove_half_written(priors, stage.held_out))
        chosen = everywhere(lambda: load_checkpoint(best_checkpoint(folder / stage.name))).progress
        # Decided by one process: others may see a shared disk differently, and all must do the same.
        if on_main(lambda: _epoch_of_priors(manifest) == chosen.epoch):
            return
        network.eval()
        write_priors(
            lambda images: self.draw_prior(network, images),
            next(network.parameters()).device,
            TileDataset(tiles.training, stage.held_out),
            TRAINING_PART,
            priors,
            config.batch_size,
            config.num_workers,
        )
        facts = {"prior_path": str(priors), "epoch": chosen.epoch, "out_of_fold": True, "tiles": stage.held_out}

        def mark_as_done() -> None:
            try:
                write_json(manifest, facts)
            except OSError as error:
                raise write_error(manifest, error, "continue with --resume") from error

        on_main(mark_as_done)


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
