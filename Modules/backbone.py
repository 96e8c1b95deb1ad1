"""timm Vision Transformers as feature pyramids: four taps, with their strides and channels."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import timm
import torch
from timm.layers import HybridEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

logger = logging.getLogger(__name__)

# The published names, each with its timm model and the transformer blocks (counted from 1) that are tapped.
# The hybrid taps its first two ResNet stages as well.
PUBLISHED_BACKBONES: dict[str, tuple[str, tuple[int, ...]]] = {
    "vitb_rn50_384": ("vit_base_r50_s16_384", (9, 12)),
    "vitb16_384": ("vit_base_patch16_384", (3, 6, 9, 12)),
    "vitl16_384": ("vit_large_patch16_384", (6, 12, 18, 24)),
}


@dataclass(frozen=True)
class Tap:
    """One level of the pyramid.

    Attributes:
        channels: channels of the tapped feature map.
        is_tokens: True for a transformer block (all of one stride, readout tokens beside them), False for a
            convolutional stage that already has the stride it is used at.
    """

    channels: int
    is_tokens: bool


class _FeatureProjection(nn.Module):
    """The last step of timm's ``HybridEmbed``: stem features to tokens.

    It stands in for the ViT's patch embedding, so that the convolutional stem runs outside the ViT, once, and its
    stages can be tapped through ``forward_intermediates`` without a hook.
    """

    def __init__(self, embed: HybridEmbed) -> None:
        super().__init__()
        self.proj = embed.proj
        self.grid_size = embed.grid_size  # the grid of the learned position table

    def dynamic_feat_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """The token grid of a feature map of ``size``."""
        return size

    def forward(self, features: Tensor) -> Tensor:
        return self.proj(features).permute(0, 2, 3, 1)  # (B, h, w, C), as dynamic position tables want it


class ViTBackbone(nn.Module):
    """A timm ViT that returns four feature maps, finest first.

    Args:
        name: a published name (``vitb_rn50_384``, ``vitb16_384``, ``vitl16_384``) or any timm ViT's.
        taps: transformer blocks to tap, counted from 1: four for a plain ViT, two for a hybrid.  Empty: the
            published ones, or the ends of the four quarters of the depth.
        options: further arguments of the timm model, such as ``depth``, ``embed_dim``, ``patch_size``.
        weights: ``True`` for timm's pretrained weights (from its cache or hub), a path for a file in timm's layout.

    Raises:
        ValueError: an unknown name, a model that is no ViT, taps that do not exist, weights that do not fit.
        OSError: pretrained weights that cannot be had.
    """

    def __init__(
        self,
        name: str,
        taps: Sequence[int] = (),
        options: Mapping[str, Any] | None = None,
        weights: bool | Path = False,
    ) -> None:
        super().__init__()
        timm_name, published_taps = PUBLISHED_BACKBONES.get(name, (name, ()))
        vit = _create(name, timm_name, dict(options or {}), weights)
        settings = cast(dict[str, Any], vit.pretrained_cfg)
        self.mean = tuple(settings.get("mean", (0.5, 0.5, 0.5)))
        self.std = tuple(settings.get("std", (0.5, 0.5, 0.5)))
        self.prefix_tokens: int = vit.num_prefix_tokens
        embed = vit.patch_embed
        self.stem: nn.Module | None = None
        if isinstance(embed, HybridEmbed):
            if not hasattr(embed.backbone, "forward_intermediates") or len(getattr(embed.backbone, "stages", ())) < 3:
                raise ValueError(f"backbone '{name}': its convolutional stem has no ResNet stages to tap")
            self.stride = cast(int, embed.feat_ratio())
            self.stem = embed.backbone
            vit.patch_embed = _FeatureProjection(embed)
        else:
            self.stride = max(cast(tuple[int, int], embed.patch_size))
        self.vit = vit
        depth = len(vit.blocks)
        wanted = 2 if self.stem is not None else 4
        chosen = tuple(taps) or published_taps or tuple(depth * (i + 1) // wanted for i in range(wanted))
        if len(chosen) != wanted or list(chosen) != sorted(set(chosen)) or chosen[0] < 1 or chosen[-1] > depth:
            raise ValueError(
                f"taps {list(chosen)} do not fit backbone '{name}': give {wanted} different blocks, "
                f"ascending, from 1 to {depth}"
            )
        self.block_indices = [block - 1 for block in chosen]
        tokens = [Tap(vit.embed_dim, is_tokens=True)] * wanted
        if self.stem is None:
            self.taps = tokens
        else:
            stages = cast(list[dict[str, Any]], self.stem.feature_info)
            self.taps = [Tap(stages[i]["num_chs"], is_tokens=False) for i in (1, 2)] + tokens

    def forward(self, image: Tensor) -> list[tuple[Tensor, Tensor | None]]:
        """Tap the features.

        Args:
            image: (B, 3, H, W), normalised for this backbone; H and W multiples of ``stride``.

        Returns:
            Four pairs: a feature map (B, C, h, w) and, for transformer taps with a class token, that token (B, C).
        """
        pyramid: list[tuple[Tensor, Tensor | None]] = []
        features = image
        if self.stem is not None:
            features, stages = cast(Any, self.stem).forward_intermediates(image, indices=[1, 2])
            pyramid.extend((stage, None) for stage in stages)
        blocks: Any = self.vit.forward_intermediates(
            features,
            indices=self.block_indices,
            return_prefix_tokens=True,
            stop_early=True,
            intermediates_only=True,
        )
        for block in blocks:
            if self.prefix_tokens:
                spatial, prefix = block
                pyramid.append((spatial, prefix[:, 0]))  # the first prefix token is the class token
            else:
                pyramid.append((block, None))
        return pyramid


def _create(name: str, timm_name: str, options: dict[str, Any], weights: bool | Path) -> VisionTransformer:
    """Build the timm model without its classifier, accepting any input size."""
    if not timm.is_model(timm_name):
        near = difflib.get_close_matches(timm_name, [*PUBLISHED_BACKBONES, *timm.list_models("*vit*")], n=3)
        raise ValueError(f"unknown backbone '{name}'; nearest: {', '.join(near) or 'none'} (any timm ViT is allowed)")
    overlay = {"file": str(weights)} if isinstance(weights, Path) else None
    if isinstance(weights, Path) and not weights.is_file():
        raise FileNotFoundError(f"backbone weights '{weights}' not found")
    try:
        model = timm.create_model(
            timm_name,
            pretrained=bool(weights),
            pretrained_cfg_overlay=overlay,
            num_classes=0,
            dynamic_img_size=True,
            **options,
        )
    except TypeError as error:
        raise ValueError(f"backbone '{name}' takes no such option: {error}") from error
    except (RuntimeError, OSError) as error:
        if not weights:
            raise ValueError(f"backbone '{name}' cannot be built with {options}: {error}") from error
        source = f"the file '{weights}'" if overlay else "timm's cache or the model hub"
        raise OSError(
            f"pretrained weights of backbone '{name}' cannot be loaded from {source} "
            f"({str(error).splitlines()[0]}); give pretrained_model_path, or set model.pretrained to false"
        ) from error
    if not isinstance(model, VisionTransformer):
        raise ValueError(f"backbone '{name}' is a {type(model).__name__}, not a Vision Transformer")
    logger.debug("backbone %s: %.1f M parameters", timm_name, sum(p.numel() for p in model.parameters()) / 1e6)
    return model


def pad_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """Pad (B, C, H, W) at the right and bottom, by repeating its border, to multiples of ``multiple``."""
    height, width = image.shape[-2:]
    right, bottom = -width % multiple, -height % multiple
    if right == 0 and bottom == 0:
        return image
    return torch.nn.functional.pad(image, (0, right, 0, bottom), mode="replicate")
