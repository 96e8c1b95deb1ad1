"""timm Vision Transformers as feature pyramids: four taps, with their strides and channels."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import timm
from timm.layers import HybridEmbed
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from Modules.backbones.pretrained import check_name, check_options, load_timm_file, pretrained_file

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
        is_tokens: True for a transformer block (all of one stride), False for a convolutional stage that already
            has the stride it is used at.
        has_class_token: whether a class token comes beside the feature map.
    """

    channels: int
    is_tokens: bool
    has_class_token: bool


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

    Everything behind the last tap (further blocks, the final norm, the classifier) is removed, so that every parameter
    that is left takes part in the maps.

    Args:
        name: a published name (``vitb_rn50_384``, ``vitb16_384``, ``vitl16_384``) or any timm ViT's.
        taps: transformer blocks to tap, counted from 1: four for a plain ViT, two for a hybrid.  Empty: the published
            ones, or for other ViTs the ends of the four quarters (two halves) of the depth.
        options: further arguments of the timm model, such as ``depth``, ``embed_dim``, ``patch_size``.
        weights: ``True`` for timm's pretrained weights (from the hub or its cache), a path for a file in timm's layout.

    Attributes:
        stride: pixels per token, along either axis.
        mean: mean of each channel, over the images in [0, 1] that the backbone was made for.
        std: standard deviation of each channel, over the same images.
        taps: what ``forward`` returns, finest first.

    Raises:
        ValueError: an unknown name, a model that is no ViT, taps that do not exist, weights that do not fit.
        OSError: pretrained weights that are neither in the cache nor reachable.
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
        vit = _create(name, timm_name, dict(options or {}))
        if weights:
            path = pretrained_file(name, timm_name) if weights is True else Path(weights)
            # The patch embedding and the position table are resampled where those of the file have another size.
            convert = partial(checkpoint_filter_fn, model=vit, adapt_layer_scale=True)
            load_timm_file(vit, name, path, convert, ("head.", "head_dist."))
        settings = cast(dict[str, Any], vit.pretrained_cfg)
        self.mean: tuple[float, ...] = tuple(settings["mean"])
        self.std: tuple[float, ...] = tuple(settings["std"])
        is_hybrid = isinstance(vit.patch_embed, HybridEmbed)
        self.block_indices = _choose_blocks(name, len(vit.blocks), 2 if is_hybrid else 4, taps or published_taps)
        vit.prune_intermediate_layers(self.block_indices, prune_norm=True, prune_head=True)
        self.has_class_token: bool = vit.has_class_token
        self.taps = [Tap(vit.embed_dim, is_tokens=True, has_class_token=vit.has_class_token)] * len(self.block_indices)
        self.stem: nn.Module | None = None
        if isinstance(vit.patch_embed, HybridEmbed):
            self.stem, stages = _take_stem(name, vit)
            self.stride = 16
            self.taps = stages + self.taps
        else:
            self.stride = max(cast(tuple[int, int], vit.patch_embed.patch_size))
        self.vit = vit

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
        found: Any = self.vit.forward_intermediates(
            features,
            indices=self.block_indices,
            return_prefix_tokens=True,
            intermediates_only=True,
            output_dict=True,
        )
        blocks = found["image_intermediates"]
        if self.has_class_token:
            # timm puts the class token first; what follows it (distillation, registers) is no readout.
            pyramid.extend(zip(blocks, (p[:, 0] for p in found["image_intermediates_prefix"]), strict=True))
        else:
            pyramid.extend((block, None) for block in blocks)
        return pyramid


def _create(name: str, timm_name: str, options: dict[str, Any]) -> VisionTransformer:
    """Build the timm model with random weights, without its classifier, accepting any input size."""
    check_name(name, timm_name, _known_names, "any timm ViT")
    check_options(name, options)
    try:
        model = timm.create_model(timm_name, pretrained=False, num_classes=0, dynamic_img_size=True, **options)
    except TypeError as error:
        if "dynamic_img_size" in str(error):
            raise ValueError(f"backbone '{name}' is not a plain or hybrid Vision Transformer of timm") from error
        raise ValueError(f"backbone '{name}' takes no such option: {error}") from error
    except (RuntimeError, ValueError, AssertionError) as error:
        raise ValueError(f"backbone '{name}' cannot be built with options {options}: {error}") from error
    if not isinstance(model, VisionTransformer):
        raise ValueError(f"backbone '{name}' is a {type(model).__name__}, not a plain or hybrid Vision Transformer")
    logger.debug("backbone %s: %.1f M parameters", timm_name, sum(p.numel() for p in model.parameters()) / 1e6)
    return model


def _known_names() -> list[str]:
    return [*PUBLISHED_BACKBONES, *timm.list_models("*vit*"), *timm.list_models("deit*")]


def _choose_blocks(name: str, depth: int, wanted: int, taps: Sequence[int]) -> list[int]:
    """Indices (from 0) of the blocks to tap."""
    chosen = list(taps) or [depth * (i + 1) // wanted for i in range(wanted)]
    if len(chosen) != wanted or chosen != sorted(set(chosen)) or chosen[0] < 1 or chosen[-1] > depth:
        raise ValueError(
            f"taps {chosen} do not fit backbone '{name}': give {wanted} different blocks, ascending, from 1 to {depth}"
        )
    return [block - 1 for block in chosen]


def _take_stem(name: str, vit: VisionTransformer) -> tuple[nn.Module, list[Tap]]:
    """Take the ResNet out of a hybrid; returns it with the taps of its first two stages, of strides 4 and 8."""
    embed = cast(HybridEmbed, vit.patch_embed)
    stem: Any = embed.backbone
    if len(getattr(stem, "stages", ())) < 2 or embed.feat_ratio() != 16:
        raise ValueError(f"backbone '{name}': the decoder needs a hybrid with ResNet stages and tokens of stride 16")
    vit.patch_embed = _FeatureProjection(embed)
    return stem, [Tap(stem.feature_info[i]["num_chs"], is_tokens=False, has_class_token=False) for i in (1, 2)]
