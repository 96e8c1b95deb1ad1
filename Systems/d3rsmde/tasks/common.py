"""What the tasks of D³-RSMDE share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from Systems.d3rsmde.monitor import MONITORED_SCORE
from Utils.training.task import Monitor

MONITOR = Monitor(MONITORED_SCORE)


def plain_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A diffusers config without the library's private entries, fit for JSON and for ``from_config``."""
    return {key: value for key, value in config.items() if not key.startswith("_")}
