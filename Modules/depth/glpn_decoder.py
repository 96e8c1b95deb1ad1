"""The decoder of GLPN (Kim et al., 2022): from four levels of an encoder to a map, with attention between two scales.

Structure and sizes as in the paper's network, which HiRISE terrain models are drawn with (Config/Mars). With a
MiT-b4 for images of one channel it is the published network of 61.2 million parameters.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

GLPN_WIDTH = 64
"""Channels of the decoder."""


class SelectiveFusion(nn.Module):
    """Joins a map of this scale and one of the coarser scales by weights in (0, 1) for each pixel.

    Args:
        width: channels of either map, and of the result.
    """

    def __init__(self, width: int) -> None:
        super().__init__()

        def refine(channels: int, out: int) -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(channels, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU())

        half = max(width // 2, 1)
        self.weigh = nn.Sequential(refine(2 * width, width), refine(width, half), nn.Conv2d(half, 2, 3, padding=1))

    def forward(self, local: Tensor, coarse: Tensor) -> Tensor:
        """Two maps (B, width, h, w) to one."""
        weights = self.weigh(torch.cat([local, coarse], dim=1)).sigmoid()
        return local * weights[:, :1] + coarse * weights[:, 1:]


class GLPNDecoder(nn.Module):
    """Each level is brought to one width and fused with the coarser ones; then two convolutions draw the map.

    Args:
        strides: strides of the encoder's levels, finest first: each twice the one before, from 4 on.
        channels: channels of these levels.
        width: channels of the decoder.

    Raises:
        ValueError: an encoder with other levels, or a width below 1.
    """

    def __init__(self, strides: Sequence[int], channels: Sequence[int], width: int = GLPN_WIDTH) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"decoder width {width}; give at least 1 channel")
        # Encoders with a level of stride 2 lend those from stride 4 on, as the decoder doubles twice at its end.
        levels = [(stride, count) for stride, count in zip(strides, channels, strict=True) if stride >= 4]
        expected = [4 * 2**place for place in range(len(levels))]
        if len(levels) < 2 or [stride for stride, _ in levels] != expected:
            raise ValueError(f"decoder GLPN needs levels of strides 4, 8 and so on; this encoder has {list(strides)}")
        self.strides = [stride for stride, _ in reversed(levels)]
        # As published, a level that has the width already goes in as it is.
        self.reduce = nn.ModuleList(
            nn.Identity() if count == width else nn.Conv2d(count, width, 1) for _, count in reversed(levels)
        )
        self.fuse = nn.ModuleList(SelectiveFusion(width) for _ in self.strides[1:])
        self.head = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 1, 3, padding=1))

    def forward(self, image: Tensor, levels: dict[int, Tensor]) -> Tensor:
        """Draw the map.

        Args:
            image: (B, C, H, W); only the encoder has seen it.
            levels: the encoder's features by stride, each (B, C, H/stride, W/stride).

        Returns:
            (B, 1, H, W) in fp32 or the head's own format, of any range.
        """
        drawn = _doubled(self.reduce[0](levels[self.strides[0]]))
        for stride, reduce, fuse in zip(self.strides[1:], self.reduce[1:], self.fuse, strict=True):
            drawn = _doubled(fuse(reduce(levels[stride]), drawn))
        drawn = _doubled(drawn)
        drawn = self.head[1](self.head[0](drawn))
        # In fp32 under autocast too: bf16 has only 128 values between 0.5 and 1.
        with torch.autocast(drawn.device.type, enabled=False):
            return self.head[2](drawn.to(self.head[2].weight.dtype))


def _doubled(feature: Tensor) -> Tensor:
    return functional.interpolate(feature, scale_factor=2, mode="bilinear", align_corners=False)
