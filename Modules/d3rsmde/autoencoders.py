"""The VAEs whose latent space the refiner works in: three published families and a light one, with one interface.

``encode`` and ``decode`` hide what differs between diffusers' classes; images and maps enter in [-1, 1].

The light one, ``AutoencoderTiny`` (TAESD, github.com/madebyollin/taesd), is plain convolutions of one width.  Its
decoder squeezes the unscaled latents by 3 tanh(z / 3): it tells values within about ±3 apart well, and those beyond
less and less, as the slope is 0.42 at 3 and 0.07 at 6. The scaling factor is applied outside of it, as in the other
families.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_dc import AutoencoderDC
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.unets.unet_2d_blocks import AutoencoderTinyBlock
from torch import Tensor, nn

from Modules.common.components import load_component
from Modules.common.hub import hub_file
from Modules.common.plain_json import parse_json, read_text
from Modules.common.precision import Precision
from Modules.d3rsmde.ldm_checkpoint import load_ldm_autoencoder
from Modules.d3rsmde.names import VaeType

Autoencoder: TypeAlias = AutoencoderKL | AutoencoderDC | AutoencoderTiny
_CLASSES: dict[VaeType, type[Autoencoder]] = {
    "AutoencoderKL": AutoencoderKL,
    "VA_VAE": AutoencoderKL,
    "DC_AE": AutoencoderDC,
    "AutoencoderTiny": AutoencoderTiny,
}
# The families that come as single files in LDM layout, with their scaling factors, which such a file does not hold.
_LDM_SCALING: dict[VaeType, float] = {"AutoencoderKL": 0.18215, "VA_VAE": 1.0}
_ATTENTION_DOWN = "AttnDownEncoderBlock2D"
# An AutoencoderTiny is scaled so that this share of its unscaled latents lies within ± this value.
_SQUEEZED_SHARE, _LITTLE_SQUEEZED = 0.999, 2.0


@dataclass(frozen=True)
class AutoencoderShape:
    """Widths of an autoencoder that is built rather than loaded.

    Attributes:
        block_out_channels: channels per resolution, finest first; each further one halves the size.  Those of an
            AutoencoderTiny are all the same: (64, 64, 64, 64) is TAESD's size.
        layers_per_block: residual blocks per resolution. The finest of an AutoencoderTiny always has one. TAESD has 3.
        latent_channels: channels of the latent.
        norm_num_groups: groups of the group norms (not used by DC_AE and AutoencoderTiny, which have none).
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
    if vae_type == "AutoencoderTiny":
        return _build_tiny(shape)
    return _build_dc(shape) if vae_type == "DC_AE" else _build_kl(shape, attention=vae_type == "VA_VAE")


def _build_tiny(shape: AutoencoderShape) -> AutoencoderTiny:
    channels = tuple(shape.block_out_channels)
    if len(set(channels)) > 1:
        raise ValueError(
            f"the vae widths of an AutoencoderTiny must all be the same, not {list(channels)}; TAESD's size is "
            "block_out_channels [64, 64, 64, 64] with layers_per_block 3"
        )
    deeper = (shape.layers_per_block,) * (len(channels) - 1)
    vae = AutoencoderTiny(
        encoder_block_out_channels=channels,
        decoder_block_out_channels=channels,
        num_encoder_blocks=(1, *deeper),
        num_decoder_blocks=(*deeper, 1),
        latent_channels=shape.latent_channels,
    )
    _draw_first_weights(vae)
    return vae


def _draw_first_weights(vae: AutoencoderTiny) -> None:
    """Weights of He et al. (ICCV 2015), and residual blocks that begin as the identity.

    The network has no norms, and with torch's own first weights its signal would shrink from layer to layer.
    """
    for part in vae.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    for part in vae.modules():
        if isinstance(part, AutoencoderTinyBlock):
            nn.init.zeros_(part.conv[-1].weight)


def _build_dc(shape: AutoencoderShape) -> AutoencoderDC:
    channels = tuple(shape.block_out_channels)
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


def _build_kl(shape: AutoencoderShape, attention: bool) -> AutoencoderKL:
    channels = tuple(shape.block_out_channels)
    if any(width % shape.norm_num_groups for width in channels):
        raise ValueError(f"vae widths {list(channels)} are not divisible by norm_num_groups {shape.norm_num_groups}")
    down = ["DownEncoderBlock2D"] * len(channels)
    up = ["UpDecoderBlock2D"] * len(channels)
    if attention:
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
        mid_block_add_attention=attention,
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
        if vae_type not in _LDM_SCALING:
            raise ValueError(f"'{source}' is a single file; {vae_type} comes as a diffusers folder or a hub name")
        vae: Autoencoder = load_ldm_autoencoder(path, scaling_factor=_LDM_SCALING[vae_type])
    else:
        folder = path if path.is_dir() else _from_hub(source)
        wanted = _CLASSES[vae_type]
        declared = _declared_class(folder)
        if declared != wanted.__name__:
            raise ValueError(f"'{source}' holds a {declared}, but vae_type {vae_type} needs a {wanted.__name__}")
        vae = load_component(wanted, folder)
    check_family(vae, vae_type, source)
    return vae


