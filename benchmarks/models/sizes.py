"""The sizes that are measured: every model as its authors published it, and toys of the same kinds for the tests.

A size is a constructor's arguments, so nothing is fetched: published checkpoints of these sizes run at the same speed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from Modules.backbones.inception_resnet_v2 import INCEPTION_RESNET_V2
from Modules.d3rsmde.names import VaeType
from Modules.d3rsmde.refiner import PUBLISHED_REFINERS, RefinerShape

Arguments = Mapping[str, Any]


@dataclass(frozen=True)
class Sizes:
    """Constructor arguments of every model.

    Attributes:
        coarse: stage 1, ``CoarseNet``.
        fast_coarse: stage 1 of the fast preset, as ``Config/ViT/J_K_fast_train.json`` has it.
        fast_refiner: its U-Net, as ``Config/Diffusion/J_K_fast_train.json`` has it.
        vaes: per family, arguments of diffusers' class of that family.
        refiners: stage 2's U-Nets.
        marigold_unet: ``UNet2DConditionModel``.
        marigold_text: width of the text embedding that it attends to.
        depth_anything: per variant, ``DepthAnythingConfig`` with a ``Dinov2Config`` under ``backbone_config``.
        dpt_hybrid: ``DPTConfig``; its image size is set to the input's.
        glpn: ``GLPNConfig``.
        enc_dec: ``EncDec``; as published, what ``EncDecIRv2`` gives it.
        dinov2_dpt: ``DPTConfig`` with a ``Dinov2Config`` under ``backbone_config``.
    """

    coarse: Arguments
    fast_coarse: Arguments
    fast_refiner: RefinerShape
    vaes: Mapping[VaeType, Arguments]
    refiners: Mapping[VaeType, RefinerShape]
    marigold_unet: Arguments
    marigold_text: int
    depth_anything: Mapping[str, Arguments]
    dpt_hybrid: Arguments
    glpn: Arguments
    enc_dec: Arguments
    dinov2_dpt: Arguments


def _kl(widths: tuple[int, ...], layers: int, channels: int, groups: int, attention: bool, scaling: float) -> Arguments:
    """``AutoencoderKL``; with ``attention`` its lowest level has it, as in VA-VAE."""
    last_down = "AttnDownEncoderBlock2D" if attention else "DownEncoderBlock2D"
    first_up = "AttnUpDecoderBlock2D" if attention else "UpDecoderBlock2D"
    others = len(widths) - 1
    return {
        "down_block_types": ("DownEncoderBlock2D",) * others + (last_down,),
        "up_block_types": (first_up,) + ("UpDecoderBlock2D",) * others,
        "block_out_channels": widths,
        "layers_per_block": layers,
        "latent_channels": channels,
        "norm_num_groups": groups,
        "scaling_factor": scaling,
    }


def _dc(widths: tuple[int, ...], down: tuple[int, ...], up: tuple[int, ...], plain: int, channels: int) -> Arguments:
    """``AutoencoderDC`` in the form published for Sana: attention below the first ``plain`` levels."""
    deep = len(widths) - plain
    blocks = ("ResBlock",) * plain + ("EfficientViTBlock",) * deep
    scales: tuple[tuple[int, ...], ...] = ((),) * plain + ((5,),) * deep
    return {
        "latent_channels": channels,
        "attention_head_dim": min(32, widths[-1]),
        "encoder_block_types": blocks,
        "decoder_block_types": blocks,
        "encoder_block_out_channels": widths,
        "decoder_block_out_channels": widths,
        "encoder_layers_per_block": down,
        "decoder_layers_per_block": up,
        "encoder_qkv_multiscales": scales,
        "decoder_qkv_multiscales": scales,
        "downsample_block_type": "conv",
        "upsample_block_type": "interpolate",
        "scaling_factor": 0.41407,
    }


def _depth_anything(width: int, depth: int, heads: int, taps: list[int], neck: list[int], fusion: int) -> Arguments:
    return {
        "backbone_config": _dinov2(width, depth, heads, taps, normalised=True),
        "reassemble_hidden_size": width,
        "neck_hidden_sizes": neck,
        "fusion_hidden_size": fusion,
    }


def _dinov2(width: int, depth: int, heads: int, taps: list[int], normalised: bool) -> dict[str, Any]:
    return {
        "image_size": 518,
        "patch_size": 14,
        "hidden_size": width,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "out_indices": taps,
        "apply_layernorm": normalised,
        "reshape_hidden_states": False,
    }


def _dinov2_dpt(width: int, depth: int, heads: int, taps: list[int], neck: list[int], fusion: int) -> Arguments:
    return {
        "backbone_config": _dinov2(width, depth, heads, taps, normalised=False),
        "neck_hidden_sizes": neck,
        "fusion_hidden_size": fusion,
        "add_projection": True,
        "use_bias_in_fusion_residual": False,
    }


PUBLISHED = Sizes(
    coarse={"backbone": "vitb_rn50_384"},
    fast_coarse={"backbone": "vit_small_patch16_384", "features": 64},
    fast_refiner=replace(PUBLISHED_REFINERS["AutoencoderTiny"], attention_strides=(4, 8)),
    vaes={
        "AutoencoderKL": _kl((128, 256, 512, 512), 2, 4, 32, attention=False, scaling=0.18215),
        "VA_VAE": _kl((128, 128, 256, 256, 512), 2, 32, 32, attention=True, scaling=1.0),
        "DC_AE": _dc((128, 256, 512, 512, 1024, 1024), (2, 2, 2, 3, 3, 3), (3,) * 6, 3, 32),
        "AutoencoderTiny": {},  # the class's own defaults are TAESD
    },
    refiners=PUBLISHED_REFINERS,
    # Stable Diffusion 2's U-Net with Marigold's eight input channels.
    marigold_unet={
        "sample_size": 96,
        "in_channels": 8,
        "out_channels": 4,
        "block_out_channels": (320, 640, 1280, 1280),
        "cross_attention_dim": 1024,
        "attention_head_dim": (5, 10, 20, 20),
        "use_linear_projection": True,
    },
    marigold_text=1024,
    depth_anything={
        "small": _depth_anything(384, 12, 6, [3, 6, 9, 12], [48, 96, 192, 384], 64),
        "base": _depth_anything(768, 12, 12, [3, 6, 9, 12], [96, 192, 384, 768], 128),
        "large": _depth_anything(1024, 24, 16, [5, 12, 18, 24], [256, 512, 1024, 1024], 256),
    },
    # Of the published MiDaS checkpoint; the class's defaults have a narrower neck.
    dpt_hybrid={"is_hybrid": True, "neck_hidden_sizes": [256, 512, 768, 768], "reassemble_factors": [1, 1, 1, 0.5]},
    # mit_b4
    glpn={"depths": [3, 8, 27, 3], "hidden_sizes": [64, 128, 320, 512]},
    enc_dec={
        "backbone": INCEPTION_RESNET_V2,
        "taps": "published",
        "channel_order": "BGR",
        "scaling": "min_max",
        "norm_momentum": 0.01,
    },
    # dinov2_vits14 with the head of its depth checkpoints.
    dinov2_dpt=_dinov2_dpt(384, 12, 6, [3, 6, 9, 12], [48, 96, 192, 384], 256),
)

_TOY_REFINER = RefinerShape((16, 32), 1, (2,), attention_head_dim=16, norm_num_groups=8)
_TOY_VIT = {"options": {"embed_dim": 32, "depth": 4, "num_heads": 2}, "features": 16}

TOY = Sizes(
    coarse={"backbone": "test_vit", **_TOY_VIT},
    fast_coarse={"backbone": "test_vit", **_TOY_VIT},
    fast_refiner=_TOY_REFINER,
    vaes={
        "AutoencoderKL": _kl((16, 32), 1, 4, 8, attention=False, scaling=1.0),
        "VA_VAE": _kl((16, 32), 1, 4, 8, attention=True, scaling=1.0),
        "DC_AE": _dc((16, 32), (1, 1), (1, 1), 1, 4),
        "AutoencoderTiny": {
            "encoder_block_out_channels": (16, 16),
            "decoder_block_out_channels": (16, 16),
            "num_encoder_blocks": (1, 1),
            "num_decoder_blocks": (1, 1),
        },
    },
    refiners={family: _TOY_REFINER for family in PUBLISHED_REFINERS},
    marigold_unet={
        "sample_size": 16,
        "in_channels": 8,
        "out_channels": 4,
        "block_out_channels": (16, 32),
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "layers_per_block": 1,
        "cross_attention_dim": 16,
        "attention_head_dim": (2, 4),
        "norm_num_groups": 8,
        "use_linear_projection": True,
    },
    marigold_text=16,
    depth_anything={
        name: _depth_anything(16, 4, 2, [1, 2, 3, 4], [8, 8, 8, 8], 8) for name in ("small", "base", "large")
    },
    dpt_hybrid={
        "is_hybrid": True,
        "hidden_size": 16,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "backbone_out_indices": [0, 1, 2, 3],
        "backbone_featmap_shape": [1, 128, 24, 24],
        "neck_hidden_sizes": [128, 128, 16, 16],
        "reassemble_factors": [1, 1, 1, 0.5],
        "fusion_hidden_size": 8,
        "backbone_config": {
            "model_type": "bit",
            # the backbone's norms have 32 groups, and its bottlenecks a quarter of these widths
            "embedding_size": 32,
            "hidden_sizes": [128, 128, 128],
            "depths": [1, 1, 1],
            "layer_type": "bottleneck",
            "global_padding": "same",
            "embedding_dynamic_padding": True,
            "out_features": ["stage1", "stage2", "stage3"],
        },
    },
    glpn={
        "depths": [1, 1, 1, 1],
        "hidden_sizes": [8, 8, 16, 16],
        "num_attention_heads": [1, 1, 2, 2],
        "decoder_hidden_size": 8,
    },
    enc_dec={"backbone": "test_resnet", "widths": [8, 8, 8, 8]},
    # transformers' projection before the head has 256 channels, whatever the neck has
    dinov2_dpt=_dinov2_dpt(16, 4, 2, [1, 2, 3, 4], [8, 8, 8, 8], 256),
)

SIZES: Mapping[str, Sizes] = {"published": PUBLISHED, "toy": TOY}
