"""Networks out of checkpoints: of the right kind, and never larger than the weights beside their description."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from torch import nn

from Modules.common.plain_json import check_sizes
from Modules.common.untrusted_weights import check_network
from Utils.core.errors import UserError, first_line
from Utils.training.checkpoint import Checkpoint, load_checkpoint

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
