"""Depth models of transformers at toy size, random weights, seeded, in the format that the hub has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    DepthProConfig,
    DepthProForDepthEstimation,
    DPTConfig,
    DPTForDepthEstimation,
    GLPNConfig,
    GLPNForDepthEstimation,
    ZoeDepthConfig,
    ZoeDepthForDepthEstimation,
)

_STAGES = ["stage1", "stage2", "stage3", "stage4"]
_VIT = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 64}
_NECK = {"neck_hidden_sizes": [8, 8, 16, 16], "fusion_hidden_size": 8}
_COLOURS = {"do_normalize": True, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
_RESIZED = {"do_rescale": True, "rescale_factor": 1 / 255, "do_resize": True, "keep_aspect_ratio": True}


def _dinov2(**changes: Any) -> dict[str, Any]:
    return {"model_type": "dinov2", **_VIT, "image_size": 56, "patch_size": 14, "out_features": _STAGES} | changes


def _depth_anything(**changes: Any) -> nn.Module:
    backbone = _dinov2(reshape_hidden_states=False)
    return DepthAnythingForDepthEstimation(
        DepthAnythingConfig(backbone_config=backbone, reassemble_hidden_size=32, head_hidden_size=8, **_NECK, **changes)
    )


def _dpt(**changes: Any) -> nn.Module:
    out = {"backbone_out_indices": [0, 1, 2, 3]}
    return DPTForDepthEstimation(
        DPTConfig(**_VIT, image_size=32, patch_size=16, is_hybrid=False, **out, **_NECK, **changes)
    )


def _dpt_of_dinov2(add_projection: bool = True) -> nn.Module:
    # The width of its projection is fixed in the code.
    sizes = _NECK | {"fusion_hidden_size": 256, "add_projection": add_projection}
    backbone = _dinov2(reshape_hidden_states=False)
    return DPTForDepthEstimation(DPTConfig(backbone_config=backbone, use_bias_in_fusion_residual=False, **sizes))


def _glpn() -> nn.Module:
    return GLPNForDepthEstimation(
        GLPNConfig(
            hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], num_attention_heads=[1, 1, 2, 2], decoder_hidden_size=8
        )
    )


def _zoedepth() -> nn.Module:
    backbone = {
        "model_type": "beit",
        **_VIT,
        "image_size": 64,
        "patch_size": 16,
        "out_features": _STAGES,
        "reshape_hidden_states": False,
        "use_relative_position_bias": True,
    }
    return ZoeDepthForDepthEstimation(
        ZoeDepthConfig(
            backbone_config=backbone,
            backbone_hidden_size=32,
            bottleneck_features=8,
            num_relative_features=8,
            bin_embedding_dim=16,
            num_attractors=[4, 2, 2, 1],
            **_NECK,
        )
    )


def _depth_pro() -> nn.Module:
    vit = {"model_type": "dinov2", **_VIT, "image_size": 16, "patch_size": 4}
    return DepthProForDepthEstimation(
        DepthProConfig(
            image_model_config=vit,
            patch_model_config=vit,
            fov_model_config=vit,
            patch_size=16,
            fusion_hidden_size=8,
            intermediate_hook_ids=[2, 1],
            intermediate_feature_dims=[8, 8],
            scaled_images_ratios=[0.5, 1],
            scaled_images_overlap_ratios=[0.0, 0.2],
            scaled_images_feature_dims=[8, 8],
            use_fov_model=False,
        )
    )


def _size(side: int) -> dict[str, Any]:
    return {"size": {"height": side, "width": side}}


_BUILDERS = {
    "depth_anything": (
        _depth_anything,
        {**_RESIZED, **_COLOURS, **_size(56), "ensure_multiple_of": 14},
    ),
    "dpt": (_dpt, {**_RESIZED, **_COLOURS, **_size(32)}),
    "dpt_of_dinov2": (_dpt_of_dinov2, {**_RESIZED, **_COLOURS, **_size(56)}),
    "glpn": (_glpn, {"do_rescale": True, "rescale_factor": 1 / 255, "do_resize": True, "size_divisor": 32}),
    "zoedepth": (
        _zoedepth,
        {**_RESIZED, **_COLOURS, **_size(64), "ensure_multiple_of": 1 / 32},
    ),
    "depth_pro": (_depth_pro, {**_RESIZED, **_COLOURS, **_size(64)}),
}
KINDS = tuple(_BUILDERS)


def write_depth_model(folder: Path, kind: str = "depth_anything", **changes: Any) -> nn.Module:
    """A folder as the hub has it; ``changes`` are keys of the config. Returns the model that was saved."""
    builder, processor = _BUILDERS[kind]
    torch.manual_seed(0)
    model = builder(**changes).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.ndim > 1 and "backbone" not in name:
                value.normal_(0, 0.15)  # as drawn, maps are nearly flat
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor), encoding="utf-8")
    return model
