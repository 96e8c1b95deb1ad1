"""Networks of land cover: an encoder of images, one of relative depth fused into it level by level, and a head."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from Modules.backbones.adapters import add_adapters
from Modules.backbones.pyramid import TimmPyramid
from Modules.common.padding import pad_to_multiple
from Modules.segmentation.fusion import DepthFusion, Level
from Modules.segmentation.heads import AuxiliaryHead, build_head
from Modules.segmentation.layers import resized
from Modules.segmentation.names import FUSIONS, HEADS, Fusion, Head

# An encoder's levels that are finer than this add much work and few classes.
_FINEST_STRIDE = 4
# Means and deviations of ImageNet, averaged over its colours: a map is seen as a grey image.
_DEPTH_MEAN, _DEPTH_DEVIATION = 0.45, 0.225


class SegmentationNetwork(ModelMixin, ConfigMixin):
    """Two timm encoders and a head: image and relative depth in, class scores out, of any height and width.

    Args:
        backbone: the image's encoder, any timm model that gives features.
        depth_backbone: the map's encoder, likewise; not built with the fusion ``none``.
        fusion: what is done with the map; see ``Modules.segmentation.names``.
        head: ``mlp`` or ``upernet``.
        classes: names of the classes, by number.
        colours: red, green and blue (0..255) of each class; None where nobody has said them.
        values: value of each class in the files that it was trained on; None where they are its numbers.
        ignored: values in these files that mean that nothing is known.
        white: the value that counted as 1 in images of more than 8 bits; None for what the files said.
        channels: channels of every level after fusion.
        head_width: channels of UPerNet's head.
        dropout: share of channels that the head drops in training.
        auxiliary: whether there is an auxiliary head on the last level but one.
        adapter_width: channels of the adapters in the blocks of the image's encoder, which is frozen but for them; None
            for an encoder that learns as a whole.
        options: further arguments of the image's timm model.
        depth_options: further arguments of the map's timm model.
        tile_size: side in pixels of the crops or tiles that it was trained on.
        trained_on: the domains whose labels it was trained on.
        selected_on: what its weights were selected on: ``source``, ``oracle`` (labels of the target) or ``none``.
        unlabelled: parts and domains whose images it learnt from without their labels.

    Raises:
        ValueError: parts or settings that do not fit together.
    """

    config_name = "config.json"  # type: ignore[assignment]  # diffusers declares it None

    @register_to_config
    def __init__(
        self,
        backbone: str = "convnext_base",
        depth_backbone: str = "convnext_small",
        fusion: Fusion = "gate",
        head: Head = "mlp",
        classes: Sequence[str] = ("background", "other"),
        colours: Sequence[Sequence[int]] | None = None,
        values: Sequence[int] | None = None,
        ignored: Sequence[int] = (),
        white: float | None = None,
        channels: int = 256,
        head_width: int = 512,
        dropout: float = 0.1,
        auxiliary: bool = False,
        adapter_width: int | None = None,
        options: Mapping[str, Any] | None = None,
        depth_options: Mapping[str, Any] | None = None,
        tile_size: int | None = None,
        trained_on: Sequence[str] = (),
        selected_on: str | None = None,
        unlabelled: Sequence[str] = (),
    ) -> None:
        super().__init__()
        _check(fusion, head, classes, channels)
        alone = fusion == "depth_alone"
        if alone and adapter_width is not None:
            raise ValueError(
                "adapter_width is of the image's encoder, and the fusion depth_alone has none; leave it out"
            )
        encoder = _depth_encoder(depth_backbone, depth_options) if alone else TimmPyramid(backbone, options)
        self.encoder = _adapted(encoder, adapter_width)
        first = self.encoder.strides
        self.strides = tuple(stride for stride in first if stride >= _FINEST_STRIDE) or first[-1:]
        width = dict(zip(first, self.encoder.channels, strict=True))
        self.levels = nn.ModuleList(Level(width[stride], channels) for stride in self.strides)
        self.classifier = build_head(head, len(self.strides), channels, len(classes), dropout, head_width)
        self.auxiliary_classifier = AuxiliaryHead(channels, len(classes), dropout) if auxiliary else None
        self.depth_encoder: TimmPyramid | None = None
        self.fusions: nn.ModuleList | None = None
        if fusion not in ("none", "depth_alone"):
            self._add_depth(fusion, depth_backbone, depth_options, channels)
        self.register_buffer("mean", torch.tensor(self.encoder.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(self.encoder.std).view(1, 3, 1, 1), persistent=False)

    def _add_depth(self, fusion: Fusion, backbone: str, options: Mapping[str, Any] | None, channels: int) -> None:
        """Build what the map needs, last, and say so where its encoder has not the same strides."""
        self.depth_encoder = _depth_encoder(backbone, options)
        width = dict(zip(self.depth_encoder.strides, self.depth_encoder.channels, strict=True))
        missing = [stride for stride in self.strides if stride not in width]
        if missing:
            raise ValueError(
                f"the depth encoder '{backbone}' has strides {list(width)}, and the image's encoder "
                f"'{self.config['backbone']}' has {list(self.strides)}: level {missing[0]} has no partner; name another"
            )
        self.fusions = nn.ModuleList(DepthFusion(fusion, width[stride], channels) for stride in self.strides)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str] | None, **kwargs: Any) -> Any:
        """Load from a folder that ``save_pretrained`` wrote; arguments are those of diffusers' method.

        ``Modules.common.components.load_component`` does the same for a folder from a stranger.
        """
        # timm reads values while it builds, and diffusers' construction without memory has none.
        kwargs.setdefault("low_cpu_mem_usage", False)
        return super().from_pretrained(pretrained_model_name_or_path, **kwargs)

    def load_backbone(self, weights: bool | Path) -> None:
        """Replace the encoders' random weights by timm's pretrained ones (True), or the image's by a file of them.

        Raises:
            ValueError: weights that do not fit.
            OSError: pretrained weights that are neither in the cache nor reachable.
        """
        config = self.config
        if config["fusion"] == "depth_alone":
            self.encoder = _depth_encoder(config["depth_backbone"], config["depth_options"], weights)
            return
        self.encoder = _adapted(TimmPyramid(config["backbone"], config["options"], weights), config["adapter_width"])
        if self.depth_encoder is not None and weights is True:
            self.depth_encoder = _depth_encoder(config["depth_backbone"], config["depth_options"], True)

    @property
    def uses_depth(self) -> bool:
        """Whether it sees relative depth."""
        return self.config["fusion"] != "none"

    @property
    def encoders(self) -> list[TimmPyramid]:
        """The encoders, the image's first."""
        return [self.encoder] if self.depth_encoder is None else [self.encoder, self.depth_encoder]

    def all_scores(self, image: Tensor, depth: Tensor | None = None) -> list[Tensor]:
        """The class scores (B, classes, H, W) fp32 of the head and, where there is one, of the auxiliary head.

        Args:
            image: (B, 3, H, W), RGB in [0, 1].
            depth: (B, 1, H, W) in [0, 1], larger is nearer to the camera; None where nothing is known.

        Raises:
            ValueError: no map, where the network sees nothing else.
        """
        height, width = image.shape[-2:]
        seen = self._seen(image, depth)
        deep = None if self.depth_encoder is None or depth is None else self.depth_encoder(self._padded_map(depth))
        found = dict(zip(self.encoder.strides, self.encoder(seen), strict=True))
        levels = []
        for place, stride in enumerate(self.strides):
            if deep is None or self.fusions is None or self.depth_encoder is None:
                levels.append(self.levels[place](found[stride]))
            else:
                other = deep[self.depth_encoder.strides.index(stride)]
                levels.append(self.levels[place](found[stride], self.fusions[place], other))
        scores = [self.classifier(levels)]
        if self.auxiliary_classifier is not None:
            scores.append(self.auxiliary_classifier(levels[max(0, len(levels) - 2)]))
        return [resized(each.float(), seen.shape[-2:])[..., :height, :width] for each in scores]

    def forward(self, image: Tensor, depth: Tensor | None = None) -> Tensor:
        """Class scores (B, classes, H, W) fp32 before softmax; arguments are those of ``all_scores``."""
        return self.all_scores(image, depth)[0]

    def _seen(self, image: Tensor, depth: Tensor | None) -> Tensor:
        """What the first encoder sees, padded."""
        if self.config["fusion"] != "depth_alone":
            return self._padded(((image - self.mean) / self.std).to(self.dtype))
        if depth is None:
            raise ValueError("this network sees relative depth alone, and there is no map")
        return self._padded_map(depth)

    def _padded_map(self, depth: Tensor) -> Tensor:
        return self._padded(((depth - _DEPTH_MEAN) / _DEPTH_DEVIATION).to(self.dtype))

    def _padded(self, image: Tensor) -> Tensor:
        multiple = math.lcm(*(encoder.multiple for encoder in self.encoders))
        smallest = max(encoder.smallest for encoder in self.encoders)
        return pad_to_multiple(image, multiple, least=-(-smallest // multiple) * multiple)


def _adapted(encoder: TimmPyramid, width: int | None) -> TimmPyramid:
    """The encoder; with a width frozen but for adapters."""
    if width is not None:
        add_adapters(encoder, width)
    return encoder


def _depth_encoder(backbone: str, options: Mapping[str, Any] | None, weights: bool | Path = False) -> TimmPyramid:
    """An encoder of maps of one channel."""
    return TimmPyramid(backbone, {**(options or {}), "in_chans": 1}, weights)


def _check(fusion: str, head: str, classes: Sequence[str], channels: int) -> None:
    """Refuse settings that do not exist.

    Raises:
        ValueError: such settings.
    """
    for name, value, known in (("fusion", fusion, FUSIONS), ("head", head, HEADS)):
        if value not in known:
            raise ValueError(f"unknown {name} '{value}'; known: {', '.join(known)}")
    if len(classes) < 2 or len(set(classes)) < len(classes):
        raise ValueError(f"classes {list(classes)}: give two or more, each once")
    if channels < 1:
        raise ValueError(f"channels {channels}: give 1 or more")
