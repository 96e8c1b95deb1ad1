"""Encoder-decoder networks for depth: the published Enc-Dec-IRv2, GLPN, and the decoder of either on other encoders.

Enc-Dec-IRv2: arXiv 2410.11610. GLPN: Kim et al., 2022.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor

from Modules.backbones.inception_resnet_v2 import INCEPTION_RESNET_V2, InceptionResNetV2Pyramid
from Modules.backbones.mix_transformer import MIX_TRANSFORMERS, MixTransformerPyramid
from Modules.backbones.pyramid import TimmPyramid
from Modules.common.directions import DIRECTIONS, Direction
from Modules.common.normalisation import MinMaxNormalisation
from Modules.common.number_formats import compile_networks, draw_in_fp32, set_format
from Modules.common.padding import pad_to_multiple
from Modules.common.precision import Precision
from Modules.depth.decoder import PUBLISHED_WIDTHS, Decoder
from Modules.depth.glpn_decoder import GLPNDecoder
from Modules.depth.names import TARGETS, ChannelOrder, DecoderName, Scaling, Taps, Target


class EncDec(ModelMixin, ConfigMixin):
    """An encoder, the decoder of Enc-Dec-IRv2 or GLPN, and a sigmoid: image in, depth out, of any height and width.

    Args:
        backbone: the encoder: any timm model that gives features, or a Mix Transformer, mit_b0 to mit_b5.
        taps: ``published`` taps an inception_resnet_v2 as the paper does; ``timm`` takes timm's own features.
        options: further arguments of the encoder, such as ``in_chans`` 1 for grey images; none with the published taps.
        widths: channels of the decoder's blocks, the last being that of full size; GLPN's decoder has one width.
        target: what is drawn: ``relative``, ``metres`` or ``summit``.
        max_depth: the largest value that ``metres`` and ``summit`` can draw, in metres; None for ``relative``.
        channel_order: order in which the encoder sees the channels.
        scaling: ``mean_std`` normalises images by the encoder's mean and standard deviation; ``min_max`` stretches each
            image to [0, 1] by its extremes over all channels; ``none`` leaves images in [0, 1] as they are.
        norm_momentum: weight of a batch's statistics in the running ones of the decoder's batch norms and, with the
            published taps, of the encoder's.
        direction: what rises in the maps that the network learns from: height, depth or inverse depth; None where
            nobody has said it. ``summit`` is learnt from heights alone.
        tile_size: the shorter side, in pixels, of the tiles that it was trained on.
        image_size: height and width of the images that it learnt from, None where they were not resized. Images of any
            size can be drawn; whoever draws others should bring them to this size.
        decoder_name: ``EncDec``, that of Enc-Dec-IRv2, or ``GLPN``.

    Raises:
        ValueError: parts or settings that do not fit together.
    """

    config_name = "config.json"  # type: ignore[assignment]  # diffusers declares it None

    @register_to_config
    def __init__(
        self,
        backbone: str = "resnet18",
        taps: Taps = "timm",
        options: Mapping[str, Any] | None = None,
        widths: Sequence[int] = PUBLISHED_WIDTHS,
        target: Target = "relative",
        max_depth: float | None = None,
        channel_order: ChannelOrder = "RGB",
        scaling: Scaling = "mean_std",
        norm_momentum: float = 0.1,
        direction: Direction | None = None,
        tile_size: int | None = None,
        image_size: Sequence[int] | None = None,
        decoder_name: DecoderName = "EncDec",
    ) -> None:
        super().__init__()
        _check(backbone, taps, options, target, max_depth, channel_order, scaling)
        _check_direction(target, direction)
        self.encoder = _build_encoder(backbone, taps, options, norm_momentum, False)
        if decoder_name == "GLPN":
            if len(widths) != 1:
                raise ValueError(f"decoder GLPN has one width, [64] as published; got {list(widths)}")
            self.decoder: Decoder | GLPNDecoder = GLPNDecoder(self.encoder.strides, self.encoder.channels, widths[0])
        elif decoder_name == "EncDec":
            strides, channels = self.encoder.strides, self.encoder.channels
            self.decoder = Decoder(strides, channels, widths, norm_momentum, self.encoder.images_have)
        else:
            raise ValueError(f"unknown decoder '{decoder_name}'; known: EncDec, GLPN")
        # They are not saved with the weights: the encoder has them.
        self.register_buffer("mean", torch.tensor(self.encoder.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(self.encoder.std).view(1, 3, 1, 1), persistent=False)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str] | None, **kwargs: Any) -> Any:
        """Load from a folder that ``save_pretrained`` wrote; arguments are those of diffusers' method.

        ``Modules.common.components.load_component`` does the same for a folder from a stranger.
        """
        # timm reads values while it builds, and diffusers' construction without memory has none.
        kwargs.setdefault("low_cpu_mem_usage", False)
        return super().from_pretrained(pretrained_model_name_or_path, **kwargs)

    def load_backbone(self, weights: bool | Path) -> None:
        """Replace the encoder's random weights by timm's pretrained ones (True), or by a file in timm's layout.

        Raises:
            ValueError: weights that do not fit.
            OSError: pretrained weights that are neither in the cache nor reachable.
        """
        config = self.config
        self.encoder = _build_encoder(
            config["backbone"], config["taps"], config["options"], config["norm_momentum"], weights
        )

    @property
    def units(self) -> str:
        """Unit of the map: ``m``, or nothing for relative depth."""
        return "" if self.config["target"] == "relative" else "m"

    @property
    def draws(self) -> Direction | None:
        """What rises in the network's own maps; None where nobody has said it."""
        return "depth" if self.config["target"] == "summit" else self.config["direction"]

    def prepare(self, image: Tensor) -> Tensor:
        """What the encoder sees of images (B, 3, H, W), RGB in [0, 1]: (B, C, H, W), C being 3 or, for grey, 1."""
        ordered = image.flip(1) if self.config["channel_order"] == "BGR" else image
        if self.config["scaling"] == "min_max":
            scaled = MinMaxNormalisation().forward(ordered)[0]  # a constant image becomes 0
        elif self.config["scaling"] == "none":
            scaled = ordered
        else:
            mean, std = (v.flip(1) if self.config["channel_order"] == "BGR" else v for v in (self.mean, self.std))
            scaled = (ordered - mean) / std
        # Images of one band come with it three times.
        return scaled.mean(dim=1, keepdim=True) if self.encoder.images_have == 1 else scaled

    def draw(self, prepared: Tensor) -> Tensor:
        """Draw the map of images (B, C, H, W) that ``prepare`` made, or of what stands for them.

        Returns:
            (B, 1, H, W) fp32, as ``forward``.
        """
        height, width = prepared.shape[-2:]
        padded = pad_to_multiple(prepared.to(self.dtype), self.encoder.multiple, least=self.encoder.smallest)
        levels = dict(zip(self.encoder.strides, self.encoder(padded), strict=True))
        drawn = self.decoder(padded, levels)[..., :height, :width].float()
        largest = self.config["max_depth"]
        return drawn.sigmoid() if largest is None else drawn.sigmoid() * largest

    def forward(self, image: Tensor) -> Tensor:
        """Draw the map.

        Args:
            image: (B, 3, H, W), RGB in [0, 1].

        Returns:
            (B, 1, H, W) fp32 in (0, 1) for ``relative``, else in (0, max_depth) metres; ``draws`` says what rises.
        """
        return self.draw(self.prepare(image))

    def relative_height(self, image: Tensor) -> Tensor:
        """Draw a map that rises with the ground, whatever the network's own maps are: stage 1 of D³-RSMDE.

        Seen from above, what is nearer to the camera is higher.

        Args:
            image: (B, 3, H, W), RGB in [0, 1].

        Returns:
            (B, 1, H, W) fp32 in [0, 1], each tile stretched by its own minimum and maximum.

        Raises:
            ValueError: nobody has said what rises in the network's maps.
        """
        if self.draws is None:
            raise ValueError("nobody has said what rises in this network's maps, height or depth; set its direction")
        drawn = self(image)
        return MinMaxNormalisation().forward(-drawn if self.draws == "depth" else drawn)[0]

    def optimise(self, precision: Precision = "fp32", channels_last: bool = True, compile: bool = False) -> EncDec:
        """Make the network fast, in place, for prediction; call it once, after moving it to its device.

        Args:
            precision: number format of the weights; the layer that draws the map stays in fp32.
            channels_last: memory layout of the convolutions.
            compile: whether to use torch.compile; where it does not work, a line says so and it runs uncompiled.
        """
        # Not the whole of it: the statistics by which it normalises images stay in fp32.
        set_format(self.encoder, precision, channels_last)
        set_format(self.decoder, precision, channels_last)
        draw_in_fp32(self.decoder)
        if compile:
            probe = torch.zeros(1, 3, 128, 128, device=self.device)
            with torch.no_grad():
                compile_networks([self.encoder, self.decoder], lambda: self(probe))
        return self


