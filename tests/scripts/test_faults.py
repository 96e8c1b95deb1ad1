"""Faults, each caused for real: what is said, what is lost (nothing), and that the run goes on where it was."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

import evaluateViT
import trainDiffusion
import trainViT
from tests.conftest import (
    TRAINING,
    Config,
    height_path,
    image_path,
    make_dataset,
    small_diffusion,
    small_vit,
    small_vit_evaluation,
    write_config,
    write_tile,
)
from tests.launching import HANG, run, shown, start, until
from tests.Utils.training.test_training import assert_same_model, assert_same_state, rows_without_times
from Utils.training.checkpoint import HEADER_KEY, load_checkpoint
from Utils.training.optimisation import Optimisation
from Utils.training.run_files import best_checkpoint, last_checkpoint

EPOCHS = 10


def has_begun(stage: Path) -> Callable[[], bool]:
    return lambda: last_checkpoint(stage).is_file()


def status_of(stage: Path) -> dict[str, Any]:
    return json.loads((stage / "status.json").read_text(encoding="utf-8"))


def vit(dataset: Path, folder: Path, **changes: Any) -> Path:
    """The config file of a run that takes a second or more."""
    config = small_vit(dataset, folder) | {"epochs": EPOCHS, "flips": ["horizontal"], "batch_size": 2} | changes
    return write_config(folder.with_suffix(".json"), config)


@pytest.fixture(scope="module")
def undisturbed(shared_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run as it ends when nothing happens."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    assert trainViT.main(["--config", str(vit(shared_dataset, folder))]) == 0
    return folder


def assert_as_undisturbed(folder: Path, whole: Path) -> None:
    assert_same_state(whole / "final", folder / "final")
    assert_same_model(whole, folder)
    assert rows_without_times(whole / "final") == rows_without_times(folder / "final")
    assert status_of(folder / "final")["state"] == "finished"


# Signals


@pytest.mark.parametrize(
    ("number", "workers", "fresh"),
    [
        pytest.param(signal.SIGTERM, 2, True, id="SIGTERM, as a user starts it"),
        pytest.param(signal.SIGINT, 0, False, id="SIGINT"),
    ],
)
def test_a_signal_ends_the_run_in_order(
    number: signal.Signals, workers: int, fresh: bool, shared_dataset: Path, undisturbed: Path, tmp_path: Path
) -> None:
    folder, log = tmp_path / "a run", tmp_path / "log"
    config = vit(shared_dataset, folder, num_workers=workers)
    # In a group of its own, which gets the signal, as a terminal and a scheduler send it: workers get it as well.
    process = start(["trainViT.py", "--config", config], log, group=True, fresh=fresh)
    until(has_begun(folder / "final"), process)
    os.killpg(process.pid, number)
    assert process.wait(HANG) == 0
    lines = log.read_text().splitlines()
    assert "Traceback" not in "\n".join(lines)
    assert lines[-1].startswith(f"stopped ({number.name}); everything done is saved, continue with: ")
    progress = load_checkpoint(last_checkpoint(folder / "final")).progress
    assert 0 < progress.step < EPOCHS * 3
    assert status_of(folder / "final") | {"state": "stopped", "reason": number.name} == status_of(folder / "final")
    command = shlex.split(lines[-1].partition("continue with: ")[2])
    assert command[:2] == ["python", "trainViT.py"]
    result = run(command[1:])
    assert result.returncode == 0, shown(result)
    assert_as_undisturbed(folder, undisturbed)


class StopAt:
    """Sends this process a signal in the middle of its n-th optimiser step."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
        self.left = step
        original = Optimisation.step

        def watched(optimisation: Optimisation, *arguments: Any) -> None:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGTERM)
            original(optimisation, *arguments)

        monkeypatch.setattr(Optimisation, "step", watched)


EVERYTHING: Config = {
    "epochs": 4,
    "batch_size": 1,
    "accumulate": 2,
    "warmup_steps": 4,
    "gradient_clip": 0.5,
    "ema_decay": 0.8,
    "threshold_epoch": 1,
    "flips": ["horizontal", "vertical"],
}


