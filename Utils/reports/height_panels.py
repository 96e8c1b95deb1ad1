"""A tile with its predicted heights as panels, for pictures, pages and TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from Utils.data.sample import Batch, item
from Utils.pictures.comparison import Panel
from Utils.scoring.paper import stretch_to_255
from Utils.training.task import View

Map = NDArray[np.float32]


def tile_panels(tile: Mapping[str, Tensor], maps: Mapping[str, Map]) -> tuple[list[Panel], NDArray[np.bool_]]:
    """Image, truth, predictions and their errors, on the paper protocol's 0..255 scale.

    Args:
        tile: ``image``, ``target`` and ``valid`` of one tile, as a ``TileDataset`` serves them.
        maps: predictions (H, W) by name.

    Returns:
        The panels, and the valid pixels (H, W).
    """
    valid = tile["valid"][0].cpu().numpy()
    truth = stretch_to_255(tile["target"][0].cpu().numpy(), valid)
    panels = [Panel("image", tile["image"].cpu().numpy(), "image"), Panel("truth", truth, "height")]
    stretched = {name: stretch_to_255(values, valid) for name, values in maps.items()}
    panels += [Panel(name, values, "height") for name, values in stretched.items()]
    panels += [Panel(f"error, {name}", values - truth, "error") for name, values in stretched.items()]
    panels += [Panel("truth, relief", truth, "relief")]
    panels += [Panel(f"{name}, relief", values, "relief") for name, values in stretched.items()]
    return panels, valid


def height_views(batch: Batch, maps: Tensor) -> Sequence[View]:
    """Image, truth, predicted map (B, 1, H, W) and its error of every tile of a batch."""
    views = []
    for place, name in enumerate(batch["id"]):
        drawn = maps[place, 0].float().cpu().numpy()
        panels, valid = tile_panels(item(batch, place), {"map": drawn})
        views.append(View(name, [panel for panel in panels if panel.kind != "relief"], valid))
    return views