def EncDecIRv2(
    target: Target = "relative",
    max_depth: float | None = None,
    direction: Direction | None = None,
    image_size: Sequence[int] | None = None,
) -> EncDec:
    """The published network: 31,138,753 learnable parameters, every one of which takes part in a prediction.

    It sees images as the published training gave them: blue, green, red, each image stretched to [0, 1] by its own
    extremes. ``EncDec.draw`` takes images that are prepared otherwise. The published target is relative depth.

    Args:
        target: what is drawn: ``relative``, as published, ``metres`` or ``summit``.
        max_depth: the largest value that ``metres`` and ``summit`` can draw, in metres.
        direction: what rises in the maps that it learns from; None where nobody has said it.
        image_size: height and width of the images that it will learn from; 240 and 320 as published.
    """
    return EncDec(
        backbone=INCEPTION_RESNET_V2,
        taps="published",
        target=target,
        max_depth=max_depth,
        channel_order="BGR",
        scaling="min_max",
        norm_momentum=0.01,
        direction=direction,
        image_size=image_size,
    )


def _check_direction(target: str, direction: str | None) -> None:
    """Refuse a direction that does not exist, or that the target rules out.

    Raises:
        ValueError: such a direction.
    """
    if direction is not None and direction not in DIRECTIONS:
        raise ValueError(f"unknown direction '{direction}'; known: {', '.join(DIRECTIONS)}")
    if target == "summit" and direction not in (None, "height"):
        raise ValueError(f"target summit is metres below the highest ground, so direction is height, not {direction}")
    if target == "metres" and direction == "inverse depth":
        raise ValueError("inverse depth has no metres: set target relative, or direction height or depth")


