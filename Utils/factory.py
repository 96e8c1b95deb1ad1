"""The one place that maps a config's names to classes, and a user's path to a model."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from safetensors import SafetensorError
from torch import Tensor

from Modules.autoencoders import (
    Autoencoder,
    AutoencoderShape,
    VaeType,
    build_autoencoder,
    check_family,
    latent_channels,
    load_autoencoder,
)
from Modules.coarse import CoarseNet
from Modules.pipeline import D3RSMDE
from Modules.plbr import PLBRScheduler
from Modules.refiner import PUBLISHED_REFINERS, build_refiner
from Utils.checkpoint import load_checkpoint, load_weights
from Utils.config import DiffusionEvaluationConfig, DiffusionSection, DiffusionTrainingConfig, ViTTrainingConfig
from Utils.errors import UserError
from Utils.tasks import AutoencoderTask, CoarseTask, RefinerTask

logger = logging.getLogger(__name__)

MODEL_FOLDER = "model"
VAE_FOLDER = "frozen_vae"


def build_coarse(config: ViTTrainingConfig) -> CoarseNet:
    """Stage 1's network with its first weights: random, timm's pretrained ones, or ``pretrained_model_path``'s.

    Raises:
        UserError: a name, option or file that does not fit, or pretrained weights that cannot be had.
    """
    section = config.model
    given = config.pretrained_model_path
    try:
        network = CoarseNet(section.backbone, section.taps, section.options, section.features, section.readout)
        if given is None:
            if section.pretrained:
                network.load_backbone(True)
        elif _is_ours(Path(given)):
            source = load_coarse(Path(given))
            load_weights(network, source.state_dict(), given)
        else:
            network.load_backbone(Path(given))
    except (ValueError, OSError) as error:
        raise _as_user_error(error) from error
    return network


def _is_ours(path: Path) -> bool:
    """Whether a path is a run, a model folder or a checkpoint of this project, not a file of backbone weights."""
    if path.is_dir():
        return True
    if path.suffix != ".safetensors" or not path.is_file():
        return False
    try:
        load_checkpoint(path)
    except UserError:
        return False
    return True


def load_coarse(path: Path) -> CoarseNet:
    """Stage 1 from a run folder, a model folder or a checkpoint file.

    Raises:
        UserError: nothing there, or no stage 1 in it.
    """
    if path.is_file():
        checkpoint = load_checkpoint(path)
        if checkpoint.task != CoarseTask.name:
            raise UserError(f"checkpoint '{path}' holds a network of kind '{checkpoint.task}', not stage 1")
        network = CoarseNet(**checkpoint.architecture)
        load_weights(network, checkpoint.network, str(path))
        return network.eval()
    model = load_model(path)
    if model.coarse is None:
        raise UserError(f"the model '{path}' holds no stage 1; give the folder of a ViT run")
    return model.coarse


def load_model(path: Path) -> D3RSMDE:
    """A trained model from its folder, or from the folder of the run that wrote it.

    Raises:
        UserError: no model there, or a damaged one.
    """
    folder = path / MODEL_FOLDER if (path / MODEL_FOLDER).is_dir() else path
    if not path.exists():
        raise UserError(f"checkpoint_path '{path}' does not exist; train first, or correct the path")
    if path.is_file():
        raise UserError(f"'{path}' is a file, and a whole model is a folder")
    if not (folder / "model_index.json").is_file():
        raise UserError(f"'{path}' holds no finished model; a run writes '{MODEL_FOLDER}/' at its end (see --resume)")
    try:
        return D3RSMDE.from_pretrained(folder)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"the model '{folder}' cannot be loaded: {reason}") from error


def build_vae(
    config: DiffusionTrainingConfig | DiffusionEvaluationConfig, fallback: AutoencoderShape | None
) -> Autoencoder:
    """The autoencoder of ``vae_path``, or one of shape ``fallback``, with ``pretrained_vae_path``'s weights in it.

    Raises:
        UserError: a path, hub name, layout, family or shape that does not fit.
    """
    try:
        if config.vae_path is not None:
            vae = load_autoencoder(config.vae_type, config.vae_path)
        elif fallback is not None:
            vae = build_autoencoder(config.vae_type, fallback)
        elif config.pretrained_vae_path is not None:
            return load_autoencoder(config.vae_type, config.pretrained_vae_path)
        else:
            raise UserError("vae_path is empty and there is no autoencoder beside the checkpoint; give vae_path")
        if config.pretrained_vae_path is not None:
            tuned = _vae_weights(config.vae_type, Path(config.pretrained_vae_path))
            load_weights(vae, tuned, config.pretrained_vae_path)
    except (ValueError, OSError, RuntimeError) as error:
        raise _as_user_error(error) from error
    return vae


def _vae_weights(vae_type: VaeType, path: Path) -> Mapping[str, Tensor]:
    """Weights of an autoencoder: a diffusers folder, a file in LDM layout, or a checkpoint of this project."""
    if not path.exists():
        raise UserError(f"pretrained_vae_path '{path}' does not exist")
    if path.is_file() and path.suffix == ".safetensors":
        try:
            checkpoint = load_checkpoint(path)
        except UserError:
            return load_autoencoder(vae_type, str(path)).state_dict()
        if checkpoint.task != AutoencoderTask.name:
            raise UserError(f"'{path}' holds a network of kind '{checkpoint.task}', not an autoencoder")
        return checkpoint.network
    return load_autoencoder(vae_type, str(path)).state_dict()


def build_model(config: DiffusionTrainingConfig, vae: Autoencoder, coarse: CoarseNet | None) -> D3RSMDE:
    """Stage 2 with a fresh U-Net around a given autoencoder.

    Raises:
        UserError: sizes that do not fit together, or ``pretrained_model_path`` of another architecture.
    """
    shape = PUBLISHED_REFINERS[config.vae_type]
    given = {key: value for key, value in config.unet.model_dump().items() if value is not None}
    changes: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in given.items()}
    shape = replace(shape, **changes)
    if "dropout" in config.model_fields_set:
        shape = replace(shape, dropout=config.dropout)
    schedule = build_schedule(config.diffusion_cfg)
    try:
        unet = build_refiner(shape, latent_channels(vae), len(schedule.weights))
    except ValueError as error:
        raise _as_user_error(error) from error
    if config.pretrained_model_path is not None:
        load_weights(unet, _unet_weights(Path(config.pretrained_model_path)), config.pretrained_model_path)
    return D3RSMDE(coarse, vae, unet, schedule, config.vae_type, config.diffusion_cfg.steps)


def build_schedule(section: DiffusionSection) -> PLBRScheduler:
    """The blending schedule of ``diffusion_cfg``."""
    return PLBRScheduler(section.betas.start, section.betas.stop, section.betas.num_timesteps)


def _unet_weights(path: Path) -> Mapping[str, Tensor]:
    """Weights of a U-Net: a run, a model folder, or a checkpoint of this project."""
    if path.is_file():
        checkpoint = load_checkpoint(path)
        if checkpoint.task != RefinerTask.name:
            raise UserError(f"checkpoint '{path}' holds a network of kind '{checkpoint.task}', not a U-Net")
        return checkpoint.network
    model = load_model(path)
    if not model.refines:
        raise UserError(f"the model '{path}' holds no stage 2")
    return model.unet.state_dict()


def load_refiner(config: DiffusionEvaluationConfig) -> D3RSMDE:
    """The model that ``evaluateDiffusion.py`` scores: a run, a model folder, or a U-Net checkpoint of a run.

    A folder is complete.  A checkpoint file is a U-Net alone: its autoencoder is that of ``vae_path`` (with
    ``pretrained_vae_path``), or the one that its own run trained.

    Raises:
        UserError: nothing there, no stage 2 in it, another ``vae_type`` or schedule.
    """
    path = Path(config.checkpoint_path)
    if path.is_file():
        model = _refiner_from_checkpoint(path, config)
    else:
        model = load_model(path)
        if not model.refines:
            raise UserError(f"the model '{path}' holds no stage 2; evaluate it with evaluateViT.py")
        if config.vae_path or config.pretrained_vae_path:
            logger.info("the model folder holds its own autoencoder; vae_path and pretrained_vae_path are not read")
    try:
        check_family(model.vae, config.vae_type, config.checkpoint_path)
    except ValueError as error:
        raise _as_user_error(error) from error
    trained, asked = model.scheduler, build_schedule(config.diffusion_cfg)
    if "betas" in config.diffusion_cfg.model_fields_set and not torch.equal(trained.weights, asked.weights):
        raise UserError(
            f"diffusion_cfg.betas asks for weights {asked.weights.tolist()}, but '{path}' was trained with "
            f"{trained.weights.tolist()}; leave betas out to use the model's own"
        )
    model.register_to_config(steps=config.diffusion_cfg.steps or model.config["steps"])
    return model


def _refiner_from_checkpoint(path: Path, config: DiffusionEvaluationConfig) -> D3RSMDE:
    checkpoint = load_checkpoint(path)
    if checkpoint.task != RefinerTask.name:
        raise UserError(f"checkpoint '{path}' holds a network of kind '{checkpoint.task}', not a U-Net")
    beside = path.parents[2] / VAE_FOLDER  # <run>/unet/checkpoints/<name>.safetensors
    if config.vae_path is None and config.pretrained_vae_path is None and beside.is_dir():
        config = config.model_copy(update={"vae_path": str(beside)})
    vae = build_vae(config, None)
    unet = UNet2DModel.from_config(checkpoint.architecture["unet"])
    load_weights(unet, checkpoint.network, str(path))
    schedule = PLBRScheduler.from_config(checkpoint.architecture["scheduler"])
    return D3RSMDE(None, vae, unet, schedule, config.vae_type)


def _as_user_error(error: Exception) -> UserError:
    return error if isinstance(error, UserError) else UserError(str(error).strip().splitlines()[0])
