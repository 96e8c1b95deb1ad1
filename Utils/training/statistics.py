"""The running statistics of BatchNorm layers, which a forward pass moves although no optimiser does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from Utils.core.processes import launch


class RunningStatistics:
    """Those of a network; nothing happens where it has none.

    Args:
        network: on its device.
    """

    def __init__(self, network: nn.Module) -> None:
        self._layers = [part for part in network.modules() if isinstance(part, _NormBase) and part.track_running_stats]
        self._buffers = [value for layer in self._layers for value in layer.buffers(recurse=False)]

    @property
    def exist(self) -> bool:
        """Whether the network has any."""
        return bool(self._buffers)

    def copy(self) -> list[Tensor]:
        """A copy of them as they are now, for ``put``."""
        return [value.detach().clone() for value in self._buffers]

    @torch.no_grad()
    def put(self, copied: list[Tensor]) -> None:
        """Make them what they were when they were copied."""
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
        """Let a forward pass use them and not move them."""
        modes = [layer.training for layer in self._layers]
        for layer in self._layers:
            layer.eval()
        try:
            yield
        finally:
            for layer, mode in zip(self._layers, modes, strict=True):
                layer.train(mode)
