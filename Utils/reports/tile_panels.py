"""A tile with its predicted maps as panels, for pictures, pages and TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from Utils.data.sample import Batch, item
from Utils.pictures.comparison import Panel
from Utils.pictures.quantity import HEIGHT, Quantity
from Utils.scoring.paper import stretch_to_255
from Utils.training.task import View

Map = NDArray[np.float32]


def tile_panels(
    tile: Mapping[str, Tensor], maps: Mapping[str, Map], quantity: Quantity = HEIGHT
) -> tuple[list[Panel], NDArray[np.bool_]]:
    """Image, truth, predictions and their errors: in the quantity's unit, or on the paper protocol's 0..255 scale.

    Args:
        tile: ``image``, ``valid`` and the quantity's truth of one tile, as a ``TileDataset`` serves them.
        maps: predictions (H, W) by name.
        quantity: what truth and predictions show.

    Returns:
        The panels, and the valid pixels (H, W).
    """
    valid = tile["valid"][0].cpu().numpy()

    def drawn(values: Map) -> NDArray[Any]:
        return values if quantity.unit else stretch_to_255(values, valid)

    truth = drawn(tile[quantity.truth][0].cpu().numpy())
    panels = [Panel("image", tile["image"].cpu().numpy(), "image"), Panel("truth", truth, "height")]
    predicted = {name: drawn(values) for name, values in maps.items()}
    panels += [Panel(name, values, "height") for name, values in predicted.items()]
    panels += [Panel(f"error, {name}", values - truth, "error") for name, values in predicted.items()]
    if quantity.has_relief:
        panels += [Panel("truth, relief", truth, "relief")]
        panels += [Panel(f"{name}, relief", values, "relief") for name, values in predicted.items()]
    return panels, valid


def map_views(batch: Batch, maps: Tensor, quantity: Quantity = HEIGHT) -> Sequence[View]:
    """Image, truth, predicted map (B, 1, H, W) and its error of every tile of a batch."""
    views = []
    for place, name in enumerate(batch["id"]):
        drawn = maps[place, 0].float().cpu().numpy()
        panels, valid = tile_panels(item(batch, place), {"map": drawn}, quantity)
        views.append(View(name, [panel for panel in panels if panel.kind != "relief"], valid, quantity))
    return views
