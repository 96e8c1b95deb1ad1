"""The score by which the training of a depth network chooses its weights; without torch."""

from __future__ import annotations

from Modules.depth.names import Target


def monitored_score(target: Target) -> str:
    """The score for a target: that of D³ for maps without unit, relative error for metres, metres for relief."""
    return {"metres": "metric.abs_rel", "summit": "offset.mae"}.get(target, "paper.mae")
