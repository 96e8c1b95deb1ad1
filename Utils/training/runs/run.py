"""The run that a training script carries out, in one or several stages; without torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from Utils.config.training_keys import TrainingConfig
from Utils.core.errors import UserError
from Utils.data.published_layout import TEST_PART

if TYPE_CHECKING:
    from Utils.data.stage_plan import RunSetup, StagePlan


class Run(ABC):
    """The training of one config.

    Args:
        config: the config of the run.

    Attributes:
        script: the script that trains it, for the command that resumes it.
        kind: its name in the list of ``python -m Utils.training.runs``, and its folder below ``output``.
        monitor: the validation score that chooses ``best``, for the list of runs; its direction is ``lower_is_better``.
        in_turn: whether each stage needs the one before it; if not, several launches can train different stages.
        only: names of the stages that this launch trains, in this order; None for all of the plan.
    """

    script: ClassVar[str]
    kind: ClassVar[str]
    monitor: str
    lower_is_better: ClassVar[bool] = True
    in_turn: ClassVar[bool] = False
    config: TrainingConfig
    only: Sequence[str] | None = None

    @abstractmethod
    def check(self) -> RunSetup:
        """Find the tiles, and every mistake that can be found before anything is written; called in one process.

        Raises:
            UserError: what is wrong.
        """

    @abstractmethod
    def build(self, setup: RunSetup) -> None:
        """Build the networks, so that errors in building come before anything is written; called in every process.

        Raises:
            UserError: names, sizes or weights that do not fit.
        """

    @abstractmethod
    def train(self, setup: RunSetup, stage: StagePlan, folder: Path) -> None:
        """Train one stage of the run in ``folder``, or the rest of it.

        Raises:
            UserError: an error that the user can correct; checkpoints up to then are kept.
            Stopped: a signal asked for it.
        """

    def chosen(self, plan: Sequence[StagePlan]) -> list[StagePlan]:
        """The stages of a plan that this launch trains.

        Raises:
            UserError: ``only`` names a stage that the plan lacks, or one without those that it needs.
        """
        if self.only is None:
            return list(plan)
        stages = {stage.name: stage for stage in plan}
        unknown = [name for name in self.only if name not in stages]
        if unknown:
            raise UserError(f"--stages: this run has no stage {unknown[0]!r}; its stages are {', '.join(stages)}")
        chosen = [stages[name] for name in dict.fromkeys(self.only)]
        if self.in_turn and chosen != list(plan[: len(chosen)]):
            order = ", ".join(stages)
            raise UserError(f"--stages: each stage of this run needs the one before it; give the first ones of {order}")
        return chosen

    def epochs_of(self, stage: str) -> int | None:
        """Number of epochs that a stage will have; None where steps are counted instead."""
        return None if self.config.max_steps is not None else self.config.epochs

    @abstractmethod
    def finish(self, setup: RunSetup, folder: Path, whole: bool) -> None:
        """Log the results; ``whole`` says that this launch trained all stages."""

    def describe(self, setup: RunSetup, folder: Path) -> str:
        """A description of what the run would do, for ``--dry-run``."""
        height, width = setup.check.size
        lines = [f"config and dataset are in order: tiles of {width} x {height} pixels in '{self.config.dataset_path}'"]
        for stage in self.chosen(setup.plan):
            on_test = stage.validation_part == TEST_PART and bool(stage.validation)
            validated = f"{len(stage.validation)} {'TEST ' if on_test else ''}tiles" if stage.validation else "nothing"
            lines.append(
                f"  {stage.name}: train on {len(stage.train)} tiles, validate on {validated}"
                + (f", write the priors of {len(stage.held_out)}" if stage.held_out else "")
            )
        lines.append(f"the run would go to '{folder}'")
        return "\n".join(lines)
