"""The scale of an autoencoder's latents: measured once for an autoencoder that a run has built, then kept."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from torch import Tensor

from Modules.common.padding import pad_to_multiple
from Modules.d3rsmde.autoencoders import (
    Autoencoder,
    encode,
    latent_stride,
    load_folder,
    measure_latent_scale,
    measure_squeezed_scale,
)
from Modules.d3rsmde.pipeline import to_vae
from Systems.d3rsmde.targets import RELATIVE_HEIGHT
from Utils.core.errors import UserError
from Utils.data.loaders import make_loader, on_device
from Utils.data.stage_plan import StagePlan, Tiles
from Utils.data.tile_dataset import TileDataset
from Utils.training.checkpoint import load_checkpoint
from Utils.training.run_files import last_checkpoint

logger = logging.getLogger(__name__)

# Latents of this many tiles give the spread of a newly trained autoencoder to about one per cent.
_TILES_FOR_SCALE = 64


def own_scale(vae: Autoencoder, tiles: Tiles, stage: StagePlan, kept: Path) -> float:
    """The scale to unit variance; once the run has finished the autoencoder in ``kept``, the scale of that.

    If it were measured again on another device, its last digits would differ, and with them all kept latents.

    Raises:
        UserError: a folder that is damaged.
    """
    if not kept.is_dir():
        return measure_latent_scale(_some_latents(vae, tiles, stage))
    try:
        return float(load_folder(kept).config["scaling_factor"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"'{kept}' does not say the scale of its latents: {error}; start a new run") from error


def pupil_scale(teacher: Autoencoder, tiles: Tiles, stage: StagePlan, folder: Path) -> float:
    """The scale that suits the teacher's latents; in a stage that has begun, the one that it began with.

    Raises:
        UserError: a checkpoint that does not hold its scale.
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
    """Scaled latents of the stage's first training tiles, images and maps; one whole tile at a time."""
    dataset = TileDataset(tiles.training, stage.train[:_TILES_FOR_SCALE], target=RELATIVE_HEIGHT)
    logger.info("%s: measuring the scale of the latents on %d tiles", stage.name, len(dataset))
    device = next(vae.parameters()).device
    return [
        encode(vae, pad_to_multiple(to_vae(values), latent_stride(vae)))
        for batch in on_device(make_loader(dataset, 1, 0), device)
        for values in (batch["image"], batch["height"])
    ]
