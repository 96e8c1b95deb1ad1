"""From a loss to the next weights: the optimiser, its learning rate, clipping, loss scaling, averaged weights.

Everything here depends only on what the checkpoint holds, so that a resumed run takes the same steps as an undisturbed
one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from Modules.common.number_formats import DTYPES
from Modules.common.precision import Precision
from Utils.core.errors import UserError
from Utils.core.processes import agreed
from Utils.training.averaging import WeightAverage
from Utils.training.checkpoint import Checkpoint, Progress
from Utils.training.schedules import RateSchedule, ScheduleSettings
from Utils.training.task import ParameterGroup

# torch's loss scale begins at 65536 and halves with every step whose gradients overflow.
_SMALLEST_SCALE = 2.0**-10
_OPTIMISERS: dict[str, type[torch.optim.Optimizer]] = {
    "AdamW": torch.optim.AdamW,
    "Adam": torch.optim.Adam,
    "RMSprop": torch.optim.RMSprop,
    "SGD": torch.optim.SGD,
}
# These optimisers can update all parameters in one kernel.
_FUSED = ("AdamW", "Adam", "SGD")


@dataclass(frozen=True)
class OptimisationSettings(ScheduleSettings):
    """The settings of an optimiser step, with the names of the config."""

    optimiser: str
    optimiser_options: Mapping[str, Any]
    weight_decay: float
    gradient_clip: float | None
    ema_decay: float
    precision: Precision


class Optimisation:
    """One network's optimiser and what belongs to it.

    Args:
        network: the network to train, on its device.
        groups: its parameters in groups, with the learning rate and weight decay of each.
        settings: learning rate, schedule, precision, clipping and averaging.
        device: where the network lives.
        total_steps: optimiser steps of the whole run, which some schedules span.
        steps_per_epoch: optimiser steps of an epoch.
        lower_is_better: direction of the score that ``end_epoch`` gets.
    """

    def __init__(
        self,
        network: nn.Module,
        groups: Sequence[ParameterGroup],
        settings: OptimisationSettings,
        device: torch.device,
        total_steps: int,
        steps_per_epoch: int,
        lower_is_better: bool = True,
    ) -> None:
        self._network = network
        self._settings = settings
        self._device = device
        self.optimiser = _build_optimiser(groups, settings)
        self._schedule = RateSchedule(self.optimiser, settings, total_steps, steps_per_epoch, lower_is_better)
        self._scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "fp16")
        self._average = WeightAverage(network, settings.ema_decay) if settings.ema_decay else None

    def autocast(self) -> torch.autocast:
        """The number format of activations; weights, their average and the optimiser stay in fp32."""
        precision = self._settings.precision
        return torch.autocast(self._device.type, DTYPES[precision], enabled=precision != "fp32")

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss; with fp16 the loss is scaled up, so that small gradients do not become 0."""
        self._scaler.scale(loss).backward()

    def gradient_norm(self) -> Tensor:
        """The norm of all gradients of this step, unscaled, as a tensor (); before ``step``."""
        if self._scaler.is_enabled():
            self._scaler.unscale_(self.optimiser)
        return get_total_norm([value.grad for value in self._network.parameters() if value.grad is not None])

    def step(self, progress: Progress, norm: Tensor) -> None:
        """Take an optimiser step with the present gradients, clear them, and count the step in ``progress``.

        With fp16 a step whose gradients overflow is left out, and the next ones are scaled less.

        Raises:
            UserError: with fp16, gradients that overflow even with the smallest scale.
        """
        if self._settings.gradient_clip is not None:
            clip_grads_with_norm_(self._network.parameters(), self._settings.gradient_clip, norm)
        progress.rate = self._schedule.rate
        self._scaler.step(self.optimiser)
        self._scaler.update()
        if self._scaler.is_enabled() and self._scaler.get_scale() < _SMALLEST_SCALE:
            text = "fp16 is too narrow for these gradients, they overflow at every scale; set precision bf16"
            raise agreed(UserError(text))
        self.optimiser.zero_grad(set_to_none=True)
        self._schedule.step()
        progress.step += 1
        progress.step_in_epoch += 1
        if self._average is not None:
            self._average.update(progress.step)

    def end_epoch(self, score: float | None) -> None:
        """Tell the plateau schedule an epoch's score; None where it was not validated."""
        self._schedule.end_epoch(score)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Put the averaged weights, if an average is kept, into the network while the context lasts."""
        if self._average is None:
            yield
            return
        with self._average.in_the_network():
            yield

    def average(self) -> dict[str, Tensor]:
        """The averaged parameters and buffers by name; none where no average is kept."""
        return {} if self._average is None else self._average.tensors()

    def write_state(self, progress: Progress) -> None:
        """Put what is not a tensor into ``progress``."""
        progress.plateau = self._schedule.plateau_state()
        progress.scaler = self._scaler.state_dict()

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint whose weights are in the network.

        Raises:
            UserError: an optimiser of another kind, or other groups of parameters, than the checkpoint's.
        """
        progress: Progress = checkpoint.progress
        state: dict[str, Any] = {"state": checkpoint.optimiser, "param_groups": progress.groups}
        try:
            self.optimiser.load_state_dict(state)
        except (ValueError, KeyError) as error:
            raise UserError(
                f"the checkpoint's optimiser does not fit this network: {error}; start a new run"
            ) from error
        self._schedule.restore(progress)
        if self._scaler.is_enabled():
            self._scaler.load_state_dict(progress.scaler)
        if self._average is not None:
            self._average.load(checkpoint.average)


def _build_optimiser(groups: Sequence[ParameterGroup], settings: OptimisationSettings) -> torch.optim.Optimizer:
    """The optimiser of torch.optim that the settings name, over groups that have their rates and decays."""
    kind = settings.optimiser
    options = {name: tuple(v) if isinstance(v, list) else v for name, v in settings.optimiser_options.items()}
    if kind in _FUSED:
        options["fused"] = True
    described = [
        {
            "params": list(group.parameters),
            "lr": settings.lr * group.lr_scale,
            "weight_decay": settings.weight_decay if group.weight_decay is None else group.weight_decay,
        }
        for group in groups
    ]
    build: Any = _OPTIMISERS[kind]
    optimiser: torch.optim.Optimizer = build(described, lr=settings.lr, weight_decay=settings.weight_decay, **options)
    return optimiser
