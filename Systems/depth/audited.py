"""The training of a depth network, as an audit of its dataset sees it."""

from __future__ import annotations

from Systems.depth.config import DepthTrainingConfig
from Systems.depth.depth_tiles import find_depth_tiles
from Systems.depth.run import plan_depth
from Utils.data.audit.audited_training import AuditedTraining


def audited_depth(config: DepthTrainingConfig) -> AuditedTraining:
    """Its check does not read the tiles again, since the audit has read them."""
    return AuditedTraining(
        config,
        lambda tiles: plan_depth(config, tiles),
        lambda: plan_depth(config, find_depth_tiles(config)),
        one_size=config.image_size is None,
    )
