"""Inception-ResNet-v2 as a pyramid of five levels, tapped where Enc-Dec-IRv2 taps it (arXiv 2410.11610)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from Modules.backbones.pretrained import load_timm_file, pretrained_file

INCEPTION_RESNET_V2 = "inception_resnet_v2"

# Convolutions of the stem and the reductions have no padding, so the taps are some pixels short. Zeros at the top,
# bottom, left and right make them exact fractions of any height and width that are multiples of 16.
_PADDINGS = {2: (1, 0, 1, 0), 4: (1, 1, 1, 1), 8: (2, 1, 2, 1), 16: (1, 1, 1, 1)}
# What the file of weights holds behind the last tap, and what lies beside it in the second reduction.
_BEHIND = ("mixed_7a.", "repeat_2.", "block8.", "conv2d_7b.", "classif.")


class InceptionResNetV2Pyramid(nn.Module):
    """timm's Inception-ResNet-v2 up to the published network's deepest tap; what lies behind it does not exist.

    Its parts have timm's names, so that timm's weights fit.

    Args:
        weights: ``True`` for timm's pretrained weights (from the hub or its cache), a path for a file in timm's layout.
        norm_momentum: weight of a batch's statistics in the running ones of the batch norms; None keeps timm's.

    Attributes:
        strides: pixels per cell of each level, finest first.
        channels: channels of each level.
        images_have: channels of the images that it takes.
        mean: mean of each channel of images in [0, 1] for which the weights were made.
        std: standard deviation of each channel, likewise.
        multiple: height and width are to be multiples of this many pixels.
        smallest: the least height and width that it takes, at which batch norms of one tile still have two cells or
            more.

    Raises:
        ValueError: weights that do not fit.
        OSError: pretrained weights that are neither in the cache nor reachable.
    """

    strides = (2, 4, 8, 16)
    channels = (32, 80, 256, 288)
    images_have = 3
    mean = (0.5, 0.5, 0.5)
    std = (0.5, 0.5, 0.5)
    smallest = 64
    multiple = 16

    def __init__(self, weights: bool | Path = False, norm_momentum: float | None = None) -> None:
        super().__init__()
        whole: Any = timm.create_model(INCEPTION_RESNET_V2, pretrained=False, num_classes=0)
        self.conv2d_1a = whole.conv2d_1a
        self.conv2d_2a = whole.conv2d_2a
        self.conv2d_2b = whole.conv2d_2b
        self.maxpool_3a = whole.maxpool_3a
        self.conv2d_3b = whole.conv2d_3b
        self.conv2d_4a = whole.conv2d_4a
        self.maxpool_5a = whole.maxpool_5a
        self.mixed_5b = whole.mixed_5b
        self.repeat = whole.repeat
        self.mixed_6a = whole.mixed_6a
        self.repeat_1 = whole.repeat_1
        self.mixed_7a = nn.ModuleDict({"branch2": whole.mixed_7a.branch2[:2]})
        if norm_momentum is not None:
            for part in self.modules():
                if isinstance(part, nn.BatchNorm2d):
                    part.momentum = norm_momentum
        if weights:
            name = INCEPTION_RESNET_V2
            path = pretrained_file(name, name) if weights is True else Path(weights)
            load_timm_file(self, name, path, dict, _BEHIND)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Tap the features.

        Args:
            image: (B, 3, H, W); H and W are multiples of 16, at least 48, and in training at least ``smallest``.

        Returns:
            (B, 32, H/2, W/2), (B, 80, H/4, W/4), (B, 256, H/8, W/8), (B, 288, H/16, W/16).
        """
        half = self.conv2d_1a(image)  # activation
        quarter = self.conv2d_3b(self.maxpool_3a(self.conv2d_2b(self.conv2d_2a(half))))  # activation_3
        eighth = self.repeat(self.mixed_5b(self.maxpool_5a(self.conv2d_4a(quarter))))
        # The first reduction by hand, because its longest branch is tapped in the middle.
        short, long, pooled = self.mixed_6a.branch0, self.mixed_6a.branch1, self.mixed_6a.branch2
        tapped = long[1](long[0](eighth))  # activation_74
        reduced = torch.cat([short(eighth), long[2](tapped), pooled(eighth)], dim=1)
        sixteenth = self.mixed_7a["branch2"](self.repeat_1(reduced))  # activation_161
        levels = (half, quarter, tapped, sixteenth)
        return [_widen(level, stride) for level, stride in zip(levels, self.strides, strict=True)]


def _widen(level: Tensor, stride: int) -> Tensor:
    top, bottom, left, right = _PADDINGS[stride]
    return functional.pad(level, (left, right, top, bottom))
