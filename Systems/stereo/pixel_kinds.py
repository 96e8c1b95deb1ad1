"""Kinds of pixels on which stereo is hard, and which are scored apart: without texture, and hidden from other views."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from Systems.stereo.task import batch_geometry
from Utils.data.sample import Batch

# A window is without texture if its standard deviation is below this share of the whole image's.
_LITTLE, _WINDOW = 0.4, 9
# Intervals by which a point must lie behind another one to be hidden by it, beyond what neighbours differ.
_BEHIND = 3.0

KINDS: dict[str, str] = {
    "textureless": (
        f"pixels whose window of {_WINDOW} x {_WINDOW} has less than {_LITTLE:g} of the image's standard deviation"
    ),
    "occluded": ("pixels that lie behind others, by the reference's own truth, in half of the sources or more"),
}
"""Names and definitions, as tables give them."""


class HardPixels:
    """Finds them in a batch of ``StereoDataset``, once for all the maps that are scored on it."""

    def __init__(self) -> None:
        self._ids: list[str] = []
        self._found: dict[str, Tensor] = {}

    def __call__(self, batch: Batch) -> Mapping[str, Tensor]:
        """Where each kind is, (B, 1, H, W) bool."""
        if list(batch["id"]) != self._ids:
            self._found = {"textureless": textureless(batch["images"][:, 0]), "occluded": occluded(batch)}
            self._ids = list(batch["id"])
        return self._found


def textureless(image: Tensor) -> Tensor:
    """Where standardised images (B, 3, H, W) have no texture, (B, 1, H, W) bool."""
    grey = image.float().mean(dim=1, keepdim=True)
    mean, square = (_window_mean(part) for part in (grey, grey.square()))
    whole = grey.flatten(1).std(dim=1).view(-1, 1, 1, 1)
    return (square - mean.square()).clamp(min=0).sqrt() < _LITTLE * whole


@torch.no_grad()
def occluded(batch: Batch) -> Tensor:
    """Pixels (B, 1, H, W) bool that lie behind others in half of the sources or more.

    Every pixel of the reference is put where its truth lies in a source; of those that fall together, the nearest is
    seen: with depth the smallest value, with height the largest. That is exact for cameras that look the same way, and
    knows nothing of what the reference does not see itself. Pixels without truth are in no kind.
    """
    target, known = batch["target"].float(), batch["mask"]
    nearness = target if batch["cameras"].shape[-1] != 4 else -target
    near = torch.where(known, nearness, -torch.inf)
    far = torch.where(known, -nearness, -torch.inf)
    jump = functional.max_pool2d(near, 3, 1, 1) + functional.max_pool2d(far, 3, 1, 1)
    allowed = jump + _BEHIND * batch["interval"].reshape(-1, 1, 1, 1)
    geometry, sources = batch_geometry(batch), batch["images"].shape[1] - 1
    values = torch.where(known, target, batch["value_range"][:, :1, None, None])
    hidden = torch.zeros_like(target)
    for source in range(1, sources + 1):
        places = geometry.positions(source, values, 1, (target.shape[-2], target.shape[-1]))
        seen = places.valid & known
        hidden += seen & (_nearest(near, places.x, places.y, seen) - nearness > allowed)
    return known & (2 * hidden >= sources)


def _nearest(near: Tensor, x: Tensor, y: Tensor, seen: Tensor) -> Tensor:
    """For each pixel the nearest value (B, 1, H, W) of those that fall on the same pixel of the source."""
    height, width = near.shape[-2:]
    # Each falls on the four pixels around its place, so that stretched surfaces have no gaps.
    buffer = torch.full((len(near), height * width), -torch.inf, device=near.device)
    values = torch.where(seen, near, -torch.inf).flatten(1)
    for down in (y.floor(), y.ceil()):
        for right in (x.floor(), x.ceil()):
            buffer.scatter_reduce_(1, _index(right, down, height, width), values, "amax")
    return buffer.gather(1, _index(x.round(), y.round(), height, width)).view_as(near)


def _index(x: Tensor, y: Tensor, height: int, width: int) -> Tensor:
    return (y.clamp(0, height - 1) * width + x.clamp(0, width - 1)).long().flatten(1)


def _window_mean(values: Tensor) -> Tensor:
    return functional.avg_pool2d(values, _WINDOW, 1, _WINDOW // 2, count_include_pad=False)
