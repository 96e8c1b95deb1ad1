"""What a benchmark needs to know of a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor, nn

from Modules.common.precision import Precision

# One pass has no steps; everything else goes through a number of them.
Steps: TypeAlias = int | None
# Pixels of a square image's side, or height and width.
Size: TypeAlias = int | tuple[int, int]


def sides(size: Size) -> tuple[int, int]:
    """Height and width."""
    return (size, size) if isinstance(size, int) else size


@dataclass(frozen=True)
class Switches:
    """What is done to a model for speed, the same to ours and to the peers: see ``D3RSMDE.optimise``."""

    precision: Precision = "fp32"
    channels_last: bool = True
    compile: bool = False


@dataclass
class Subject:
    """A model that draws a map from an image.

    Attributes:
        label: its name in tables.
        networks: all of them, for counting parameters.
        run: images (B, 3, H, W) in [0, 1], float32, and a number of steps, to maps (B, 1, H, W).
        parts: modules whose forward passes are timed and counted apart; none holds another.
        switch: makes it fast, in place, once it is on its device.
        step_part: the part that is called once a step.
        notes: what a reader of the numbers must know.
    """

    label: str
    networks: list[nn.Module]
    run: Callable[[Tensor, Steps], Tensor]
    parts: dict[str, nn.Module]
    switch: Callable[[Switches], object]
    step_part: str | None = None
    notes: list[str] = field(default_factory=list)

    def to(self, device: torch.device) -> Subject:
        """Move the networks."""
        for network in self.networks:
            network.to(device)
        return self
