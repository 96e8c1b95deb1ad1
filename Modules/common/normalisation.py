"""Per-tile normalisation of height maps, with its inverse.  A tile never depends on its neighbours in a batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class HeightRange:
    """Lowest value and span of each tile, (B, 1, 1, 1) each, in the map's unit; the span of a flat tile is 1."""

    low: Tensor
    span: Tensor


class MinMaxNormalisation:
    """Stretch each tile's valid pixels to [0, 1]; a flat or wholly invalid tile becomes 0."""

    def forward(self, height: Tensor, valid: Tensor | None = None) -> tuple[Tensor, HeightRange]:
        """Normalise.

        Args:
            height: (B, C, H, W), any unit.  Gradients pass through, the extremes included.
            valid: (B, 1, H, W) bool; None takes every pixel.

        Returns:
            (B, C, H, W) in [0, 1], 0 where invalid, and the range that ``inverse`` takes.
        """
        if valid is None:
            low = height.amin(dim=(1, 2, 3), keepdim=True)
            high = height.amax(dim=(1, 2, 3), keepdim=True)
            height_of_valid = height
        else:
            height_of_valid = torch.where(valid, height, torch.zeros_like(height))
            infinity = torch.full_like(height, torch.inf)
            low = torch.where(valid, height, infinity).amin(dim=(1, 2, 3), keepdim=True)
            high = torch.where(valid, height, -infinity).amax(dim=(1, 2, 3), keepdim=True)
            empty = ~torch.isfinite(low)
            low, high = low.masked_fill(empty, 0.0), high.masked_fill(empty, 0.0)
        span = high - low
        # Below this a float32 map holds no shape, only rounding.
        flat = span <= 1e-6 * torch.maximum(low.abs(), high.abs()).clamp_min(1e-6)
        span = torch.where(flat, torch.ones_like(span), span)
        stretched = ((height_of_valid - low) / span).clamp(0.0, 1.0)
        stretched = torch.where(flat, torch.zeros_like(stretched), stretched)
        if valid is not None:
            stretched = torch.where(valid, stretched, torch.zeros_like(stretched))
        return stretched, HeightRange(low, span)

    def inverse(self, normalised: Tensor, height_range: HeightRange) -> Tensor:
        """Take (B, C, H, W) in [0, 1] back to the unit of the tile that ``height_range`` came from."""
        return normalised * height_range.span + height_range.low