def _check(
    backbone: str,
    taps: str,
    options: Mapping[str, Any] | None,
    target: str,
    max_depth: float | None,
    channel_order: str,
    scaling: str,
) -> None:
    """Refuse settings that do not fit together.

    Raises:
        ValueError: such settings.
    """
    if target not in TARGETS:
        raise ValueError(f"unknown target '{target}'; known: {', '.join(TARGETS)}")
    if target == "relative" and max_depth is not None:
        raise ValueError(f"max_depth {max_depth} is given, and relative depth has no unit; set target metres or summit")
    if target != "relative" and not (max_depth is not None and 0 < max_depth < float("inf")):
        raise ValueError(f"target {target} needs max_depth, the largest value in metres; got {max_depth}")
    if taps == "published" and backbone != INCEPTION_RESNET_V2:
        raise ValueError(f"the published taps are those of {INCEPTION_RESNET_V2}, not of {backbone}; set taps timm")
    if taps == "published" and options:
        raise ValueError(f"the published taps take no options of timm's model, got {dict(options)}")
    for name, value, known in (
        ("taps", taps, ("published", "timm")),
        ("channel_order", channel_order, ("RGB", "BGR")),
        ("scaling", scaling, ("mean_std", "min_max", "none")),
    ):
        if value not in known:
            raise ValueError(f"unknown {name} '{value}'; known: {', '.join(known)}")


def _build_encoder(
    backbone: str, taps: str, options: Mapping[str, Any] | None, norm_momentum: float, weights: bool | Path
) -> InceptionResNetV2Pyramid | MixTransformerPyramid | TimmPyramid:
    if taps == "published":
        return InceptionResNetV2Pyramid(weights, norm_momentum)
    if backbone in MIX_TRANSFORMERS:
        return MixTransformerPyramid(backbone, options, weights)
    return TimmPyramid(backbone, options, weights)
