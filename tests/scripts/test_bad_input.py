"""Bad input, through the scripts: one line that names the thing and the remedy, status 2, nothing half-written."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import rasterio
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import evaluateDiffusion
import evaluateViT
import trainDiffusion
import trainViT
from tests.conftest import (
    TEST,
    TRAINING,
    Config,
    full_disk,
    height_path,
    image_path,
    prior_path,
    small_diffusion,
    small_diffusion_evaluation,
    small_vit,
    small_vit_evaluation,
    synthetic_height,
    write_config,
    write_prior,
    write_raster,
    write_split,
    write_tile,
)
from Utils.training.checkpoint import HEADER_KEY, load_checkpoint
from Utils.training.run_files import best_checkpoint, last_checkpoint

SCRIPTS: dict[str, Any] = {
    "trainViT": trainViT,
    "evaluateViT": evaluateViT,
    "trainDiffusion": trainDiffusion,
    "evaluateDiffusion": evaluateDiffusion,
}
TRAINING_SCRIPTS = ("trainViT", "trainDiffusion")
DIFFUSION_SCRIPTS = ("trainDiffusion", "evaluateDiffusion")


class Bench:
    """The four scripts on one dataset, which a test may spoil."""

    def __init__(
        self, folder: Path, dataset: Path, vit_run: Path, diffusion_run: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.folder = folder
        self.dataset = dataset
        self.output = folder / "output"
        self.configs: dict[str, Config] = {
            "trainViT": small_vit(dataset, self.output),
            "evaluateViT": small_vit_evaluation(dataset, vit_run, self.output),
            "trainDiffusion": small_diffusion(dataset, self.output),
            "evaluateDiffusion": small_diffusion_evaluation(dataset, diffusion_run, self.output),
        }
        self._capsys = capsys

    def tile(self, script: str) -> tuple[str, str]:
        """Part and id of a tile that a script reads."""
        return (TRAINING, "10") if script in TRAINING_SCRIPTS else (TEST, "7")

    def run(self, script: str, arguments: Sequence[object] = (), **changes: Any) -> tuple[int, str, str]:
        """Status, stdout and stderr of a script on its config with ``changes``."""
        given = ["--config", write_config(self.folder / "c.json", self.configs[script] | changes)]
        return self.call(script, [*given, *arguments])

    def call(self, script: str, arguments: Sequence[object]) -> tuple[int, str, str]:
        self._capsys.readouterr()
        status = SCRIPTS[script].main([str(argument) for argument in arguments])
        captured = self._capsys.readouterr()
        return status, captured.out, captured.err

    def refuse(self, script: str, arguments: Sequence[object] = (), **changes: Any) -> str:
        """The one line with which a script refuses to start, having written nothing."""
        before = self.listing()
        message = one_error(self.run(script, arguments, **changes))
        assert self.listing() | {"c.json"} == before | {"c.json"}
        return message

    def listing(self) -> set[str]:
        return {str(path.relative_to(self.folder)) for path in self.folder.rglob("*")}


def one_error(result: tuple[int, str, str]) -> str:
    """The error line of a run that ended with one."""
    status, out, err = result
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, err
    assert err.splitlines()[-1] == lines[0], "the error comes last"
    assert "Traceback" not in out + err
    assert status == 2
    return lines[0].removeprefix("error: ")


@pytest.fixture
def bench(
    tmp_path: Path, dataset: Path, vit_run: Path, diffusion_run: Path, capsys: pytest.CaptureFixture[str]
) -> Bench:
    return Bench(tmp_path, dataset, vit_run, diffusion_run, capsys)


def all_finite(path: Path) -> bool:
    return all(bool(torch.isfinite(value).all()) for value in load_file(path).values())


def losses_of(stage: Path) -> list[float]:
    rows = [json.loads(line) for line in (stage / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return [value for row in rows for key, value in row.items() if key.startswith("train/")]


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_bench_itself_is_sound(script: str, bench: Bench) -> None:
    status, _, err = bench.run(script)
    assert status == 0, err
    assert bench.output.is_dir()


# Configs


@pytest.mark.parametrize("script", SCRIPTS)
def test_unknown_and_misspelt_keys(script: str, bench: Bench) -> None:
    said = bench.refuse(script, dataset_pat="x")
    assert said == f"config '{bench.folder / 'c.json'}': unknown key 'dataset_pat'; did you mean 'dataset_path'?"
    assert "unknown key 'seeed'; did you mean 'seed'?" in bench.refuse(script, ["--set", "seeed=1"])


@pytest.mark.parametrize("script", SCRIPTS)
def test_wrong_types(script: str, bench: Bench) -> None:
    assert "key 'batch_size' = \"4\": it should be a valid integer" in bench.refuse(script, batch_size="4")
    assert "key 'seed' = 1.5: it should be a valid integer" in bench.refuse(script, ["--set", "seed=1.5"])
    assert "key 'dataset_path' is missing or empty; add it" in bench.refuse(script, dataset_path="")


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_config_that_is_none(script: str, bench: Bench) -> None:
    path = bench.folder / "broken.json"
    path.write_text('{"seed": 1', encoding="utf-8")
    assert f"config '{path}' is not valid JSON" in one_error(bench.call(script, ["--config", path]))
    assert "No such file or directory" in one_error(bench.call(script, ["--config", bench.folder / "none.json"]))


@pytest.mark.parametrize("script", TRAINING_SCRIPTS)
def test_an_unknown_loss(script: str, bench: Bench) -> None:
    assert "unknown loss 'L1Los'; did you mean 'L1Loss'?" in bench.refuse(script, loss_types=["L1Los"])


def test_an_unknown_backbone_and_its_options(bench: Bench) -> None:
    assert "unknown backbone 'vitb16'" in bench.refuse("trainViT", ["--set", "model.backbone=vitb16"])
    assert "no such option" in bench.refuse("trainViT", ["--set", "model.options.dpeth=3"])
    assert "taps [9, 10, 11, 12]" in bench.refuse("trainViT", ["--set", "model.taps=[9, 10, 11, 12]"])


def test_sizes_that_do_not_fit_together(bench: Bench) -> None:
    assert "norm_num_groups 3" in bench.refuse("trainDiffusion", ["--set", "vae.norm_num_groups=3"])
    assert "norm_num_groups 3" in bench.refuse("trainDiffusion", ["--set", "unet.norm_num_groups=3"])
    assert "vae_crop_size 64 is larger than the tiles, 32 x 32" in bench.refuse("trainDiffusion", vae_crop_size=64)
    assert "the autoencoder would stay random" in bench.refuse("trainDiffusion", vae_epochs=0)


# The dataset


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_missing_dataset(script: str, bench: Bench) -> None:
    said = bench.refuse(script, dataset_path=str(bench.folder / "nowhere"))
    assert f"dataset folder '{bench.folder / 'nowhere'}" in said
    assert "not found; set dataset_path to the folder that holds 'singleRGBNormalization'" in said


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_image_without_map_and_a_map_without_image(script: str, bench: Bench) -> None:
    part, tile = bench.tile(script)
    image, height = image_path(bench.dataset, tile, part), height_path(bench.dataset, tile, part)
    height.unlink()
    assert f"image '{image}' has no height map; add it or remove the image" in bench.refuse(script)
    write_tile(bench.dataset, tile, part)
    image.unlink()
    assert f"height map '{height}' has no image; add it or remove the height map" in bench.refuse(script)


def truncate(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])


def scramble(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 4)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("damage", [truncate, scramble, empty])
@pytest.mark.parametrize("which", [image_path, height_path])
def test_corrupt_rasters(
    script: str, damage: Callable[[Path], None], which: Callable[[Path, str, str], Path], bench: Bench
) -> None:
    part, tile = bench.tile(script)
    path = which(bench.dataset, tile, part)
    damage(path)
    said = bench.refuse(script)
    assert said.startswith(f"{path}: ")
    assert "; " in said, "a remedy follows"
    assert said == bench.refuse(script, ["--dry-run"])


@pytest.mark.parametrize("script", SCRIPTS)
def test_wrong_sizes(script: str, bench: Bench) -> None:
    part, tile = bench.tile(script)
    height = height_path(bench.dataset, tile, part)
    write_raster(height, synthetic_height(10)[:24])
    said = bench.refuse(script)
    assert f"'{height}' is 32 x 24 pixels but '{image_path(bench.dataset, tile, part)}' is 32 x 32; " in said
    assert "resample or remove it" in said
    write_tile(bench.dataset, tile, part, size=64)
    write_prior(bench.dataset, tile, part, size=64)
    said = bench.refuse(script)
    assert f"'{image_path(bench.dataset, tile, part)}' is 64 x 64 pixels but " in said
    assert "all tiles of a dataset must have one size: resample or remove it" in said


@pytest.mark.parametrize("script", DIFFUSION_SCRIPTS)
def test_missing_corrupt_and_wrong_priors(script: str, bench: Bench) -> None:
    part, tile = bench.tile(script)
    prior = prior_path(bench.dataset, tile, part)
    write_prior(bench.dataset, tile, part, size=16)
    assert f"'{prior}' is 16 x 16 pixels but " in bench.refuse(script)
    write_prior(bench.dataset, tile, part)
    truncate(prior)
    assert bench.refuse(script).startswith(f"{prior}: ")
    # Tile 10 may be a validation tile: all of them go.
    shutil.rmtree(prior.parent)
    said = bench.refuse(script)
    assert f"{prior.parent}" in said
    assert "are missing); make them with " in said
    assert ("evaluateViT.py" if part == TEST else "trainViT.py with k_folds") in said
    assert "prior_path" in said


def test_a_single_missing_prior_is_named(bench: Bench) -> None:
    prior = prior_path(bench.dataset, "7", TEST)
    prior.unlink()
    assert f"coarse prior '{prior}' not found (1 of 3 are missing)" in bench.refuse("evaluateDiffusion")
    nowhere = bench.folder / "nowhere"
    said = bench.refuse("trainDiffusion", prior_path=str(nowhere))
    assert f"coarse prior '{nowhere}" in said


# Splits


@pytest.mark.parametrize("script", SCRIPTS)
def test_split_ids_that_are_not_on_disk(script: str, bench: Bench) -> None:
    tile = bench.tile(script)[1]
    split = write_split(bench.folder / "s.txt", tile, "999")
    for key in ("split_text", "val_split_text") if script in TRAINING_SCRIPTS else ("test_split_text",):
        said = bench.refuse(script, **{key: split})
        assert f"split file '{split}' names tile id 999, which is not in '{bench.dataset}' (1 of 2 ids are not)" in said
        assert "correct the file, or set dataset_path" in said
    if script == "trainViT":
        other = write_split(bench.folder / "t.txt", "1", "2")
        assert "names tile id 999" in bench.refuse(script, k_folds=[other, split])


def test_ids_in_two_folds(bench: Bench) -> None:
    first, second = (write_split(bench.folder / f"{name}.txt", "1", name) for name in ("2", "3"))
    said = bench.refuse("trainViT", k_folds=[first, second])
    assert said == f"tile id 1 stands in two folds, '{first}' and '{second}'; keep it in one"


def test_other_split_files(bench: Bench) -> None:
    blank = write_split(bench.folder / "blank.txt")
    assert f"split file '{blank}' holds no tile id" in bench.refuse("trainViT", split_text=blank)
    assert "cannot be read: Is a directory" in bench.refuse("trainViT", split_text=str(bench.dataset))
    assert "cannot be read: No such file" in bench.refuse("evaluateViT", test_split_text="none.txt")
    assert "7 folds need 7 training tiles or more, and there are 6" in bench.refuse("trainViT", k_folds=7)
    one = write_split(bench.folder / "one.txt", "1")
    assert "set not_split, or add tiles" in bench.refuse("trainViT", split_text=one)
    assert "leaves none to train on" in bench.refuse("trainViT", split_text=one, val_split_text=one)


# Tiles that teach nothing


def spoil_heights(dataset: Path, part: str, empty_tile: str, flat_tile: str, torn_tile: str) -> None:
    write_raster(height_path(dataset, empty_tile, part), np.zeros((32, 32), np.uint8), nodata=0)
    write_raster(height_path(dataset, flat_tile, part), np.full((32, 32), 9, np.uint8))
    torn = synthetic_height(int(torn_tile)).astype(np.float32)
    torn[3:20, 5:9] = np.nan
    write_raster(height_path(dataset, torn_tile, part), torn)


REPORTS = (
    "have no valid height: they teach nothing and score nothing (tile ids: {})",
    "have flat heights: normalised, they are 0 everywhere (tile ids: {})",
    "have some invalid pixels, which are masked (tile ids: {})",
)


@pytest.mark.parametrize("loss", ["HDNLoss", "L1Loss", "SSIMAELoss"])
@pytest.mark.parametrize("script", TRAINING_SCRIPTS)
def test_empty_flat_and_torn_tiles_are_trained_on_safely(script: str, loss: str, bench: Bench) -> None:
    spoil_heights(bench.dataset, TRAINING, "10", "2", "3")
    # Batches of one: the empty tile gets a step to itself.
    status, _, err = bench.run(script, loss_types=[loss], batch_size=1, epochs=2, not_split=True)
    assert status == 0, err
    for report, tile in zip(REPORTS, ("10", "2", "3"), strict=True):
        assert report.format(tile) in err
    stages = [path.parent for path in bench.output.rglob("log.jsonl")]
    assert len(stages) == (1 if script == "trainViT" else 2)
    for stage in stages:
        assert len(losses_of(stage)) == (1 if stage.name == "vae" else 2)
        assert all(math.isfinite(value) for value in losses_of(stage))
        assert all_finite(last_checkpoint(stage))


@pytest.mark.parametrize("script", TRAINING_SCRIPTS)
def test_a_run_on_nothing_but_empty_tiles_stays_finite(script: str, bench: Bench) -> None:
    for tile in ("1", "2", "3", "10", "11", "20"):
        write_raster(height_path(bench.dataset, tile), np.zeros((32, 32), np.uint8), nodata=0)
    status, _, err = bench.run(script)
    assert status == 0, err
    assert "6 of 6 tiles have no valid height" in err
    for stage in {path.parent for path in bench.output.rglob("log.jsonl")}:
        assert all_finite(last_checkpoint(stage))


@pytest.mark.parametrize("script", ["evaluateViT", "evaluateDiffusion"])
def test_empty_flat_and_torn_tiles_are_evaluated(script: str, bench: Bench) -> None:
    spoil_heights(bench.dataset, TEST, "5", "7", "30")
    status, out, err = bench.run(script, pictures=3)
    assert status == 0, err
    for report, tile in zip(REPORTS, ("5", "7", "30"), strict=True):
        assert report.format(tile) in err
    assert "paper protocol, 2 of 3 tiles" in out, "a tile without truth has no score, and never a zero"
    assert json.loads((bench.output / "metrics.json").read_text(encoding="utf-8"))["tiles"] == 3


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
    said = bench.refuse("trainViT", model={"backbone": "vitb_rn50_384" if how == "offline" else "vit_tiny_patch16_224"})
    assert sum(waits) < 5.0  # the hub's own retries wait three quarters of a minute
    assert "pretrained weights of backbone 'vit" in said
    assert "give pretrained_model_path, or set model.pretrained to false" in said


# Dry runs


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_dry_run_says_what_would_run_and_writes_nothing(script: str, bench: Bench) -> None:
    before = bench.listing()
    status, out, err = bench.run(script, ["--dry-run"])
    assert status == 0, err
    assert bench.listing() == before | {"c.json"}
    assert str(bench.output) in out
    if script == "trainViT":
        assert "final: train on 5 tiles, validate on 1 tiles" in out
    elif script == "trainDiffusion":
        assert "vae: train on 5 tiles, validate on 1 tiles" in out
        assert "unet: train on 5 tiles, validate on 1 tiles" in out
    else:
        assert "3 test tiles" in out


def test_a_dry_run_names_every_fold(bench: Bench) -> None:
    out = bench.run("trainViT", ["--dry-run", "--set", "validate_on=test"], k_folds=3)[1]
    for fold in (1, 2, 3):
        assert f"fold-{fold}: train on 4 tiles, validate on 3 TEST tiles, write the priors of 2" in out


def test_arguments() -> None:
    for script in SCRIPTS.values():
        with pytest.raises(SystemExit) as caught:
            script.main([])
        assert caught.value.code == 2
