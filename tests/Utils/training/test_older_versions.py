"""Runs and models of earlier versions: loaded, resumed where their steps would be the same, else refused in words."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import trainDiffusion
from Modules.d3rsmde.pipeline import D3RSMDE
from Systems.d3rsmde.build import load_refiner
from Systems.d3rsmde.config import DiffusionEvaluationConfig
from tests.conftest import make_dataset
from Utils.training.checkpoint import FORMAT, load_checkpoint
from Utils.training.run_files import best_checkpoint, last_checkpoint
from Utils.training.runs.run_history import read_run

KEPT = Path(__file__).resolve().parents[2] / "data" / "version_2026_11"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run of 2026-11 beside its dataset; its config names both by relative paths."""
    shutil.copytree(KEPT / "run", tmp_path / "diffusion")
    for stage in ("vae", "unet"):
        shutil.copy(last_checkpoint(tmp_path / "diffusion" / stage), best_checkpoint(tmp_path / "diffusion" / stage))
    make_dataset(tmp_path / "dataset")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "diffusion"


def test_a_model_folder_draws_what_it_drew() -> None:
    model = D3RSMDE.from_pretrained(KEPT / "run" / "model")
    height = model(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    # The kept heights are rounded to half precision, and other processors round otherwise before that.
    np.testing.assert_allclose(height, np.load(KEPT / "heights.npy").astype(np.float32), atol=2e-3)


def test_a_checkpoint_is_evaluated(run: Path) -> None:
    path = last_checkpoint(run / "unet")
    assert load_checkpoint(path).format == 2
    given = {"dataset_path": "dataset", "output_dir": "results", "checkpoint_path": str(path)}
    assert load_refiner(DiffusionEvaluationConfig.model_validate(given)).refines


def test_a_run_is_listed(run: Path) -> None:
    found = read_run(run)
    assert (found.kind, found.script) == ("diffusion", "trainDiffusion.py")
    assert (found.state, found.stage) == ("finished", "unet")
    assert found.best is not None and found.best.name == "validation/paper.mae"


def test_a_run_is_resumed_where_its_steps_would_be_the_same(run: Path) -> None:
    before = load_checkpoint(last_checkpoint(run / "unet")).progress
    assert trainDiffusion.main(["--resume", str(run), "--set", "epochs=2"]) == 0
    after = load_checkpoint(last_checkpoint(run / "unet"))
    assert (after.format, after.progress.epoch, after.progress.step) == (FORMAT, 2, 2 * before.step)
    assert read_run(run).state == "finished"


def test_a_run_whose_steps_would_be_others_is_refused_in_words(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    (run / "config.json").write_text(json.dumps(config | {"lr_schedule": "cosine", "epochs": 2}), encoding="utf-8")
    kept = last_checkpoint(run / "unet").read_bytes()
    assert trainDiffusion.main(["--resume", str(run)]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "was written by an older version" in said and "start a new one" in said
    assert last_checkpoint(run / "unet").read_bytes() == kept
