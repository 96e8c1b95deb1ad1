"""One level of an image's features, and relative depth fused into it so that the network starts without.

The blocks are this project's own: the paper that uses relative depth for land cover does not describe its fusion.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from Modules.segmentation.names import Fusion


class Level(nn.Module):
    """Brings one level of an encoder to the width of the decoder: 1 x 1, then 3 x 3, batch norm and ReLU.

    Args:
        channels_in: channels of the encoder's level.
        channels: channels of the result.
    """

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels_in, channels, 1)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, feature: Tensor, fused: DepthFusion | None = None, depth: Tensor | None = None) -> Tensor:
        """Bring the level to the decoder's width.

        Args:
            feature: (B, channels_in, h, w) of the image's encoder.
            fused: what joins relative depth to it.
            depth: (B, C, h, w) of the depth encoder; None where nothing is known, which leaves the image alone.

        Returns:
            (B, channels, h, w).
        """
        reduced = self.reduce(feature)
        if fused is None or depth is None:
            return functional.relu(self.norm(self.conv(reduced)))
        return functional.relu(self.norm(fused(reduced, depth, self.conv)))


class DepthFusion(nn.Module):
    """Joins a level of relative depth to one of an image: gated, whole, or added.

    With r the image's and d the map's reduced features, the level's 3 x 3 convolution takes [r, g d], g being the
    sigmoid of a 1 x 1 convolution of [r, d] (gate) or 1 (concat); or r + d (add). What the map adds starts at zero, so
    that a new network draws exactly what the same network draws without the map.

    Args:
        fusion: gate, concat or add.
        channels_in: channels of the depth encoder's level.
        channels: channels of the decoder.
    """

    def __init__(self, fusion: Fusion, channels_in: int, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels_in, channels, 1)
        self.gate = nn.Conv2d(2 * channels, channels, 1) if fusion == "gate" else None
        # The half of a convolution over [r, g d] that sees the map; the level has the other one.
        self.conv = None if fusion == "add" else nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        if self.conv is None:
            assert self.reduce.bias is not None
            nn.init.zeros_(self.reduce.weight)
            nn.init.zeros_(self.reduce.bias)
        else:
            nn.init.zeros_(self.conv.weight)

    def forward(self, reduced: Tensor, depth: Tensor, level_conv: nn.Module) -> Tensor:
        """The convolved features of image and map together.

        Args:
            reduced: (B, channels, h, w) of the image.
            depth: (B, channels_in, h, w) of the depth encoder.
            level_conv: the level's convolution of the image's features.
        """
        found = self.reduce(depth)
        if self.conv is None:
            return level_conv(reduced + found)
        if self.gate is not None:
            found = torch.sigmoid(self.gate(torch.cat([reduced, found], dim=1))) * found
        return level_conv(reduced) + self.conv(found)
