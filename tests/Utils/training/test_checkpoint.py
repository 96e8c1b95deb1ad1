"""Checkpoints: what is written is read back, whole or not at all, and nothing foreign gets in."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.conftest import full_disk
from Utils.core.errors import UserError, write_error
from Utils.training.checkpoint import FORMAT, HEADER_KEY, Progress, load_checkpoint, load_weights, save_checkpoint

ARCHITECTURE = {"widths": [3, 4], "name": "höhe", "nested": {"flag": True, "nothing": None}}


def trained_network(seed: int = 0) -> tuple[nn.Module, torch.optim.AdamW]:
    """A network with a buffer, a transposed weight, and an optimiser that has taken two steps."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    network[2].weight = nn.Parameter(torch.randn(4, 2).T)
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.01, weight_decay=0.1)
    for _ in range(2):
        network(torch.randn(5, 3)).square().mean().backward()
        optimiser.step()
    return network, optimiser


def save(path: Path, seed: int = 0, **progress: Any) -> tuple[nn.Module, torch.optim.AdamW]:
    network, optimiser = trained_network(seed)
    save_checkpoint(path, "toy", ARCHITECTURE, network, optimiser, Progress(**progress))
    return network, optimiser


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints" / "last.safetensors"
    plateau = {"best": 1.5, "num_bad_epochs": 2, "mode": "min"}
    network, optimiser = save(path, epoch=3, step=17, best=0.25, best_epoch=2, plateau=plateau)
    read = load_checkpoint(path)
    assert (read.task, read.architecture) == ("toy", ARCHITECTURE)
    progress = read.progress
    assert (progress.epoch, progress.step, progress.best, progress.best_epoch) == (3, 17, 0.25, 2)
    assert progress.plateau == plateau
    assert read.network.keys() == network.state_dict().keys()
    assert all(torch.equal(read.network[name], value) for name, value in network.state_dict().items())

    other, fresh = trained_network(1)
    load_weights(other, read.network, str(path))
    fresh.load_state_dict({"state": read.optimiser, "param_groups": progress.groups})
    batch = torch.randn(5, 3)
    for net, optim in ((network, optimiser), (other, fresh)):
        optim.zero_grad()
        net(batch).square().mean().backward()
        optim.step()
    for name, value in network.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), f"{name} differs after one more step"


def test_the_best_score_before_the_first_stays_none(tmp_path: Path) -> None:
    save(tmp_path / "c.safetensors")
    assert load_checkpoint(tmp_path / "c.safetensors").progress.best is None


def test_it_takes_the_place_of_the_older_one(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    save(path, epoch=1)
    save(path, seed=1, epoch=2)
    assert load_checkpoint(path).progress.epoch == 2
    assert [entry.name for entry in tmp_path.iterdir()] == ["c.safetensors"]


def test_a_write_that_fails_leaves_the_older_one(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    network, optimiser = save(path, epoch=1)
    before = path.read_bytes()
    with full_disk(100), pytest.raises(UserError, match="no space left on the disk .* before it is intact: continue"):
        save_checkpoint(path, "toy", {}, network, optimiser, Progress(epoch=2))
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["c.safetensors"]


def test_a_writer_that_dies_half_way_leaves_the_older_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c.safetensors"
    network, optimiser = save(path, epoch=1)
    before = path.read_bytes()

    def die(tensors: object, target: Path, metadata: object) -> None:
        target.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("Utils.training.checkpoint.save_file", die)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(path, "toy", {}, network, optimiser, Progress(epoch=2))
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["c.safetensors"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    network, optimiser = trained_network()
    path = tmp_path / "file" / "c.safetensors"
    with pytest.raises(UserError, match=r"cannot write '.*c\.safetensors': .*; the checkpoint before it is intact"):
        save_checkpoint(path, "toy", {}, network, optimiser, Progress())


def header(**changes: Any) -> dict[str, str]:
    whole = {"format": FORMAT, "task": "toy", "architecture": {}, "progress": {}} | changes
    return {HEADER_KEY: json.dumps({key: value for key, value in whole.items() if value is not ...})}


FOREIGN: dict[str, dict[str, str] | None] = {
    "no metadata": None,
    "other metadata": {"format": "pt"},
    "no JSON": {HEADER_KEY: "{"},
    "a list": {HEADER_KEY: "[]"},
    "a number": {HEADER_KEY: "3"},
    "another format": header(format=9),
    "no task": header(task=...),
    "no architecture": header(architecture=...),
    "a wrong architecture": header(architecture=5),
    "no progress": header(progress=...),
    "unknown progress": header(progress={"epochs": 3}),
    "a wrong progress": header(progress=[3]),
}


@pytest.mark.parametrize("metadata", FOREIGN.values(), ids=FOREIGN.keys())
def test_foreign_safetensors_are_refused(metadata: dict[str, str] | None, tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    save_file({"network/weight": torch.zeros(2)}, path, metadata=metadata)
    with pytest.raises(UserError, match=r"c\.safetensors' is no checkpoint of this project, or is damaged \(.+\); "):
        load_checkpoint(path)


def test_a_wrongly_named_tensor_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    save_file({"optimiser/x": torch.zeros(2)}, path, metadata=header())
    with pytest.raises(UserError, match="is no checkpoint of this project, or is damaged"):
        load_checkpoint(path)


class Trap:
    """Pickled, it would write a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("kind", ["pickle", "torch", "noise", "empty", "half"])
def test_other_files_are_refused_and_run_no_code(kind: str, tmp_path: Path) -> None:
    path, trap = tmp_path / "c.safetensors", tmp_path / "sprung"
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Trap(trap)))
    elif kind == "torch":
        torch.save({"weight": torch.zeros(2), "trap": Trap(trap)}, path)
    elif kind == "noise":
        path.write_bytes(bytes(range(256)) * 40)
    elif kind == "empty":
        path.write_bytes(b"")
    else:
        save(path)
        path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match="is no checkpoint of this project, or is damaged"):
        load_checkpoint(path)
    assert not trap.exists()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(UserError, match=f"checkpoint '{path}' not found; train first, or correct the path"):
            load_checkpoint(path)


def test_weights_are_loaded_strictly() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    weights = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).state_dict()
    wrong = (
        ({name: value for name, value in weights.items() if name != "1.bias"}, "'1.bias' is missing from it"),
        (weights | {"2.bias": torch.zeros(2)}, "'2.bias' is in it and not in the network"),
        (weights | {"1.weight": torch.zeros(2, 5)}, r"'1.weight' is \(2, 5\) there and \(2, 4\) in the network"),
    )
    for given, said in wrong:
        with pytest.raises(UserError, match=f"'f' holds weights of another architecture: {said}.*; give weights"):
            load_weights(network, given, "f")
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    load_weights(network, weights, "f")
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(28, "No space left on device"), "no space left on the disk"),
        (OSError(27, "File too large"), "no space left on the disk (or file too large)"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "no space left on the disk"),
        (PermissionError(13, "Permission denied"), "Permission denied"),
        (OSError(), "OSError"),
        (RuntimeError("first\nsecond"), "first;"),
    ],
)
def test_failed_writes_in_words(error: Exception, reason: str) -> None:
    text = str(write_error(Path("a/b"), error, "all is well"))
    assert text.startswith("cannot write 'a/b': ")
    assert reason in text
    assert text.endswith("; all is well")
    assert "\n" not in text
