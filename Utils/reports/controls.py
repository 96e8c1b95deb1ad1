"""Controls of an evaluation: maps without the image, scored in the same way as the model's."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from Utils.config.evaluation_keys import EvaluationConfig, ScoringConfig
from Utils.core.errors import UserError
from Utils.core.processes import everywhere
from Utils.data.dataset import SampleDataset
from Utils.data.published_layout import TRAINING_PART
from Utils.data.sample import Batch
from Utils.data.tile_dataset import TileDataset, read_truth
from Utils.data.tile_sources import config_tiles
from Utils.rasters.relief_tags import ReliefTags, read_relief_tags
from Utils.scoring.control_maps import Map, low_pass, plane_of
from Utils.scoring.depth.depth_scorer import DepthScorer
from Utils.scoring.height_scorer import HeightScorer
from Utils.scoring.map_pairs import BoolArray
from Utils.scoring.mean_map import MeanMap
from Utils.scoring.relief import ReliefScorer
from Utils.scoring.scores import Scorer
from Utils.scoring.shading_map import shading_map

__all__ = ["CONTROL", "MEAN_MAP", "MEAN_NUMBER", "control_maker"]

logger = logging.getLogger(__name__)

# The beginning of a control's name in tables and files.
CONTROL = "control: "
MEAN_NUMBER, MEAN_MAP = f"{CONTROL}mean of training", f"{CONTROL}mean map of training"
_ZERO, _SHADING = f"{CONTROL}summit everywhere", f"{CONTROL}shape from shading"

Make = Callable[[Map, BoolArray], Map]


def control_maker(
    config: ScoringConfig, dataset: SampleDataset, scorer: Scorer
) -> Callable[[Batch], dict[str, Tensor]]:
    """What makes the maps (B, 1, H, W) of the config's ``controls`` for a batch, by name.

    Args:
        config: names the controls.
        dataset: the tiles that are scored; the mean is that of training tiles, read as these are.
        scorer: scores heights or depth.

    Raises:
        UserError: controls beside scores of another kind; a mean without training tiles of its own.
    """
    if not isinstance(config, EvaluationConfig) or not config.controls:
        return lambda batch: {}
    if not isinstance(scorer, (HeightScorer, DepthScorer, ReliefScorer)) or not isinstance(dataset, TileDataset):
        names = ", ".join(protocol.name for protocol in scorer.protocols)
        raise UserError(f"controls are for scores of heights and depth, not for '{names}'; leave controls out")
    of_relief = isinstance(scorer, ReliefScorer)
    for name in () if of_relief else ("zero", "shading"):
        if name in config.controls:
            raise UserError(f"control '{name}' is for scores of relief; leave it out, or set scores to relief")
    truth = scorer.truth if isinstance(scorer, (DepthScorer, ReliefScorer)) else "target"
    # A map of heights is stretched, fitted or shifted before it is scored; only depth is scored where it is.
    wanted = [name for name in ("mean", "mean_map") if name in config.controls]
    if isinstance(scorer, HeightScorer):
        wanted = [name for name in wanted if name != "mean"]
    mean = everywhere(lambda: _training_mean(config, dataset, truth, wanted[0])) if wanted else MeanMap()
    level = mean.number() if "mean" in wanted else 0.0
    mean_map = everywhere(lambda: _mean_by_pixel(mean)) if "mean_map" in wanted else np.zeros((0, 0), np.float32)
    cell = config.control_cell
    known: dict[str, tuple[str, Make]] = {
        "mean": (MEAN_NUMBER, lambda values, valid: np.full_like(values, level)),
        "mean_map": (MEAN_MAP, lambda values, valid: _of_its_size(mean_map, values)),
        "plane": (f"{CONTROL}plane of truth", plane_of),
        "low_pass": (f"{CONTROL}truth in cells of {cell} pixels", lambda values, valid: low_pass(values, valid, cell)),
        "zero": (_ZERO, lambda values, valid: np.zeros_like(values)),
    }
    # Depth is in metres already; heights are in the files' unit, predictions of heights in metres or in none. Relief is
    # learnt as metres below the summit, and scored upwards.
    factor = {HeightScorer: config.metres_per_unit, ReliefScorer: -1.0}.get(type(scorer), 1.0)
    tags = everywhere(lambda: _suns(dataset)) if "shading" in config.controls else {}

    def make(batch: Batch) -> dict[str, Tensor]:
        truths, valids = batch[truth][:, 0].cpu().numpy(), batch["valid"][:, 0].cpu().numpy()
        found = {}
        for name in config.controls:
            if name == "shading":
                found[_SHADING] = torch.from_numpy(_shaded(batch, valids, tags))[:, None]
                continue
            called, one = known[name]
            maps = np.stack([one(values, valid) * factor for values, valid in zip(truths, valids, strict=True)])
            found[called] = torch.from_numpy(maps.astype(np.float32))[:, None]
        return found

    return make


def _suns(dataset: TileDataset) -> dict[str, ReliefTags]:
    """The tags of the tiles that are scored.

    Raises:
        UserError: none tells the sun and its pixel size.
    """
    tags = {tile: read_relief_tags(dataset.files[tile].height) for tile in dataset.ids}
    without = [tile for tile, found in tags.items() if found.sun is None or found.pixel_size is None]
    what = f"control 'shading': {len(without)} of {len(tags)} tiles tell no sun or no pixel size"
    if len(without) == len(tags):
        raise UserError(f"{what} (tags SUN_AZIMUTH, SUN_ELEVATION); leave it out of controls")
    if without:
        logger.warning("%s, such as %s, and have no such control", what, without[0])
    return tags


def _shaded(batch: Batch, valids: NDArray[np.bool_], tags: Mapping[str, ReliefTags]) -> NDArray[np.float32]:
    """Maps (B, H, W) from shading, their highest place 0; NaN for tiles that do not tell the sun."""
    images = batch["image"].mean(dim=1).cpu().numpy()
    maps = np.full(images.shape, np.nan, np.float32)
    for place, (tile, image, valid) in enumerate(zip(batch["id"], images, valids, strict=True)):
        found = tags[tile]
        if found.sun is not None and found.pixel_size is not None and valid.any():
            heights = shading_map(image, valid, *found.sun, found.pixel_size)
            maps[place] = heights - heights[valid].max()
    return maps


def _training_mean(config: EvaluationConfig, dataset: TileDataset, truth: str, control: str) -> MeanMap:
    """The mean of the training tiles' known pixels.

    Raises:
        UserError: there are none, or they are the tiles that are scored.
    """
    remedy = f"leave '{control}' out of controls, or give a dataset with a training part"
    files = config_tiles(config, TRAINING_PART)
    scored = {dataset.files[tile].height for tile in dataset.ids}
    ids = [tile for tile, each in files.items() if each.height not in scored]
    if not ids:
        raise UserError(
            f"control '{control}': '{config.dataset_path}' has no training tiles beside those that are scored; {remedy}"
        )
    mean = MeanMap()
    for tile in ids:
        sample = read_truth(files[tile].height, files[tile].coding)
        sample |= dataset.target.add(sample) if dataset.target else {}
        mean.add(sample[truth][0].numpy(), sample["valid"][0].numpy())
    if not mean.pixels:
        raise UserError(f"control '{control}': no pixel of the {len(ids)} training tiles is known; {remedy}")
    logger.info(
        "control '%s': %.4g, over %d known pixels of %d training tiles", control, mean.number(), mean.pixels, len(ids)
    )
    return mean


def _mean_by_pixel(mean: MeanMap) -> Map:
    try:
        return mean.by_pixel().astype(np.float32)
    except ValueError as error:
        raise UserError(f"control 'mean_map': {error}; leave it out of controls, 'mean' needs no one size") from error


def _of_its_size(mean_map: Map, values: Map) -> Map:
    if mean_map.shape != values.shape:
        (height, width), (rows, columns) = mean_map.shape, values.shape
        raise UserError(
            f"control 'mean_map': training tiles are {width} x {height} pixels, and a test tile is {columns} x {rows}; "
            "leave it out of controls, 'mean' needs no one size"
        )
    return mean_map
