"""Convolution, norm and ReLU, of which fusion and heads consist."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

_GROUPS = 32


class ConvNormReLU(nn.Module):
    """A convolution without bias that keeps the size, a norm, and ReLU.

    Args:
        channels_in: channels of the feature map.
        channels: channels of the result.
        kernel: side of the kernel, odd.
        groups: whether group norm takes the place of batch norm: a map of one pixel has no statistics over a batch of
            one image.
    """

    def __init__(self, channels_in: int, channels: int, kernel: int, groups: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels, kernel, padding=kernel // 2, bias=False)
        count = _GROUPS if channels % _GROUPS == 0 else 1
        self.norm: nn.Module = nn.GroupNorm(count, channels) if groups else nn.BatchNorm2d(channels)

    def forward(self, feature: Tensor) -> Tensor:
        """(B, channels_in, h, w) to (B, channels, h, w)."""
        return functional.relu(self.norm(self.conv(feature)))


def resized(feature: Tensor, size: tuple[int, ...]) -> Tensor:
    """(B, C, h, w) brought to a size (height, width) by bilinear interpolation; itself where it has that size."""
    if feature.shape[-2:] == size:
        return feature
    return functional.interpolate(feature, size=size, mode="bilinear", align_corners=False)
