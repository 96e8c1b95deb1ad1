"""What pictures show of a land-cover tile: image, relative depth, true and drawn classes, and where they differ."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from Utils.data.land_cover.class_table import ClassTable
from Utils.data.sample import IGNORED_LABEL
from Utils.pictures.comparison import Panel
from Utils.pictures.legend import draw_legend

_WRONG, _RIGHT = (0.8, 0.1, 0.1), (0.85, 0.85, 0.85)


def class_panels(tile: Mapping[str, Tensor], drawn: NDArray[np.integer], table: ClassTable) -> list[Panel]:
    """The panels of one tile.

    Args:
        tile: a sample of ``LandCoverDataset``.
        drawn: (H, W) class numbers.
        table: gives the colours. What is not labelled is black.
    """
    label = tile["label"].cpu().numpy()
    panels = [Panel("image", tile["image"].cpu().numpy(), "image")]
    if "depth" in tile:
        panels.append(Panel("relative depth", np.repeat(tile["depth"].cpu().numpy(), 3, axis=0), "image"))
    known = label != IGNORED_LABEL
    if known.any():
        panels.append(Panel("true classes", table.paint(label), "image"))
    panels.append(Panel("drawn classes", table.paint(drawn), "image"))
    if known.any():
        wrong = np.where((label != drawn)[..., None], _WRONG, _RIGHT) * known[..., None]
        panels.append(Panel("wrong in red", wrong.astype(np.float32), "image"))
    return panels


def legend(table: ClassTable) -> NDArray[np.uint8]:
    """A picture (H, W, 3) of all classes' colours beside their names."""
    return draw_legend(dict(zip(table.names, table.colours, strict=True)))
