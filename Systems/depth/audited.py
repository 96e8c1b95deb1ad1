"""The training of a depth network, as an audit of its dataset sees it."""

from __future__ import annotations

from Systems.depth.config import DepthTrainingConfig
from Utils.data.audit.audited_training import AuditedTraining
from Utils.data.fold_plan import plan_folds
from Utils.data.stage_plan import find_tiles


def audited_depth(config: DepthTrainingConfig) -> AuditedTraining:
    """Its check does not read the tiles again, since the audit has read them."""
    folds = config.k_folds if isinstance(config.k_folds, list) else []
    return AuditedTraining(
        config, lambda tiles: plan_folds(config, tiles), lambda: plan_folds(config, find_tiles(config)), folds
    )