@pytest.mark.parametrize(("precision", "stop"), [("fp32", 1), ("fp32", 3), ("bf16", 5), ("fp16", 5)])
def test_stopped_within_an_epoch_it_goes_on_exactly(
    stop: int,
    precision: str,
    shared_dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Three steps an epoch: within one, after its last step (before validation), in a later epoch."""
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    assert trainViT.main(["--config", str(vit(shared_dataset, whole, precision=precision, **EVERYTHING))]) == 0
    with monkeypatch.context() as patch:
        StopAt(patch, stop)
        config = vit(shared_dataset, halves, precision=precision, **EVERYTHING)
        assert trainViT.main(["--config", str(config)]) == 0
    assert "stopped (SIGTERM)" in capsys.readouterr().out
    progress = load_checkpoint(last_checkpoint(halves / "final")).progress
    assert progress.step == stop and progress.epoch * 3 + progress.step_in_epoch == stop
    assert not (halves / "model").exists()
    assert trainViT.main(["--resume", str(halves)]) == 0
    assert_same_state(whole / "final", halves / "final")
    assert_same_model(whole, halves)
    assert rows_without_times(whole / "final") == rows_without_times(halves / "final")


def test_stage_2_stopped_in_each_of_its_stages(
    shared_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"epochs": 2, "vae_epochs": 2, "batch_size": 2, "dropout": 0.3, "own_prediction_share": 0.5}
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    for folder in (whole, stopped):
        write_config(folder.with_suffix(".json"), small_diffusion(shared_dataset, folder) | changes)
    assert trainDiffusion.main(["--config", str(whole.with_suffix(".json"))]) == 0
    arguments = ["--config", str(stopped.with_suffix(".json"))]
    for _ in range(2):
        # Three steps an epoch: the fourth is in the second epoch, of the autoencoder and then of the U-Net.
        with monkeypatch.context() as patch:
            StopAt(patch, 4)
            assert trainDiffusion.main(arguments) == 0
        arguments = ["--resume", str(stopped)]
    assert not (stopped / "model").exists()
    assert trainDiffusion.main(arguments) == 0
    for stage in ("vae", "unet"):
        assert_same_state(whole / stage, stopped / stage)
    assert_same_model(whole, stopped)


def test_a_stop_is_forgotten_by_the_next_script(
    shared_dataset: Path, vit_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        StopAt(patch, 2)
        assert trainViT.main(["--config", str(vit(shared_dataset, tmp_path / "run"))]) == 0
    config = write_config(tmp_path / "e.json", small_vit_evaluation(shared_dataset, vit_run, tmp_path / "results"))
    assert evaluateViT.main(["--config", str(config)]) == 0
    assert (tmp_path / "results" / "metrics.json").is_file()


def test_a_signal_during_validation(
    shared_dataset: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The epoch's steps are saved; its validation is done again."""
    from Systems.d3rsmde.tasks.coarse_task import CoarseTask

    folder, calls = tmp_path / "run", []
    original = CoarseTask.predict

    def draw(task: CoarseTask, batch: Any) -> torch.Tensor:
        calls.append(None)
        if len(calls) == 4:  # two in the first epoch, one for its pictures
            os.kill(os.getpid(), signal.SIGTERM)
        return original(task, batch)

    with monkeypatch.context() as patch:
        patch.setattr(CoarseTask, "predict", draw)
        # Two validation tiles' worth of batches, so that the signal is looked for between them.
        patch.setattr("Utils.training.loop.make_loader", lambda tiles, size, *rest, **more: _twice(tiles))
        assert trainViT.main(["--config", str(vit(shared_dataset, folder))]) == 0
    progress = load_checkpoint(last_checkpoint(folder / "final")).progress
    assert progress.step_in_epoch == 3, "all steps of the epoch are done, the epoch is not"
    assert trainViT.main(["--resume", str(folder)]) == 0
    assert_as_undisturbed(folder, undisturbed)


def _twice(tiles: Any) -> Any:
    """A loader that gives the same validation batch twice; means do not see it."""
    from torch.utils.data import default_collate

    batch = default_collate([tiles[place] for place in range(len(tiles))])
    return [batch, batch]


def test_a_second_ctrl_c_ends_at_once(shared_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Optimisation.step

    def twice(optimisation: Optimisation, *arguments: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        original(optimisation, *arguments)

    monkeypatch.setattr(Optimisation, "step", twice)
    before = signal.getsignal(signal.SIGINT)
    assert trainViT.main(["--config", str(vit(shared_dataset, tmp_path / "run"))]) == 130
    assert not last_checkpoint(tmp_path / "run" / "final").is_file()
    assert signal.getsignal(signal.SIGINT) is before
    assert status_of(tmp_path / "run" / "final")["state"] == "stopped"


# Disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with room for a few checkpoints."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("a file system can be mounted by root alone")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk(small_disk: Path, shared_dataset: Path, undisturbed: Path, tmp_path: Path) -> None:
    folder, filler = small_disk / "run", small_disk / "filler"
    config = vit(shared_dataset, folder)
    log = tmp_path / "log"
    process = start(["trainViT.py", "--config", config], log)
    until(has_begun(folder / "final"), process)
    with pytest.raises(OSError, match="No space left"), filler.open("wb") as file:
        while True:
            file.write(bytes(65536))
            file.flush()
    assert process.wait(HANG) == 2
    last = log.read_text().splitlines()[-1]
    assert last.startswith("error: cannot write '") and "no space left on the disk" in last
    assert "intact: continue with --resume" in last
    filler.unlink()
    assert trainViT.main(["--resume", str(folder)]) == 0
    assert_as_undisturbed(folder, undisturbed)


@pytest.fixture
def read_only_dataset(tmp_path: Path) -> Iterator[Path]:
    """Tiles on a file system that cannot be written; for root, whom permissions do not stop, one that is mounted so."""
    folder = make_dataset(tmp_path / "dataset")
    mounted = not subprocess.run(["mount", "--bind", folder, folder], capture_output=True).returncode
    if mounted:
        subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
    else:
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
    with pytest.raises(OSError):
        (folder / TRAINING / "new").touch()
    yield folder
    if mounted:
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_dataset_that_cannot_be_written(read_only_dataset: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    config = write_config(tmp_path / "c.json", small_diffusion(read_only_dataset, folder))
    assert trainDiffusion.main(["--config", str(config)]) == 0
    assert (folder / "model").is_dir()


# Data


def vanish(path: Path) -> None:
    path.unlink()


def corrupt(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


@pytest.mark.parametrize(("spoil", "which", "workers"), [(vanish, image_path, 0), (corrupt, height_path, 2)])
def test_a_tile_is_lost_in_mid_run(
    spoil: Callable[[Path], None],
    which: Callable[[Path, str], Path],
    workers: int,
    undisturbed: Path,
    tmp_path: Path,
) -> None:
    dataset, folder, log = make_dataset(tmp_path / "dataset"), tmp_path / "run", tmp_path / "log"
    tile = which(dataset, "10")
    kept = tile.read_bytes()
    config = vit(dataset, folder, num_workers=workers, cache_gigabytes=0)
    process = start(["trainViT.py", "--config", config], log)
    until(has_begun(folder / "final"), process)
    spoil(tile)
    assert process.wait(HANG) == 2
    last = log.read_text().splitlines()[-1]
    assert last.startswith("error: ") and tile.name in last and "continue with --resume" in last
    assert "Traceback" not in log.read_text()
    assert status_of(folder / "final")["state"] == "failed"
    tile.write_bytes(kept)
    assert trainViT.main(["--resume", str(folder), "--set", "num_workers=0"]) == 0
    assert_as_undisturbed(folder, undisturbed)


# torch looks for dead workers every five seconds.
LOOKS_OFTEN = """
import sys
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter
import trainViT
_MultiProcessingDataLoaderIter._try_get_data.__defaults__ = (0.1,)
sys.exit(trainViT.main())
"""


def test_workers_that_die_are_replaced(shared_dataset: Path, undisturbed: Path, tmp_path: Path) -> None:
    folder, log = tmp_path / "run", tmp_path / "log"
    config = vit(shared_dataset, folder, num_workers=2, cache_gigabytes=0)
    process = start(["-c", LOOKS_OFTEN, "--config", config], log)
    until(has_begun(folder / "final"), process)
    killed = 0
    # A replacement dies as well.
    while killed < 2 and process.poll() is None:
        said = log.read_text().count("a process that reads tiles died; it is replaced")
        workers = psutil.Process(process.pid).children()
        if said == killed and len(workers) >= 2:
            try:
                # Training and validation have workers; those of training were started first.
                min(workers, key=lambda worker: worker.create_time()).kill()
            except psutil.NoSuchProcess:
                continue
            killed += 1
        time.sleep(0.05)
    assert process.wait(HANG) == 0, log.read_text()[-2000:]
    assert log.read_text().count("it is replaced") >= 1
    assert "Traceback" not in log.read_text()
    assert_as_undisturbed(folder, undisturbed)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_tile_that_is_replaced_by_one_of_another_size(workers: int, undisturbed: Path, tmp_path: Path) -> None:
    """Neither a worker's death, for which it was once taken, nor a traceback."""
    dataset, folder, log = make_dataset(tmp_path / "dataset"), tmp_path / "run", tmp_path / "log"
    config = vit(dataset, folder, num_workers=workers, cache_gigabytes=0)
    process = start(["trainViT.py", "--config", config], log)
    until(has_begun(folder / "final"), process)
    # One path after the other: between the two writes image and map differ, which is a fault of its own.
    write_tile(dataset, "10", size=64)
    assert process.wait(HANG) == 2
    last = log.read_text().splitlines()[-1]
    assert last.startswith("error: ") and "tile_10" in last and "64 x 64" in last and "saved: mend it" in last
    assert "Traceback" not in log.read_text() and "die again" not in last
    write_tile(dataset, "10")
    assert trainViT.main(["--resume", str(folder), "--set", "num_workers=0"]) == 0
    assert_as_undisturbed(folder, undisturbed)


def test_workers_that_die_each_time_end_the_run(
    shared_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

    from Utils.data.tile_dataset import TileDataset

    main = os.getpid()

    def die(tiles: TileDataset, index: int) -> None:
        assert os.getpid() != main
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(TileDataset, "__getitem__", die)
    # torch looks for dead workers every five seconds.
    monkeypatch.setattr(_MultiProcessingDataLoaderIter._try_get_data, "__defaults__", (0.1,))
    assert trainViT.main(["--config", str(vit(shared_dataset, tmp_path / "run", num_workers=1))]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: the processes that read tiles die again and again")
    assert "set num_workers and cache_gigabytes lower" in last


# Numbers


def poison(monkeypatch: pytest.MonkeyPatch, tile: str, after: int, dataset: Path, in_gradient: bool = False) -> None:
    """Make the loss (or only its gradient) of a tile no number from its ``after``-th use on."""
    from Systems.d3rsmde.tasks.coarse_task import CoarseTask
    from Utils.rasters.tile_files import read_height

    target = torch.from_numpy(read_height(height_path(dataset, tile)).values)
    original = CoarseTask.loss
    uses = 0

    def loss(task: CoarseTask, batch: Any, generators: Any) -> torch.Tensor:
        nonlocal uses
        value = original(task, batch, generators)
        if any(torch.equal(item[0], target) for item in batch["target"].cpu()):
            uses += torch.is_grad_enabled()
            if uses >= after and in_gradient:
                # The square root of zero is a number, its slope is none; times zero that is NaN.
                value = value + (value - value.detach()).sqrt() * 0.0
            elif uses >= after:
                value = value / 0.0
        return value

    monkeypatch.setattr(CoarseTask, "loss", loss)


@pytest.mark.parametrize(("in_gradient", "precision"), [(False, "fp32"), (True, "fp32"), (True, "fp16")])
def test_a_loss_or_gradient_that_is_no_number(
    in_gradient: bool,
    precision: str,
    shared_dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    changes: Config = {"epochs": 4, "flips": [], "batch_size": 2, "accumulate": 2, "threshold_epoch": 0}
    changes["precision"] = precision
    whole, folder = tmp_path / "whole", tmp_path / "run"
    assert trainViT.main(["--config", str(vit(shared_dataset, whole, **changes))]) == 0
    (stage,) = json.loads((whole / "plan.json").read_text(encoding="utf-8"))
    tile = stage["train"][2]
    with monkeypatch.context() as patch:
        poison(patch, tile, 3, shared_dataset, in_gradient)
        assert trainViT.main(["--config", str(vit(shared_dataset, folder, **changes))]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    last = last_checkpoint(folder / "final")
    # fp16's first step overflows, as it should, and is looked at in fp32: a use more.
    epoch = 3 if precision == "fp32" else 2
    if in_gradient:
        assert "the gradient of '" in said and "is no finite number, the loss being 0." in said
        assert f"in epoch {epoch} on tile {tile}; look at these tiles" in said
    else:
        # The one tile, out of a step of four.
        assert f"the loss became inf in epoch {epoch} on tile {tile}; look at these tiles" in said
    assert said.endswith(f"the last good checkpoint is '{last}'")
    checkpoint = load_checkpoint(last)
    assert checkpoint.progress.epoch == epoch - 1
    assert all(bool(value.isfinite().all()) for value in checkpoint.network.values())
    assert "tile" in status_of(folder / "final")["reason"]
    # The cause being gone, nothing is lost.
    assert trainViT.main(["--resume", str(folder)]) == 0
    assert_same_state(whole / "final", folder / "final")


def test_a_rate_that_is_too_high(shared_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert trainViT.main(["--config", str(vit(shared_dataset, tmp_path / "run", lr=1e30))]) == 2
    assert "lower lr" in capsys.readouterr().err.splitlines()[-1]
    assert not last_checkpoint(tmp_path / "run" / "final").exists(), "an epoch that ended so is not saved"


# Two at a time


def test_two_runs_in_one_folder(
    shared_dataset: Path, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*arguments: object) -> str:
        assert trainViT.main([str(argument) for argument in arguments]) == 2
        return capsys.readouterr().err.splitlines()[-1]

    folder, log = tmp_path / "run", tmp_path / "log"
    config = vit(shared_dataset, folder)
    first = start(["trainViT.py", "--config", config], log)
    until(has_begun(folder / "final"), first)
    first.send_signal(signal.SIGSTOP)  # it keeps what it has, and cannot end before the others are tried
    again = refused("--config", config)
    resumed = refused("--resume", folder)
    changed = refused("--resume", folder, "--set", "epochs=3")
    # The same folder by another name, with as many workers as suit the other machine.
    elsewhere = tmp_path / "elsewhere"
    elsewhere.symlink_to(tmp_path)
    joined = refused("--resume", elsewhere / "run", "--set", "num_workers=1")
    first.send_signal(signal.SIGCONT)
    assert f"'{folder}' already holds a run; continue it with --resume" in again
    assert f"nothing is left to do in '{folder}': " in resumed
    assert f"is being worked on by process {first.pid} on host " in resumed
    assert f"the config of run '{folder}' (epochs) cannot change while process {first.pid}" in changed
    assert "nothing is left to do" in joined
    assert first.wait(HANG) == 0
    assert_as_undisturbed(folder, undisturbed)


def test_two_runs_that_start_together(shared_dataset: Path, undisturbed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    config = vit(shared_dataset, folder)
    logs = [tmp_path / "one", tmp_path / "two"]
    processes = [start(["trainViT.py", "--config", config], log) for log in logs]
    assert sorted(process.wait(HANG) for process in processes) == [0, 2]
    refused = next(log for log, process in zip(logs, processes, strict=True) if process.returncode == 2)
    assert "already holds a run" in refused.read_text()
    assert_as_undisturbed(folder, undisturbed)


def test_folds_are_claimed_once(shared_dataset: Path, tmp_path: Path) -> None:
    """Three launches work on one cross-fitting run; each fold is trained by one of them."""
    changes: Config = {"k_folds": 3, "epochs": 6}
    whole, folder = tmp_path / "whole", tmp_path / "run"
    assert trainViT.main(["--config", str(vit(shared_dataset, whole, **changes))]) == 0
    logs = [tmp_path / f"log-{number}" for number in range(3)]
    processes = [start(["trainViT.py", "--config", vit(shared_dataset, folder, **changes)], logs[0])]
    until(has_begun(folder / "fold-1"), processes[0])
    processes[0].send_signal(signal.SIGSTOP)  # in its first fold, or a later one
    processes += [start(["trainViT.py", "--resume", folder], log) for log in logs[1:]]
    until(lambda: any("1/6: " in log.read_text() for log in logs[1:]))
    processes[0].send_signal(signal.SIGCONT)
    statuses = [process.wait(HANG) for process in processes]
    text = "".join(log.read_text() for log in logs)
    assert statuses[0] == 0 and set(statuses) <= {0, 2}, text
    stages = ["fold-1", "fold-2", "fold-3", "final"]
    for stage in stages:
        for epoch in range(1, 7):
            assert text.count(f"{stage} {epoch}/6: ") == 1, f"epoch {epoch} of {stage} was trained by one process, once"
        assert_same_state(whole / stage, folder / stage)
    workers = sum("1/6: " in log.read_text() for log in logs)
    assert workers >= 2, "several processes had a share"
    for prior in (whole / "priors").rglob("*.png"):
        assert prior.read_bytes() == (folder / prior.relative_to(whole)).read_bytes()
    assert_same_model(whole, folder)


# Changes


def test_another_split_is_refused_with_what_changed(
    shared_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    split = tmp_path / "split.txt"
    split.write_text("1\n2\n3\n10\n", encoding="utf-8")
    folder = tmp_path / "run"
    changes: Config = {"epochs": 1, "split_text": str(split), "not_split": True}
    assert trainViT.main(["--config", str(vit(shared_dataset, folder, **changes))]) == 0
    before = best_checkpoint(folder / "final").read_bytes()
    split.write_text("1\n2\n11\n10\n", encoding="utf-8")
    assert trainViT.main(["--resume", str(folder), "--set", "epochs=2"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "the tiles of stage 'final' changed (train: 11 added, 3 gone); restore the dataset and split files" in said
    assert trainViT.main(["--resume", str(folder), "--set", "lr=0.5"]) == 2
    assert "lr: 0.001 -> 0.5" in capsys.readouterr().err.splitlines()[-1]
    assert best_checkpoint(folder / "final").read_bytes() == before


def test_a_checkpoint_of_an_older_version(vit_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its weights can be used, its run cannot be continued exactly and is not continued otherwise."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    from Systems.d3rsmde.build import load_coarse

    folder = tmp_path / "run"
    shutil.copytree(vit_run, folder)
    path = last_checkpoint(folder / "final")
    with safe_open(path, framework="pt") as reader:
        header = json.loads(reader.metadata()[HEADER_KEY]) | {"format": "d3-rsmde-checkpoint-1"}
        tensors = {name: reader.get_tensor(name) for name in reader.keys()}
    save_file(tensors, path, metadata={"d3rsmde": json.dumps(header)})
    assert load_coarse(path).state_dict().keys()
    assert trainViT.main(["--resume", str(folder)]) == 2
    assert "was written by an older version" in capsys.readouterr().err.splitlines()[-1]
