"""The target of D³-RSMDE: heights stretched to [0, 1] over each tile's valid pixels."""

from __future__ import annotations

from Modules.common.normalisation import MinMaxNormalisation
from Utils.data.dataset import TargetTransform
from Utils.data.sample import Kind, Sample


def relative_height(sample: Sample) -> Sample:
    """``height`` (1, H, W) in [0, 1] from a tile's ``target`` in any unit; 0 where it is not ``valid``."""
    height, _ = MinMaxNormalisation().forward(sample["target"][None], sample["valid"][None])
    return {"height": height[0]}


RELATIVE_HEIGHT = TargetTransform(relative_height, {"height": Kind.MAP})
