"""Learning rates by depth: the earlier a block of an encoder, the slower it learns; norms and biases do not decay."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from Modules.segmentation.networks import SegmentationNetwork
from Utils.training.task import ParameterGroup

__all__ = ["LAYER_GROUPS", "decayed_groups"]

LAYER_GROUPS = 12
"""Parts of about equally many blocks into which an encoder is divided, as for ConvNeXt in mmsegmentation's recipes."""


def decayed_groups(network: SegmentationNetwork, decay: float) -> Sequence[ParameterGroup]:
    """All parameters: those of the encoders with rates that fall by ``decay`` from each part to the one before it."""
    scales: dict[nn.Parameter, float] = {}
    for encoder in network.encoders:
        named = list(encoder.named_parameters())
        blocks = list(dict.fromkeys(_block(name) for name, _ in named))
        for name, value in named:
            part = blocks.index(_block(name)) * LAYER_GROUPS // len(blocks)
            scales[value] = decay ** (LAYER_GROUPS - part)
    sorted_out: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for value in (parameter for parameter in network.parameters() if parameter.requires_grad):
        # Norms, biases and layer scales are vectors.
        sorted_out.setdefault((scales.get(value, 1.0), value.ndim > 1), []).append(value)
    return [
        ParameterGroup(values, scale, None if decays else 0.0)
        for (scale, decays), values in sorted(sorted_out.items(), key=lambda item: item[0], reverse=True)
    ]


def _block(name: str) -> str:
    """The block that a parameter belongs to: its name up to the last number, such as ``stages_2.blocks.5``."""
    words = name.replace("_", ".").split(".")
    numbers = [place for place, word in enumerate(words) if word.isdecimal()]
    return ".".join(words[: numbers[-1] + 1]) if numbers else words[0]
