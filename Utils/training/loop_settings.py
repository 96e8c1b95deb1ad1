"""How long and how a stage is trained."""

from __future__ import annotations

from dataclasses import dataclass

from Utils.training.optimisation import OptimisationSettings


@dataclass(frozen=True)
class LoopSettings(OptimisationSettings):
    """The settings of the loop, with the names of the config."""

    epochs: int
    max_steps: int | None
    epoch_share: float
    batch_size: int
    accumulate: int
    seed: int
    num_workers: int
    save_n_epoch: int
    save_i_epoch: tuple[int, ...]
    save_minutes: float
    validate_every: int
    whole_batches: bool = False


@dataclass(frozen=True)
class Length:
    """The length of a run: ``epochs`` epochs of ``steps_per_epoch`` optimiser steps, the last one perhaps shorter."""

    epochs: int
    steps_per_epoch: int
    steps: int

    @classmethod
    def of(cls, settings: LoopSettings, steps_per_epoch: int) -> Length:
        """The length that the settings ask for: ``max_steps`` optimiser steps, or else ``epochs`` epochs."""
        steps = settings.max_steps or settings.epochs * steps_per_epoch
        return cls(-(-steps // steps_per_epoch), steps_per_epoch, steps)

    def steps_of(self, epoch: int) -> int:
        """Number of optimiser steps in an epoch; epochs are counted from 1."""
        return min(self.steps_per_epoch, self.steps - (epoch - 1) * self.steps_per_epoch)
