"""What a trained model is to whole scenes and whole images: a function that says what it predicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from Modules.common.directions import DIRECTIONS, Direction

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["DIRECTIONS", "DetailModel", "Direction", "Predictor", "Predicts"]

Predicts = Literal["relative height", "height"]


@dataclass(frozen=True)
class Predictor:
    """A model with what one must know to use its maps; calling it gives maps that rise with the ground.

    Attributes:
        draw: images (B, 3, H, W) in [0, 1], of any H and W, to the model's own maps (B, H, W).
        predicts: ``relative height`` has an unknown scale and shift; ``height`` is in metres with an unknown shift.
        direction: what rises in the model's own maps: the height of the ground, the distance from the camera, or its
            inverse.
        multiple: heights and widths that the model takes without padding or resizing are multiples of this many pixels.
        tile_size: side in pixels of the tiles that it draws best.
        facts: what identifies the model, for results and for resuming.
        side: shorter side in pixels at which it draws whole images; None takes them as they are.
        full_range: whether it learnt from brightness as the files' type has it, and scenes should not be stretched.
    """

    draw: Callable[[Tensor], Tensor]
    predicts: Predicts
    direction: Direction
    multiple: int
    tile_size: int
    facts: Mapping[str, Any]
    side: int | None = None
    full_range: bool = False

    def __call__(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] to heights (B, H, W): the one place where a map's polarity is turned.

        Seen from above, what is nearer to the camera is higher. Inverse depth therefore rises with the height, and
        depth falls. To first order, both are linear in the height where the camera is far above the relief.
        """
        values = self.draw(images)
        return -values if self.direction == "depth" else values

    def describe(self) -> dict[str, Any]:
        """The facts, with what the model predicts and in which direction."""
        return {**self.facts, "predicts": self.predicts, "direction": self.direction}


@dataclass(frozen=True)
class DetailModel:
    """A model that refines the ground as a coarse DEM shows it, and draws nothing without a DEM.

    Attributes:
        draw: the surface that the DEM shows, its standard error and the relief that shading suggests (H, W) in metres,
            and an image (3, H, W), NaN where unknown, to heights (H, W) about the surface in metres.
        facts: what identifies the model, for results and for resuming.
    """

    draw: Callable[..., NDArray[np.float32]]
    facts: Mapping[str, Any]

    def describe(self) -> dict[str, Any]:
        """The facts, with what the model predicts."""
        return {**self.facts, "predicts": "detail of a DEM"}
