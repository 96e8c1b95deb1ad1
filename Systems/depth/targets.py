"""What a depth network learns, made of a tile's map in the unit of its file."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from Modules.common.normalisation import MinMaxNormalisation
from Modules.depth.names import Target
from Utils.data.dataset import TargetTransform
from Utils.data.resize_names import Resize
from Utils.data.resizing import resize_image, resize_map
from Utils.data.sample import Kind, Sample


def depth_target(
    target: Target,
    max_depth: float | None = None,
    metres_per_unit: float = 1.0,
    hole: float | None = None,
    size: tuple[int, int] | None = None,
    way: Resize = "area",
) -> TargetTransform:
    """The transform that adds ``depth`` (1, H, W) to a sample, and leaves out of ``valid`` what cannot be learnt.

    - ``relative``: [0, 1] over the tile's valid pixels, 0 where it is not valid.
    - ``metres``: metres, where they are above 0 and not beyond ``max_depth``.
    - ``summit``: metres below the highest valid pixel, where they are not beyond ``max_depth``.

    Args:
        target: which of these.
        max_depth: metres, None for no limit.
        metres_per_unit: metres that one unit of the file stands for.
        hole: the value in the file that says that nothing was measured, None for none.
        size: height and width to which image and map are brought first; None for none.
        way: how the map is brought to it; see ``resize_map``.
    """
    farthest = math.inf if max_depth is None else max_depth

    def add(sample: Sample) -> Sample:
        values, valid = sample["target"], sample["valid"]
        if hole is not None:
            valid = valid & (values != hole)
        if size is not None:
            values, valid = resize_map(values, valid, size, way)
            small = {"image": resize_image(sample["image"], size), "target": values, "valid": valid}
            return small | learnt(values, valid)
        return learnt(values, valid)

    def learnt(values: Tensor, valid: Tensor) -> Sample:
        if target == "relative":
            stretched, _ = MinMaxNormalisation().forward(values[None], valid[None])
            return {"depth": stretched[0], "valid": valid}
        # In float64, because a thousandth of a whole number should be the float32 nearest to it.
        metres = (values.double() * metres_per_unit).float()
        if target == "summit":
            metres = (metres[valid].max() if valid.any() else 0.0) - metres
            valid = valid & (metres <= farthest)
        else:
            valid = valid & (metres > 0) & (metres <= farthest)
        return {"depth": torch.where(valid, metres, 0.0), "valid": valid}

    return TargetTransform(add, {"depth": Kind.MAP})
