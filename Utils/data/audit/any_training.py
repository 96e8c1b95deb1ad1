"""A training that only reads a dataset: what an audit needs where no system is asked yet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from Utils.config.training_keys import TrainingConfig
from Utils.data.audit.audited_training import AuditedTraining
from Utils.data.stage_plan import split_stage

__all__ = ["any_training"]


class _ReadingConfig(TrainingConfig):
    """The keys of every training, with a loss and a rate that nothing uses."""

    known_losses: ClassVar[tuple[str, ...]] = ("none",)


def any_training(dataset: Path, folds: Sequence[Path] = ()) -> AuditedTraining:
    """A training on all tiles of a dataset's training part.

    Args:
        dataset: folder in the published layout, or a table.
        folds: split files of folds.
    """
    config = _ReadingConfig(dataset_path=str(dataset), lr=1.0, loss_types="none")
    return AuditedTraining(
        config,
        lambda tiles: [split_stage(config, tiles, "all", list(tiles.training))],
        lambda: None,
        [str(path) for path in folds],
    )
