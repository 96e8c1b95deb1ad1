"""Stage 2: the U-Net that refines in latent space, and the blending walk that uses it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from torch import Tensor

from Modules.d3rsmde.names import VaeType
from Modules.d3rsmde.plbr import PLBRScheduler


@dataclass(frozen=True)
class RefinerShape:
    """Widths of the U-Net.

    Attributes:
        block_out_channels: channels per level, finest first; each further level halves the size.
        layers_per_block: residual blocks per level.
        attention_strides: latent strides (1, 2, 4, ...) whose level has self-attention.
        attention_head_dim: channels per attention head.
        norm_num_groups: groups of the group norms.
        scale_shift: whether the timestep scales and shifts the norms; otherwise it is added.
        dropout: probability of dropout.
    """

    block_out_channels: tuple[int, ...]
    layers_per_block: int
    attention_strides: tuple[int, ...]
    attention_head_dim: int = 64
    norm_num_groups: int = 32
    scale_shift: bool = False
    dropout: float = 0.0


# The published U-Nets.  diffusers takes channels per head, not heads: 64 stands in for the published 4 or 8 heads.
PUBLISHED_REFINERS: dict[VaeType, RefinerShape] = {
    "AutoencoderKL": RefinerShape((128, 256, 512, 512), 2, (1, 2, 4, 8)),
    "VA_VAE": RefinerShape((192, 384, 576, 768), 3, (2, 4, 8), scale_shift=True, dropout=0.1),
    "DC_AE": RefinerShape((256, 512, 1024), 2, (1, 2, 4), dropout=0.1),
    # This one is not published: the light VAE's latents have the channels and the stride of Stable Diffusion's.
    "AutoencoderTiny": RefinerShape((128, 256, 512, 512), 2, (1, 2, 4, 8)),
}


def build_refiner(shape: RefinerShape, latent_channels: int, timesteps: int) -> UNet2DModel:
    """Build the U-Net: image and blended latents in (2·C channels), refined latent out (C), a table of timesteps.

    Raises:
        ValueError: widths that do not fit the groups or heads, or strides that no level has.
    """
    widths = tuple(shape.block_out_channels)
    strides = [2**level for level in range(len(widths))]
    unknown = sorted(set(shape.attention_strides) - set(strides))
    if unknown:
        raise ValueError(f"attention_strides {unknown} do not exist in a U-Net with strides {strides}")
    if any(width % shape.norm_num_groups for width in widths):
        raise ValueError(f"U-Net widths {list(widths)} are not divisible by norm_num_groups {shape.norm_num_groups}")
    attended = [width for width, stride in zip(widths, strides, strict=True) if stride in shape.attention_strides]
    if any(width % shape.attention_head_dim for width in [*attended, widths[-1]]):
        raise ValueError(f"U-Net widths {list(widths)} are not divisible by attention_head_dim")
    down = ["AttnDownBlock2D" if stride in shape.attention_strides else "DownBlock2D" for stride in strides]
    up = [kind.replace("Down", "Up") for kind in reversed(down)]
    return UNet2DModel(
        in_channels=2 * latent_channels,
        out_channels=latent_channels,
        time_embedding_type="learned",
        num_train_timesteps=timesteps,
        down_block_types=tuple(down),
        up_block_types=tuple(up),
        block_out_channels=widths,
        layers_per_block=shape.layers_per_block,
        attention_head_dim=shape.attention_head_dim,
        norm_num_groups=shape.norm_num_groups,
        resnet_time_scale_shift="scale_shift" if shape.scale_shift else "default",
        dropout=shape.dropout,
    )


def predict_truth(unet: UNet2DModel, image: Tensor, blended: Tensor, timestep: Tensor) -> Tensor:
    """The U-Net's guess of the truth's latent, all (B, C, h, w), at int64 timesteps (B,).

    The U-Net may be in half precision; its guess comes in the format of ``blended``.
    """
    return unet(torch.cat([image, blended], dim=1).to(unet.dtype), timestep).sample.to(blended.dtype)


def walk(
    unet: UNet2DModel, scheduler: PLBRScheduler, image: Tensor, coarse: Tensor, steps: int | None = None
) -> Sequence[Tensor]:
    """Refine from the coarse latent.

    Args:
        unet: the refiner.
        scheduler: its blending schedule.
        image: latents of the images (B, C, h, w).
        coarse: latents of the coarse maps (B, C, h, w).
        steps: blending steps; None takes all T.

    Returns:
        The latents after each step; the last ones are refined.
    """
    scheduler.set_timesteps(steps)
    latent = coarse
    trail: list[Tensor] = []
    for timestep in scheduler.walk:
        at = torch.full((coarse.shape[0],), timestep, dtype=torch.int64, device=coarse.device)
        latent = scheduler.step(predict_truth(unet, image, latent, at), timestep, coarse)
        trail.append(latent)
    return trail
