"""The tiles of a land-cover config: which are trained on, which select the weights, and how all are read."""

from __future__ import annotations

from pathlib import Path

from Systems.segmentation.config import SegmentationEvaluationConfig, SegmentationTrainingConfig
from Utils.core.errors import UserError
from Utils.core.seeds import named_generator
from Utils.data.land_cover.class_table import LOVEDA, ClassTable, read_class_table
from Utils.data.land_cover.land_cover_dataset import HowRead
from Utils.data.land_cover.listing import LandCoverFiles, list_land_cover, with_shuffled_depth

__all__ = ["TRAIN", "VALIDATE", "class_table", "find_land_cover", "how_read"]

TRAIN, VALIDATE = "Train", "Val"
"""Parts of the dataset."""

Config = SegmentationTrainingConfig | SegmentationEvaluationConfig


def class_table(config: Config) -> ClassTable:
    """The classes that the config names, or LoveDA's.

    Raises:
        UserError: a table that cannot be used.
    """
    return LOVEDA if config.class_table is None else read_class_table(Path(config.class_table))


def how_read(config: Config, table: ClassTable, sees_depth: bool) -> HowRead:
    """How tiles are read; no maps for a network that sees none."""
    rises = None if config.relative_depth_rises == "auto" else config.relative_depth_rises
    return HowRead(table, config.depth_source if sees_depth else None, rises, config.image_full_scale)


def find_land_cover(
    config: Config, part: str, domains: list[str], how: HowRead, masks: bool = True
) -> dict[str, LandCoverFiles]:
    """The tiles of a part, with maps of other tiles where the config asks for that control.

    Raises:
        UserError: a dataset that cannot be used.
    """
    dataset = Path(config.dataset_path)
    if config.root is not None and not dataset.is_file():
        raise UserError(f"root belongs to a table, and dataset_path '{config.dataset_path}' is a folder; remove root")
    folder = config.relative_depth_folder if how.from_files else None
    root = None if config.root is None else Path(config.root)
    tiles = list_land_cover(dataset, part, domains, folder, masks, root)
    if how.depth_source != "shuffled":
        return tiles
    import torch

    order = torch.randperm(len(tiles), generator=named_generator(config.seed, "shuffled depth", part, *domains))
    return with_shuffled_depth(tiles, order.tolist())
