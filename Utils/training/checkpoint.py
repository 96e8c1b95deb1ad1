"""A checkpoint is one safetensors file: weights, optimiser tensors, and the rest of the state as JSON in its header.

The file is written under a temporary name and renamed, so a run that dies while it writes still has its last
checkpoint. It holds no pickles, so a stranger's file can run no code.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from Modules.common.plain_json import parse_json
from Utils.core.errors import UserError, write_error
from Utils.core.files import replacing

FORMAT = 3
"""Number of the format that is written: of the header's layout and of the state that a resumed run reads from it.

Runs of format 1 made other random draws; format 2 holds the rate of the step before, and no averaged buffers.
"""
HEADER_KEY = "checkpoint"
"""Key in the file's metadata of everything that is not a tensor, as JSON."""
# Before the project had more than one system, the header and its formats were named after the first.
_OLDER_HEADER, _OLDER_FORMATS = "d3rsmde", {"d3-rsmde-checkpoint-1": 1, "d3-rsmde-checkpoint-2": 2}
_NETWORK, _AVERAGE, _OPTIMISER = "network/", "average/", "optimiser/"
_OTHER_WEIGHTS = "give weights of that network, or its sizes in the config"


@dataclass
class Progress:
    """The state of a training stage after an optimiser step.

    Attributes:
        epoch: number of whole epochs done.
        step: number of optimiser steps done in all.
        step_in_epoch: number of steps done in the epoch that is not finished.
        sums: sums for the log row of that epoch so far.
        ended_at: number of steps after which ``max_steps`` ended the stage within an epoch; 0 if it did not.
        best: best validation score, None before the first.
        best_epoch: the epoch that reached the best score.
        rate: the learning rate of the last step; None before the first.
        plateau: state of the plateau schedule.
        scaler: state of fp16's loss scale.
        groups: the optimiser's parameter groups.
    """

    epoch: int = 0
    step: int = 0
    step_in_epoch: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    ended_at: int = 0
    best: float | None = None
    best_epoch: int = 0
    rate: float | None = None
    plateau: dict[str, Any] = field(default_factory=dict)
    scaler: dict[str, Any] = field(default_factory=dict)
    groups: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read.

    Attributes:
        task: kind of the network that it holds.
        architecture: what is needed to build that network again.
        network: weights of the network after the last optimiser step.
        average: the moving average of its parameters, by name; empty where none was kept.
        optimiser: the optimiser's tensors, by parameter number.
        progress: state of the stage.
        format: see ``FORMAT``.
    """

    task: str
    architecture: dict[str, Any]
    network: dict[str, Tensor]
    average: dict[str, Tensor]
    optimiser: dict[int, dict[str, Tensor]]
    progress: Progress
    format: int = FORMAT

    @property
    def weights(self) -> dict[str, Tensor]:
        """The weights to use: the averaged ones, where an average was kept."""
        return self.network | self.average


def save_checkpoint(
    path: Path,
    task: str,
    architecture: Mapping[str, Any],
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    progress: Progress,
    average: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a checkpoint, whole or not at all; ``average`` holds averaged parameters by name.

    Raises:
        UserError: the file cannot be written; an older file of that name stays unchanged.
    """
    state = optimiser.state_dict()
    progress.groups = state["param_groups"]
    tensors = {_NETWORK + name: value.contiguous() for name, value in network.state_dict().items()}
    tensors |= {_AVERAGE + name: value.contiguous() for name, value in (average or {}).items()}
    for number, values in state["state"].items():
        tensors |= {f"{_OPTIMISER}{number}/{name}": value.contiguous() for name, value in values.items()}
    header = {"format": FORMAT, "task": task, "architecture": dict(architecture), "progress": asdict(progress)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            save_file(tensors, temporary, metadata={HEADER_KEY: json.dumps(header)})
            # The content must reach the disk before the name: otherwise a power cut could leave an empty file.
            with temporary.open("rb+") as written:
                os.fsync(written.fileno())
    except (OSError, SafetensorError) as error:
        raise write_error(path, error, "the checkpoint before it is intact: continue with --resume") from error


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        UserError: a missing, damaged or foreign file.
    """
    if not path.is_file():
        raise UserError(f"checkpoint '{path}' not found; train first, or correct the path")
    try:
        with safe_open(path, framework="pt") as reader:
            header = _header(reader.metadata() or {})
            tensors = {name: reader.get_tensor(name) for name in reader.keys()}
        task, architecture = str(header["task"]), dict(header["architecture"])
        progress = _progress(header["progress"])
        optimiser: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith(_OPTIMISER):
                number, key = name.removeprefix(_OPTIMISER).split("/")
                optimiser.setdefault(int(number), {})[key] = value
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise UserError(
            f"'{path}' is no checkpoint of this project, or is damaged ({reason}); give one that a run wrote"
        ) from error
    network, average = (
        {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        for prefix in (_NETWORK, _AVERAGE)
    )
    return Checkpoint(task, architecture, network, average, optimiser, progress, header["format"])


def _header(metadata: Mapping[str, str]) -> dict[str, Any]:
    """The header, with its format as a number.

    Raises:
        KeyError: there is no header.
        ValueError: a format that this version does not know.
    """
    if HEADER_KEY in metadata:
        header: dict[str, Any] = parse_json(metadata[HEADER_KEY])
        known = {FORMAT: FORMAT}
    else:
        header = parse_json(metadata[_OLDER_HEADER])
        known = _OLDER_FORMATS  # type: ignore[assignment]
    if header["format"] not in known:
        raise ValueError(f"format {header['format']!r}, which this version does not know")
    return header | {"format": known[header["format"]]}


def _progress(data: Mapping[str, Any]) -> Progress:
    """Read progress from a header.

    Raises:
        TypeError: an unknown key.
        ValueError: a value of the wrong type.
    """
    progress = Progress(**data)
    for name, default in asdict(Progress()).items():
        value = getattr(progress, name)
        if default is None:
            fits = value is None or (type(value) in (int, float) and math.isfinite(value))
        elif isinstance(default, int):
            fits = type(value) is int and value >= 0
        else:
            fits = isinstance(value, type(default))
        if not fits:
            raise ValueError(f"its progress has '{name}' = {value!r}")
    return progress


def load_weights(network: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Put weights into a network, strictly.

    Raises:
        UserError: weights of another architecture; the line names the first that does not fit.
    """
    own = network.state_dict()
    for name in sorted(set(own) | set(weights)):
        if name not in weights or name not in own:
            where = "is missing from it" if name not in weights else "is in it and not in the network"
            raise UserError(f"'{source}' holds weights of another architecture: '{name}' {where}; {_OTHER_WEIGHTS}")
        if own[name].shape != weights[name].shape:
            raise UserError(
                f"'{source}' holds weights of another architecture: '{name}' is {tuple(weights[name].shape)} there "
                f"and {tuple(own[name].shape)} in the network that the config asks for; {_OTHER_WEIGHTS}"
            )
    network.load_state_dict(dict(weights))
