"""The image encoder of the networks: features at a quarter, a half and all of the size, by one of two decoders."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, cat, nn

from Modules.stereo.layers import ConvolutionBlock, DoublingBlock, double_nearest
from Modules.stereo.names import Norm

Decoder = Literal["fpn", "unet"]
STAGE_CHANNELS = (32, 16, 8)
"""Channels of the published encoder's features, by stage."""


class ImageEncoder(nn.Module):
    """Features of images: three levels on the way down, and a decoder.

    ``fpn``, of CasMVSNet: sums of levels, 48,920 parameters at ``base`` 8. ``unet``, of UCSNet and RED-Net: levels side
    by side, 53,112 parameters. Feature i of stride s is centred on the image's pixel i * s.

    Args:
        decoder: which of them.
        base: channels at the full size; 8 as published.
        norm: what normalises activations.
    """

    def __init__(self, decoder: Decoder, base: int = 8, norm: Norm = "batch") -> None:
        super().__init__()
        one, two, four = base, 2 * base, 4 * base
        self.channels = (four, two, one)
        self.level0 = nn.Sequential(ConvolutionBlock(3, one, norm=norm), ConvolutionBlock(one, one, norm=norm))
        self.level1 = nn.Sequential(
            ConvolutionBlock(one, two, 5, 2, norm=norm),
            ConvolutionBlock(two, two, norm=norm),
            ConvolutionBlock(two, two, norm=norm),
        )
        self.level2 = nn.Sequential(
            ConvolutionBlock(two, four, 5, 2, norm=norm),
            ConvolutionBlock(four, four, norm=norm),
            ConvolutionBlock(four, four, norm=norm),
        )
        self.decoder = _SumDecoder(base) if decoder == "fpn" else _ConcatenatingDecoder(base, norm)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (N, 3, H, W), standardised, sides multiples of 4, to features (N, C, H/s, W/s) of strides 4, 2, 1."""
        level0 = self.level0(images)
        level1 = self.level1(level0)
        return self.decoder(level0, level1, self.level2(level1))


class _SumDecoder(nn.Module):
    """The feature pyramid of CasMVSNet."""

    def __init__(self, base: int) -> None:
        super().__init__()
        four = 4 * base
        self.out1 = nn.Conv2d(four, four, 1, bias=False)
        self.lateral1 = nn.Conv2d(2 * base, four, 1)
        self.lateral0 = nn.Conv2d(base, four, 1)
        self.out2 = nn.Conv2d(four, 2 * base, 3, padding=1, bias=False)
        self.out3 = nn.Conv2d(four, base, 3, padding=1, bias=False)

    def forward(self, level0: Tensor, level1: Tensor, level2: Tensor) -> list[Tensor]:
        middle = double_nearest(level2) + self.lateral1(level1)
        fine = double_nearest(middle) + self.lateral0(level0)
        return [self.out1(level2), self.out2(middle), self.out3(fine)]


class _ConcatenatingDecoder(nn.Module):
    """The U-shaped decoder of UCSNet and of RED-Net in SatMVS."""

    def __init__(self, base: int, norm: Norm) -> None:
        super().__init__()
        one, two, four = base, 2 * base, 4 * base
        self.up1 = DoublingBlock(four, two, norm=norm)
        self.join1 = ConvolutionBlock(2 * two, two, norm=norm)
        self.up0 = DoublingBlock(two, one, norm=norm)
        self.join0 = ConvolutionBlock(2 * one, one, norm=norm)
        self.out1 = nn.Conv2d(four, four, 1, bias=False)
        self.out2 = nn.Conv2d(two, two, 1, bias=False)
        self.out3 = nn.Conv2d(one, one, 1, bias=False)

    def forward(self, level0: Tensor, level1: Tensor, level2: Tensor) -> list[Tensor]:
        middle = self.join1(cat([self.up1(level2), level1], dim=1))
        fine = self.join0(cat([self.up0(middle), level0], dim=1))
        return [self.out1(level2), self.out2(middle), self.out3(fine)]
