"""A ViT run: the folds one after another, each writing the priors of its held-out tiles, then the final model."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from Modules.d3rsmde.coarse import CoarseNet
from Modules.d3rsmde.pipeline import D3RSMDE
from Systems.d3rsmde.build import MODEL_FOLDER, build_coarse
from Systems.d3rsmde.tasks import CoarseTask
from Utils.config.settings import TrainingConfig, ViTTrainingConfig
from Utils.core.errors import UserError, write_error
from Utils.core.processes import everywhere, on_main
from Utils.core.seeds import derive_seed
from Utils.core.tables import write_json
from Utils.data.loading import make_loader
from Utils.data.splits import hold_out, make_folds, read_folds, select
from Utils.data.tiles import (
    TEST_PART,
    TRAINING_PART,
    TileCheck,
    TileDataset,
    TileFiles,
    check_tiles,
    list_tiles,
    prior_file,
)
from Utils.rasters.tile_files import RasterError, write_map_16bit
from Utils.scoring.tile_scorer import on_device
from Utils.training.checkpoint import load_checkpoint
from Utils.training.claims import ClaimedError, claim, claimed_elsewhere
from Utils.training.loop import best_checkpoint, fit
from Utils.training.run_folder import StagePlan, loop_settings, open_run, resumable, save_model

logger = logging.getLogger(__name__)

FINAL_STAGE = "final"
PRIORS_FOLDER = "priors"
_MANIFEST = "priors.json"
_BYTES = 2**30

# Prior files by part and tile id; an id may stand in both parts.
Priors = Mapping[str, Mapping[str, Path]]


@dataclass(frozen=True)
class Tiles:
    """The tiles of both parts; the test part is empty unless it is asked for."""

    training: Mapping[str, TileFiles]
    test: Mapping[str, TileFiles]

    def part(self, name: str) -> Mapping[str, TileFiles]:
        """The tiles of one part."""
        return self.test if name == TEST_PART else self.training


def find_tiles(config: TrainingConfig) -> Tiles:
    """List the tiles that a training config uses."""
    dataset = Path(config.dataset_path)
    test = list_tiles(dataset, TEST_PART) if config.validate_on == "test" else {}
    return Tiles(list_tiles(dataset, TRAINING_PART), test)


def split_stage(
    config: TrainingConfig, tiles: Tiles, name: str, ids: Sequence[str], held_out: Sequence[str] = ()
) -> StagePlan:
    """Divide a stage's tiles into training and validation, as the config says.

    ``validate_on: test`` takes the test tiles, in so many words; else ``val_split_text``, as far as its tiles are not
    held out; else, unless ``not_split``, a seeded tenth of the tiles.  Held-out tiles are in neither.
    """
    if config.validate_on == "test":
        return StagePlan(name, list(ids), list(tiles.test), TEST_PART, list(held_out))
    if config.val_split_text:
        listed = select(list(tiles.training), config.val_split_text, config.dataset_path)
        validation = [tile for tile in listed if tile not in set(held_out)]
        train = [tile for tile in ids if tile not in set(listed)]
        if not train:
            raise UserError(
                f"stage {name}: every training tile stands in val_split_text too, which leaves none to train on; "
                "take some out of it"
            )
        if validation:
            return StagePlan(name, train, validation, TRAINING_PART, list(held_out))
        # A fold whose held-out tiles are all that was to validate on: it is validated like a run without the key.
        ids = train
    if config.not_split:
        return StagePlan(name, list(ids), [], TRAINING_PART, list(held_out))
    train, validation = hold_out(ids, derive_seed(config.seed, name))
    return StagePlan(name, train, validation, TRAINING_PART, list(held_out))


def plan_coarse(config: ViTTrainingConfig, tiles: Tiles) -> list[StagePlan]:
    """The stages of a ViT run: one a fold, then the final one.

    Raises:
        UserError: split files that do not fit the dataset or one another.
    """
    available = list(tiles.training)
    if isinstance(config.k_folds, list):
        folds = read_folds(config.k_folds, available, config.dataset_path)
        if config.split_text:
            raise UserError("split_text and split files in k_folds are both given; remove one of them")
        ids = [tile for fold in folds for tile in fold]
    else:
        ids = select(available, config.split_text, config.dataset_path)
        folds = make_folds(ids, config.k_folds, config.seed) if config.k_folds else []
    plan = []
    for number, fold in enumerate(folds, start=1):
        rest = [tile for tile in ids if tile not in set(fold)]
        plan.append(split_stage(config, tiles, f"fold-{number}", rest, fold))
    plan.append(split_stage(config, tiles, FINAL_STAGE, ids))
    return plan


def check_stages(plan: Sequence[StagePlan], tiles: Tiles, priors: Priors | None = None) -> TileCheck:
    """Read every tile of a plan once; its size and oddities."""
    priors = priors or {}
    used = dict.fromkeys(tile for stage in plan for tile in [*stage.train, *stage.held_out])
    test = dict.fromkeys(tile for s in plan if s.validation_part == TEST_PART for tile in s.validation)
    used |= dict.fromkeys(tile for s in plan if s.validation_part == TRAINING_PART for tile in s.validation)
    if test:
        check_tiles(tiles.test, list(test), priors.get(TEST_PART))
    return check_tiles(tiles.training, list(used), priors.get(TRAINING_PART))


def stage_datasets(
    config: TrainingConfig,
    tiles: Tiles,
    stage: StagePlan,
    priors: Priors | None = None,
    crop: int = 0,
    empty: Collection[str] = (),
) -> tuple[TileDataset, TileDataset | None]:
    """Training and validation tiles of a stage; ``empty`` ones, in which no height is valid, are not trained on."""
    # Every worker keeps a part of its own.
    cache = config.cache_gigabytes * _BYTES / max(config.num_workers, 1)
    priors = priors or {}
    own = priors.get(TRAINING_PART)
    teaching = [tile for tile in stage.train if tile not in set(empty)] or stage.train
    train = TileDataset(tiles.training, teaching, own, config.flips, crop, config.seed, cache * 0.9)
    if not stage.validation:
        return train, None
    part = stage.validation_part
    return train, TileDataset(tiles.part(part), stage.validation, priors.get(part), cache_bytes=cache * 0.1)


@dataclass(frozen=True)
class CoarseSetup:
    """What a ViT run works on: its tiles, its stages, what checking found."""

    tiles: Tiles
    plan: list[StagePlan]
    check: TileCheck


def check_coarse(config: ViTTrainingConfig) -> CoarseSetup:
    """Find the tiles, and whatever can be known to be wrong before anything is written.

    Raises:
        UserError: what is wrong.
    """
    tiles = find_tiles(config)
    plan = plan_coarse(config, tiles)
    return CoarseSetup(tiles, plan, check_stages(plan, tiles))


def run_coarse(config: ViTTrainingConfig, folder: Path, resume: bool) -> Path:
    """Train a ViT run to its end; returns the model folder.

    Folds that another launch has claimed are left to it: several can work on one run, on any machines that share its
    folder, each started with ``--resume``.

    Raises:
        UserError: whatever the user can mend; checkpoints up to then are kept.
        Stopped: a signal asked for it.
    """
    setup = on_main(lambda: check_coarse(config))
    everywhere(lambda: build_coarse(config))  # fails early, before anything is written
    on_main(lambda: open_run(folder, config, setup.plan, resume))
    elsewhere = []
    with resumable("trainViT.py", folder):
        for stage in setup.plan:
            try:
                with claim(folder / stage.name):
                    _run_stage(config, setup, stage, folder)
            except ClaimedError as error:
                elsewhere.append(error)
    if len(elsewhere) == len(setup.plan):
        raise claimed_elsewhere(folder, elsewhere)
    for other in elsewhere:
        logger.info("left to another process: %s", other)
    model = folder / MODEL_FOLDER
    if len(setup.plan) > 1 and not elsewhere:
        count = sum(len(stage.held_out) for stage in setup.plan)
        logger.info("out-of-fold priors of %d tiles: %s", count, _priors_folder(config, folder))
    if model.is_dir():
        logger.info("model: %s", model)
    return model


def _run_stage(config: ViTTrainingConfig, setup: CoarseSetup, stage: StagePlan, folder: Path) -> None:
    """Train a fold and write its priors, or train the final network and save it."""
    logger.info("%s: %d training, %d validation tiles", stage.name, len(stage.train), len(stage.validation))
    # Every stage starts from the same pretrained weights, or from random ones of its own.
    torch.manual_seed(derive_seed(config.seed, stage.name, "weights"))
    network = build_coarse(config)
    fit(
        CoarseTask(network, config.losses),
        *stage_datasets(config, setup.tiles, stage, empty=setup.check.empty),
        loop_settings(config),
        folder / stage.name,
    )
    if stage.held_out:
        priors = _priors_folder(config, folder)
        on_main(lambda: _remove_half_written(priors, stage.held_out))
        _write_held_out_priors(network, config, setup.tiles, stage, folder / stage.name, priors)
    if stage.name == FINAL_STAGE:
        on_main(lambda: save_model(D3RSMDE(coarse=network, tile_size=min(setup.check.size)), folder))


def _remove_half_written(priors: Path, tiles: Sequence[str]) -> None:
    """Remove what a process that was killed left of these tiles' priors; those of other folds may be being written."""
    names = {prior_file(priors, TRAINING_PART, tile).name for tile in tiles}
    for leftover in prior_file(priors, TRAINING_PART, "").parent.glob(".*.tmp"):
        if leftover.name[1:].rsplit(".", 2)[0] in names:
            leftover.unlink(missing_ok=True)


