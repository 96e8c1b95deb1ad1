"""Rational polynomial cameras: heights in the reference to places in another view."""

from __future__ import annotations

import torch
from torch import Tensor

from Modules.common.rational_polynomials import PARAMETERS, GroundPoints, ImagePoints, ground_of, image_of
from Modules.stereo.positions import Positions, pixel_grid, positions_of

__all__ = ["RationalGeometry"]

# Pixels by which the direct model may miss where the inverse started from. Warping onto itself must keep 1e-4 pixels.
_INVERSE_ERROR = 1e-5
_MOST_CORRECTIONS = 4

# Ground further than this from the middle of an image, in units of the model's scale, is not seen: there polynomials
# may fold back.
_FARTHEST = 3.0


class RationalGeometry:
    """Cameras given by rational polynomials; values are heights in metres above the ellipsoid.

    A pixel of the reference goes to the ground by the inverse model, corrected by the direct one as often as the
    cameras at hand need, and from there to the source by its direct model.
    """

    def __init__(self, parameters: Tensor) -> None:
        """Keep the cameras.

        Args:
            parameters: [B, V, 170] in the order of ``Modules.common.rational_polynomials``. View 0 is the reference,
                whose inverse model is used; it must be there. Kept as float64.

        Raises:
            ValueError: another shape, numbers that are not finite, scales that are not positive, or a reference
                without an inverse model that fits its direct one.
        """
        if parameters.dim() != 3 or parameters.shape[-1] != PARAMETERS:
            raise ValueError(f"parameters have shape {tuple(parameters.shape)}; [B, V, {PARAMETERS}] is expected")
        exact = parameters.detach().to("cpu", torch.float64)
        if not torch.isfinite(exact[..., :90]).all() or (exact[..., 5:10] <= 0).any():
            raise ValueError("the cameras must be finite, with positive scales")
        self.views = parameters.shape[1]
        self.corrections = _corrections(exact[:, 0])
        device = parameters.device if parameters.device.type != "mps" else torch.device("cpu")
        self._parameters = exact.to(device)
        self.device = device
        self._last: tuple[Tensor, torch.Size, int, GroundPoints] | None = None

    @torch.no_grad()
    def positions(self, source: int, values: Tensor, stride: int, size: tuple[int, int]) -> Positions:
        """Where the reference's pixels at heights ``values`` [B, D, h, w] are seen; see ``Geometry.positions``.

        The points on the ground are kept for the next source, if it is asked for the same heights.
        """
        shape = values.shape
        height = values.detach().to(self._parameters.device, torch.float64).reshape(shape[0], -1)
        ground = self._ground(height, shape, stride)
        there = self._parameters[:, source]
        seen = image_of(there, ground, height)
        near = torch.ones_like(height, dtype=torch.bool)
        for places, i in ((ground.latitude, 2), (ground.longitude, 3)):
            near &= (places - there[:, i, None]).abs() <= _FARTHEST * there[:, 5 + i, None]
        x, y, near = (part.reshape(shape) for part in (seen.sample, seen.line, near))
        found = positions_of(x, y, near, stride, size)
        return Positions(*(part.to(values.device) for part in (found.x, found.y, found.valid)))

    def _ground(self, height: Tensor, shape: torch.Size, stride: int) -> GroundPoints:
        """The points on the ground at heights [B, D h w] of the pixels of a feature map, [B, D, h, w] in shape."""
        if self._last is not None:
            known, known_shape, known_stride, ground = self._last
            # Not the tensor itself: it may have been changed in place.
            if known_shape == shape and known_stride == stride and torch.equal(known, height):
                return ground
        columns, rows = pixel_grid(height.view(shape), stride)
        image = ImagePoints(*(axis.expand(shape).reshape(shape[0], -1) for axis in (rows, columns)))
        ground = ground_of(self._parameters[:, 0], image, height, self.corrections)
        self._last = (height.clone(), shape, stride, ground)
        return ground


def _corrections(reference: Tensor) -> int:
    """How often the inverse of these cameras, [B, 170], has to be corrected to hit a hundred-thousandth of a pixel."""
    nodes = torch.linspace(-1, 1, 7, dtype=torch.float64)
    line, sample, height = (grid.reshape(1, -1) for grid in torch.meshgrid(nodes, nodes, nodes, indexing="ij"))
    line, sample, height = (
        values * reference[:, 5 + i, None] + reference[:, i, None]
        for values, i in ((line, 0), (sample, 1), (height, 4))
    )
    worst = torch.inf
    for corrections in range(_MOST_CORRECTIONS + 1):
        seen = image_of(reference, ground_of(reference, ImagePoints(line, sample), height, corrections), height)
        worst = float(torch.maximum((seen.line - line).abs(), (seen.sample - sample).abs()).max())
        if worst <= _INVERSE_ERROR:
            return corrections
    raise ValueError(
        f"the inverse model misses the direct one by up to {worst:.3g} pixels after {_MOST_CORRECTIONS} corrections; "
        "fit it anew (Utils.rasters.rational)"
    )
