"""Runs: their folders, what resuming allows and refuses, and that it goes on where the run stood."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import trainDiffusion
import trainViT
from Systems.d3rsmde.coarse_run import CoarseRun
from Systems.d3rsmde.config import DiffusionTrainingConfig, ViTTrainingConfig
from Systems.d3rsmde.refiner_run import RefinerRun
from tests.conftest import (
    PRIORS,
    TRAINING,
    Config,
    full_disk,
    small_diffusion,
    small_vit,
    write_config,
    write_split,
    write_tile,
)
from Utils.config.config_files import load_config, parse_config
from Utils.config.training_keys import TrainingConfig
from Utils.core.errors import UserError
from Utils.data.published_layout import TEST_PART, TRAINING_PART
from Utils.data.stage_plan import RunSetup, StagePlan, Tiles
from Utils.data.tile_check import TileCheck
from Utils.training.checkpoint import load_checkpoint
from Utils.training.run_files import best_checkpoint, last_checkpoint
from Utils.training.runs.run import Run
from Utils.training.runs.run_config import default_folder, resolve_config
from Utils.training.runs.run_folder import loop_settings, open_run, save_folder

PLAN = [
    StagePlan("fold-1", ["1", "2"], ["3"], TRAINING_PART, ["4"]),
    StagePlan("final", ["1", "2", "4"], ["3"], TRAINING_PART, []),
]


def vit(**keys: Any) -> ViTTrainingConfig:
    return parse_config({"dataset_path": "d"} | keys, ViTTrainingConfig, "f")


def run_of(config: TrainingConfig) -> Run:
    if isinstance(config, DiffusionTrainingConfig):
        return RefinerRun(config)
    assert isinstance(config, ViTTrainingConfig)
    return CoarseRun(config)


def refused(folder: Path, overrides: list[str]) -> str:
    with pytest.raises(UserError) as caught:
        resolve_config(None, folder, overrides, ViTTrainingConfig)
    return str(caught.value)


def test_a_run_keeps_its_effective_config(tmp_path: Path) -> None:
    run = tmp_path / "deep" / "run"
    config = vit(lr=2e-5, split_text=["a.txt"], model={"features": 16})
    open_run(run, run_of(config), PLAN, resume=False)
    stored = load_config(run / "config.json", ViTTrainingConfig)
    assert stored == config.model_copy(update={"output_dir": str(run)})
    assert json.loads((run / "config.json").read_text(encoding="utf-8"))["val_split_text"] == ""
    assert resolve_config(None, run, [], ViTTrainingConfig) == stored


def test_a_diffusion_run_keeps_what_was_left_out(tmp_path: Path) -> None:
    config = parse_config({"dataset_path": "d", "vae_type": "DC_AE"}, DiffusionTrainingConfig, "f")
    open_run(tmp_path / "run", run_of(config), PLAN, resume=False)
    stored = load_config(tmp_path / "run" / "config.json", DiffusionTrainingConfig)
    assert (stored.dropout, stored.unet.block_out_channels) == (None, None)
    assert stored.model_dump() == config.model_dump() | {"output_dir": str(tmp_path / "run")}


def test_a_new_run_does_not_overwrite_another(tmp_path: Path) -> None:
    open_run(tmp_path, run_of(vit(seed=1)), PLAN, resume=False)
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(UserError, match=f"'{tmp_path}' already holds a run; continue it with --resume {tmp_path}, or"):
        open_run(tmp_path, run_of(vit(seed=2)), PLAN, resume=False)
    assert (tmp_path / "config.json").read_bytes() == before


def test_a_run_that_cannot_be_opened_leaves_nothing(tmp_path: Path) -> None:
    with full_disk(10), pytest.raises(UserError, match="no space left on the disk .*; nothing was started"):
        open_run(tmp_path / "run", run_of(vit()), PLAN, resume=False)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="cannot write '.*file/run': .*; nothing was started"):
        open_run(tmp_path / "file" / "run", run_of(vit()), PLAN, resume=False)


@pytest.mark.parametrize(
    "override",
    [
        "epochs=9",
        "num_workers=2",
        "save_n_epoch=3",
        "save_i_epoch=[1,2]",
        "validate_every=2",
        "save_minutes=3",
        "cache_gigabytes=0",
        "output_dir=elsewhere",
    ],
)
def test_what_may_change(override: str, tmp_path: Path) -> None:
    open_run(tmp_path, run_of(vit()), PLAN, resume=False)
    key, value = override.split("=")
    config = resolve_config(None, tmp_path, [override], ViTTrainingConfig)
    # A resumed run stays in its folder, whatever is asked for.
    expected = str(tmp_path) if key == "output_dir" else json.loads(value)
    assert getattr(config, key) == expected


def test_what_may_not_change_is_listed(tmp_path: Path) -> None:
    open_run(tmp_path, run_of(vit(lr=1e-4, k_folds=2)), PLAN, resume=False)
    said = refused(tmp_path, ["lr=0.5", "epochs=9", "model.features=8", "split_text=s.txt"])
    assert said.startswith(f"run '{tmp_path}' cannot be resumed with another config (")
    for change in ("lr: 0.0001 -> 0.5", 'split_text: null -> "s.txt"', "model: "):
        assert change in said
    assert "epochs" not in said
    assert said.endswith("start a new run for that")


ALLOWED = {
    "epochs",
    "max_steps",
    "num_workers",
    "save_n_epoch",
    "save_i_epoch",
    "save_minutes",
    "validate_every",
    "cache_gigabytes",
    "output_dir",
}
OTHER_VALUES: Config = {
    "dataset_path": "other",
    "seed": 43,
    "batch_size": 3,
    "prior_path": "p",
    "lr": 0.5,
    "threshold_epoch": 1,
    "downgrade_lr_ratio": 0.1,
    "lr_schedule": "cosine",
    "weight_decay": 0.5,
    "loss_types": ["L1Loss"],
    "flips": ["vertical"],
    "image_full_scale": 2047.0,
    "root": "elsewhere",
    "split_text": "s",
    "val_split_text": "v",
    "pretrained_model_path": "m",
    "not_split": True,
    "validate_on": "test",
    "k_folds": 7,
    "model": {"features": 8},
    "precision": "bf16",
    "accumulate": 2,
    "warmup_steps": 10,
    "gradient_clip": 1.0,
    "ema_decay": 0.99,
    "epoch_share": 0.5,
    "whole_batches": True,
    "optimiser": "SGD",
    "optimiser_options": {"amsgrad": True},
    "lr_power": 2.0,
}
# A list of milestones is for a schedule that may not change either.
WITH_OTHERS = {"lr_milestones"}


def test_every_key_is_either_allowed_or_tried() -> None:
    assert set(OTHER_VALUES) | ALLOWED | WITH_OTHERS == set(ViTTrainingConfig.model_fields)


@pytest.mark.parametrize("key", OTHER_VALUES)
def test_no_other_key_may_change(key: str, tmp_path: Path) -> None:
    open_run(tmp_path, run_of(vit()), PLAN, resume=False)
    assert f"{key}: " in refused(tmp_path, [f"{key}={json.dumps(OTHER_VALUES[key])}"])


@pytest.mark.parametrize("schedule", ["cosine", "linear", "linear_by_epoch", "polynomial"])
def test_a_schedule_that_spans_the_run_fixes_its_length(schedule: str, tmp_path: Path) -> None:
    open_run(tmp_path, run_of(vit(lr_schedule=schedule, epochs=5)), PLAN, resume=False)
    assert "epochs: 5 -> 9" in refused(tmp_path, ["epochs=9"])
    assert "max_steps: null -> 9" in refused(tmp_path, ["max_steps=9"])


def test_milestones_do_not_change(tmp_path: Path) -> None:
    open_run(tmp_path, run_of(vit(lr_schedule="multistep", lr_milestones=[2])), PLAN, resume=False)
    assert "lr_milestones: [2] -> [3]" in refused(tmp_path, ["lr_milestones=[3]"])


def test_resuming_with_the_config_file_again(tmp_path: Path) -> None:
    path = write_config(tmp_path / "c.json", {"dataset_path": "d", "lr": 1e-4})
    run = tmp_path / "run"
    open_run(run, run_of(load_config(path, ViTTrainingConfig)), PLAN, resume=False)
    assert resolve_config(path, run, ["epochs=7"], ViTTrainingConfig).epochs == 7
    with pytest.raises(UserError, match="cannot be resumed with another config"):
        resolve_config(write_config(path, {"dataset_path": "e"}), run, [], ViTTrainingConfig)


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        assert refused(folder, []).startswith(f"'{folder}' holds no run to resume (it has no config.json); give")


def test_a_run_of_the_other_script(tmp_path: Path) -> None:
    config = parse_config({"dataset_path": "d", "vae_type": "DC_AE"}, DiffusionTrainingConfig, "f")
    open_run(tmp_path, run_of(config), PLAN, resume=False)
    assert "unknown key 'vae_type'" in refused(tmp_path, [])


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (StagePlan("fold-1", ["1"], ["3"], TRAINING_PART, ["4"]), "stage 'fold-1' changed (train: 2 gone); "),
        (
            StagePlan("fold-1", ["1", "2"], ["5"], TEST_PART, ["4"]),
            f'(validation: 5 added, 3 gone; validation_part: "{TRAINING_PART}" -> "{TEST_PART}"); restore',
        ),
        (
            StagePlan("fold-1", ["2", "1"], ["3"], TRAINING_PART, ["4", "5"]),
            "changed (train: the same in another order; held_out: 5 added); ",
        ),
        (StagePlan("fold-2", ["1", "2"], ["3"], TRAINING_PART, ["4"]), "its stages were ['fold-1', 'final'], now "),
    ],
)
def test_other_tiles_are_refused(changed: StagePlan, said: str, tmp_path: Path) -> None:
    open_run(tmp_path, run_of(vit()), PLAN, resume=False)
    before = (tmp_path / "plan.json").read_bytes()
    with pytest.raises(UserError) as caught:
        open_run(tmp_path, run_of(vit()), [changed, PLAN[1]], resume=True)
    assert str(caught.value).startswith(f"run '{tmp_path}' cannot be resumed: ")
    assert said in str(caught.value)
    assert (tmp_path / "plan.json").read_bytes() == before
    open_run(tmp_path, run_of(vit()), PLAN, resume=True)


@pytest.mark.parametrize("content", ["", "{", "{}", "3", "[3]", "[{}]", "[]"])
def test_a_damaged_plan_is_refused(content: str, tmp_path: Path) -> None:
    open_run(tmp_path, run_of(vit()), PLAN, resume=False)
    (tmp_path / "plan.json").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=r"cannot be resumed"):
        open_run(tmp_path, run_of(vit()), PLAN, resume=True)


def test_the_plan_in_words() -> None:
    check = TileCheck((32, 48), [], [], [])
    on_test = [StagePlan("final", ["1", "2"], ["9"], TEST_PART, []), StagePlan("more", ["1"], [], TRAINING_PART, [])]
    setup = RunSetup(Tiles({}, {}), [*PLAN, *on_test], check)
    text = CoarseRun(vit()).describe(setup, Path("out"))
    assert "tiles of 48 x 32 pixels in 'd'" in text
    assert "fold-1: train on 2 tiles, validate on 1 tiles, write the priors of 1" in text
    assert "final: train on 2 tiles, validate on 1 TEST tiles" in text
    assert "more: train on 1 tiles, validate on nothing" in text
    assert text.endswith("the run would go to 'out'")


def test_defaults() -> None:
    assert default_folder("ViT", Path("Config/ViT/J_K_train.json")) == Path("output/ViT/J_K_train")
    settings = loop_settings(vit(lr=3e-4, save_i_epoch=[1, 4]), epochs=2)
    assert (settings.lr, settings.save_i_epoch, settings.epochs) == (3e-4, (1, 4), 2)


def save_half(folder: Path) -> None:
    folder.mkdir()
    (folder / "half").write_text("", encoding="utf-8")
    raise OSError(28, "No space left on device")


def test_a_model_folder_is_whole_or_the_older_one(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "old").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match=r"no space left on the disk .*; the checkpoints are intact: continue with"):
        save_folder(tmp_path / "model", save_half)
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "old"]


def files_of(run: Path, pattern: str) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted(run.rglob(pattern))}


def run_script(script: Any, *arguments: object) -> int:
    return script.main([str(argument) for argument in arguments])


def test_an_interrupted_k_fold_run_goes_on_in_the_fold_it_was_in(shared_dataset: Path, tmp_path: Path) -> None:
    """2 + 2 epochs equal 4, over all folds, bit for bit; and a fold that is done is not trained again."""
    config = small_vit(shared_dataset, tmp_path / "whole") | {"k_folds": 2, "epochs": 4, "flips": ["horizontal"]}
    path = write_config(tmp_path / "c.json", config)
    assert run_script(trainViT, "--config", path) == 0
    parted = tmp_path / "parted"
    assert run_script(trainViT, "--config", path, "--set", "epochs=2", "--set", f"output_dir={parted}") == 0
    # As if it had died in the second fold: what comes after it is not there yet.
    shutil.rmtree(parted / "final")
    shutil.rmtree(parted / "model")
    (parted / "fold-2" / "priors.json").unlink()
    untouched = last_checkpoint(parted / "fold-1").stat().st_mtime_ns
    assert run_script(trainViT, "--resume", parted) == 0
    assert last_checkpoint(parted / "fold-1").stat().st_mtime_ns == untouched
    assert run_script(trainViT, "--resume", parted, "--set", "epochs=4") == 0
    for pattern in ("last.safetensors", "best.safetensors", "*_pred_depth.png", "diffusion_pytorch_model.safetensors"):
        assert files_of(parted, pattern), pattern
        assert files_of(parted, pattern) == files_of(tmp_path / "whole", pattern), pattern
    assert load_checkpoint(best_checkpoint(parted / "fold-1")).progress.best is not None


def test_a_longer_run_redraws_the_priors_of_a_better_epoch(shared_dataset: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    # Without validation the last epoch is the best.
    config = small_vit(shared_dataset, run) | {"k_folds": 2, "not_split": True}
    path = write_config(tmp_path / "c.json", config)
    assert run_script(trainViT, "--config", path) == 0
    before = files_of(run / "priors" / TRAINING / PRIORS, "*.png")
    assert len(before) == 6
    assert run_script(trainViT, "--resume", run, "--set", "epochs=2") == 0
    after = files_of(run / "priors" / TRAINING / PRIORS, "*.png")
    assert after.keys() == before.keys()
    assert after != before
    assert json.loads((run / "fold-1" / "priors.json").read_text(encoding="utf-8"))["epoch"] == 2


def test_new_tiles_stop_a_resume(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    train = write_split(tmp_path / "train.txt", "1", "2", "3", "10")
    path = write_config(tmp_path / "c.json", small_vit(dataset, run) | {"split_text": train})
    assert run_script(trainViT, "--config", path) == 0
    write_tile(dataset, "50")
    assert run_script(trainViT, "--resume", run) == 0, "a tile that the split does not list changes nothing"
    write_split(tmp_path / "train.txt", "1", "2", "3", "10", "50")
    capsys.readouterr()
    assert run_script(trainViT, "--resume", run) == 2
    assert "the tiles of stage 'final' changed (train" in capsys.readouterr().err


@pytest.mark.parametrize("died_in", ["vae", "unet"])
def test_an_interrupted_refiner_run_goes_on(died_in: str, shared_dataset: Path, tmp_path: Path) -> None:
    config = small_diffusion(shared_dataset, tmp_path / "whole") | {"epochs": 2, "vae_crop_size": 16}
    path = write_config(tmp_path / "c.json", config)
    assert run_script(trainDiffusion, "--config", path) == 0
    parted = tmp_path / "parted"
    assert run_script(trainDiffusion, "--config", path, "--set", "epochs=1", "--set", f"output_dir={parted}") == 0
    if died_in == "vae":
        shutil.rmtree(parted / "unet")
        shutil.rmtree(parted / "frozen_vae")
    shutil.rmtree(parted / "model")
    assert run_script(trainDiffusion, "--resume", parted, "--set", "epochs=2") == 0
    for pattern in ("last.safetensors", "best.safetensors", "diffusion_pytorch_model.safetensors"):
        assert files_of(parted, pattern) == files_of(tmp_path / "whole", pattern), pattern


def test_both_kinds_of_runs_share_what_may_change() -> None:
    assert ALLOWED <= set(TrainingConfig.model_fields)
