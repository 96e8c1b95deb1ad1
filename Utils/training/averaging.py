"""A moving average of a network's weights and of its running statistics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage:
    """The exponential moving average of all parameters and of all buffers of floats.

    It follows quickly at first: after the first step it equals the weights, and after step s the decay is at most s /
    (9 + s).

    Args:
        network: the network, on its device; the average starts at its weights.
        decay: share of the average that a step keeps.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._decay = decay
        self._own = dict(_averaged_tensors(network))
        self._shadows = {name: value.detach().clone() for name, value in self._own.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Add the network's present weights to the average, after optimiser step ``step``, counted from 1."""
        move = get_ema_multi_avg_fn(min(self._decay, step / (9 + step)) if step > 1 else 0.0)
        own = [value.detach() for value in self._own.values()]
        move(list(self._shadows.values()), own, step)

    def tensors(self) -> dict[str, Tensor]:
        """The averages by name."""
        return self._shadows

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from averages that were saved."""
        self._shadows = {name: tensors[name].to(value.device, copy=True) for name, value in self._own.items()}

    @contextmanager
    def in_the_network(self) -> Iterator[None]:
        """Put the averages into the network while the context lasts."""
        kept = {name: value.detach().clone() for name, value in self._own.items()}
        self._put(self._shadows)
        try:
            yield
        finally:
            self._put(kept)

    @torch.no_grad()
    def _put(self, tensors: Mapping[str, Tensor]) -> None:
        for name, value in self._own.items():
            value.copy_(tensors[name])


def _averaged_tensors(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters, and buffers of floats that are saved with the network; counters are not averaged."""
    yield from network.named_parameters()
    saved = network.state_dict().keys()
    yield from ((name, value) for name, value in network.named_buffers() if name in saved and value.is_floating_point())
