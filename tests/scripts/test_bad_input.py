"""Bad configs and data, through the scripts: one line that names thing and remedy, status 2, nothing half-written."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import (
    TEST,
    TRAINING,
    height_path,
    image_path,
    prior_path,
    synthetic_height,
    write_prior,
    write_raster,
    write_split,
    write_tile,
)
from tests.scripts.bench import (
    DIFFUSION_SCRIPTS,
    SCRIPTS,
    TRAINING_SCRIPTS,
    Bench,
    all_finite,
    losses_of,
    one_error,
    truncate,
)
from Utils.training.run_files import last_checkpoint


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


def scramble(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 4)


def empty(path: Path) -> None:
    path.write_bytes(b"")


# Every script meets each kind of raster and each damage; which of them together is no matter of the script.
@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize(
    ("damage", "which"),
    [(truncate, image_path), (truncate, height_path), (scramble, height_path), (empty, image_path)],
)
def test_corrupt_rasters(
    script: str, damage: Callable[[Path], None], which: Callable[[Path, str, str], Path], bench: Bench
) -> None:
    part, tile = bench.tile(script)
    path = which(bench.dataset, tile, part)
    damage(path)
    said = bench.refuse(script)
    assert said.startswith(f"{path}: ")
    assert said.rpartition("; ")[2].strip(), "a remedy follows"
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


@pytest.mark.parametrize(
    ("script", "losses"),
    [
        *(("trainViT", [loss]) for loss in ("HDNLoss", "L1Loss", "SSIMAELoss")),
        # Their mean is no number if one of them is none.
        ("trainDiffusion", ["HDNLoss", "L1Loss", "SSIMAELoss"]),
    ],
)
def test_empty_flat_and_torn_tiles_are_trained_on_safely(script: str, losses: list[str], bench: Bench) -> None:
    spoil_heights(bench.dataset, TRAINING, "10", "2", "3")
    # Batches of one: the empty tile gets a step to itself.
    status, _, err = bench.run(script, loss_types=losses, batch_size=1, epochs=2, not_split=True)
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
