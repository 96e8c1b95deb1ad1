"""The VAEs whose latent space the refiner works in: the three published families, built small or loaded, one interface.

``encode`` and ``decode`` hide what differs between diffusers' classes; images and maps enter in [-1, 1].
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from diffusers.models.autoencoders.autoencoder_dc import AutoencoderDC
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor

from Modules.components import load_component
from Modules.hub import hub_file
from Modules.ldm_checkpoint import load_ldm_autoencoder

Autoencoder: TypeAlias = AutoencoderKL | AutoencoderDC
VaeType = Literal["AutoencoderKL", "VA_VAE", "DC_AE"]
_ATTENTION_DOWN = "AttnDownEncoderBlock2D"


@dataclass(frozen=True)
class AutoencoderShape:
    """Widths of an autoencoder that is built rather than loaded.

    Attributes:
        block_out_channels: channels per resolution, finest first; each further one halves the size.
        layers_per_block: residual blocks per resolution.
        latent_channels: channels of the latent.
        norm_num_groups: groups of the group norms (not used by DC_AE).
    """

    block_out_channels: tuple[int, ...]
    layers_per_block: int
    latent_channels: int
    norm_num_groups: int


def build_autoencoder(vae_type: VaeType, shape: AutoencoderShape) -> Autoencoder:
    """Build a family's autoencoder with random weights.

    Raises:
        ValueError: widths that the family cannot take.
    """
    channels = tuple(shape.block_out_channels)
    if vae_type == "DC_AE":
        if len(channels) < 2 or channels[-1] % shape.latent_channels:
            raise ValueError(
                f"a DC_AE needs two resolutions or more, and a last width divisible by its latent channels, "
                f"not {list(channels)} with {shape.latent_channels}"
            )
        if any(wide % narrow and narrow % wide for narrow, wide in itertools.pairwise(channels)):
            raise ValueError(f"the widths of a DC_AE must divide one another, not {list(channels)}")
        layers = (shape.layers_per_block,) * len(channels)
        # Attention in the lowest resolution only, as the published f32 models keep it to the deep blocks.
        blocks = ("ResBlock",) * (len(channels) - 1) + ("EfficientViTBlock",)
        scales = ((),) * (len(channels) - 1) + ((5,),)
        return AutoencoderDC(
            latent_channels=shape.latent_channels,
            attention_head_dim=min(32, channels[-1]),
            encoder_block_types=blocks,
            decoder_block_types=blocks,
            encoder_block_out_channels=channels,
            decoder_block_out_channels=channels,
            encoder_layers_per_block=layers,
            decoder_layers_per_block=layers,
            encoder_qkv_multiscales=scales,
            decoder_qkv_multiscales=scales,
        )
    if any(width % shape.norm_num_groups for width in channels):
        raise ValueError(f"vae widths {list(channels)} are not divisible by norm_num_groups {shape.norm_num_groups}")
    down = ["DownEncoderBlock2D"] * len(channels)
    up = ["UpDecoderBlock2D"] * len(channels)
    if vae_type == "VA_VAE":
        down[-1], up[0] = _ATTENTION_DOWN, "AttnUpDecoderBlock2D"
    return AutoencoderKL(
        down_block_types=tuple(down),
        up_block_types=tuple(up),
        block_out_channels=channels,
        layers_per_block=shape.layers_per_block,
        latent_channels=shape.latent_channels,
        norm_num_groups=shape.norm_num_groups,
        scaling_factor=1.0,
        # Self-attention over a whole map is what makes a small VAE slow; the families that have it keep it.
        mid_block_add_attention=vae_type == "VA_VAE",
    )


def load_autoencoder(vae_type: VaeType, source: str) -> Autoencoder:
    """Load a family's autoencoder.

    Args:
        vae_type: the family that it must belong to.
        source: a diffusers folder, a single checkpoint file in LDM layout, or a hub name.

    Raises:
        ValueError: another family's autoencoder, a file in no known layout, a damaged folder.
        FileNotFoundError: a path that does not exist.
        OSError: a hub name that is not in the hub's cache and cannot be reached.
    """
    path = Path(source)
    if path.is_file():
        if vae_type == "DC_AE":
            raise ValueError(f"'{source}' is a single file; a DC_AE is a diffusers folder or a hub name")
        # Stable Diffusion's files do not say their scaling; 0.18215 is the published one.
        vae: Autoencoder = load_ldm_autoencoder(path, scaling_factor=1.0 if vae_type == "VA_VAE" else 0.18215)
    else:
        folder = path if path.is_dir() else _from_hub(source)
        wanted = AutoencoderDC if vae_type == "DC_AE" else AutoencoderKL
        declared = _declared_class(folder)
        if declared != wanted.__name__:
            raise ValueError(f"'{source}' holds a {declared}, but vae_type {vae_type} needs a {wanted.__name__}")
        vae = load_component(wanted, folder)
    check_family(vae, vae_type, source)
    return vae


def _from_hub(name: str) -> Path:
    """The folder of an autoencoder in the hub's cache, downloaded if need be."""
    if name.count("/") != 1 or name.startswith((".", "/", "~")):  # a hub name is owner/repository
        raise FileNotFoundError(f"the autoencoder '{name}' does not exist")
    try:
        hub_file(name, "diffusion_pytorch_model.safetensors")
        return hub_file(name, "config.json").parent
    except OSError as error:
        raise OSError(
            f"the autoencoder '{name}' is neither a local path nor to be had from the hub: {error}"
        ) from error


