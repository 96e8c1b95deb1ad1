"""SIGKILL at random moments, again and again: the run ends with the weights of an undisturbed one, bit for bit."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

import trainDiffusion
import trainViT
from tests.conftest import Config, small_diffusion, small_vit, write_config
from tests.launching import run, shown
from tests.Utils.training.test_training import assert_same_model, assert_same_state, rows_without_times
from Utils.training.checkpoint import load_checkpoint
from Utils.training.run_files import last_checkpoint

# Every step is saved, so that many kills meet a checkpoint that is being written.
EVERY_STEP = {"save_minutes": 1e-6, "batch_size": 2, "flips": ["horizontal"], "ema_decay": 0.9, "accumulate": 2}


def vit(dataset: Path, folder: Path, epochs: int) -> Config:
    return small_vit(dataset, folder) | EVERY_STEP | {"epochs": epochs, "k_folds": 2, "warmup_steps": 5}


def diffusion(dataset: Path, folder: Path, epochs: int) -> Config:
    changes = {"epochs": epochs, "vae_epochs": epochs // 2, "dropout": 0.2, "own_prediction_share": 0.5}
    changes["num_workers"] = 1
    return small_diffusion(dataset, folder) | EVERY_STEP | changes


@pytest.mark.parametrize(
    ("script", "make", "kills", "epochs", "longest"),
    [
        pytest.param(trainViT, vit, 4, 9, 0.8, id="ViT, 4 kills"),
        pytest.param(trainDiffusion, diffusion, 4, 8, 0.8, id="diffusion, 4 kills"),
        pytest.param(trainViT, vit, 50, 120, 1.2, id="ViT, 50 kills", marks=pytest.mark.slow),
        pytest.param(trainDiffusion, diffusion, 50, 100, 1.2, id="diffusion, 50 kills", marks=pytest.mark.slow),
    ],
)
def test_killed_again_and_again(
    script: Any, make: Any, kills: int, epochs: int, longest: float, shared_dataset: Path, tmp_path: Path
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    config = write_config(tmp_path / "whole.json", make(shared_dataset, whole, epochs))
    assert script.main(["--config", str(config)]) == 0
    config = write_config(tmp_path / "killed.json", make(shared_dataset, killed, epochs))
    arguments = [script.__name__, config, killed, kills, 7, longest]
    result = run(["-m", "tests.killing", *arguments])
    assert result.returncode == 0, shown(result)
    hits = json.loads(result.stdout.splitlines()[-1])
    assert sum(hits) > 0.7 * kills, f"most kills were to meet a run that goes on: {hits}"
    stages = [stage["name"] for stage in json.loads((whole / "plan.json").read_text(encoding="utf-8"))]
    for stage in stages:
        assert_same_state(whole / stage, killed / stage)
        assert rows_without_times(whole / stage) == rows_without_times(killed / stage)
    assert_same_model(whole, killed)
    for prior in (whole / "priors").rglob("*.png"):
        assert prior.read_bytes() == (killed / prior.relative_to(whole)).read_bytes()
    leftovers = [path for path in killed.rglob("*.tmp")]
    assert leftovers == [], "what a killed process left half written is removed"


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_killed_while_it_writes_a_checkpoint(
    share: float, shared_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With nothing, half or all of the second epoch's checkpoint in its temporary file."""
    config: Config = {"epochs": 3, "batch_size": 2}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    configs = {
        folder: write_config(folder.with_suffix(".json"), small_vit(shared_dataset, folder) | config)
        for folder in (whole, killed)
    }
    assert trainViT.main(["--config", str(configs[whole])]) == 0
    died = run(["-m", "tests.dying_writer", configs[killed], share])
    assert died.returncode == -signal.SIGKILL, shown(died)
    assert load_checkpoint(last_checkpoint(killed / "final")).progress.epoch == 1, "the one before is whole"
    assert len(list((killed / "final" / "checkpoints").glob(".*.tmp"))) == 1
    assert trainViT.main(["--resume", str(killed)]) == 0
    assert_same_state(whole / "final", killed / "final")
    assert_same_model(whole, killed)
    assert list(killed.rglob("*.tmp")) == []
