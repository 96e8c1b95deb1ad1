"""The hooks by which the training loop knows a task; it knows no network by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from Utils.data.sample import Batch
from Utils.pictures.comparison import Panel
from Utils.pictures.quantity import HEIGHT, Quantity
from Utils.scoring.scores import Scorer


@dataclass(frozen=True)
class Monitor:
    """The validation score that chooses ``best`` and moves the plateau.

    Attributes:
        score: key of the score, such as ``paper.mae``.
        lower_is_better: whether lower values are better.
    """

    score: str
    lower_is_better: bool = True

    def is_better(self, score: float, best: float | None) -> bool:
        """Whether a score beats the best one so far, None before the first."""
        return best is None or (score < best if self.lower_is_better else score > best)


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a learning rate and a weight decay.

    Attributes:
        parameters: the parameters.
        lr_scale: factor on the config's ``lr``, for a pretrained encoder or layer decay.
        weight_decay: weight decay of the group; None takes that of the config.
    """

    parameters: Sequence[nn.Parameter]
    lr_scale: float = 1.0
    weight_decay: float | None = None


@dataclass(frozen=True)
class View:
    """One sample's panels, to look at.

    Attributes:
        name: the sample's id.
        panels: pictures, all of the same size.
        valid: the valid pixels (H, W) bool, None for all.
        quantity: what the maps among the panels show.
    """

    name: str
    panels: Sequence[Panel] = field(repr=False)
    valid: Any = field(default=None, repr=False)
    quantity: Quantity = HEIGHT


class Task(Protocol):
    """What the training loop needs from something that learns.

    Attributes:
        name: kind of the network, which is written into checkpoints.
        loss_name: name of the training loss in logs, different from every validation score.
        monitor: the validation score that chooses ``best``.
        scorer: scores the predictions in validation.
        network: what is trained and saved.
    """

    name: str
    loss_name: str
    monitor: Monitor
    scorer: Scorer
    network: nn.Module

    def architecture(self) -> Mapping[str, Any]:
        """Everything that is needed to build the network again, as JSON."""

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """All parameters that are trained, each in one group."""

    def to(self, device: torch.device) -> None:
        """Move everything, frozen parts included."""

    def loss(self, batch: Batch, generators: Sequence[torch.Generator]) -> Tensor:
        """The mean loss over a batch's tiles, in which a tile depends on others only through a BatchNorm.

        Random draws for a tile come from that tile's generator (CPU), so that neither its neighbours nor the number of
        processes change them.
        """

    def predict(self, batch: Batch) -> Tensor:
        """The prediction that the scorer compares with the truth; the network is in evaluation mode."""

    def panels(self, batch: Batch) -> Sequence[View]:
        """Pictures of a batch, a view for each sample; the network is in evaluation mode."""


@runtime_checkable
class TaughtByAverage(Protocol):
    """A task whose loss asks the moving average of its own weights: a mean teacher.

    The average is that of ``ema_decay``, which checkpoints hold: a resumed run has the teacher that it had.
    """

    def be_taught(self, average: Callable[[], Mapping[str, Tensor]]) -> None:
        """Remember what gives the averaged parameters and buffers by name; empty where no average is kept."""


def one_group(network: nn.Module) -> list[ParameterGroup]:
    """All parameters of a network in one group."""
    return [ParameterGroup(list(network.parameters()))]
