"""The stages of a cross-fitted training: one a fold, which leaves its tiles out, and the final one on all tiles."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from Utils.config.cross_fitting_keys import CrossFittingConfig
from Utils.core.errors import UserError
from Utils.data.splits import HELD_OUT_SHARE, make_folds, read_folds, select, table_folds, warn_of_other_folds
from Utils.data.stage_plan import StagePlan, Tiles, split_stage

FINAL_STAGE = "final"

# From ids to the scene of each, or None where there is nothing to keep whole.
Group = Callable[[Sequence[str]], Mapping[str, str] | None]


def plan_folds(
    config: CrossFittingConfig, tiles: Tiles, share: float = HELD_OUT_SHARE, group: Group | None = None
) -> list[StagePlan]:
    """The stages: those of the folds, if there are any, then the final one.

    Args:
        config: the training.
        tiles: its tiles.
        share: share of a stage's tiles that is held out for validation, where the config names no tiles for that.
        group: gives the scene of each id, or None, for folds and validation that keep scenes whole.

    Raises:
        UserError: split files that do not fit the dataset or one another.
    """
    available = list(tiles.training)
    if config.k_folds == "table" and config.split_text:
        raise UserError("split_text and k_folds table are both given; remove one of them")
    if isinstance(config.k_folds, list) and config.split_text:
        raise UserError("split_text and split files in k_folds are both given; remove one of them")
    if not isinstance(config.k_folds, int):
        folds = (
            read_folds(config.k_folds, available, config.dataset_path)
            if isinstance(config.k_folds, list)
            else table_folds(tiles.training, config.dataset_path)
        )
        ids = [tile for fold in folds for tile in fold]
        scenes = group(ids) if group else None
    else:
        ids = select(available, config.split_text, config.dataset_path)
        scenes = group(ids) if group else None
        folds = make_folds(ids, config.k_folds, config.seed, scenes) if config.k_folds else []
        if folds:
            warn_of_other_folds(tiles.training, config.dataset_path)
    plan = []
    for number, fold in enumerate(folds, start=1):
        rest = [tile for tile in ids if tile not in set(fold)]
        plan.append(split_stage(config, tiles, f"fold-{number}", rest, fold, share, scenes))
    plan.append(split_stage(config, tiles, FINAL_STAGE, ids, (), share, scenes))
    return plan
