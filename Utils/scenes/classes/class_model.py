"""What a trained model of classes is to whole scenes: a function that gives probabilities, and the classes' table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from Utils.data.land_cover.class_table import ClassTable

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ClassModel"]


@dataclass(frozen=True)
class ClassModel:
    """A model that draws classes.

    Attributes:
        draw: images (B, 3, H, W) in [0, 1] and, where it sees them, relative depth maps (B, 1, H, W) in [0, 1] that are
            larger nearer to the camera, to class probabilities (B, classes, H, W) fp32.
        table: the classes.
        uses_depth: whether it sees relative depth.
        tile_size: side in pixels of the tiles that it draws best.
        white: the value that counted as 1 in training images of more than 8 bits; None for what the files say.
        facts: what identifies the model, for results and for resuming.
    """

    draw: Callable[[Tensor, Tensor | None], Tensor]
    table: ClassTable
    uses_depth: bool
    tile_size: int
    white: float | None
    facts: Mapping[str, Any]

    def describe(self) -> dict[str, Any]:
        """The facts, with what the model predicts."""
        return {**self.facts, "predicts": "classes", "classes": list(self.table.names)}
