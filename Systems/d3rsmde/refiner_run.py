"""A diffusion run: the autoencoder first, where it is to be trained, then the refiner in its frozen latent space."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from Modules.backbones.vit import pad_to_multiple
from Modules.common.inference import vae_precision
from Modules.d3rsmde.autoencoders import (
    Autoencoder,
    AutoencoderShape,
    encode,
    latent_stride,
    load_folder,
    measure_latent_scale,
    measure_squeezed_scale,
)
from Modules.d3rsmde.coarse import CoarseNet
from Modules.d3rsmde.pipeline import to_vae
from Systems.d3rsmde.build import MODEL_FOLDER, VAE_FOLDER, build_model, build_teacher, build_vae, load_coarse
from Systems.d3rsmde.coarse_run import Priors, Tiles, check_stages, find_tiles, split_stage, stage_datasets
from Systems.d3rsmde.distillation import DistillationTask
from Systems.d3rsmde.latents import keep_latents
from Systems.d3rsmde.tasks import AutoencoderTask, RefinerTask
from Utils.config.settings import DiffusionTrainingConfig
from Utils.core.errors import UserError
from Utils.core.processes import everywhere, launch, on_main
from Utils.core.seeds import derive_seed
from Utils.data.loading import make_loader
from Utils.data.splits import select
from Utils.data.tiles import TRAINING_PART, TileCheck, TileDataset, find_priors
from Utils.scoring.tile_scorer import on_device
from Utils.training.checkpoint import load_checkpoint
from Utils.training.claims import ClaimedError, claim, claimed_elsewhere
from Utils.training.loop import fit, last_checkpoint
from Utils.training.run_folder import StagePlan, loop_settings, open_run, resumable, save_folder, save_model

logger = logging.getLogger(__name__)

_VAE_STAGE, _UNET_STAGE = "vae", "unet"
_LATENTS_FOLDER = "latents"
# Latents of this many tiles give the spread of a freshly trained autoencoder to about a per cent.
_TILES_FOR_SCALE = 64


def plan_refiner(config: DiffusionTrainingConfig, tiles: Tiles) -> list[StagePlan]:
    """The stages of a diffusion run: the autoencoder's where it is trained, and the U-Net's, on the same tiles.

    Raises:
        UserError: split files that do not fit the dataset.
    """
    ids = select(list(tiles.training), config.split_text, config.dataset_path)
    unet = split_stage(config, tiles, _UNET_STAGE, ids)
    return [replace(unet, name=_VAE_STAGE), unet] if config.vae_epochs else [unet]


def find_all_priors(config: DiffusionTrainingConfig, plan: Sequence[StagePlan]) -> Priors:
    """The prior files of all tiles of a plan."""
    folder = Path(config.prior_path or config.dataset_path)
    stage = plan[-1]
    wanted: dict[str, list[str]] = {TRAINING_PART: [*stage.train]}
    wanted.setdefault(stage.validation_part, []).extend(stage.validation)
    return {part: find_priors(folder, part, ids) for part, ids in wanted.items()}


@dataclass(frozen=True)
class RefinerSetup:
    """What a diffusion run works on: its tiles, its stages, the priors, what checking found."""

    tiles: Tiles
    plan: list[StagePlan]
    priors: Priors
    check: TileCheck


def check_refiner(config: DiffusionTrainingConfig) -> RefinerSetup:
    """Find tiles and priors, and whatever can be known to be wrong before anything is written.

    Raises:
        UserError: what is wrong.
    """
    tiles = find_tiles(config)
    plan = plan_refiner(config, tiles)
    priors = find_all_priors(config, plan)
    check = check_stages(plan, tiles, priors)
    size = check.size
    if config.vae_epochs and config.vae_lr == 0.0:
        raise UserError("vae_epochs is set but vae_lr is 0; the autoencoder would learn nothing")
    if config.vae_crop_size > min(size):
        raise UserError(f"vae_crop_size {config.vae_crop_size} is larger than the tiles, {size[1]} x {size[0]}")
    if config.vae_path is None and config.pretrained_vae_path is None and not config.vae_epochs:
        raise UserError("vae_path is empty and vae_epochs is 0: the autoencoder would stay random; give one of them")
    sources = [config.vae_path, config.pretrained_vae_path, config.teacher_vae_path]
    if config.teacher_vae_path and all(Path(source).exists() for source in sources if source):
        build_teacher(config, _build_vae(config))  # those of the hub are downloaded when the run starts, not to check
    return RefinerSetup(tiles, plan, priors, check)


def run_refiner(config: DiffusionTrainingConfig, folder: Path, resume: bool) -> Path:
    """Train a diffusion run to its end; returns the model folder.

    Raises:
        UserError: whatever the user can mend; checkpoints up to then are kept.
    """
    setup = on_main(lambda: check_refiner(config))
    torch.manual_seed(derive_seed(config.seed, _VAE_STAGE, "weights"))
    vae, teacher, coarse = everywhere(lambda: _build_parts(config))
    on_main(lambda: open_run(folder, config, setup.plan, resume))
    try:
        with resumable("trainDiffusion.py", folder):
            if config.vae_epochs:
                with claim(folder / _VAE_STAGE):
                    _train_vae(config, setup, vae, teacher, folder / _VAE_STAGE)
            del teacher  # the U-Net needs the memory
            with claim(folder / _UNET_STAGE):
                _train_unet(config, setup, vae, coarse, folder)
    except ClaimedError as error:
        raise claimed_elsewhere(folder, [error]) from error
    model = folder / MODEL_FOLDER
    logger.info("model: %s", model)
    return model


def _build_parts(config: DiffusionTrainingConfig) -> tuple[Autoencoder, Autoencoder | None, CoarseNet | None]:
    """The autoencoder, its teacher and the coarse net; whatever can fail of them fails here.

    Raises:
        UserError: weights that are missing or do not fit, sizes that do not go together.
    """
    vae = _build_vae(config)
    if config.vae_crop_size % latent_stride(vae):
        stride = latent_stride(vae)
        raise UserError(f"vae_crop_size {config.vae_crop_size} is no multiple of the latent stride {stride}")
    teacher = build_teacher(config, vae)
    coarse = load_coarse(Path(config.coarse_checkpoint_path)) if config.coarse_checkpoint_path else None
    build_model(config, vae, coarse)
    return vae, teacher, coarse


def _train_unet(
    config: DiffusionTrainingConfig, setup: RefinerSetup, vae: Autoencoder, coarse: CoarseNet | None, folder: Path
) -> None:
    """Train the U-Net in the latent space of an autoencoder that is final, and save the model."""
    vae.requires_grad_(False).eval()
    # Beside the U-Net's checkpoints, which hold the U-Net alone.
    on_main(lambda: save_folder(folder / VAE_FOLDER, vae.save_pretrained))
    torch.manual_seed(derive_seed(config.seed, _UNET_STAGE, "weights"))
    model = build_model(config, vae, coarse)
    train, validation = stage_datasets(config, setup.tiles, setup.plan[-1], setup.priors, empty=setup.check.empty)
    logger.info("%s: %d training, %d validation tiles", _UNET_STAGE, len(train), len(validation or []))
    task = RefinerTask(model, config.losses, config.own_prediction_share, config.one_step)
    with ExitStack() as kept:
        if config.keep_latents:
            latents = Path(config.latent_path) if config.latent_path else folder / _LATENTS_FOLDER
            size = config.latent_gigabytes
            train = kept.enter_context(keep_latents(task, model, train, latents, size, config.num_workers))
        fit(task, train, validation, loop_settings(config), folder / _UNET_STAGE)
    model.register_to_config(tile_size=min(setup.check.size))
    on_main(lambda: save_model(model.to("cpu"), folder))


def _build_vae(config: DiffusionTrainingConfig) -> Autoencoder:
    section = config.vae
    shape = AutoencoderShape(
        tuple(section.block_out_channels), section.layers_per_block, section.latent_channels, section.norm_num_groups
    )
    # Without vae_path, a whole autoencoder in pretrained_vae_path needs no shape; else the config's is built.
    return build_vae(config, None if config.pretrained_vae_path and not config.vae_epochs else shape)


def _train_vae(
    config: DiffusionTrainingConfig,
    setup: RefinerSetup,
    vae: Autoencoder,
    teacher: Autoencoder | None,
    folder: Path,
) -> None:
    """Train or tune the autoencoder.

    One that was built here gets the scale of its latents measured: afterwards, to unit variance; with a teacher before,
    since the teacher's latents are what it learns.
    """
    stage = setup.plan[0]
    is_built = config.vae_path is None and config.pretrained_vae_path is None
    # Tiles without a valid height are not left out: images teach the autoencoder as well.
    train, validation = stage_datasets(config, setup.tiles, stage, crop=config.vae_crop_size)
    settings = loop_settings(
        config,
        epochs=config.vae_epochs,
        lr=config.vae_lr,
        batch_size=config.vae_batch_size or config.batch_size,
        precision=vae_precision(vae, config.precision),
    )
    logger.info("%s: %d training, %d validation tiles", stage.name, len(train), len(validation or []))
    task = AutoencoderTask(vae, config.vae_type, config.margin)
    if teacher is not None:
        task = DistillationTask(vae, config.vae_type, teacher, config.margin)
    task.to(launch().device)
    if teacher is not None and is_built:
        scale = on_main(lambda: _pupil_scale(teacher, setup.tiles, stage, folder))
        vae.register_to_config(scaling_factor=scale)
    fit(task, train, validation, settings, folder)
    if teacher is None and is_built:
        vae.eval().register_to_config(scaling_factor=1.0)
        scale = on_main(lambda: _own_scale(vae, setup.tiles, stage, folder.with_name(VAE_FOLDER)))
        vae.register_to_config(scaling_factor=scale)


def _own_scale(vae: Autoencoder, tiles: Tiles, stage: StagePlan, kept: Path) -> float:
    """The scale to unit variance: that of the finished autoencoder in ``kept``, if the run has come so far.

    Measured again on another device it would differ in its last digits, and all kept latents with it.

    Raises:
        UserError: a folder that is damaged.
    """
    if not kept.is_dir():
        return measure_latent_scale(_some_latents(vae, tiles, stage))
    try:
        return float(load_folder(kept).config["scaling_factor"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"'{kept}' does not say the scale of its latents: {error}; start a new run") from error


def _pupil_scale(teacher: Autoencoder, tiles: Tiles, stage: StagePlan, folder: Path) -> float:
    """The scale that suits the teacher's latents, or the one that the stage began with.

    Raises:
        UserError: a checkpoint that does not say its own.
    """
    last = last_checkpoint(folder)
    if not last.is_file():
        return measure_squeezed_scale(_some_latents(teacher, tiles, stage))
    try:
        return float(load_checkpoint(last).architecture["vae"]["scaling_factor"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"'{last}' does not say the scale of its latents; start a new run") from error


@torch.no_grad()
def _some_latents(vae: Autoencoder, tiles: Tiles, stage: StagePlan) -> list[Tensor]:
    """Scaled latents of the stage's first training tiles, images and maps; one at a time, as these are whole tiles."""
    dataset = TileDataset(tiles.training, stage.train[:_TILES_FOR_SCALE])
    logger.info("%s: measuring the scale of the latents on %d tiles", stage.name, len(dataset))
    device = next(vae.parameters()).device
    return [
        encode(vae, pad_to_multiple(to_vae(values), latent_stride(vae)))
        for batch in on_device(make_loader(dataset, 1, 0), device)
        for values in (batch["image"], batch["height"])
    ]
