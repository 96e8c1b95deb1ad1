"""``make demo``, with the shipped configs, on a handful of tiles and for an epoch a stage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import evaluateDiffusion
import trainDiffusion
from Systems.d3rsmde import demo


def test_the_demo_ends_with_a_table_and_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    configs = tmp_path / "Config"
    configs.mkdir()
    for path in demo.CONFIGS.glob("*.json"):
        config = json.loads(path.read_text())
        shorter = {key: 1 for key in ("epochs", "vae_epochs") if key in config}
        (configs / path.name).write_text(json.dumps(config | shorter))
    monkeypatch.setattr(demo, "CONFIGS", configs)
    monkeypatch.setattr(demo, "TRAIN_TILES", 9)
    monkeypatch.setattr(demo, "TEST_TILES", 3)
    monkeypatch.setattr(demo, "TILE_SIZE", 64)
    monkeypatch.setattr(demo, "SCENE_SIZE", 160)
    monkeypatch.chdir(tmp_path)

    assert demo.main(["--seed", "5"]) == 0

    printed = capsys.readouterr().out
    assert "| refined " in printed and "| change " in printed
    pictures = ("overview picture", "every picture")
    named = [line.split()[-1] for line in printed.splitlines() if line.startswith(pictures)]
    assert len(named) == 2 and all((tmp_path / name).exists() for name in named)
    scene = tmp_path / "results" / "Demo" / "scene"
    for name in ("height.tif", "height.json", "height.png", "height.html", "accuracy/report.html"):
        assert (scene / name).is_file(), name
    assert "| baseline " in printed and "| prediction " in printed
    trained = json.loads((tmp_path / "output" / "Demo" / "vit" / "config.json").read_text())
    assert trained["seed"] == 5

    # What the README does with it: a light VAE in the latent space of the demo's, with the demo's U-Net.
    light, scores = "output/Demo/diffusion_light", tmp_path / "results" / "light"
    assert trainDiffusion.main(["--config", str(configs / "diffusion_light_train.json")]) == 0
    changes = [f"checkpoint_path={light}", "vae_type=AutoencoderTiny", f"output_dir={scores}"]
    given = [part for change in changes for part in ("--set", change)]
    assert evaluateDiffusion.main(["--config", str(configs / "diffusion_evaluate.json"), *given]) == 0
    assert json.loads((scores / "metrics.json").read_text())["summary"]["refined"]["paper.mae"]["count"] == 3


def test_a_failing_script_fails_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configs = tmp_path / "Config"
    configs.mkdir()
    for path in demo.CONFIGS.glob("*.json"):
        (configs / path.name).write_text(json.dumps(json.loads(path.read_text()) | {"misspelt": 1}))
    monkeypatch.setattr(demo, "CONFIGS", configs)
    monkeypatch.setattr(demo, "TRAIN_TILES", 1)
    monkeypatch.setattr(demo, "TEST_TILES", 1)
    monkeypatch.setattr(demo, "TILE_SIZE", 32)
    monkeypatch.chdir(tmp_path)
    assert demo.main([]) == 2


def test_every_stage_of_the_demo_is_a_step() -> None:
    names = [step.name for step in demo._STEPS]
    assert len(set(names)) == len(names)
    assert {"fold-1", "fold-3", "final", "vae", "unet", "evaluateViT", "evaluateDiffusion"} <= set(names)
