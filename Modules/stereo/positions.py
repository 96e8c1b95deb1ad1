"""Where points of a reference image are seen in another image, and the values found there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["Geometry", "Positions", "pixel_grid", "positions_of", "sample"]

# A place outside of every image, for points that have none. Less than a pixel from the border zeros would be mixed in.
_NOWHERE = -10.0


@dataclass(frozen=True)
class Positions:
    """Places in a source's feature map.

    Attributes:
        x: columns, float32 [B, D, h, w]; whole numbers are the centres of pixels, from 0.
        y: rows, likewise.
        valid: True where the point lies before the camera and inside the map, bool [B, D, h, w].
    """

    x: Tensor
    y: Tensor
    valid: Tensor

    @property
    def placed(self) -> Tensor:
        """True where the point has a place at all, inside the map or beside it, bool [B, D, h, w]."""
        return (self.x != _NOWHERE) | (self.y != _NOWHERE)


class Geometry(Protocol):
    """The cameras of a batch of views, of which view 0 is the reference."""

    def positions(self, source: int, values: Tensor, stride: int, size: tuple[int, int]) -> Positions:
        """Where the pixels of the reference's feature map are seen by a source, if they lie at given values.

        Args:
            source: number of the view.
            values: depth or height of each pixel, in metres, [B, D, h, w]: D hypotheses a pixel.
            stride: pixels of the image from one pixel of the feature maps to the next; feature pixel i stands at
                image pixel i * stride, in the reference as in the source. 1 for whole images.
            size: rows and columns of the source's feature map.
        """


def pixel_grid(values: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """Columns [1, 1, 1, w] and rows [1, 1, h, 1], float64, in pixels of the image, of the pixels of a feature map."""
    height, width = values.shape[-2:]
    columns = torch.arange(width, dtype=torch.float64, device=values.device) * stride
    rows = torch.arange(height, dtype=torch.float64, device=values.device) * stride
    return columns.view(1, 1, 1, -1), rows.view(1, 1, -1, 1)


def positions_of(x: Tensor, y: Tensor, before: Tensor | None, stride: int, size: tuple[int, int]) -> Positions:
    """Positions in a feature map from float64 positions in the image.

    Args:
        x: columns of the image [B, D, h, w]; may be NaN.
        y: rows of the image.
        before: True where the point lies before the camera; None where it always does.
        stride: pixels of the image from one pixel of the feature map to the next.
        size: rows and columns of the feature map.
    """
    x, y = x / stride, y / stride
    rows, columns = size
    seen = torch.isfinite(x) & torch.isfinite(y)
    if before is not None:
        seen &= before
    x, y = (torch.where(seen, axis, _NOWHERE).to(torch.float32) for axis in (x, y))
    # Rounding may carry the border's own pixels out by a hair.
    hair = 1e-4
    inside = (x >= -hair) & (x <= columns - 1 + hair) & (y >= -hair) & (y <= rows - 1 + hair)
    return Positions(x, y, seen & inside)


def sample(features: Tensor, positions: Positions) -> Tensor:
    """Features at positions, bilinear, with zeros outside.

    Args:
        features: [B, C, H, W].
        positions: for a batch of the same size, [B, D, h, w].

    Returns:
        [B, C, D, h, w] of the features' type. Positions count in float32 whatever that type is.
    """
    rows, columns = features.shape[-2:]
    batch, hypotheses, height, width = positions.x.shape
    # Whole numbers are the centres of pixels, which is what align_corners=True means.
    across = positions.x * (2.0 / max(columns - 1, 1)) - 1.0
    down = positions.y * (2.0 / max(rows - 1, 1)) - 1.0
    grid = torch.stack([across, down], dim=-1).view(batch, hypotheses * height, width, 2)
    with torch.autocast(features.device.type, enabled=False):
        found = functional.grid_sample(features.float(), grid, padding_mode="zeros", align_corners=True)
    return found.to(features.dtype).view(batch, -1, hypotheses, height, width)
