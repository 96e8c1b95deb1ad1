"""The 3-D U-Net that turns a cost volume into a score of each hypothesis (CasMVSNet, UCSNet)."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from Modules.stereo.layers import ConvolutionBlock, DoublingBlock
from Modules.stereo.names import Norm
from Modules.stereo.volume_convolution import VolumeConvolution

DIVISOR = 8
"""Hypotheses, height and width of a volume are to be multiples of this."""


class VolumeUNet(nn.Module):
    """Three levels down and up in hypotheses, height and width, with sums across.

    Args:
        channels: channels of the volume.
        base: channels at the full size; 8 as published: 298,008 parameters with 32 channels.
        norm: what normalises activations.
    """

    def __init__(self, channels: int, base: int = 8, norm: Norm = "batch") -> None:
        super().__init__()
        widths = [base, 2 * base, 4 * base, 8 * base]
        self.entry = ConvolutionBlock(channels, base, dimensions=3, norm=norm)
        self.down = nn.ModuleList(
            nn.Sequential(
                ConvolutionBlock(a, b, 3, 2, dimensions=3, norm=norm), ConvolutionBlock(b, b, dimensions=3, norm=norm)
            )
            for a, b in pairwise(widths)
        )
        self.up = nn.ModuleList(DoublingBlock(b, a, dimensions=3, norm=norm) for b, a in pairwise(reversed(widths)))
        self.score = VolumeConvolution(base, 1)

    def forward(self, volume: Tensor) -> Tensor:
        """Volume (B, C, D, h, w), D, h and w multiples of 8, to scores (B, D, h, w); the highest is the best."""
        values = self.entry(volume)
        skips = []
        for down in self.down:
            skips.append(values)
            values = down(values)
        for up in self.up:
            values = skips.pop() + up(values)
        return self.score(values).squeeze(1)
