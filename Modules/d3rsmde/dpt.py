"""The DPT decoder: reassemble four taps into a pyramid, fuse it from coarse to fine, draw one map.

Ranftl, Bochkovskiy and Koltun, "Vision Transformers for Dense Prediction", ICCV 2021, section 3 and its appendix.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from Modules.backbones.vit import Tap
from Modules.d3rsmde.names import Readout

# Padding with zeros would give every map a step at its border, whose values the stretch to [0, 1] takes as extremes.
_PADDING: Literal["replicate"] = "replicate"


class Reassemble(nn.Module):
    """Turn one tap into a feature map of the decoder's width and of the pyramid level's size.

    Args:
        tap: the tapped feature map.
        level: 0 (finest) to 3; transformer taps are resampled by 4, 2, 1 and 1/2; convolutional ones keep their size.
        features: channels out.
        readout: what becomes of the class token, if there is one: concatenated and projected, added, or ignored.
    """

    def __init__(self, tap: Tap, level: int, features: int, readout: Readout) -> None:
        super().__init__()
        width = tap.channels
        self.readout = readout
        projects = readout == "project" and tap.has_class_token
        self.project = nn.Sequential(nn.Linear(2 * width, width), nn.GELU()) if projects else None
        self.resample: nn.Module = nn.Identity()
        if tap.is_tokens and level < 2:
            factor = 4 >> level
            self.resample = nn.ConvTranspose2d(width, width, kernel_size=factor, stride=factor)
        elif tap.is_tokens and level == 3:
            self.resample = nn.Conv2d(width, width, kernel_size=3, stride=2, padding=1, padding_mode=_PADDING)
        self.narrow = nn.Conv2d(width, features, kernel_size=3, padding=1, padding_mode=_PADDING, bias=False)

    def forward(self, feature: Tensor, token: Tensor | None) -> Tensor:
        """Resample a tap (B, C, h, w) and its class token (B, C)."""
        if token is not None and self.readout == "add":
            feature = feature + token[:, :, None, None]
        elif token is not None and self.project is not None:
            token = token[:, :, None, None].expand_as(feature)
            both = torch.cat([feature, token], dim=1).permute(0, 2, 3, 1)  # (B, h, w, 2C)
            feature = self.project(both).permute(0, 3, 1, 2)
        return self.narrow(self.resample(feature))


class ResidualUnit(nn.Module):
    """Two 3x3 convolutions, each after a ReLU, and a shortcut, without batch norm; the shape stays the same."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(features, features, kernel_size=3, padding=1, padding_mode=_PADDING)
        self.second = nn.Conv2d(features, features, kernel_size=3, padding=1, padding_mode=_PADDING)

    def forward(self, feature: Tensor) -> Tensor:
        """Refine (B, C, h, w)."""
        return feature + self.second(functional.relu(self.first(functional.relu(feature))))


class Fusion(nn.Module):
    """Add a pyramid level to the result of the coarser levels, refine the sum, and double its size."""

    def __init__(self, features: int, joins: bool) -> None:
        super().__init__()
        self.lateral = ResidualUnit(features) if joins else None
        self.refine = ResidualUnit(features)
        self.project = nn.Conv2d(features, features, kernel_size=1)

    def forward(self, level: Tensor, below: Tensor | None) -> Tensor:
        """Fuse two maps (B, C, h, w) into one (B, C, 2h, 2w)."""
        if below is not None and self.lateral is not None:
            level = below + self.lateral(level)
        # The 1x1 convolution commutes with bilinear resampling and costs a quarter before it.
        return _double(self.project(self.refine(level)))


class DPTDecoder(nn.Module):
    """Four taps in, one raw map out.

    Args:
        taps: the backbone's taps, finest first.
        features: decoder width (256 in the published model).
        readout: what becomes of the class token.
    """

    def __init__(self, taps: Sequence[Tap], features: int = 256, readout: Readout = "project") -> None:
        super().__init__()
        if len(taps) != 4:
            raise ValueError(f"the decoder needs 4 taps, not {len(taps)}")
        self.reassemble = nn.ModuleList(Reassemble(tap, i, features, readout) for i, tap in enumerate(taps))
        self.fuse = nn.ModuleList(Fusion(features, joins=i < 3) for i in range(4))
        self.widen = nn.Conv2d(features, features // 2, kernel_size=3, padding=1, padding_mode=_PADDING)
        self.head = nn.Sequential(
            nn.Conv2d(features // 2, 32, kernel_size=3, padding=1, padding_mode=_PADDING),
            nn.ReLU(),
            nn.Conv2d(32, 1, kernel_size=1),
        )

    def forward(self, pyramid: Sequence[tuple[Tensor, Tensor | None]], size: tuple[int, int]) -> Tensor:
        """Draw the map.

        Args:
            pyramid: four (feature map, class token) pairs, finest first.
            size: (H, W) of the map.

        Returns:
            (B, 1, H, W), of any range.
        """
        levels = [stage(*tap) for stage, tap in zip(self.reassemble, pyramid, strict=True)]
        path: Tensor | None = None
        for fuse, level in zip(reversed(self.fuse), reversed(levels), strict=True):
            path = fuse(level, path)  # strides 16, 8, 4, 2 for a stride-16 backbone
        drawn = functional.interpolate(self.widen(path), size=size, mode="bilinear", align_corners=False)
        before, last = self.head[:-1](drawn), self.head[-1]
        # In fp32 under autocast too: bf16 has only 128 values between 0.5 and 1, and each tile's map is stretched.
        with torch.autocast(drawn.device.type, enabled=False):
            return last(before.to(last.weight.dtype))


def _double(feature: Tensor) -> Tensor:
    return functional.interpolate(feature, scale_factor=2, mode="bilinear", align_corners=False)
