"""Networks out of checkpoints: of the right kind, and never larger than the weights beside their description."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

from torch import nn

from Modules.common.components import Component, load_component
from Modules.common.plain_json import check_sizes, parse_json, read_text
from Modules.common.untrusted_weights import check_network
from Utils.core.errors import UserError, first_line
from Utils.training.checkpoint import Checkpoint, load_checkpoint, load_weights
from Utils.training.run_files import MODEL_FOLDER

Built = TypeVar("Built", bound=nn.Module)
_CONFIG = "config.json"


def is_checkpoint(path: Path) -> bool:
    """Whether a file is a checkpoint of this project, and not weights from elsewhere."""
    if path.suffix != ".safetensors":
        return False
    try:
        load_checkpoint(path)
    except UserError:
        return False
    return True


def holds_network(path: Path, kind: type[Component], task: str) -> bool:
    """Whether a path is a run, a model folder or a checkpoint of one kind of network; see ``load_network``."""
    if path.is_file():
        try:
            return load_checkpoint(path).task == task
        except UserError:
            return False
    try:
        # A run has a config.json too, that of its training, which names no class.
        config = parse_json(read_text(model_folder(path) / _CONFIG))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("_class_name") == kind.__name__


def load_network(path: Path, kind: type[Component], task: str) -> Component:
    """A network, ready to predict, from a run folder, a model folder (a network's own) or a checkpoint file.

    Args:
        path: where it is.
        kind: its class.
        task: name of the task that trains such networks, as checkpoints hold it.

    Raises:
        UserError: there is nothing, or no such network in it.
    """
    build: Any = kind
    if path.is_file():
        checkpoint = checkpoint_of(path, task)
        network: Any = from_architecture(lambda: build(**checkpoint.architecture), checkpoint, path)
        load_weights(network, checkpoint.weights, str(path))
        return network.eval()
    if not holds_network(path, kind, task):
        raise UserError(f"'{path}' holds no finished model; a run writes '{MODEL_FOLDER}/' at its end (see --resume)")
    folder = model_folder(path)
    try:
        network = load_component(kind, folder)
    except (OSError, ValueError) as error:
        raise UserError(f"the model '{folder}' cannot be loaded: {first_line(error)}") from error
    return network.eval()


def model_folder(path: Path) -> Path:
    """The model folder of a run, or the folder itself."""
    return path / MODEL_FOLDER if (path / MODEL_FOLDER).is_dir() else path


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
