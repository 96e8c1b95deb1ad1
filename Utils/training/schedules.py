"""The learning rate over a run: torch.optim's schedules, by step or by epoch, all of them exact on resuming."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LinearLR,
    LRScheduler,
    MultiplicativeLR,
    MultiStepLR,
    PolynomialLR,
    ReduceLROnPlateau,
)

from Utils.training.checkpoint import Progress


@dataclass(frozen=True)
class ScheduleSettings:
    """The settings of the learning rate, with the names of the config."""

    lr: float
    lr_schedule: str
    threshold_epoch: int
    downgrade_lr_ratio: float
    lr_power: float
    lr_milestones: tuple[int, ...]
    warmup_steps: int


class RateSchedule:
    """Warm-up and schedule of an optimiser's rates.

    Each of torch's schedules multiplies the present rate, so a warm-up can be combined with any of them. Their state
    consists of the rates, which the optimiser holds, and the number of steps.

    Args:
        optimiser: the optimiser whose rates are set.
        settings: which schedule, and its parameters.
        total_steps: optimiser steps of the whole run.
        steps_per_epoch: optimiser steps of an epoch.
        lower_is_better: direction of the plateau's score.
    """

    def __init__(
        self,
        optimiser: torch.optim.Optimizer,
        settings: ScheduleSettings,
        total_steps: int,
        steps_per_epoch: int,
        lower_is_better: bool = True,
    ) -> None:
        self._optimiser = optimiser
        self._by_step: list[LRScheduler] = []
        self._plateau: ReduceLROnPlateau | None = None
        self._warmup_steps = settings.warmup_steps
        match settings.lr_schedule:
            case "plateau" if settings.threshold_epoch:
                # torch multiplies after `patience` + 1 epochs without improvement.
                self._plateau = ReduceLROnPlateau(
                    optimiser,
                    mode="min" if lower_is_better else "max",
                    factor=settings.downgrade_lr_ratio,
                    patience=settings.threshold_epoch - 1,
                )
            case "cosine":
                self._by_step.append(CosineAnnealingLR(optimiser, T_max=total_steps))
            case "linear":
                self._by_step.append(LinearLR(optimiser, 1.0, 0.0, total_iters=total_steps))
            case "linear_by_epoch":
                self._by_step.append(MultiplicativeLR(optimiser, _drops_by_epoch(total_steps, steps_per_epoch)))
            case "polynomial":
                self._by_step.append(PolynomialLR(optimiser, total_iters=total_steps, power=settings.lr_power))
            case "multistep" | "multistep_by_step":
                unit = steps_per_epoch if settings.lr_schedule == "multistep" else 1
                milestones = [place * unit for place in settings.lr_milestones]
                self._by_step.append(MultiStepLR(optimiser, milestones, gamma=settings.downgrade_lr_ratio))
        if settings.warmup_steps > 1:
            # Step s, counted from 0, takes (s + 1) / warmup_steps of the schedule's rate.
            first = 1.0 / settings.warmup_steps
            self._by_step.append(LinearLR(optimiser, first, 1.0, total_iters=settings.warmup_steps - 1))

    @property
    def rate(self) -> float:
        """The first group's rate for the coming step."""
        return float(self._optimiser.param_groups[0]["lr"])

    def step(self) -> None:
        """Set the rates of the next step."""
        with warnings.catch_warnings():
            # fp16 may leave out the first step, and torch then warns that it is missing.
            warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
            for schedule in self._by_step:
                schedule.step()

    def end_epoch(self, score: float | None) -> None:
        """Tell the plateau an epoch's score; None where it was not validated."""
        if score is not None and self._plateau is not None:
            self._plateau.step(score)

    def plateau_state(self) -> dict[str, Any]:
        """The plateau's state as JSON; empty for other schedules."""
        return {} if self._plateau is None else self._plateau.state_dict()

    def restore(self, progress: Progress) -> None:
        """Continue after the steps of ``progress``; the optimiser has its rates already."""
        for schedule in self._by_step:
            schedule.load_state_dict({"last_epoch": progress.step, "_step_count": progress.step + 1})
        if self._plateau is not None and progress.plateau:
            self._plateau.load_state_dict(progress.plateau)


def _drops_by_epoch(total_steps: int, steps_per_epoch: int) -> Callable[[int], float]:
    """The factor of each step that makes the rate of epoch e, counted from 0 of n, the first one times 1 - e / n."""
    epochs = -(-total_steps // steps_per_epoch)

    def factor(step: int) -> float:
        epoch, within = divmod(step, steps_per_epoch)
        return 1.0 if within or not 0 < epoch < epochs else (epochs - epoch) / (epochs - epoch + 1)

    return factor
