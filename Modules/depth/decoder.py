"""The decoder of Enc-Dec-IRv2 (arXiv 2410.11610): from the deepest level of an encoder to a map of the image's size.

The sizes are those of the published Keras code, and so are its statistics of batch norms and its first weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

PUBLISHED_WIDTHS = (256, 128, 64, 32)
"""Channels of the blocks whose results have the strides 8, 4, 2 and 1."""
_SLOPE = 0.2  # of the LeakyReLU
_NORM_EPSILON = 1e-3


class DecoderBlock(nn.Module):
    """Doubles a feature map, joins a skip connection to it, and refines both together.

    The batch norms come after the activations, and the first convolution has none.

    Args:
        channels_in: channels of the feature map.
        skip_channels: channels of the skip connection, 0 for none.
        channels: channels of the result.
        norm_momentum: weight of a batch's statistics in the running ones.
    """

    def __init__(self, channels_in: int, skip_channels: int, channels: int, norm_momentum: float) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels_in, channels, kernel_size=3, padding=1)
        self.first = nn.Conv2d(channels + skip_channels, channels, kernel_size=3, padding=1)
        self.first_norm = nn.BatchNorm2d(channels, _NORM_EPSILON, norm_momentum)
        self.second = nn.Conv2d(channels, channels, kernel_size=3, padding=1)
        self.second_norm = nn.BatchNorm2d(channels, _NORM_EPSILON, norm_momentum)

    def forward(self, feature: Tensor, skip: Tensor | None) -> Tensor:
        """(B, channels_in, h, w) and the skip connection (B, skip_channels, 2h, 2w) to (B, channels, 2h, 2w)."""
        doubled = functional.interpolate(feature, scale_factor=2, mode="bilinear", align_corners=False)
        joined = functional.leaky_relu(self.reduce(doubled), _SLOPE)
        if skip is not None:
            joined = torch.cat([joined, skip], dim=1)
        refined = self.first_norm(functional.leaky_relu(self.first(joined), _SLOPE))
        return self.second_norm(functional.leaky_relu(self.second(refined), _SLOPE))


class Decoder(nn.Module):
    """Blocks from an encoder's deepest stride down to 1, and the convolution that draws the map.

    Args:
        strides: strides of the encoder's levels, finest first, powers of two. Where the encoder has no level of a
            stride in between, the block there has no skip connection; that of stride 1 is the image itself.
        channels: channels of these levels.
        widths: channels of the blocks, the last being that of stride 1; blocks of more strides take the first.
        norm_momentum: weight of a batch's statistics in the running ones.
        image_channels: channels of the image.
    """

    def __init__(
        self,
        strides: Sequence[int],
        channels: Sequence[int],
        widths: Sequence[int] = PUBLISHED_WIDTHS,
        norm_momentum: float = 0.01,
        image_channels: int = 3,
    ) -> None:
        super().__init__()
        if not widths or min(widths) < 1:
            raise ValueError(f"decoder widths {list(widths)}; give one or more, of at least 1 channel")
        skips = dict(zip(strides, channels, strict=True)) | {1: image_channels}
        self.deepest = strides[-1]
        count = self.deepest.bit_length() - 1
        every = ([widths[0]] * count + list(widths))[-count:]
        into = [channels[-1], *every]
        # The strides of the blocks' results, coarsest first.
        self.strides = [2**power for power in reversed(range(count))]
        self.blocks = nn.ModuleList(
            DecoderBlock(into[place], skips.get(stride, 0), every[place], norm_momentum)
            for place, stride in enumerate(self.strides)
        )
        self.head = nn.Conv2d(every[-1], 1, kernel_size=3, padding=1)
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.xavier_uniform_(part.weight)  # as Keras begins
                assert part.bias is not None
                nn.init.zeros_(part.bias)

    def forward(self, image: Tensor, levels: dict[int, Tensor]) -> Tensor:
        """Draw the map.

        Args:
            image: (B, image_channels, H, W), as the encoder sees it; H and W are multiples of the deepest stride.
            levels: the encoder's features by stride, each (B, C, H/stride, W/stride).

        Returns:
            (B, 1, H, W) in fp32 or the head's own format, of any range.
        """
        skips = levels | {1: image}
        drawn = levels[self.deepest]
        for stride, block in zip(self.strides, self.blocks, strict=True):
            drawn = block(drawn, skips.get(stride))
        # In fp32 under autocast too: bf16 has only 128 values between 0.5 and 1.
        with torch.autocast(drawn.device.type, enabled=False):
            return self.head(drawn.to(self.head.weight.dtype))
