"""The training of a depth network, as an audit of its dataset sees it."""

from __future__ import annotations

from Systems.depth.config import DepthTrainingConfig
from Systems.depth.run import DepthRun, plan_depth
from Utils.data.audit.audited_training import AuditedTraining


def audited_depth(config: DepthTrainingConfig) -> AuditedTraining:
    """Its check reads the tiles again, because only the training knows holes, units and disparities."""
    return AuditedTraining(
        config,
        lambda tiles: plan_depth(config, tiles),
        lambda: DepthRun(config).check(),
        one_size=config.image_size is None,
    )