def load_folder(folder: Path) -> Autoencoder:
    """Load an autoencoder of any family from a diffusers folder, such as the ``frozen_vae`` of a run.

    Raises:
        ValueError: a folder that holds something else, or is damaged.
    """
    declared = _declared_class(folder)
    known = {kind.__name__: kind for kind in _CLASSES.values()}
    if declared not in known:
        raise ValueError(f"'{folder}' holds a {declared}, and an autoencoder is one of {', '.join(known)}")
    return load_component(known[declared], folder)


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
    """The family of an autoencoder; VA_VAE differs from AutoencoderKL by attention in its lowest level."""
    if isinstance(vae, AutoencoderTiny):
        return "AutoencoderTiny"
    if isinstance(vae, AutoencoderDC):
        return "DC_AE"
    return "VA_VAE" if vae.config["down_block_types"][-1] == _ATTENTION_DOWN else "AutoencoderKL"


def _declared_class(folder: Path) -> str:
    """The class that a diffusers folder says it holds."""
    try:
        return str(parse_json(read_text(folder / "config.json"))["_class_name"])
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
    """Encode (B, 3, H, W) in [-1, 1] to scaled latents (B, C, H/stride, W/stride); KL families give their mean.

    The autoencoder may be in half precision; the latents are always fp32.
    """
    shift = getattr(vae.config, "shift_factor", None) or 0.0
    return (_latent(vae, values.to(vae.dtype)).float() - shift) * vae.config["scaling_factor"]


def _latent(vae: Autoencoder, values: Tensor) -> Tensor:
    """The unscaled latent, or its mean."""
    encoded = vae.encode(values)
    if isinstance(vae, AutoencoderTiny):
        return encoded.latents
    return encoded.latent if isinstance(vae, AutoencoderDC) else encoded.latent_dist.mode()


def decode(vae: Autoencoder, latents: Tensor) -> Tensor:
    """Decode scaled latents (B, C, h, w) to (B, 3, h*stride, w*stride), about [-1, 1], always fp32."""
    shift = getattr(vae.config, "shift_factor", None) or 0.0
    unscaled = latents / vae.config["scaling_factor"] + shift
    return vae.decode(unscaled.to(vae.dtype)).sample.float()


def reconstruct(
    vae: Autoencoder, values: Tensor, generators: Sequence[torch.Generator] | None
) -> tuple[Tensor, Tensor]:
    """One training pass of the autoencoder.

    Args:
        vae: the autoencoder.
        values: (B, 3, H, W) in [-1, 1].
        generators: one an image, which draws the sample of its posterior, so that it does not depend on the image's
            neighbours; None takes the mean.

    Returns:
        The reconstruction (B, 3, H, W) and the mean KL divergence per latent value (0 for DC_AE and AutoencoderTiny,
        which have none).
    """
    if isinstance(vae, AutoencoderDC | AutoencoderTiny):
        return vae.decode(_latent(vae, values)).sample, values.new_zeros(())
    posterior = vae.encode(values).latent_dist
    latent = posterior.mode() if generators is None else posterior.sample(list(generators))
    return vae.decode(latent).sample, posterior.kl().mean() / latent[0].numel()


def measure_squeezed_scale(latents: Sequence[Tensor]) -> float:
    """Choose the scaling factor of an AutoencoderTiny that has to draw given scaled latents; two digits.

    Of the latents divided by it, 999 in 1000 lie within ±2, where the squeeze in its decoder still has a slope of 0.66.
    """
    magnitudes = torch.cat([latent.abs().flatten() for latent in latents]).cpu().double().numpy()
    return float(f"{max(np.quantile(magnitudes, _SQUEEZED_SHARE), 1e-6) / _LITTLE_SQUEEZED:.2g}")


def measure_latent_scale(latents: Sequence[Tensor]) -> float:
    """1 / standard deviation of unscaled latents, the scaling factor under which the U-Net sees unit variance."""
    spread = torch.cat([latent.flatten() for latent in latents]).cpu().double().std()
    return float(1.0 / spread.clamp_min(1e-6))


def vae_precision(vae: Autoencoder, precision: Precision) -> Precision:
    """The number format that is safe for an autoencoder.

    Activations of the large ones exceed fp16's 65504 (Stable Diffusion's config says so: ``force_upcast``), so with
    fp16 they stay in fp32. bf16 has the range of fp32.
    """
    return "fp32" if precision == "fp16" and not isinstance(vae, AutoencoderTiny) else precision