def check_family(vae: Autoencoder, vae_type: VaeType, source: str) -> None:
    """Raise ValueError when ``vae`` is not of the family ``vae_type``; ``source`` names it in the message."""
    found = family(vae)
    if found != vae_type:
        raise ValueError(f"'{source}' holds a VAE of type {found}, but the config says vae_type {vae_type}")


def family(vae: Autoencoder) -> VaeType:
    """The published family of an autoencoder; VA_VAE differs from AutoencoderKL by attention in its lowest level."""
    if isinstance(vae, AutoencoderDC):
        return "DC_AE"
    return "VA_VAE" if vae.config["down_block_types"][-1] == _ATTENTION_DOWN else "AutoencoderKL"


def _declared_class(folder: Path) -> str:
    """The class that a diffusers folder says it holds."""
    try:
        return str(json.loads((folder / "config.json").read_text(encoding="utf-8"))["_class_name"])
    except OSError as error:
        raise ValueError(f"'{folder}' holds no config.json, so it is no diffusers autoencoder") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"'{folder / 'config.json'}' is damaged, or names no class") from error


def latent_stride(vae: Autoencoder) -> int:
    """Pixels per latent cell, along either axis."""
    if isinstance(vae, AutoencoderDC):
        return int(vae.spatial_compression_ratio)
    return 2 ** (len(vae.config["block_out_channels"]) - 1)


def latent_channels(vae: Autoencoder) -> int:
    """Channels of the latent."""
    return int(vae.config["latent_channels"])


def encode(vae: Autoencoder, values: Tensor) -> Tensor:
    """Encode (B, 3, H, W) in [-1, 1] to scaled latents (B, C, H/stride, W/stride); KL families give their mean."""
    latent = vae.encode(values).latent if isinstance(vae, AutoencoderDC) else vae.encode(values).latent_dist.mode()
    shift = getattr(vae.config, "shift_factor", None) or 0.0
    return (latent - shift) * vae.config["scaling_factor"]


def decode(vae: Autoencoder, latents: Tensor) -> Tensor:
    """Decode scaled latents (B, C, h, w) to (B, 3, h*stride, w*stride), about [-1, 1]."""
    shift = getattr(vae.config, "shift_factor", None) or 0.0
    return vae.decode(latents / vae.config["scaling_factor"] + shift).sample


def reconstruct(vae: Autoencoder, values: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """One training pass of the autoencoder.

    Args:
        vae: the autoencoder.
        values: (B, 3, H, W) in [-1, 1].
        generator: draws the posterior sample; None takes its mean.

    Returns:
        The reconstruction (B, 3, H, W) and the mean KL divergence per latent value (0 for DC_AE, which has none).
    """
    if isinstance(vae, AutoencoderDC):
        return vae.decode(vae.encode(values).latent).sample, values.new_zeros(())
    posterior = vae.encode(values).latent_dist
    latent = posterior.mode() if generator is None else posterior.sample(generator)
    return vae.decode(latent).sample, posterior.kl().mean() / latent[0].numel()


def measure_latent_scale(latents: Sequence[Tensor]) -> float:
    """1 / standard deviation of unscaled latents, the scaling factor under which the U-Net sees unit variance."""
    spread = torch.cat([latent.flatten() for latent in latents]).double().std()
    return float(1.0 / spread.clamp_min(1e-6))
