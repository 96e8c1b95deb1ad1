"""Stage 1: a network that draws a coarse height map in one pass, this system's own or a depth network."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor

from Modules.backbones.vit import ViTBackbone
from Modules.common.normalisation import MinMaxNormalisation
from Modules.common.padding import pad_to_multiple
from Modules.d3rsmde.dpt import DPTDecoder
from Modules.d3rsmde.names import Readout
from Modules.depth.enc_dec import EncDec


class CoarseNet(ModelMixin, ConfigMixin):
    """DPT on a timm ViT: image in, height map in [0, 1] out, of any size.

    Args:
        backbone: a published name or any timm ViT's.
        taps: transformer blocks to tap, counted from 1; empty for the default ones.
        options: further arguments of the timm model.
        features: decoder width.
        readout: what becomes of the class token: ``project``, ``add`` or ``ignore``.
        image_mean: mean of each channel of images in [0, 1], by which they are normalised; None takes the backbone's.
        image_std: standard deviation of each channel, likewise.
    """

    config_name = "config.json"  # type: ignore[assignment]  # diffusers declares it None

    @register_to_config
    def __init__(
        self,
        backbone: str = "vitb_rn50_384",
        taps: Sequence[int] = (),
        options: Mapping[str, Any] | None = None,
        features: int = 256,
        readout: Readout = "project",
        image_mean: Sequence[float] | None = None,
        image_std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.encoder = ViTBackbone(backbone, taps, options)
        self.decoder = DPTDecoder(self.encoder.taps, features, readout)
        self.normalisation = MinMaxNormalisation()
        mean = [float(value) for value in image_mean or self.encoder.mean]
        std = [float(value) for value in image_std or self.encoder.std]
        # They are not saved with the weights: the config holds them.
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self.register_to_config(image_mean=mean, image_std=std)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str] | None, **kwargs: Any) -> Any:
        """Load from a folder that ``save_pretrained`` wrote; arguments are those of diffusers' method."""
        # timm reads values while it builds, and diffusers' construction without memory has none.
        kwargs.setdefault("low_cpu_mem_usage", False)
        return super().from_pretrained(pretrained_model_name_or_path, **kwargs)

    def load_backbone(self, weights: bool | Path) -> None:
        """Replace the backbone's random weights by timm's pretrained ones, or by a file in timm's layout."""
        config = self.config
        self.encoder = ViTBackbone(config["backbone"], config["taps"], config["options"], weights)

    def forward(self, image: Tensor) -> Tensor:
        """Draw the coarse map.

        Args:
            image: (B, 3, H, W) in [0, 1].

        Returns:
            (B, 1, H, W) in [0, 1], each tile stretched by its own minimum and maximum.
        """
        height, width = image.shape[-2:]
        normalised = ((image - self.mean) / self.std).to(self.dtype)
        # Twice the stride: the coarsest level halves the token grid, and the fusion doubles it back exactly.
        padded = pad_to_multiple(normalised, 2 * self.encoder.stride)
        raw = self.decoder(self.encoder(padded), padded.shape[-2:])[..., :height, :width]
        return self.normalisation.forward(raw.float())[0]


StageOne = CoarseNet | EncDec
"""What can be stage 1."""


def draw_coarse(network: StageOne, image: Tensor) -> Tensor:
    """Stage 1's map: images (B, 3, H, W) in [0, 1] to (B, 1, H, W) in [0, 1], which rises with the ground."""
    return network.relative_height(image) if isinstance(network, EncDec) else network(image)
