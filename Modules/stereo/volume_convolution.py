"""A 3 x 3 x 3 convolution of volumes that is also quick for one small volume on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["VolumeConvolution"]

# Below so many numbers, without the last side, torch leaves a single sample to a routine without oneDNN
# (ConvParams::use_mkldnn in aten/src/ATen/native/Convolution.cpp), which takes four to five times as long.
_SLOW_BELOW = 20481
_TAPS = 3


class VolumeConvolution(nn.Conv3d):
    """``nn.Conv3d`` with kernel 3 and padding 1 in all directions, the same parameters and results.

    For one small volume on a CPU each slice and its two neighbours stand side by side as channels of a 2-D convolution.

    Args:
        inputs: channels of the volume.
        outputs: channels of the result.
        stride: of all three directions.
        bias: whether a constant is added.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1, bias: bool = False) -> None:
        super().__init__(inputs, outputs, _TAPS, stride, 1, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        """Volumes (B, inputs, D, h, w) to (B, outputs, D, h, w), each of the last three divided by the stride."""
        small = input.shape[0] == 1 and input.shape[1:4].numel() < _SLOW_BELOW
        if not (small and input.device.type == "cpu" and input.dtype == torch.float32):
            return super().forward(input)
        step = self.stride[0]
        count = (input.shape[2] - 1) // step + 1
        padded = functional.pad(input[0].transpose(0, 1), (0, 0, 0, 0, 0, 0, 1, 1))  # (D + 2, C, h, w)
        slices = [padded[tap : tap + step * (count - 1) + 1 : step] for tap in range(_TAPS)]
        # The channels of the slice before come first, then its own, then those of the slice behind.
        weight = self.weight.transpose(1, 2).flatten(1, 2)  # (outputs, 3 C, 3, 3)
        found = functional.conv2d(torch.cat(slices, dim=1), weight, self.bias, step, 1)
        return found.transpose(0, 1)[None]
