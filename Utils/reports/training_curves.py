"""How the scored model was trained: curves from the logs of its run, where they can be found."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from Utils.reports.items import Curve
from Utils.training.run_files import KIND_FILE, LOG_FILE, MODEL_FOLDER, PLAN_FILE

__all__ = ["training_curves"]

logger = logging.getLogger(__name__)

# The score that chose the weights in runs of versions before 2026-12, which do not name it.
_OLDER_MONITOR = "paper.mae"


def training_curves(checkpoint: Path) -> list[Curve]:
    """Curves of every stage that made the model; none where there is no log, or none that can be read.

    Args:
        checkpoint: what was scored: a run, a model folder or a checkpoint file.
    """
    curves = []
    try:
        for stage in _stages(checkpoint):
            curves += _stage_curves(stage.name, _read_log(stage / LOG_FILE), f"validation/{_monitor(stage.parent)}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        # A damaged log of a run must not prevent the scores from being written.
        logger.warning("no training curves in the report: the log of '%s' cannot be read (%s)", checkpoint, error)
        return []
    return curves


def _stages(checkpoint: Path) -> list[Path]:
    """Folders with a log, in order of training, without folds, whose networks only make priors."""
    if checkpoint.is_file():  # <run>/<stage>/checkpoints/<name>.safetensors
        stages = [checkpoint.resolve().parent.parent]
    else:
        folder = checkpoint.resolve()
        run = folder.parent if folder.name == MODEL_FOLDER else folder
        if not (run / PLAN_FILE).is_file():
            return []
        plan = json.loads((run / PLAN_FILE).read_text(encoding="utf-8"))
        stages = [run / stage["name"] for stage in plan if not stage["held_out"]]
    return [stage for stage in stages if (stage / LOG_FILE).is_file()]


def _monitor(run: Path) -> str:
    """Of the many validation scores in a run's logs, the one that chose the weights."""
    path = run / KIND_FILE
    return str(json.loads(path.read_text(encoding="utf-8"))["monitor"]) if path.is_file() else _OLDER_MONITOR


def _read_log(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _stage_curves(stage: str, rows: Sequence[Mapping[str, Any]], choosing: str) -> list[Curve]:
    """The loss of a stage, and the validation score that chose its weights, by epoch."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    losses = [key for key in keys if key.startswith("train/")]
    scores = [choosing] if choosing in keys else []
    return [
        Curve(f"{stage}: {title}", "epoch", label, {_name(key): _points(rows, key) for key in chosen})
        for title, label, chosen in (("training", "loss", losses), ("validation", _name(choosing), scores))
        if chosen
    ]


def _name(key: str) -> str:
    return key.partition("/")[2].replace(".", " ").replace("mae", "MAE")


def _points(rows: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    """(epoch, value); epochs without validation lack the key, those that diverged hold null."""
    return [
        (row["epoch"], float(value) if value is not None else math.nan)
        for row, value in ((row, row[key]) for row in rows if key in row)
    ]
