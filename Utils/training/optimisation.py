"""From a loss to the next weights: AdamW, its learning rate, clipping, loss scaling, averaged weights.

Everything here is a function of what the checkpoint holds, so that a run that is continued takes the steps that it
would have taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim.lr_scheduler import ReduceLROnPlateau

from Modules.common.inference import DTYPES, Precision
from Utils.core.errors import UserError
from Utils.core.processes import agreed
from Utils.training.checkpoint import Checkpoint, Progress

# torch's loss scale begins at 65536 and halves with every step whose gradients overflow.
_SMALLEST_SCALE = 2.0**-10


@dataclass(frozen=True)
class OptimisationSettings:
    """What decides a step; the names are the config's."""

    epochs: int
    lr: float
    weight_decay: float
    threshold_epoch: int
    downgrade_lr_ratio: float
    lr_schedule: str
    warmup_steps: int
    gradient_clip: float | None
    ema_decay: float
    precision: Precision


class Optimisation:
    """One network's optimiser and what belongs to it.

    Args:
        network: what is trained; on its device.
        settings: how.
        device: where.
    """

    def __init__(self, network: nn.Module, settings: OptimisationSettings, device: torch.device) -> None:
        self._network = network
        self._settings = settings
        self._device = device
        self.optimiser = torch.optim.AdamW(
            network.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, fused=True
        )
        # torch multiplies after `patience` + 1 epochs without improvement.
        self._plateau = ReduceLROnPlateau(
            self.optimiser, factor=settings.downgrade_lr_ratio, patience=max(settings.threshold_epoch - 1, 0)
        )
        self._rate = settings.lr
        self._scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "fp16")
        # The average follows quickly at first: its decay is at most (1 + step) / (10 + step).
        self._average = EMAModel(network.parameters(), settings.ema_decay, foreach=True) if settings.ema_decay else None

    def autocast(self) -> torch.autocast:
        """The number format of activations; weights, their average and the optimiser stay in fp32."""
        precision = self._settings.precision
        return torch.autocast(self._device.type, DTYPES[precision], enabled=precision != "fp32")

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss, which fp16 scales up, lest small ones become 0."""
        self._scaler.scale(loss).backward()

    def gradient_norm(self) -> Tensor:
        """The norm of all gradients of this step, unscaled, as a tensor (); before ``step``."""
        if self._scaler.is_enabled():
            self._scaler.unscale_(self.optimiser)
        return get_total_norm([value.grad for value in self._network.parameters() if value.grad is not None])

    def step(self, progress: Progress, norm: Tensor, steps_per_epoch: int) -> None:
        """Take an optimiser step with the gradients that are there, and forget them; counts it in ``progress``.

        With fp16 a step whose gradients overflowed is left out, and the next ones are scaled less.

        Raises:
            UserError: in fp16, gradients that overflow however little they are scaled.
        """
        self._set_rate(progress, steps_per_epoch)
        if self._settings.gradient_clip is not None:
            clip_grads_with_norm_(self._network.parameters(), self._settings.gradient_clip, norm)
        self._scaler.step(self.optimiser)
        self._scaler.update()
        if self._scaler.is_enabled() and self._scaler.get_scale() < _SMALLEST_SCALE:
            text = "fp16 is too narrow for these gradients, they overflow at every scale; set precision bf16"
            raise agreed(UserError(text))
        self.optimiser.zero_grad(set_to_none=True)
        progress.step += 1
        progress.step_in_epoch += 1
        if self._average is not None:
            self._average.optimization_step = progress.step - 1
            self._average.step(self._network.parameters())

    def _set_rate(self, progress: Progress, steps_per_epoch: int) -> None:
        """The rate of the coming step: the plateau's or half a cosine from lr to 0, and at first a linear warm-up."""
        settings = self._settings
        rate = self._rate
        if settings.lr_schedule == "cosine":
            done = (progress.epoch + progress.step_in_epoch / steps_per_epoch) / settings.epochs
            rate = settings.lr * 0.5 * (1.0 + math.cos(math.pi * done))
        if progress.step < settings.warmup_steps:
            rate *= (progress.step + 1) / settings.warmup_steps
        self._write_rate(rate)

    def _write_rate(self, rate: float) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = rate

    @property
    def rate(self) -> float:
        """The learning rate of the last step."""
        return float(self.optimiser.param_groups[0]["lr"])

    def end_epoch(self, score: float | None) -> None:
        """Tell the plateau schedule an epoch's score; None where it was not validated."""
        if score is None or self._settings.lr_schedule != "plateau" or not self._settings.threshold_epoch:
            return
        # The plateau multiplies the rate that it finds: not one that is still warming up.
        self._write_rate(self._rate)
        self._plateau.step(score)
        self._rate = self.rate

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Put the averaged weights into the network for a while, where an average is kept."""
        if self._average is None:
            yield
            return
        parameters = list(self._network.parameters())
        kept = [value.detach().clone() for value in parameters]
        self._average.copy_to(parameters)
        try:
            yield
        finally:
            with torch.no_grad():
                for value, before in zip(parameters, kept, strict=True):
                    value.copy_(before)

    def average(self) -> dict[str, Tensor]:
        """The averaged parameters by name; none where no average is kept."""
        if self._average is None:
            return {}
        names = [name for name, _ in self._network.named_parameters()]
        return dict(zip(names, self._average.shadow_params, strict=True))

    def write_state(self, progress: Progress) -> None:
        """Put what is not a tensor into ``progress``."""
        progress.rate = self._rate
        progress.plateau = self._plateau.state_dict()
        progress.scaler = self._scaler.state_dict()

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint whose weights are in the network."""
        progress: Progress = checkpoint.progress
        state: dict[str, Any] = {"state": checkpoint.optimiser, "param_groups": progress.groups}
        self.optimiser.load_state_dict(state)
        self._plateau.load_state_dict(progress.plateau)
        self._rate = self.rate if progress.rate is None else progress.rate
        if self._scaler.is_enabled():
            self._scaler.load_state_dict(progress.scaler)
        if self._average is not None:
            shadows = [checkpoint.average[name] for name, _ in self._network.named_parameters()]
            self._average.shadow_params = [value.to(self._device) for value in shadows]
