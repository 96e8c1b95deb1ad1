"""The published encoder of relative depth maps: ResNet-18 up to its second group, and a decoder without skips."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional

from Modules.backbones.pyramid import TimmPyramid
from Modules.stereo.layers import double_nearest

RESNET = "resnet18"
_LEVEL = 2  # timm's number of the group at an eighth of the size
_CHANNELS = 128


class RelativeDepthEncoder(nn.Module):
    """Features of relative depth maps beside those of images (RDM-MVS, 10.1109/LGRS.2025.3527550).

    927,984 parameters at the published widths. Layers of ResNet-18 behind the second group are not built at all.

    Args:
        channels: channels of the features at strides 4, 2 and 1.
    """

    def __init__(self, channels: tuple[int, int, int]) -> None:
        super().__init__()
        self.resnet = _resnet(False)
        self.channels = channels
        widths = (_CHANNELS, *channels)
        self.blocks = nn.ModuleList(_UpBlock(a, b) for a, b in pairwise(widths))

    def load_backbone(self, weights: bool | Path) -> None:
        """Replace the ResNet's random weights by timm's pretrained ones (True), or by a file in timm's layout.

        Raises:
            ValueError: weights that do not fit.
            OSError: pretrained weights that are neither in the cache nor reachable.
        """
        self.resnet = _resnet(weights)

    def forward(self, maps: Tensor) -> list[Tensor]:
        """Maps (N, 3, H, W), standardised, H and W multiples of 8, to features of strides 4, 2 and 1."""
        (features,) = self.resnet(maps)
        found = []
        for block in self.blocks:
            features = block(features)
            found.append(features)
        return found


def _resnet(weights: bool | Path) -> TimmPyramid:
    return TimmPyramid(RESNET, weights=weights, levels=(_LEVEL,))


class _UpBlock(nn.Module):
    """A residual block that doubles the size: (N, inputs, h, w) to (N, outputs, 2 h, 2 w)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, inputs, 3, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(inputs)
        self.second = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.second_norm = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.shortcut_norm = nn.BatchNorm2d(outputs)

    def forward(self, values: Tensor) -> Tensor:
        found = functional.relu(self.first_norm(self.first(values)))
        found = self.second_norm(self.second(double_nearest(found)))
        return functional.relu(found + self.shortcut_norm(self.shortcut(double_nearest(values))))
