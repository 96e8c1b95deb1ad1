"""The running statistics of BatchNorm layers, which every forward pass changes and no optimiser."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from Utils.core.processes import launch


class RunningStatistics:
    """The running statistics of a network; without any, nothing happens.

    Args:
        network: the network, on its device.
    """

    def __init__(self, network: nn.Module) -> None:
        self._layers = [part for part in network.modules() if isinstance(part, _NormBase) and part.track_running_stats]
        self._buffers = [value for layer in self._layers for value in layer.buffers(recurse=False)]

    @property
    def exist(self) -> bool:
        """Whether the network has any."""
        return bool(self._buffers)

    def copy(self) -> list[Tensor]:
        """A copy of the present statistics, for ``put``."""
        return [value.detach().clone() for value in self._buffers]

    @torch.no_grad()
    def put(self, copied: list[Tensor]) -> None:
        """Restore the statistics from a copy."""
        for value, before in zip(self._buffers, copied, strict=True):
            value.copy_(before)

    @torch.no_grad()
    def share(self) -> None:
        """Average them over the processes of a launch, each of which saw its own part of a batch."""
        processes = launch().num_processes
        if processes == 1:
            return
        for value in self._buffers:
            if value.is_floating_point():
                torch.distributed.all_reduce(value)
                value.div_(processes)

    @contextmanager
    def still(self) -> Iterator[None]:
        """Let forward passes in this context use the statistics without changing them."""
        modes = [layer.training for layer in self._layers]
        for layer in self._layers:
            layer.eval()
        try:
            yield
        finally:
            for layer, mode in zip(self._layers, modes, strict=True):
                layer.train(mode)
