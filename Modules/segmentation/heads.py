"""What makes class scores of an encoder's levels: an all-MLP decoder as SegFormer's, UPerNet, and an auxiliary head.

SegFormer: arXiv 2105.15203; UPerNet: arXiv 1807.10221; the auxiliary head is that of PSPNet (arXiv 1612.01105).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from Modules.segmentation.layers import ConvNormReLU, resized
from Modules.segmentation.names import Head

_POOLED_SIDES = (1, 2, 3, 6)


class MlpHead(nn.Module):
    """All levels at the size of the finest, mixed by a 1 x 1 convolution.

    Args:
        levels: how many levels there are.
        channels: channels of each, and of the mixed map.
        classes: how many classes there are.
        dropout: share of channels that are dropped in training before the last convolution.
    """

    def __init__(self, levels: int, channels: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.mix = ConvNormReLU(levels * channels, channels, 1)
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(channels, classes, 1)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Levels (B, channels, h, w), finest first, to class scores (B, classes, h, w) of the finest size."""
        size = levels[0].shape[-2:]
        mixed = self.mix(torch.cat([resized(level, size) for level in levels], dim=1))
        return _classified(self.classify, self.dropout(mixed))


class UPerNetHead(nn.Module):
    """Pyramid pooling of the deepest level, a feature pyramid on top of it, and all levels fused.

    Args:
        levels: how many levels there are.
        channels: channels of each.
        classes: how many classes there are.
        dropout: share of channels that are dropped in training before the last convolution.
        width: channels of the head; 512 in the paper.
    """

    def __init__(self, levels: int, channels: int, classes: int, dropout: float, width: int) -> None:
        super().__init__()
        self.pooled = nn.ModuleList(ConvNormReLU(channels, width, 1, groups=True) for _ in _POOLED_SIDES)
        self.context = ConvNormReLU(channels + len(_POOLED_SIDES) * width, width, 3)
        self.laterals = nn.ModuleList(ConvNormReLU(channels, width, 1) for _ in range(levels - 1))
        self.smooth = nn.ModuleList(ConvNormReLU(width, width, 3) for _ in range(levels - 1))
        self.fuse = ConvNormReLU(levels * width, width, 3)
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(width, classes, 1)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Levels (B, channels, h, w), finest first, to class scores (B, classes, h, w) of the finest size."""
        deepest = levels[-1]
        pooled = [
            resized(conv(functional.adaptive_avg_pool2d(deepest, side)), deepest.shape[-2:])
            for side, conv in zip(_POOLED_SIDES, self.pooled, strict=True)
        ]
        above = self.context(torch.cat([deepest, *pooled], dim=1))
        found = [above]
        for place in reversed(range(len(levels) - 1)):
            lateral = self.laterals[place](levels[place])
            above = lateral + resized(above, lateral.shape[-2:])
            found.append(self.smooth[place](above))
        size = levels[0].shape[-2:]
        fused = self.fuse(torch.cat([resized(level, size) for level in reversed(found)], dim=1))
        return _classified(self.classify, self.dropout(fused))


class AuxiliaryHead(nn.Module):
    """Class scores of one level, whose loss trains the encoder more directly.

    Args:
        channels: channels of the level and of the head.
        classes: how many classes there are.
        dropout: share of channels that are dropped in training before the last convolution.
    """

    def __init__(self, channels: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.conv = ConvNormReLU(channels, channels, 3)
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(channels, classes, 1)

    def forward(self, level: Tensor) -> Tensor:
        """(B, channels, h, w) to class scores (B, classes, h, w)."""
        return _classified(self.classify, self.dropout(self.conv(level)))


def build_head(head: Head, levels: int, channels: int, classes: int, dropout: float, width: int) -> nn.Module:
    """The head with a name; ``width`` is UPerNet's alone.

    Raises:
        ValueError: an unknown name.
    """
    match head:
        case "mlp":
            return MlpHead(levels, channels, classes, dropout)
        case "upernet":
            return UPerNetHead(levels, channels, classes, dropout, width)
    raise ValueError(f"unknown head '{head}'; known: mlp, upernet")


def _classified(classify: nn.Conv2d, feature: Tensor) -> Tensor:
    # In fp32 under autocast too: bf16 scores of two classes are often equal.
    with torch.autocast(feature.device.type, enabled=False):
        return classify(feature.to(classify.weight.dtype))
