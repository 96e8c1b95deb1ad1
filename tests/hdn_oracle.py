"""Hierarchical depth normalisation straight from its definition, what Modules/losses.py is measured against.

Every context is a full-size mask, the median comes from nanmedian, and gradients from autograd.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def oracle_masks(target: Tensor, valid: Tensor, family: str, divisions: Sequence[int] = (4, 2, 1)) -> list[Tensor]:
    """Masks (H, W) of one image's contexts."""
    known = target[valid]
    masks = []
    for parts in divisions:
        if family == "ds":
            height, width = target.shape
            for i in range(parts):
                for j in range(parts):
                    cell = torch.zeros_like(valid)
                    rows = slice(i * height // parts, (i + 1) * height // parts)
                    cell[rows, j * width // parts : (j + 1) * width // parts] = True
                    masks.append(cell & valid)
        elif known.numel():
            for i in range(parts):
                if family == "dr":
                    low, span = known.min(), known.max() - known.min()
                    lower = low + span * i * (1 / parts)
                    upper = low + span * (i + 1) * (1 / parts) + 1e-30
                else:
                    lower, upper = (torch.quantile(known, edge / parts) for edge in (i, i + 1))
                masks.append((target >= lower) & (target < upper) & valid)
    return masks


def oracle_normalise(values: Tensor, mask: Tensor) -> Tensor:
    """Values (H, W) less their median over the mask, over their scale there; 0 elsewhere."""
    median = values.masked_fill(~mask, torch.nan).flatten().nanmedian()
    shifted = torch.where(mask, values - median, 0)
    return shifted / (shifted.abs().sum() / (mask.sum() + 1) + 1e-6)


def oracle_sums(prediction: Tensor, target: Tensor, masks: Sequence[Tensor]) -> Tensor:
    """Sum over one image's pixels (H, W) of the mean over the contexts that hold them."""
    total, held = torch.zeros_like(prediction), torch.zeros_like(prediction)
    for mask in masks:
        if mask.any():
            total = total + (oracle_normalise(prediction, mask) - oracle_normalise(target, mask)).abs()
            held = held + mask
    return (total / held.clamp(min=1)).sum()


def oracle_hdn(
    prediction: Tensor,
    target: Tensor,
    valid: Tensor,
    family: str,
    divisions: Sequence[int] = (4, 2, 1),
    dtype: torch.dtype | None = None,
) -> Tensor:
    """HDN of one family, (B, 1, H, W) in; contexts as in the maps' own type, arithmetic in ``dtype`` where given."""
    sums = []
    for x, y, known in zip(prediction[:, 0], target[:, 0], valid[:, 0], strict=True):
        masks = oracle_masks(y, known, family, divisions)
        sums.append(oracle_sums(x.to(dtype or x.dtype), y.to(dtype or y.dtype), masks))
    return torch.stack(sums).sum() / prediction.numel()
