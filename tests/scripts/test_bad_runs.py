"""Bad checkpoints, runs and disks, through the scripts: one line that names the thing and the remedy, status 2."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import rasterio
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tests.conftest import (
    Config,
    full_disk,
    write_config,
)
from tests.scripts.bench import (
    TRAINING_SCRIPTS,
    Bench,
    one_error,
    truncate,
)
from Utils.training.checkpoint import HEADER_KEY, load_checkpoint
from Utils.training.run_files import best_checkpoint, last_checkpoint

# Checkpoints and models


def test_a_checkpoint_of_another_architecture_to_start_from(bench: Bench, vit_run: Path, diffusion_run: Path) -> None:
    vit, unet = best_checkpoint(vit_run / "final"), best_checkpoint(diffusion_run / "unet")
    other = "holds weights of another architecture: '"
    for given in (vit_run, vit):
        said = bench.refuse("trainViT", ["--set", "model.features=16"], pretrained_model_path=str(given))
        assert f"'{given}' {other}" in said
        assert "; give weights of that network, or its sizes in the config" in said
    said = bench.refuse("trainViT", pretrained_model_path=str(unet))
    assert f"'{unet}' holds a network of kind 'unet'" in said
    for given in (diffusion_run, unet):
        widths = ["--set", "unet.block_out_channels=[8, 24]"]
        assert f"'{given}' {other}" in bench.refuse("trainDiffusion", widths, pretrained_model_path=str(given))
    said = bench.refuse("trainDiffusion", pretrained_model_path=str(vit))
    assert f"'{vit}' holds a network of kind 'coarse'" in said
    assert "holds no stage 2" in bench.refuse("trainDiffusion", pretrained_model_path=str(vit_run))
    assert "holds no stage 1" in bench.refuse("trainDiffusion", coarse_checkpoint_path=str(diffusion_run))


def test_a_checkpoint_of_another_architecture_to_evaluate(bench: Bench, vit_run: Path, diffusion_run: Path) -> None:
    vit, unet = best_checkpoint(vit_run / "final"), best_checkpoint(diffusion_run / "unet")
    assert f"'{unet}' holds a network of kind 'unet'" in bench.refuse("evaluateViT", checkpoint_path=str(unet))
    assert f"'{diffusion_run}' holds no stage 1" in bench.refuse("evaluateViT", checkpoint_path=str(diffusion_run))
    assert f"'{vit}' holds a network of kind 'coarse'" in bench.refuse("evaluateDiffusion", checkpoint_path=str(vit))
    assert f"'{vit_run}' holds no stage 2" in bench.refuse("evaluateDiffusion", checkpoint_path=str(vit_run))


@pytest.mark.parametrize("script", ["evaluateViT", "evaluateDiffusion"])
def test_missing_and_damaged_checkpoints(script: str, bench: Bench, vit_run: Path, diffusion_run: Path) -> None:
    nowhere = bench.folder / "nowhere"
    assert f"'{nowhere}'" in bench.refuse(script, checkpoint_path=str(nowhere))
    assert "holds no finished model" in bench.refuse(script, checkpoint_path=str(bench.dataset))
    run = vit_run / "final" if script == "evaluateViT" else diffusion_run / "unet"
    damaged = bench.folder / "damaged.safetensors"
    shutil.copy(best_checkpoint(run), damaged)
    truncate(damaged)
    said = bench.refuse(script, checkpoint_path=str(damaged))
    assert f"'{damaged}' is no checkpoint of this project, or is damaged" in said
    model = bench.folder / "model"
    shutil.copytree((vit_run if script == "evaluateViT" else diffusion_run) / "model", model)
    for weights in model.rglob("*.safetensors"):
        truncate(weights)
    assert f"the model '{model}' cannot be loaded: " in bench.refuse(script, checkpoint_path=str(model))


def test_weights_from_elsewhere_that_do_not_fit(bench: Bench) -> None:
    path = bench.folder / "weights.pth"
    path.write_bytes(b"no weights")
    assert f"'{path}'" in bench.refuse("trainViT", pretrained_model_path=str(path))
    torch.save({"blocks.0.weight": torch.zeros(3)}, path)
    assert f"'{path}'" in bench.refuse("trainViT", pretrained_model_path=str(path))
    nowhere = str(bench.folder / "none.pth")
    assert f"'{nowhere}'" in bench.refuse("trainViT", pretrained_model_path=nowhere)


def test_another_vae_type_than_the_folder_holds(bench: Bench, diffusion_run: Path) -> None:
    vae = str(diffusion_run / "frozen_vae")
    for vae_type in ("VA_VAE", "DC_AE"):
        said = bench.refuse("evaluateDiffusion", vae_type=vae_type)
        assert f"'{diffusion_run}' holds a VAE of type AutoencoderKL, but the config says vae_type {vae_type}" in said
        said = bench.refuse("trainDiffusion", vae_type=vae_type, vae_path=vae, vae_epochs=0)
        assert f"'{vae}' holds a" in said
        assert "AutoencoderKL, but " in said
        assert f"vae_type {vae_type}" in said
    nowhere = str(bench.folder / "nowhere")
    assert f"'{nowhere}'" in bench.refuse("trainDiffusion", vae_path=nowhere)
    assert f"'{bench.dataset}'" in bench.refuse("trainDiffusion", vae_path=str(bench.dataset))


def test_another_schedule_than_the_model_was_trained_with(bench: Bench) -> None:
    said = bench.refuse("evaluateDiffusion", diffusion_cfg={"betas": {"start": 0.5, "stop": 0.0, "num_timesteps": 3}})
    assert "diffusion_cfg.betas asks for weights [0.5, " in said


# Runs


@pytest.mark.parametrize("script", TRAINING_SCRIPTS)
def test_a_folder_that_holds_a_run(script: str, bench: Bench) -> None:
    assert bench.run(script)[0] == 0
    said = bench.refuse(script)
    assert f"'{bench.output}' already holds a run; continue it with --resume {bench.output}, or choose another" in said


@pytest.mark.parametrize("script", TRAINING_SCRIPTS)
def test_resuming_what_is_no_run_or_another(script: str, bench: Bench) -> None:
    nowhere = bench.folder / "nowhere"
    assert f"'{nowhere}' holds no run to resume" in one_error(bench.call(script, ["--resume", nowhere]))
    assert bench.run(script)[0] == 0
    said = one_error(bench.call(script, ["--resume", bench.output, "--set", "lr=0.5"]))
    assert "cannot be resumed with another config (lr: 0.001 -> 0.5)" in said
    other = "trainDiffusion" if script == "trainViT" else "trainViT"
    assert f"config '{bench.output / 'config.json'}': " in one_error(bench.call(other, ["--resume", bench.output]))


def test_resuming_from_a_checkpoint_of_another_network(bench: Bench, diffusion_run: Path) -> None:
    assert bench.run("trainViT")[0] == 0
    last = last_checkpoint(bench.output / "final")
    shutil.copy(last_checkpoint(diffusion_run / "unet"), last)
    said = one_error(bench.call("trainViT", ["--resume", bench.output, "--set", "epochs=2"]))
    assert f"'{last}' holds " in said
    truncate(last)
    said = one_error(bench.call("trainViT", ["--resume", bench.output, "--set", "epochs=2"]))
    assert f"'{last}' is no checkpoint of this project, or is damaged" in said


def stages_of(script: str) -> list[str]:
    return ["final"] if script == "trainViT" else ["vae", "unet"]


@pytest.mark.parametrize("script", TRAINING_SCRIPTS)
def test_a_full_disk_keeps_the_last_checkpoint_and_the_run_goes_on(script: str, bench: Bench) -> None:
    whole = bench.folder / "whole"
    assert bench.run(script, epochs=3, output_dir=str(whole))[0] == 0
    assert bench.run(script)[0] == 0
    shutil.rmtree(bench.output / "model")
    last = last_checkpoint(bench.output / stages_of(script)[-1])
    before = last.read_bytes()
    others = [path for path in bench.output.rglob("*") if path.is_file() and path.parent.name != "checkpoints"]
    longest = max(path.stat().st_size for path in others) + 10_000
    assert len(before) > longest
    resume = ["--resume", bench.output, "--set", "epochs=3"]
    with full_disk(longest):
        said = one_error(bench.call(script, resume))
    assert f"cannot write '{last.parent}" in said
    assert "no space left on the disk (or file too large); free some; " in said
    assert "continue with --resume" in said
    assert last.read_bytes() == before
    assert load_checkpoint(last).progress.epoch == 1
    assert not list(bench.output.rglob("*.tmp"))
    assert not (bench.output / "model").exists()
    status, _, err = bench.call(script, resume)
    assert status == 0, err
    for stage in stages_of(script):
        for find in (last_checkpoint, best_checkpoint):
            assert find(bench.output / stage).read_bytes() == find(whole / stage).read_bytes()
    assert (bench.output / "model").is_dir()


@pytest.mark.parametrize("script", TRAINING_SCRIPTS)
def test_a_disk_full_from_the_start_can_be_resumed_too(script: str, bench: Bench) -> None:
    arguments = ["--config", write_config(bench.folder / "c.json", bench.configs[script])]
    before = bench.listing()
    with full_disk(10):
        said = one_error(bench.call(script, arguments))
    assert bench.listing() == before
    assert f"cannot write '{bench.output}': no space left on the disk" in said
    assert "nothing was started" in said
    # Configs, plan and log fit into this, no checkpoint does.
    with full_disk(10_000):
        said = one_error(bench.call(script, arguments))
    assert f"cannot write '{bench.output / stages_of(script)[0]}" in said
    status, _, err = bench.call(script, ["--resume", bench.output])
    assert status == 0, err


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("script", ["evaluateViT", "evaluateDiffusion"])
def test_a_disk_full_in_evaluation_leaves_whole_files(script: str, bench: Bench) -> None:
    # Maps of 32 x 32 floats are longer than this, 16-bit priors and pictures too.
    with full_disk(700):
        said = one_error(bench.run(script, pictures=1))
    assert said.startswith(f"cannot write '{bench.output}")
    assert "no space left on the disk" in said
    assert not list(bench.output.rglob("*.tmp"))
    for path in bench.output.rglob("*.*"):
        with rasterio.open(path) as source:
            source.read()
    status, _, err = bench.run(script)
    assert status == 0, err


def named_tiles(message: str) -> set[str]:
    return set(message.partition(" on tiles ")[2].partition(";")[0].split(", "))


@pytest.mark.parametrize("script", TRAINING_SCRIPTS)
def test_a_run_that_diverges_at_once(script: str, bench: Bench) -> None:
    # A step of 1e30 makes the next batch's sums overflow.
    rates: Config = {"lr": 1e30} if script == "trainViT" else {"lr": 1e30, "vae_lr": 1e30}
    said = one_error(bench.run(script, **rates))
    assert said.startswith("the loss became ")
    assert "in epoch 1 on tiles " in said
    assert len(named_tiles(said)) <= 3
    assert named_tiles(said) < {"1", "2", "3", "10", "11", "20"}
    assert "lower lr" in said
    assert not list(bench.output.rglob("*.safetensors")), "nothing was good yet"


def set_rate(path: Path, rate: float) -> float:
    """Write another learning rate into a checkpoint; returns the one that it had."""
    with safe_open(path, framework="pt") as reader:
        header = json.loads(reader.metadata()[HEADER_KEY])
        tensors = {name: reader.get_tensor(name) for name in reader.keys()}
    (group,) = header["progress"]["groups"]
    before, group["lr"] = float(group["lr"]), rate
    save_file(tensors, path, metadata={HEADER_KEY: json.dumps(header)})
    return before


@pytest.mark.parametrize("script", TRAINING_SCRIPTS)
def test_a_run_that_diverges_later_keeps_the_last_good_checkpoint(script: str, bench: Bench) -> None:
    assert bench.run(script)[0] == 0
    shutil.rmtree(bench.output / "model")
    stage = bench.output / stages_of(script)[-1]
    # The checkpoint's rate sends the second epoch to infinity: its first batch is still finite.
    sound = set_rate(last_checkpoint(stage), 1e30)
    kept = {path: path.read_bytes() for path in (last_checkpoint(stage), best_checkpoint(stage), stage / "log.jsonl")}
    said = one_error(bench.call(script, ["--resume", bench.output, "--set", "epochs=2"]))
    assert said.startswith("the loss became ")
    assert "in epoch 2 on tiles " in said
    plan = json.loads((bench.output / "plan.json").read_text(encoding="utf-8"))[-1]
    assert len(plan["train"]) == 5
    assert named_tiles(said) < set(plan["train"])
    assert len(named_tiles(said)) == 2, "the second batch of five tiles"
    assert str(last_checkpoint(stage)) in said
    for path, content in kept.items():
        assert path.read_bytes() == content
    assert not (bench.output / "model").exists()
    evaluation = "evaluateViT" if script == "trainViT" else "evaluateDiffusion"
    results = bench.folder / "results"
    status, _, err = bench.run(evaluation, checkpoint_path=str(last_checkpoint(stage)), output_dir=str(results))
    assert status == 0, err
    summary = json.loads((results / "metrics.json").read_text(encoding="utf-8"))["summary"]
    assert all(math.isfinite(scores["paper.mae"]["mean"]) for scores in summary.values())
    set_rate(last_checkpoint(stage), sound)
    status, _, err = bench.call(script, ["--resume", bench.output])
    assert status == 0, err
    assert load_checkpoint(last_checkpoint(stage)).progress.epoch == 2


# Pretrained weights


@pytest.mark.parametrize("how", ["offline", "no answer"])
def test_pretrained_weights_that_cannot_be_had(
    how: str, bench: Bench, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(bench.folder / "hub"))
    if how == "no answer":
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    # The published backbone, but narrow: wide ones take long to fill with random weights.
    hybrid = {"backbone": "vitb_rn50_384", "options": {"embed_dim": 48, "num_heads": 2}}
    said = bench.refuse("trainViT", model=hybrid if how == "offline" else {"backbone": "vit_tiny_patch16_224"})
    assert sum(waits) < 5.0  # the hub's own retries wait three quarters of a minute
    assert "pretrained weights of backbone 'vit" in said
    assert "give pretrained_model_path, or set model.pretrained to false" in said
