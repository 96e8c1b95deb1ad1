"""The cost volume as a graph of plain operations, every view a tensor of the volume's size: the oracle of our own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from Modules.stereo.geometry import Positions, sample
from Modules.stereo.names import Counting


def direct_volume(
    reference: Tensor, sources: Sequence[Tensor], positions: Sequence[Positions], counting: Counting = "all"
) -> Tensor:
    """As ``Modules.stereo.cost_volume.variance_volume``: (B, C, D, h, w)."""
    depth = positions[0].x.shape[1]
    views = [reference[:, :, None].expand(-1, -1, depth, -1, -1)]
    counts = [torch.ones_like(positions[0].x)[:, None]]
    for source, places in zip(sources, positions, strict=True):
        seen = places.valid[:, None].float()
        warped = sample(source, places)
        views.append(warped * seen if counting == "visible" else warped)
        counts.append(seen if counting == "visible" else torch.ones_like(seen))
    count = torch.stack(counts).sum(0)
    count = torch.where(count > 1, count, float(len(views)))
    mean = sum(views) / count
    return sum(view.square() for view in views) / count - mean.square()
