"""Networks out of checkpoints: of the right kind, and never larger than the weights beside their description."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from torch import nn

from Modules.common.plain_json import check_sizes
from Modules.common.untrusted_weights import check_network
from Utils.core.errors import UserError, first_line
from Utils.training.checkpoint import Checkpoint, load_checkpoint, load_weights

Built = TypeVar("Built", bound=nn.Module)


def is_checkpoint(path: Path) -> bool:
    """Whether a file is a checkpoint of this project, and not weights from elsewhere."""
    if path.suffix != ".safetensors":
        return False
    try:
        load_checkpoint(path)
    except UserError:
        return False
    return True


class EncoderNetwork(Protocol):
    """A network with an encoder that can take weights of its own; also an ``nn.Module``."""

    def load_backbone(self, weights: bool | Path) -> None:
        """Replace the encoder's random weights by timm's pretrained ones (True), or by a file in timm's layout."""


def give_first_weights(
    network: EncoderNetwork, pretrained: bool, given: str | None, load: Callable[[Path], nn.Module]
) -> None:
    """Give a new network the weights that a config names: none, timm's pretrained ones, or those of a path.

    Args:
        network: the network, whose random weights stay where the config names no others.
        pretrained: whether the encoder takes timm's weights, where no path is given.
        given: ``pretrained_model_path``: a run, a model folder or a checkpoint of this project (the whole network), or
            a file of encoder weights in timm's layout (the encoder alone).
        load: opens a network of this kind from a path of this project.

    Raises:
        UserError: a path that does not exist, or weights that do not fit.
        ValueError, OSError: a file of encoder weights that does not fit, or weights that are not available.
    """
    if given is None:
        if pretrained:
            network.load_backbone(True)
        return
    path = Path(given)
    if not path.exists():
        raise UserError(f"pretrained_model_path '{path}' does not exist")
    if path.is_dir() or is_checkpoint(path):
        assert isinstance(network, nn.Module)
        load_weights(network, load(path).state_dict(), str(path))
    else:
        network.load_backbone(path)


def checkpoint_of(path: Path, task: str) -> Checkpoint:
    """A checkpoint that must hold the network of ``task``.

    Raises:
        UserError: it is none, or holds another network.
    """
    checkpoint = load_checkpoint(path)
    if checkpoint.task != task:
        raise UserError(f"checkpoint '{path}' holds a network of kind '{checkpoint.task}', and '{task}' is needed here")
    return checkpoint


def from_architecture(build: Callable[[], Built], checkpoint: Checkpoint, path: Path) -> Built:
    """Build the network that a checkpoint's header describes, unless that is larger than the weights beside it.

    Raises:
        UserError: the header describes no such network.
    """
    numbers = sum(value.numel() for value in checkpoint.network.values())
    try:
        check_sizes(checkpoint.architecture)
        check_network(build, len(checkpoint.network), numbers)
        return build()
    except Exception as error:  # a header may hold anything where a number is meant
        raise unbuildable(path, error) from error


def unbuildable(path: Path, error: Exception) -> UserError:
    """The error of a checkpoint whose header describes nothing that can be built."""
    return UserError(f"checkpoint '{path}' describes a network that this version cannot build: {first_line(error)}")
