"""Progressive linear blending refinement (PLBR): the schedule that leads from the coarse latent to the refined one.

Training sees x_t = a[t]·truth + (1 - a[t])·coarse for a random t; inference starts at the coarse latent and walks
t = T-1 .. 0, each time blending the prediction with the coarse latent by the weight of the next step.
D³-RSMDE, AAAI 2026, arXiv 2603.16362.
"""

from __future__ import annotations

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor


class PLBRScheduler(SchedulerMixin, ConfigMixin):  # type: ignore[misc]  # diffusers' bases disagree on config_name
    """Blending weights and the steps that use them.

    Args:
        start: weight of the truth at t = 0, in [0, 1].
        stop: weight of the truth at t = T-1, in [0, 1].
        num_train_timesteps: T, the number of blending steps.

    Attributes:
        weights: (T,) float64, a = linspace(start, stop, T).
        timesteps: (S,) int64, descending, set by ``set_timesteps``.
        walk: the same as plain numbers: while a model is exported, tensors have no values.
    """

    order = 1

    @register_to_config
    def __init__(self, start: float = 0.8, stop: float = 0.0, num_train_timesteps: int = 6) -> None:
        if num_train_timesteps < 1 or not (0.0 <= stop <= 1.0 and 0.0 <= start <= 1.0):
            raise ValueError(
                f"a blending schedule needs at least 1 step and weights in [0, 1], "
                f"not T={num_train_timesteps}, start={start}, stop={stop}"
            )
        # On the CPU even while parts are only shaped (on "meta"), where tensors have no values.
        self.weights = torch.linspace(start, stop, num_train_timesteps, dtype=torch.float64, device="cpu")
        self._weights: list[float] = self.weights.tolist()
        self.set_timesteps(num_train_timesteps)

    def set_timesteps(self, num_inference_steps: int | None = None, device: torch.device | str | None = None) -> None:
        """Choose the steps of one walk: all T (None), or fewer, evenly spaced, always beginning at T-1.

        Raises:
            ValueError: fewer than 1 or more than T steps.
        """
        total = len(self.weights)
        steps = total if num_inference_steps is None else num_inference_steps
        if not 1 <= steps <= total:
            raise ValueError(f"{steps} refinement steps asked of a schedule of {total}; give 1 to {total}")
        chosen = np.linspace(total - 1, 0, steps) if steps > 1 else np.array([total - 1.0])
        self.num_inference_steps = steps
        self.walk: list[int] = chosen.round().astype(np.int64).tolist()
        self.timesteps = torch.tensor(self.walk, device=device)

    def blend(self, truth: Tensor, coarse: Tensor, timestep: Tensor) -> Tensor:
        """The training input x_t = a[t]·truth + (1 - a[t])·coarse; latents (B, C, h, w), timestep (B,) int64."""
        weight = self.weights.to(device=truth.device, dtype=truth.dtype)[timestep].view(-1, 1, 1, 1)
        return weight * truth + (1.0 - weight) * coarse

    def step(self, prediction: Tensor, timestep: int, coarse: Tensor) -> Tensor:
        """From a prediction of the truth to the next input: a_next·prediction + (1 - a_next)·coarse.

        ``a_next`` is the weight of the walk's next timestep, and 1 after its last: there the prediction comes back.
        """
        place = self.walk.index(timestep)
        if place == len(self.walk) - 1:
            return prediction
        weight = self._weights[self.walk[place + 1]]
        return weight * prediction + (1.0 - weight) * coarse
