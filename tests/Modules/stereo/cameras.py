"""Pinhole cameras side by side for tests of the networks."""

from __future__ import annotations

import torch
from torch import Tensor

from Modules.stereo.geometry import PinholeGeometry


def row_of_cameras(
    views: int = 3, size: tuple[int, int] = (32, 64), base: float = 4.0, focal: float = 100.0, batch: int = 1
) -> Tensor:
    """Projections (batch, views, 4, 4) of cameras that look down side by side, ``base`` metres apart."""
    height, width = size
    inner = torch.tensor([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]], dtype=torch.float64)
    found = torch.eye(4, dtype=torch.float64).repeat(batch, views, 1, 1)
    for view in range(views):
        place = torch.cat([torch.eye(3, dtype=torch.float64), torch.zeros(3, 1, dtype=torch.float64)], dim=1)
        place[0, 3] = -base * view
        found[:, view, :3] = inner @ place
    return found


def geometry(**options: int | float | tuple[int, int]) -> PinholeGeometry:
    """The geometry of ``row_of_cameras``."""
    return PinholeGeometry(row_of_cameras(**options))  # type: ignore[arg-type]
