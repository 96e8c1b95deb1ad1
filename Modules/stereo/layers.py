"""Convolutions with a norm and ReLU behind them, in two and three dimensions, as all parts of the networks use them."""

from __future__ import annotations

from torch import Tensor, nn

from Modules.stereo.names import Norm
from Modules.stereo.volume_convolution import VolumeConvolution

_CHANNELS_A_GROUP = 4


def norm_layer(norm: Norm, channels: int, dimensions: int) -> nn.Module:
    """A norm of (B, channels, ...) over 2 or 3 dimensions; both kinds have the same number of parameters."""
    if norm == "group":
        return nn.GroupNorm(max(1, channels // _CHANNELS_A_GROUP), channels)
    return nn.BatchNorm2d(channels) if dimensions == 2 else nn.BatchNorm3d(channels)


class ConvolutionBlock(nn.Sequential):
    """A convolution without bias, a norm, and ReLU: (B, inputs, ...) to (B, outputs, ... / stride, rounded up).

    The i-th output is centred on the input i * stride.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, dimensions: int = 2, norm: Norm = "batch"
    ) -> None:
        assert dimensions == 2 or kernel == 3, "volumes are convolved with three taps"
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
            if dimensions == 2
            else VolumeConvolution(inputs, outputs, stride),
            norm_layer(norm, outputs, dimensions),
            nn.ReLU(inplace=True),
        )


class DoublingBlock(nn.Sequential):
    """A transposed convolution without bias, a norm, and ReLU: (B, inputs, ...) to twice the size.

    It is the transpose of a ``ConvolutionBlock`` of stride 2: the input i is centred on the output 2 i.
    """

    def __init__(self, inputs: int, outputs: int, dimensions: int = 2, norm: Norm = "batch") -> None:
        kind = nn.ConvTranspose2d if dimensions == 2 else nn.ConvTranspose3d
        super().__init__(
            kind(inputs, outputs, 3, 2, 1, output_padding=1, bias=False),
            norm_layer(norm, outputs, dimensions),
            nn.ReLU(inplace=True),
        )


def double_nearest(values: Tensor) -> Tensor:
    """(B, C, H, W) to (B, C, 2 H, 2 W), each value four times."""
    return values.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)
