"""Parts of a model at toy size, random weights, seeded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import UNet2DModel

from Modules.d3rsmde.autoencoders import Autoencoder, AutoencoderShape, build_autoencoder, latent_channels
from Modules.d3rsmde.coarse import CoarseNet
from Modules.d3rsmde.names import VaeType
from Modules.d3rsmde.pipeline import D3RSMDE
from Modules.d3rsmde.plbr import PLBRScheduler
from Modules.d3rsmde.refiner import RefinerShape, build_refiner

VAE_TYPES: tuple[VaeType, ...] = ("AutoencoderKL", "VA_VAE", "DC_AE", "AutoencoderTiny")
SMALL_VIT = {"embed_dim": 32, "depth": 4, "num_heads": 2}


def toy_coarse(backbone: str = "test_vit", seed: int = 0) -> CoarseNet:
    torch.manual_seed(seed)
    net = CoarseNet(backbone, options=SMALL_VIT, features=16).eval()
    # As drawn, the decoder's map spans so little that its stretch to [0, 1] shows the rounding of single numbers.
    with torch.no_grad():
        for parameter in net.decoder.parameters():
            if parameter.ndim == 4:
                parameter.mul_(2.0)
    return net


def toy_vae(vae_type: VaeType = "AutoencoderKL", seed: int = 0) -> Autoencoder:
    """Stride 2."""
    torch.manual_seed(seed)
    widths = (16, 16) if vae_type == "AutoencoderTiny" else (16, 32)
    return build_autoencoder(vae_type, AutoencoderShape(widths, 1, 4, 8)).eval()


def toy_unet(vae: Autoencoder, timesteps: int = 6, seed: int = 0) -> UNet2DModel:
    """Two levels, attention on the second."""
    torch.manual_seed(seed)
    shape = RefinerShape((16, 32), 1, (2,), attention_head_dim=16, norm_num_groups=8)
    return build_refiner(shape, latent_channels(vae), timesteps).eval()


def toy_model(vae_type: VaeType = "AutoencoderKL", coarse: bool = True, steps: int | None = None) -> D3RSMDE:
    vae = toy_vae(vae_type)
    return D3RSMDE(toy_coarse() if coarse else None, vae, toy_unet(vae), PLBRScheduler(), steps)


def generators(batch: Mapping[str, Any], seed: int = 0) -> list[torch.Generator]:
    """A generator for every tile of a batch, as a task's loss takes them."""
    return [torch.Generator().manual_seed(seed * 1000 + place) for place in range(len(next(iter(batch.values()))))]
