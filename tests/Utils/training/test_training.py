"""The loop: exact resuming, schedules, checkpoints, what it says when it cannot go on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import trainDiffusion
import trainViT
from Systems.d3rsmde.build import load_model
from tests.conftest import Config, small_diffusion, small_vit, write_config
from tests.launching import start, until
from Utils.training.checkpoint import load_checkpoint
from Utils.training.run_files import best_checkpoint, last_checkpoint


def train(script: Any, config: Config, folder: Path, *arguments: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    assert script.main(["--config", str(write_config(folder / "config.json", config)), *arguments]) == 0


def log_rows(stage: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (stage / "log.jsonl").read_text().splitlines()]


def assert_same_state(one: Path, other: Path) -> None:
    """Weights, their average, optimiser and progress, bit for bit."""
    first, second = load_checkpoint(last_checkpoint(one)), load_checkpoint(last_checkpoint(other))
    assert first.progress == second.progress
    assert first.average.keys() == second.average.keys()
    for name, value in first.average.items():
        assert torch.equal(value, second.average[name]), name
    for name, value in first.network.items():
        assert torch.equal(value, second.network[name]), name
    for number, state in first.optimiser.items():
        for name, value in state.items():
            assert torch.equal(value, second.optimiser[number][name]), (number, name)


def assert_same_model(one: Path, other: Path) -> None:
    files = sorted(path.relative_to(one) for path in (one / "model").rglob("*.safetensors"))
    assert files
    for name in files:
        first, second = load_file(one / name), load_file(other / name)
        assert all(torch.equal(first[key], second[key]) for key in first), name


def rows_without_times(stage: Path) -> list[dict[str, Any]]:
    timed = ("seconds", "tiles_per_second", "data_wait_share", "memory_gigabytes")
    return [{key: value for key, value in row.items() if key not in timed} for row in log_rows(stage)]


def test_two_and_two_epochs_of_stage_1_equal_four(shared_dataset: Path, tmp_path: Path) -> None:
    whole = small_vit(shared_dataset, tmp_path / "whole") | {"epochs": 4, "flips": ["horizontal"], "threshold_epoch": 1}
    train(trainViT, whole, tmp_path / "a")
    half = whole | {"epochs": 2, "output_dir": str(tmp_path / "halves")}
    train(trainViT, half, tmp_path / "b")
    assert trainViT.main(["--resume", str(tmp_path / "halves"), "--set", "epochs=4"]) == 0
    assert_same_state(tmp_path / "whole" / "final", tmp_path / "halves" / "final")
    assert_same_model(tmp_path / "whole", tmp_path / "halves")
    assert rows_without_times(tmp_path / "whole" / "final") == rows_without_times(tmp_path / "halves" / "final")


def test_two_and_two_epochs_of_stage_2_equal_four(shared_dataset: Path, tmp_path: Path) -> None:
    changes = {"epochs": 4, "vae_epochs": 2, "vae_crop_size": 16, "dropout": 0.2}
    whole = small_diffusion(shared_dataset, tmp_path / "whole") | changes
    train(trainDiffusion, whole, tmp_path / "a")
    train(trainDiffusion, whole | {"epochs": 2, "output_dir": str(tmp_path / "halves")}, tmp_path / "b")
    assert trainDiffusion.main(["--resume", str(tmp_path / "halves"), "--set", "epochs=4"]) == 0
    assert_same_state(tmp_path / "whole" / "unet", tmp_path / "halves" / "unet")
    assert_same_model(tmp_path / "whole", tmp_path / "halves")


def test_the_vae_can_be_trained_before_there_are_priors(shared_dataset: Path, tmp_path: Path) -> None:
    changes = {"epochs": 2, "vae_epochs": 1}
    whole = small_diffusion(shared_dataset, tmp_path / "whole") | changes
    train(trainDiffusion, whole, tmp_path / "a")
    priors = tmp_path / "priors"
    apart = whole | {"output_dir": str(tmp_path / "apart"), "prior_path": str(priors)}
    train(trainDiffusion, apart, tmp_path / "b", "--stages", "vae")
    assert not (tmp_path / "apart" / "unet").exists()
    shutil.copytree(whole.get("prior_path", shared_dataset), priors)
    assert trainDiffusion.main(["--resume", str(tmp_path / "apart")]) == 0
    assert_same_state(tmp_path / "whole" / "unet", tmp_path / "apart" / "unet")
    assert_same_model(tmp_path / "whole", tmp_path / "apart")


def test_stages_are_trained_in_the_given_order(
    shared_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = small_vit(shared_dataset, tmp_path / "run") | {"epochs": 1, "k_folds": 2}
    train(trainViT, config, tmp_path / "a", "--stages", "final", "fold-2")
    begun = [line.split(":")[0] for line in capsys.readouterr().err.splitlines() if line.endswith("validation tiles")]
    assert begun == ["final", "fold-2"]
    assert not (tmp_path / "run" / "fold-1").exists()


@pytest.mark.parametrize(
    ("script", "small", "stages", "said"),
    [
        (trainViT, small_vit, ["fold-9"], "no stage 'fold-9'; its stages are final"),
        (trainDiffusion, small_diffusion, ["unet"], "needs the one before it; give the first ones of vae, unet"),
    ],
)
def test_stages_that_cannot_be_trained(
    script: Any,
    small: Any,
    stages: list[str],
    said: str,
    shared_dataset: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = write_config(tmp_path / "config.json", small(shared_dataset, tmp_path / "run"))
    assert script.main(["--config", str(config), "--stages", *stages]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_killed_cross_fitting_run_picks_up_its_fold_and_epoch(shared_dataset: Path, tmp_path: Path) -> None:
    config = small_vit(shared_dataset, tmp_path / "whole") | {"epochs": 6, "k_folds": 2, "lr_schedule": "cosine"}
    train(trainViT, config, tmp_path / "a")
    killed = tmp_path / "killed"
    path = write_config(tmp_path / "killed.json", config | {"output_dir": str(killed)})
    process = start(["trainViT.py", "--config", path], tmp_path / "log")
    until(last_checkpoint(killed / "fold-2").is_file, process)
    process.kill()
    process.wait()
    reached = load_checkpoint(last_checkpoint(killed / "fold-2")).progress.epoch
    assert 1 <= reached < 6, "the run was to be killed within its second fold"
    before = last_checkpoint(killed / "fold-1").read_bytes()

    assert trainViT.main(["--resume", str(killed)]) == 0

    assert last_checkpoint(killed / "fold-1").read_bytes() == before, "a finished fold was trained again"
    for stage in ("fold-1", "fold-2", "final"):
        assert_same_state(tmp_path / "whole" / stage, killed / stage)
    priors = sorted(path.relative_to(killed) for path in (killed / "priors").rglob("*.png"))
    assert len(priors) == 6
    for prior in priors:
        assert (killed / prior).read_bytes() == (tmp_path / "whole" / prior).read_bytes()


def test_resuming_a_finished_run_changes_nothing(vit_run: Path) -> None:
    before = last_checkpoint(vit_run / "final").read_bytes()
    assert trainViT.main(["--resume", str(vit_run)]) == 0
    assert last_checkpoint(vit_run / "final").read_bytes() == before


def test_checkpoints_are_kept_where_asked_for(shared_dataset: Path, tmp_path: Path) -> None:
    changes = {"epochs": 5, "save_n_epoch": 2, "save_i_epoch": [1, 5]}
    train(trainViT, small_vit(shared_dataset, tmp_path / "run") | changes, tmp_path)
    names = sorted(path.name for path in (tmp_path / "run" / "final" / "checkpoints").iterdir())
    epochs = [f"epoch-{epoch:04d}.safetensors" for epoch in (1, 2, 4, 5)]
    assert names == sorted(["best.safetensors", "last.safetensors", *epochs])


def test_best_is_the_epoch_with_the_lowest_validation_score(shared_dataset: Path, tmp_path: Path) -> None:
    train(trainViT, small_vit(shared_dataset, tmp_path / "run") | {"epochs": 5, "lr": 3e-3}, tmp_path)
    rows = log_rows(tmp_path / "run" / "final")
    lowest = min(rows, key=lambda row: row["validation/paper.mae"])
    best = load_checkpoint(best_checkpoint(tmp_path / "run" / "final"))
    assert best.progress.epoch == lowest["epoch"]
    assert best.progress.best == lowest["validation/paper.mae"]
    model = load_file(tmp_path / "run" / "model" / "coarse" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(best.network[name], value) for name, value in model.items())


def test_without_validation_best_is_last_and_the_log_says_so(
    shared_dataset: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    train(trainViT, small_vit(shared_dataset, tmp_path / "run") | {"epochs": 3, "not_split": True}, tmp_path)
    rows = log_rows(tmp_path / "run" / "final")
    assert not any(key.startswith("validation/") for row in rows for key in row)
    assert load_checkpoint(best_checkpoint(tmp_path / "run" / "final")).progress.epoch == 3
    assert "no validation tiles" in capsys.readouterr().err


@pytest.mark.parametrize(("threshold", "lowered"), [(0, False), (2, True)])
def test_the_plateau_lowers_the_rate_after_threshold_epochs(
    shared_dataset: Path, tmp_path: Path, threshold: int, lowered: bool
) -> None:
    # So high a rate that the validation score cannot keep improving for eight epochs.
    changes = {"epochs": 8, "lr": 0.05, "threshold_epoch": threshold, "downgrade_lr_ratio": 0.5}
    train(trainViT, small_vit(shared_dataset, tmp_path / "run") | changes, tmp_path)
    rows = log_rows(tmp_path / "run" / "final")
    rate, best, bad = 0.05, float("inf"), 0
    for row in rows:
        assert row["lr"] == pytest.approx(rate)
        score = row["validation/paper.mae"]
        # torch's plateau counts an improvement from a ten-thousandth on.
        bad = 0 if score < best * (1 - 1e-4) else bad + 1
        best = min(best, score)
        if threshold and bad == threshold:
            rate, bad = rate * 0.5, 0
    assert (rows[-1]["lr"] < 0.05) == lowered


def test_training_loss_and_validation_scores_have_different_names(vit_run: Path, diffusion_run: Path) -> None:
    for stage in (vit_run / "final", diffusion_run / "vae", diffusion_run / "unet"):
        (row,) = log_rows(stage)
        losses = {key.removeprefix("train/") for key in row if key.startswith("train/")}
        scores = {key.removeprefix("validation/") for key in row if key.startswith("validation/")}
        assert losses and scores and not losses & scores
    assert "train/latent_l1" in log_rows(diffusion_run / "unet")[0]


def test_the_number_of_workers_changes_nothing(shared_dataset: Path, tmp_path: Path) -> None:
    config = small_vit(shared_dataset, tmp_path / "none") | {"epochs": 2, "flips": ["vertical"]}
    train(trainViT, config, tmp_path / "a")
    train(trainViT, config | {"output_dir": str(tmp_path / "two"), "num_workers": 2}, tmp_path / "b")
    assert_same_state(tmp_path / "none" / "final", tmp_path / "two" / "final")


def test_tensorboard_gets_curves_and_pictures(vit_run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(vit_run / "final" / "tensorboard"))
    events.Reload()
    assert {"train/L1Loss", "validation/paper.mae", "optimisation/learning_rate"} <= set(events.Tags()["scalars"])
    assert [tag for tag in events.Tags()["images"] if tag.startswith("tiles/")], "and pictures of validation tiles"


def test_kept_latents_give_the_same_losses(shared_dataset: Path, tmp_path: Path) -> None:
    config = small_diffusion(shared_dataset, tmp_path / "kept") | {"epochs": 3, "own_prediction_share": 0.5}
    train(trainDiffusion, config, tmp_path / "a")
    train(trainDiffusion, config | {"output_dir": str(tmp_path / "not"), "keep_latents": False}, tmp_path / "b")
    kept, encoded = (rows_without_times(tmp_path / name / "unet") for name in ("kept", "not"))
    for one, other in zip(kept, encoded, strict=True):
        # A tile encoded in a batch of other tiles differs by rounding.
        assert one["train/latent_l1"] == pytest.approx(other["train/latent_l1"], rel=1e-4)


@pytest.mark.parametrize(
    "changes", [{"precision": "bf16"}, {"one_step": True}, {"one_step": True, "keep_latents": False}]
)
def test_ways_of_training_resume_exactly(shared_dataset: Path, tmp_path: Path, changes: Config) -> None:
    whole = small_diffusion(shared_dataset, tmp_path / "whole") | {"epochs": 2} | changes
    train(trainDiffusion, whole, tmp_path / "a")
    train(trainDiffusion, whole | {"epochs": 1, "output_dir": str(tmp_path / "halves")}, tmp_path / "b")
    assert trainDiffusion.main(["--resume", str(tmp_path / "halves"), "--set", "epochs=2"]) == 0
    assert_same_state(tmp_path / "whole" / "unet", tmp_path / "halves" / "unet")
    checkpoint = load_checkpoint(last_checkpoint(tmp_path / "whole" / "unet"))
    assert {value.dtype for value in checkpoint.network.values()} == {torch.float32}


def test_bf16_trains_another_way_but_not_to_another_place(shared_dataset: Path, tmp_path: Path) -> None:
    losses = {}
    for precision in ("fp32", "bf16"):
        config = small_diffusion(shared_dataset, tmp_path / precision) | {"epochs": 1, "precision": precision}
        train(trainDiffusion, config, tmp_path / f"{precision}-config")
        losses[precision] = log_rows(tmp_path / precision / "unet")[0]["train/latent_l1"]
    assert losses["fp32"] != losses["bf16"], "bf16 changed nothing"
    # A few steps from the same weights: apart by bf16's rounding, 2^-9, as the loss sees it.
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.02)


def test_a_one_step_model_takes_one_step(shared_dataset: Path, tmp_path: Path) -> None:
    config = small_diffusion(shared_dataset, tmp_path / "run") | {"epochs": 1, "one_step": True}
    train(trainDiffusion, config, tmp_path / "a")
    model = load_model(tmp_path / "run")
    assert model.config["steps"] == 1
    checkpoint = load_checkpoint(last_checkpoint(tmp_path / "run" / "unet"))
    assert checkpoint.architecture["steps"] == 1
