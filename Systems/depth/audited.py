"""The training of a depth network, as an audit of its dataset sees it."""

from __future__ import annotations

from Systems.depth.config import DepthTrainingConfig
from Systems.depth.run import DepthRun
from Utils.data.audit.audited_training import AuditedTraining


def audited_depth(config: DepthTrainingConfig) -> AuditedTraining:
    """Its check reads the tiles again, because only the training knows holes, units and disparities."""
    folds = config.k_folds if isinstance(config.k_folds, list) else []
    run = DepthRun(config)
    return AuditedTraining(config, run.plan, run.check, folds, one_size=run.one_size)
