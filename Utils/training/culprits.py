"""Finds the tiles that made a step fail, by the loss and the gradient of each single tile."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from accelerate.utils import send_to_device
from torch import Tensor

from Utils.core.processes import gather, launch
from Utils.data.loaders import Part
from Utils.data.published_layout import natural
from Utils.data.sample import Batch, take
from Utils.training.optimisation import Optimisation
from Utils.training.statistics import RunningStatistics
from Utils.training.task import Task


class Culprits:
    """The search for such tiles; it changes neither weights nor running statistics.

    Args:
        task: the task that is trained.
        optimisation: gives the number format.
        statistics: running statistics of the network; tiles are computed with those from before the step.
        generators: gives the generators of a batch's tiles in an epoch.
    """

    def __init__(
        self,
        task: Task,
        optimisation: Optimisation,
        statistics: RunningStatistics,
        generators: Callable[[Batch, int], list[torch.Generator]],
    ) -> None:
        self._task = task
        self._optimisation = optimisation
        self._statistics = statistics
        self._generators = generators

    def with_unusable_loss(self, parts: Sequence[Part], epoch: int) -> str:
        """Which of a step's tiles have a loss that is no finite number."""
        with torch.no_grad(), self._optimisation.autocast():
            own = [tile for tile, loss in self._single_losses(parts, epoch) if not loss.isfinite()]
        return _name_tiles(gather(own), parts)

    def with_unusable_gradients(self, parts: Sequence[Part], epoch: int) -> tuple[str, str]:
        """Which of a step's tiles have a gradient that is no finite number, in fp32; and of which parameters."""
        named = dict(self._task.network.named_parameters())
        trained = {name: value for name, value in named.items() if value.requires_grad}
        own_tiles: list[str] = []
        own_names: list[str] = []
        for tile, loss in self._single_losses(parts, epoch):
            gradients = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
            pairs = zip(trained, gradients, strict=True)
            unusable = [name for name, value in pairs if value is not None and not value.isfinite().all()]
            own_tiles += [tile] if unusable else []
            own_names += unusable
        names = list(dict.fromkeys(gather(own_names)))
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        return _name_tiles(gather(own_tiles), parts), f"'{names[0]}'{more}" if names else ""

    def _single_losses(self, parts: Sequence[Part], epoch: int) -> Iterator[tuple[str, Tensor]]:
        """The loss of each of a step's tiles by itself."""
        with self._statistics.still():
            for part in parts:
                for place, tile in enumerate(part.batch["id"]):
                    single = take(part.batch, place)
                    on_device = send_to_device(single, launch().device)
                    yield tile, self._task.loss(on_device, self._generators(single, epoch))


def _name_tiles(ids: Sequence[str], parts: Sequence[Part]) -> str:
    """Tile ids for a message; if no single tile is to blame, those of the step in all processes."""
    found = set(ids) or set(gather([tile for part in parts for tile in part.batch["id"]]))
    return f"tile{'s' if len(found) > 1 else ''} {', '.join(sorted(found, key=natural))}"
