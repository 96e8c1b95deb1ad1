"""Pinhole cameras: z-depth in the reference to places in another view."""

from __future__ import annotations

import torch
from torch import Tensor

from Modules.stereo.positions import Positions, pixel_grid, positions_of

__all__ = ["PinholeGeometry"]

# Metres before a camera at which a point still counts as seen.
_NEAREST = 1e-6


class PinholeGeometry:
    """Cameras that project along straight rays.

    A point (u, v) of the reference at depth d is seen at q = d M (u, v, 1) + t, where (M | t) are the upper rows of
    P_source P_reference^-1 (Hartley and Zisserman, Multiple View Geometry, 2nd edition, section 13.1).
    """

    def __init__(self, projections: Tensor) -> None:
        """Keep the cameras.

        Args:
            projections: [B, V, 4, 4], each (K E; 0 0 0 1): from the world to homogeneous pixels, with z-depth in
                metres as the third row. View 0 is the reference. Kept as float64.

        Raises:
            ValueError: another shape, or cameras that are not finite or cannot be inverted.
        """
        if projections.dim() != 4 or projections.shape[-2:] != (4, 4):
            raise ValueError(f"projections have shape {tuple(projections.shape)}; [B, V, 4, 4] is expected")
        exact = projections.detach().to("cpu", torch.float64)
        inverse, problem = torch.linalg.inv_ex(exact[:, 0])
        if not torch.isfinite(exact).all() or problem.any():
            raise ValueError("the cameras must be finite, and the reference's projection invertible")
        self.views = projections.shape[1]
        self._from_reference = exact @ inverse[:, None]  # [B, V, 4, 4]
        self._device = projections.device if projections.device.type != "mps" else torch.device("cpu")

    @torch.no_grad()
    def positions(self, source: int, values: Tensor, stride: int, size: tuple[int, int]) -> Positions:
        """Where the reference's pixels at depths ``values`` [B, D, h, w] are seen; see ``Geometry.positions``."""
        device = self._device
        depth = values.detach().to(device, torch.float64)
        matrix = self._from_reference[:, source].to(device)  # [B, 4, 4]
        columns, rows = pixel_grid(depth, stride)

        def row(i: int) -> Tensor:
            a, b, c, shift = (matrix[:, i, j].view(-1, 1, 1, 1) for j in range(4))
            return (a * columns + b * rows + c) * depth + shift

        before = (depth_there := row(2)) > _NEAREST
        away = torch.where(before, depth_there, 1.0)
        found = positions_of(row(0) / away, row(1) / away, before & (depth > 0), stride, size)
        return Positions(*(part.to(values.device) for part in (found.x, found.y, found.valid)))
