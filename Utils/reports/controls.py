"""Controls of an evaluation: maps without the image, scored in the same way as the model's."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from Utils.config.evaluation_keys import EvaluationConfig
from Utils.core.errors import UserError
from Utils.core.processes import everywhere
from Utils.data.published_layout import TRAINING_PART
from Utils.data.sample import Batch
from Utils.data.tile_dataset import TileDataset, read_truth
from Utils.data.tile_sources import config_tiles
from Utils.scoring.control_maps import Map, low_pass, plane_of
from Utils.scoring.depth.depth_scorer import DepthScorer
from Utils.scoring.height_scorer import HeightScorer
from Utils.scoring.map_pairs import BoolArray
from Utils.scoring.scores import Scorer

__all__ = ["CONTROL", "control_maker"]

logger = logging.getLogger(__name__)

# The beginning of a control's name in tables and files.
CONTROL = "control: "

Make = Callable[[Map, BoolArray], Map]


def control_maker(
    config: EvaluationConfig, dataset: TileDataset, scorer: Scorer
) -> Callable[[Batch], dict[str, Tensor]]:
    """What makes the maps (B, 1, H, W) of the config's ``controls`` for a batch, by name.

    Args:
        config: names the controls.
        dataset: the tiles that are scored; the mean is that of training tiles, read as these are.
        scorer: scores heights or depth.

    Raises:
        UserError: controls beside scores of another kind; a mean without training tiles of its own.
    """
    if not config.controls:
        return lambda batch: {}
    if not isinstance(scorer, (HeightScorer, DepthScorer)):
        names = ", ".join(protocol.name for protocol in scorer.protocols)
        raise UserError(f"controls are for scores of heights and depth, not for '{names}'; leave controls out")
    truth = scorer.truth if isinstance(scorer, DepthScorer) else "target"
    # A map of heights is stretched, fitted or shifted before it is scored; only depth is scored where it is.
    level = 0.0
    if isinstance(scorer, DepthScorer) and "mean" in config.controls:
        level = everywhere(lambda: _training_mean(config, dataset, truth))
    cell = config.control_cell
    known: dict[str, tuple[str, Make]] = {
        "mean": ("mean of training", lambda values, valid: np.full_like(values, level)),
        "plane": ("plane of truth", plane_of),
        "low_pass": (f"truth in cells of {cell} pixels", lambda values, valid: low_pass(values, valid, cell)),
    }
    # Depth is in metres already; heights are in the files' unit, predictions of heights in metres or in none.
    factor = 1.0 if isinstance(scorer, DepthScorer) else config.metres_per_unit

    def make(batch: Batch) -> dict[str, Tensor]:
        truths, valids = batch[truth][:, 0].cpu().numpy(), batch["valid"][:, 0].cpu().numpy()
        found = {}
        for name in config.controls:
            called, one = known[name]
            maps = np.stack([one(values, valid) * factor for values, valid in zip(truths, valids, strict=True)])
            found[CONTROL + called] = torch.from_numpy(maps.astype(np.float32))[:, None]
        return found

    return make


def _training_mean(config: EvaluationConfig, dataset: TileDataset, truth: str) -> float:
    """The mean of the training tiles' known pixels.

    Raises:
        UserError: there are none, or they are the tiles that are scored.
    """
    remedy = "leave 'mean' out of controls, or give a dataset with a training part"
    files = config_tiles(config, TRAINING_PART)
    scored = {dataset.files[tile].height for tile in dataset.ids}
    ids = [tile for tile, each in files.items() if each.height not in scored]
    if not ids:
        raise UserError(
            f"control 'mean': '{config.dataset_path}' has no training tiles beside those that are scored; {remedy}"
        )
    total, count = 0.0, 0
    for tile in ids:
        sample = read_truth(files[tile].height, files[tile].coding)
        sample |= dataset.target.add(sample) if dataset.target else {}
        values = sample[truth][sample["valid"]]
        total, count = total + float(values.double().sum()), count + values.numel()
    if not count:
        raise UserError(f"control 'mean': no pixel of the {len(ids)} training tiles is known; {remedy}")
    logger.info("control 'mean': %.4g, over %d known pixels of %d training tiles", total / count, count, len(ids))
    return total / count
