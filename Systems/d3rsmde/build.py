"""The one place that maps a config's names to classes, and a user's path to a model."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from torch import Tensor

from Modules.d3rsmde.autoencoders import (
    Autoencoder,
    AutoencoderShape,
    build_autoencoder,
    check_family,
    latent_channels,
    latent_stride,
    load_autoencoder,
)
from Modules.d3rsmde.coarse import CoarseNet, StageOne
from Modules.d3rsmde.names import VAE_TYPES, VaeType
from Modules.d3rsmde.pipeline import D3RSMDE
from Modules.d3rsmde.plbr import PLBRScheduler
from Modules.d3rsmde.refiner import PUBLISHED_REFINERS, build_refiner
from Modules.depth.enc_dec import EncDec
from Modules.depth.names import DEPTH_TASK
from Systems.d3rsmde.config import (
    DiffusionEvaluationConfig,
    DiffusionSection,
    DiffusionTrainingConfig,
    ViTTrainingConfig,
)
from Systems.d3rsmde.tasks.autoencoder_task import AutoencoderTask
from Systems.d3rsmde.tasks.coarse_task import CoarseTask
from Systems.d3rsmde.tasks.refiner_task import RefinerTask
from Utils.core.errors import UserError, as_user_error, first_line
from Utils.training.checkpoint import load_weights
from Utils.training.checkpointed_network import (
    checkpoint_of,
    from_architecture,
    give_first_weights,
    holds_network,
    is_checkpoint,
    load_network,
    model_folder,
    unbuildable,
)
from Utils.training.run_files import MODEL_FOLDER

logger = logging.getLogger(__name__)

VAE_FOLDER = "frozen_vae"


def build_coarse(config: ViTTrainingConfig) -> CoarseNet:
    """Stage 1's network with its first weights: random, timm's pretrained ones, or ``pretrained_model_path``'s.

    That path is a run, a model folder or a checkpoint of this project (the whole network), or a file of backbone
    weights in timm's layout (the encoder alone).

    Raises:
        UserError: a name, option or file that does not fit, or pretrained weights that are not available.
    """
    section = config.model
    try:
        network = CoarseNet(section.backbone, section.taps, section.options, section.features, section.readout)
        give_first_weights(network, section.pretrained, config.pretrained_model_path, load_coarse)
    except (ValueError, OSError) as error:
        raise as_user_error(error) from error
    return network


def load_coarse(path: Path) -> StageOne:
    """Stage 1, ready to predict, from a run folder, a model folder or a checkpoint file, also those of a depth network.

    Raises:
        UserError: there is nothing, or no stage 1 in it.
    """
    if holds_network(path, EncDec, DEPTH_TASK):
        depth = load_network(path, EncDec, DEPTH_TASK)
        if depth.draws is None:
            raise UserError(
                f"the depth network '{path}' does not say what rises in its maps, so it cannot be stage 1; resume its "
                "run with --set direction=height (or depth, inverse depth), which trains nothing again"
            )
        if size := depth.config["image_size"]:
            logger.warning(
                "'%s' learnt from images of %d x %d pixels (image_size); as stage 1 it sees tiles as they are, which "
                "is right for tiles of that size alone",
                path,
                size[1],
                size[0],
            )
        return depth
    if path.is_file():
        checkpoint = checkpoint_of(path, CoarseTask.name)
        network = from_architecture(lambda: CoarseNet(**checkpoint.architecture), checkpoint, path)
        load_weights(network, checkpoint.weights, str(path))
        return network.eval()
    model = load_model(path)
    if model.coarse is None:
        raise UserError(f"the model '{path}' holds no stage 1; give the folder of a ViT run or of a depth run")
    return model.coarse


def load_model(path: Path) -> D3RSMDE:
    """A trained model from its folder, or from the folder of the run that wrote it.

    Raises:
        UserError: there is no model, or a damaged one.
    """
    folder = model_folder(path)
    if not path.exists():
        raise UserError(f"no model at '{path}': the path does not exist; train first, or correct the path")
    if path.is_file():
        raise UserError(f"'{path}' is a file, and a whole model is a folder")
    if not (folder / "model_index.json").is_file():
        raise UserError(f"'{path}' holds no finished model; a run writes '{MODEL_FOLDER}/' at its end (see --resume)")
    try:
        return D3RSMDE.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise UserError(f"the model '{folder}' cannot be loaded: {first_line(error)}") from error


def build_vae(config: DiffusionTrainingConfig, fallback: AutoencoderShape | None) -> Autoencoder:
    """The autoencoder that a training config asks for; see ``find_vae``."""
    return find_vae(config.vae_type, config.vae_path, config.pretrained_vae_path, fallback)


def find_vae(
    vae_type: VaeType, path: str | None, pretrained_path: str | None, fallback: AutoencoderShape | None
) -> Autoencoder:
    """Load an autoencoder or, without a path, build one.

    Args:
        vae_type: family of the autoencoder.
        path: the config's ``vae_path``, which gives architecture and scaling.
        pretrained_path: the config's ``pretrained_vae_path``, which gives the weights. If only one of the paths is
            given, it gives architecture, scaling and weights.
        fallback: shape of the autoencoder that is built when there is no path.

    Raises:
        UserError: a path, hub name, layout, family or shape that does not fit.
    """
    try:
        if path is None and pretrained_path is None:
            if fallback is None:
                raise UserError("vae_path is empty and there is no autoencoder beside the checkpoint; give vae_path")
            return build_autoencoder(vae_type, fallback)
        if path is None or pretrained_path is None:
            return _load_whole_vae(vae_type, path or pretrained_path or "")
        vae = load_autoencoder(vae_type, path)
        load_weights(vae, _vae_weights(vae_type, pretrained_path), pretrained_path)
    except (ValueError, OSError) as error:
        raise as_user_error(error) from error
    return vae


def _load_whole_vae(vae_type: VaeType, source: str) -> Autoencoder:
    """An autoencoder with the scale of its latents."""
    if is_checkpoint(Path(source)):
        raise UserError(
            f"'{source}' is a checkpoint, which lacks the scale of the latents; "
            f"give the folder '{VAE_FOLDER}' of its run"
        )
    return load_autoencoder(vae_type, source)


def build_teacher(config: DiffusionTrainingConfig, vae: Autoencoder) -> Autoencoder | None:
    """The large autoencoder that teaches ``vae``, None where the config names none.

    Raises:
        UserError: a path, hub name, layout or family that does not fit; latents of another shape than those of ``vae``.
    """
    vae_type, source = config.teacher_vae_type, config.teacher_vae_path
    if vae_type is None or source is None:
        return None
    try:
        teacher = _load_whole_vae(vae_type, source)
    except (ValueError, OSError) as error:
        raise UserError(f"teacher_vae_path: {first_line(error)}") from error
    own, taught = ((latent_channels(each), latent_stride(each)) for each in (vae, teacher))
    if own != taught:
        raise UserError(
            f"the teacher '{source}' has latents of {taught[0]} channels and stride {taught[1]}, but the light VAE of "
            f"{own[0]} and {own[1]}; they must be the same: change latent_channels, or the number of block_out_channels"
        )
    return teacher


def _vae_weights(vae_type: VaeType, source: str) -> Mapping[str, Tensor]:
    """Weights of an autoencoder: a checkpoint of this project, or whatever ``load_autoencoder`` takes."""
    if is_checkpoint(Path(source)):
        return checkpoint_of(Path(source), AutoencoderTask.name).weights
    return load_autoencoder(vae_type, source).state_dict()


def build_model(config: DiffusionTrainingConfig, vae: Autoencoder, coarse: StageOne | None) -> D3RSMDE:
    """Stage 2 with a fresh U-Net around a given autoencoder.

    The U-Net has the published sizes of the autoencoder's family, unless ``unet`` or ``dropout`` change them, and the
    weights of ``pretrained_model_path``: a run, a model folder or a U-Net checkpoint.

    Raises:
        UserError: sizes that do not fit together, or weights of another architecture.
    """
    given = {key: value for key, value in config.unet.model_dump().items() if value is not None}
    changes: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in given.items()}
    if config.dropout is not None:
        changes["dropout"] = config.dropout
    schedule = build_schedule(config.diffusion_cfg)
    try:
        shape = replace(PUBLISHED_REFINERS[config.vae_type], **changes)
        unet = build_refiner(shape, latent_channels(vae), len(schedule.weights))
        model = D3RSMDE(coarse, vae, unet, schedule, config.steps, config.margin)
    except ValueError as error:
        raise as_user_error(error) from error
    if config.pretrained_model_path is not None:
        load_weights(unet, _unet_weights(Path(config.pretrained_model_path)), config.pretrained_model_path)
    return model


def build_schedule(section: DiffusionSection) -> PLBRScheduler:
    """The blending schedule of ``diffusion_cfg``."""
    return PLBRScheduler(section.betas.start, section.betas.stop, section.betas.num_timesteps)


def _unet_weights(path: Path) -> Mapping[str, Tensor]:
    """Weights of a U-Net: a run, a model folder, or a checkpoint of this project."""
    if path.is_file():
        return checkpoint_of(path, RefinerTask.name).weights
    model = load_model(path)
    if not model.refines:
        raise UserError(f"the model '{path}' holds no stage 2")
    return model.unet.state_dict()


def load_refiner(config: DiffusionEvaluationConfig) -> D3RSMDE:
    """The model that ``evaluateDiffusion.py`` scores: a run, a model folder, or a U-Net checkpoint of a run.

    A folder is complete. A checkpoint file holds only a U-Net; its autoencoder is the one that its run has kept, or
    else that of ``vae_path`` and ``pretrained_vae_path``.

    Raises:
        UserError: there is nothing, or no stage 2 in it; another ``vae_type`` or schedule.
    """
    path = Path(config.checkpoint_path)
    if path.is_file():
        model = _refiner_from_checkpoint(path, config)
    else:
        model = load_model(path)
        if not model.refines:
            raise UserError(f"the model '{path}' holds no stage 2; evaluate it with evaluateViT.py")
        _say_that_vae_paths_are_not_read(config, path)
    trained, asked = model.scheduler, build_schedule(config.diffusion_cfg)
    if "betas" in config.diffusion_cfg.model_fields_set and not torch.equal(trained.weights, asked.weights):
        raise UserError(
            f"diffusion_cfg.betas asks for weights {asked.weights.tolist()}, but '{path}' was trained with "
            f"{trained.weights.tolist()}; leave betas out to use the model's own"
        )
    steps = config.diffusion_cfg.steps or model.config["steps"]
    try:
        if config.vae_type is not None:
            check_family(model.vae, config.vae_type, config.checkpoint_path)
        trained.set_timesteps(steps)
    except ValueError as error:
        raise as_user_error(error) from error
    model.register_to_config(steps=steps)
    return model


def _refiner_from_checkpoint(path: Path, config: DiffusionEvaluationConfig) -> D3RSMDE:
    checkpoint = checkpoint_of(path, RefinerTask.name)
    architecture = checkpoint.architecture
    vae_type = config.vae_type or architecture.get("vae_type")
    if vae_type not in VAE_TYPES:
        raise UserError(f"checkpoint '{path}' does not name the family of its autoencoder; set vae_type")
    kept = path.resolve().parent.parent.parent / VAE_FOLDER  # <run>/unet/checkpoints/<name>.safetensors
    if kept.is_dir():
        # The latent space in which the U-Net was trained, whatever a config says.
        _say_that_vae_paths_are_not_read(config, kept)
        vae = find_vae(vae_type, str(kept), None, None)
    else:
        vae = find_vae(vae_type, config.vae_path, config.pretrained_vae_path, None)
    unet = from_architecture(lambda: UNet2DModel.from_config(_part(architecture, "unet")), checkpoint, path)
    load_weights(unet, checkpoint.weights, str(path))
    try:
        schedule = PLBRScheduler.from_config(_part(architecture, "scheduler"))
        # Checkpoints from before one-step training do not name their steps: they take all.
        return D3RSMDE(None, vae, unet, schedule, architecture.get("steps"), architecture["margin"])
    except Exception as error:  # a header may hold anything where a number is meant
        raise unbuildable(path, error) from error


def _say_that_vae_paths_are_not_read(config: DiffusionEvaluationConfig, holder: Path) -> None:
    if config.vae_path or config.pretrained_vae_path:
        logger.info("the autoencoder is that of '%s'; vae_path and pretrained_vae_path are not read", holder)


def _part(architecture: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The config of one part; diffusers would take a text for a path, or for a name on the hub."""
    config = architecture[name]
    if not isinstance(config, dict):
        raise ValueError(f"its '{name}' is no JSON object")
    return config
