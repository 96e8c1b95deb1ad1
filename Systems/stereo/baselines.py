"""Maps without learning that stand beside a stereo network's: they need no weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from Modules.stereo.plane_sweep import plane_sweep
from Systems.stereo.task import batch_geometry
from Utils.data.sample import Batch


def constant_map(batch: Batch) -> Tensor:
    """One value everywhere, (B, 1, H, W) metres: the median of the image's own truth, which no method knows."""
    found = torch.full_like(batch["target"], torch.nan)
    for place, (truth, known) in enumerate(zip(batch["target"], batch["mask"], strict=True)):
        if known.any():
            found[place] = truth[known].median()
    return found


@torch.no_grad()
def sweep_map(batch: Batch, window: int, planes: int) -> Tensor:
    """The plane at which windows correlate best, with sub-pixel peak: (B, 2, H, W) metres and correlation.

    Args:
        batch: of ``StereoDataset``.
        window: pixels along a side of a window, odd.
        planes: most planes; fewer where the range has fewer intervals.
    """
    low, high = batch["value_range"].double().unbind(1)
    intervals = float(((high - low) / batch["interval"].reshape(-1).double()).max())
    count = max(3, min(planes, math.ceil(intervals) + 1))
    steps = torch.linspace(0, 1, count, dtype=torch.float64, device=low.device)
    values = low[:, None] + (high - low)[:, None] * steps
    grey = batch["images"].float().mean(dim=2, keepdim=True)
    found = plane_sweep(grey, batch_geometry(batch), values, window)
    # No correlation below 0 is any match.
    return torch.stack([found.values, found.score.nan_to_num(0.0).clamp(0, 1)], dim=1)
