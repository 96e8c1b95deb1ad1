"""One optimiser step, over the parts of its batch and the processes of a launch; and what is said when it fails."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, send_to_device
from torch import Tensor, nn

from Utils.core.errors import UserError
from Utils.core.processes import add_up, agreed, launch
from Utils.core.seeds import derive_seed, named_generator
from Utils.data.loaders import Part
from Utils.data.sample import Batch
from Utils.training.checkpoint import Progress
from Utils.training.culprits import Culprits
from Utils.training.loop_settings import LoopSettings
from Utils.training.optimisation import Optimisation
from Utils.training.run_files import last_checkpoint
from Utils.training.statistics import RunningStatistics
from Utils.training.task import Task

logger = logging.getLogger(__name__)


class OptimiserStep:
    """Takes the steps of a stage.

    Args:
        task: the task that is trained.
        optimisation: optimiser, number format and averages of its network.
        settings: give the seed and the number format.
        folder: the stage's folder; errors name its last checkpoint.
    """

    def __init__(self, task: Task, optimisation: Optimisation, settings: LoopSettings, folder: Path) -> None:
        self._optimisation = optimisation
        self._settings = settings
        self._folder = folder
        self._statistics = RunningStatistics(task.network)
        if self._statistics.exist and launch().num_processes > 1:
            logger.warning(
                "BatchNorm: each process normalises by its own part of a batch; running statistics are shared"
            )
        # Parts of a backbone that the decoder does not use get no gradient. Also, without a search for them in every
        # step, torch would sum gradients in another order from the second step on, which a resumed run would not do.
        parallel = DistributedDataParallelKwargs(find_unused_parameters=True, broadcast_buffers=False)
        # Mixed precision is handled by the optimisation.
        self._accelerator = Accelerator(mixed_precision="no", kwargs_handlers=[parallel])
        self._module = self._accelerator.prepare_model(_LossModule(task))
        self._culprits = Culprits(task, optimisation, self._statistics, self._generators)

    def take(self, parts: Sequence[Part], epoch: int, progress: Progress) -> tuple[float, float]:
        """One optimiser step; its loss, a mean over all its tiles, and the norm of its gradients.

        Raises:
            UserError: the loss or the norm is not finite; the network is as it was before the step.
        """
        place, losses = launch(), []
        before = self._statistics.copy()
        for part in parts:
            # Dropout draws from the global generator: seeding that before every step keeps dropout the same after
            # resuming.
            torch.manual_seed(derive_seed(self._settings.seed, "dropout", epoch, part.number, place.process_index))
            batch = send_to_device(part.batch, place.device, non_blocking=True)
            # Gradients are averaged over the processes once, with the step's last part.
            waits = part is not parts[-1] and place.num_processes > 1
            with self._accelerator.no_sync(self._module) if waits else nullcontext():
                with self._optimisation.autocast():
                    loss = self._module(batch, self._generators(part.batch, epoch))
                # The mean over processes of these is the mean over the step's tiles.
                self._optimisation.backward(loss * (part.weight * place.num_processes))
            losses.append(loss.detach().float() * part.weight)
        norm = self._optimisation.gradient_norm()
        # Read from the device only once a step, because reading waits until everything is computed.
        own_loss, gradient_norm = torch.stack([torch.stack(losses).sum(), norm.detach().float()]).tolist()
        (step_loss,) = add_up([own_loss])
        if not math.isfinite(step_loss):
            self._statistics.put(before)
            tiles = self._culprits.with_unusable_loss(parts, epoch)
            raise diverged(self._folder, f"the loss became {step_loss} in epoch {epoch} on {tiles}")
        if not math.isfinite(gradient_norm):
            moved = self._statistics.copy()
            self._statistics.put(before)
            tiles, names = self._culprits.with_unusable_gradients(parts, epoch)
            # In fp16 gradients overflow now and then, and the optimisation leaves the step out. Only gradients that are
            # not finite in fp32 either are an error.
            if names or self._settings.precision != "fp16":
                what = f"the gradient of {names or 'the weights'} is no finite number, the loss being {step_loss:.6g},"
                raise diverged(self._folder, f"{what} in epoch {epoch} on {tiles}")
            self._statistics.put(moved)
        self._statistics.share()
        self._optimisation.step(progress, norm)
        return step_loss, gradient_norm

    def _generators(self, batch: Batch, epoch: int) -> list[torch.Generator]:
        return [named_generator(self._settings.seed, "draws", epoch, tile) for tile in batch["id"]]


class _LossModule(nn.Module):
    """A task's loss as a module, so that gradients are averaged over processes whatever the task calls inside."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.network = task.network
        self.task = task

    def forward(self, batch: Batch, generators: Sequence[torch.Generator]) -> Tensor:
        """The loss, a scalar."""
        return self.task.loss(batch, generators)


def diverged(folder: Path, what: str) -> UserError:
    """The same error in all processes: what became no finite number, what to do, and the last good checkpoint."""
    last = last_checkpoint(folder)
    kept = f"the last good checkpoint is '{last}'" if last.is_file() else "no checkpoint was written yet"
    return agreed(UserError(f"{what}; look at these tiles, lower lr, or set gradient_clip; {kept}"))
