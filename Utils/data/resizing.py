"""Bringing images and maps to another size: what is unknown in a map is never mixed into what is known."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from Utils.data.resize_names import Resize

# A pixel of a smaller map is known where at least this share of it is, as in tiles that are cut from rasters.
_KNOWN_SHARE = 0.5


def resize_image(image: Tensor, size: tuple[int, int]) -> Tensor:
    """An image (C, H, W), or a batch (B, C, H, W), in another height and width; each pixel is the mean of its area."""
    if tuple(image.shape[-2:]) == size:
        return image
    return functional.interpolate(image, size, mode="area") if image.ndim == 4 else _area(image, size)


def resize_map(values: Tensor, valid: Tensor, size: tuple[int, int], way: Resize) -> tuple[Tensor, Tensor]:
    """A map and its mask, both (1, H, W), as (1, h, w).

    Args:
        values: any numbers; those of pixels that are not valid play no part.
        valid: which pixels are known.
        size: height and width.
        way: ``area``, the mean of the known pixels, where they cover half of a pixel or more; ``nearest``, one pixel of
            the map, for maps that know few of them, such as a lidar's.

    Returns:
        The values, 0 where unknown, and the mask.
    """
    if tuple(values.shape[-2:]) == size:
        return values.where(valid, 0.0), valid
    if way == "nearest":
        known = functional.interpolate(valid[None].float(), size, mode="nearest-exact")[0] > 0.5
        picked = functional.interpolate(values[None], size, mode="nearest-exact")[0]
        return picked.where(known, 0.0), known
    # In float64, because the mean of equal values should be that value in float32.
    share = _area(valid.double(), size)
    total = _area(values.where(valid, 0.0).double(), size)
    known = share >= _KNOWN_SHARE
    return (total / share.where(known, 1.0)).where(known, 0.0).to(values.dtype), known


def _area(values: Tensor, size: tuple[int, int]) -> Tensor:
    return functional.interpolate(values.unsqueeze(0), size, mode="area").squeeze(0)
