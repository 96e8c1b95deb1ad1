"""The training that a dataset is audited for, as the system of that training describes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from Utils.config.training_keys import TrainingConfig
from Utils.data.stage_plan import StagePlan, Tiles


@dataclass(frozen=True)
class AuditedTraining:
    """What an audit has to know about a training.

    Attributes:
        config: config of the training; its ``dataset_path`` is the audited dataset.
        plan: divides tiles into the training's stages; raises UserError where split files cannot be followed.
        check: makes the checks with which the training begins; raises UserError with what is wrong.
        folds: split files of folds.
        prior_path: folder of the coarse priors that the training reads; None where it reads none.
        one_size: whether all tiles must have one size; not where the training resizes them.
    """

    config: TrainingConfig
    plan: Callable[[Tiles], list[StagePlan]]
    check: Callable[[], object]
    folds: Sequence[str] = ()
    prior_path: Path | None = None
    one_size: bool = True