def _priors_folder(config: ViTTrainingConfig, folder: Path) -> Path:
    return Path(config.prior_path) if config.prior_path else folder / PRIORS_FOLDER


def _write_held_out_priors(
    network: CoarseNet, config: ViTTrainingConfig, tiles: Tiles, stage: StagePlan, folder: Path, priors: Path
) -> None:
    """Predict the tiles that this stage never saw; the manifest, written last, marks the work as done."""
    manifest = folder / _MANIFEST
    chosen = everywhere(lambda: load_checkpoint(best_checkpoint(folder))).progress
    # Decided once: processes that see a shared disk differently must not part ways.
    if on_main(lambda: _epoch_of_priors(manifest) == chosen.epoch):
        return
    dataset = TileDataset(tiles.training, stage.held_out)
    write_priors(network, dataset, TRAINING_PART, priors, config.batch_size, config.num_workers)
    facts = {"prior_path": str(priors), "epoch": chosen.epoch, "out_of_fold": True, "tiles": stage.held_out}

    def mark_as_done() -> None:
        try:
            write_json(manifest, facts)
        except OSError as error:
            raise write_error(manifest, error, "continue with --resume") from error

    on_main(mark_as_done)


def _epoch_of_priors(manifest: Path) -> int | None:
    """The epoch whose weights drew the priors (a longer run may find a better one), None before they were drawn."""
    try:
        return int(json.loads(manifest.read_text(encoding="utf-8"))["epoch"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


@torch.no_grad()
def write_priors(
    network: CoarseNet, dataset: TileDataset, part: str, folder: Path, batch_size: int, num_workers: int
) -> None:
    """Write the coarse map of every tile as a 16-bit prior; the processes of a launch share them.

    Raises:
        UserError: a file that cannot be written.
    """
    network.eval()
    device = next(network.parameters()).device

    def write() -> None:
        for batch in on_device(make_loader(dataset, batch_size, num_workers, shared=True), device):
            maps = network(batch["image"])[:, 0].float().cpu().numpy()
            for tile, values in zip(batch["id"], maps, strict=True):
                save_prior(prior_file(folder, part, tile), values)

    everywhere(write)


def save_prior(path: Path, values: object) -> None:
    """Write one prior (H, W) in [0, 1] as a 16-bit PNG, making its folder."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_map_16bit(path, values)  # type: ignore[arg-type]
    except (OSError, RasterError) as error:
        raise write_error(path, error, "set prior_path to a folder that can be written, and continue") from error
