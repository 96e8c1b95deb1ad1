"""Names of the files in a run's folder; without torch, for commands that only read it.

<run>/config.json, plan.json, run.json         the effective config, the stages and their tiles, what kind of run it is
<run>/<stage>/log.jsonl, status.json, claim.lock, checkpoints/
<run>/model/                                   the finished model
"""

from __future__ import annotations

from pathlib import Path

CONFIG_FILE = "config.json"
PLAN_FILE = "plan.json"
KIND_FILE = "run.json"
LOG_FILE = "log.jsonl"
STATUS_FILE = "status.json"
LOCK_FILE = "claim.lock"
MODEL_FOLDER = "model"


def last_checkpoint(stage: Path) -> Path:
    """The checkpoint that resuming reads."""
    return stage / "checkpoints" / "last.safetensors"


def best_checkpoint(stage: Path) -> Path:
    """The checkpoint that evaluation reads."""
    return stage / "checkpoints" / "best.safetensors"
