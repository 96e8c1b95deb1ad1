"""The four scripts, one after another, on a small dataset: what they write, and whether it agrees."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import rasterio

import evaluateDiffusion
import evaluateViT
import trainDiffusion
import trainViT
from Modules.d3rsmde.pipeline import D3RSMDE
from tests.conftest import (
    TEST,
    TEST_IDS,
    TRAINING,
    TRAINING_IDS,
    height_path,
    image_path,
    make_dataset,
    prior_path,
    small_diffusion,
    small_diffusion_evaluation,
    small_vit,
    small_vit_evaluation,
    write_config,
)
from Utils.core.tables import read_csv
from Utils.rasters.tile_files import read_height, read_image, read_prior
from Utils.scoring.aligned import aligned_scores
from Utils.scoring.paper import paper_scores


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory, shared_dataset: Path) -> Path:
    """k-fold ViT, its evaluation, VAE and refiner, their evaluation: the folder that holds all of it."""
    folder = tmp_path_factory.mktemp("walk")
    priors = folder / "vit" / "priors"
    # Long enough for maps with a shape: the stretch of a nearly flat one shows the rounding of single numbers.
    vit = small_vit(shared_dataset, folder / "vit") | {"k_folds": 3, "epochs": 15, "lr": 5e-3}
    vit_results = small_vit_evaluation(shared_dataset, folder / "vit", folder / "results_vit")
    diffusion = small_diffusion(shared_dataset, folder / "diffusion") | {
        "prior_path": str(priors),
        "coarse_checkpoint_path": str(folder / "vit"),
    }
    results = small_diffusion_evaluation(shared_dataset, folder / "diffusion", folder / "results")
    for script, config in (
        (trainViT, vit),
        (evaluateViT, vit_results | {"prior_path": str(priors), "pictures": 2}),
        (trainDiffusion, diffusion),
        (evaluateDiffusion, results | {"prior_path": str(priors), "pictures": 2, "save_steps": True}),
    ):
        path = write_config(folder / "config.json", config)
        assert script.main(["--config", str(path)]) == 0, script.__name__
    return folder


def test_every_training_tile_has_a_prior_from_a_model_that_never_saw_it(walked: Path) -> None:
    plan = json.loads((walked / "vit" / "plan.json").read_text())
    assert [stage["name"] for stage in plan] == ["fold-1", "fold-2", "fold-3", "final"]
    held_out = [tile for stage in plan for tile in stage["held_out"]]
    assert sorted(held_out) == sorted(TRAINING_IDS)
    for stage in plan:
        assert not set(stage["held_out"]) & (set(stage["train"]) | set(stage["validation"]))
        assert not set(stage["train"]) & set(stage["validation"])
    for tile in TRAINING_IDS:
        assert prior_path(walked / "vit" / "priors", tile, TRAINING).is_file()
    for tile in TEST_IDS:
        assert prior_path(walked / "vit" / "priors", tile, TEST).is_file()


def test_priors_are_the_fold_models_maps_in_16_bits(walked: Path, shared_dataset: Path) -> None:
    from Systems.d3rsmde.build import load_coarse
    from Utils.training.run_files import best_checkpoint

    stage = json.loads((walked / "vit" / "plan.json").read_text())[0]
    model = D3RSMDE(coarse=load_coarse(best_checkpoint(walked / "vit" / "fold-1")))
    tile = stage["held_out"][0]
    image = read_image(image_path(shared_dataset, tile)).transpose(1, 2, 0)
    prior = read_prior(prior_path(walked / "vit" / "priors", tile))
    assert np.abs(model(image) - prior).max() <= 0.51 / 65535


def test_test_priors_are_the_final_models_maps(walked: Path, shared_dataset: Path) -> None:
    model = D3RSMDE.from_pretrained(walked / "vit" / "model")
    for tile in TEST_IDS:
        image = read_image(image_path(shared_dataset, tile, TEST)).transpose(1, 2, 0)
        prior = read_prior(prior_path(walked / "vit" / "priors", tile, TEST))
        # Batches of two against single tiles: sums in another order.
        assert np.abs(model(image) - prior).max() <= 0.51 / 65535 + 1e-5


def test_the_model_folder_does_both_stages_in_one_call(walked: Path, shared_dataset: Path) -> None:
    model = D3RSMDE.from_pretrained(walked / "diffusion" / "model")
    tile = TEST_IDS[0]
    image = read_image(image_path(shared_dataset, tile, TEST)).transpose(1, 2, 0)
    with rasterio.open(walked / "results" / "maps" / f"tile_{tile}.tif") as written:
        refined = written.read(1)
    # The evaluation's prior was rounded to 16 bits and its batch had two tiles.
    assert np.abs(model(image) - refined).max() < 1e-3


def test_csv_and_json_hold_the_scores_of_the_maps(walked: Path, shared_dataset: Path) -> None:
    rows = {row["id"]: row for row in read_csv(walked / "results" / "tiles.csv", text_columns=["id"])}
    assert list(rows) == list(TEST_IDS)
    document = json.loads((walked / "results" / "metrics.json").read_text())
    for tile, row in rows.items():
        target = read_height(height_path(shared_dataset, tile, TEST))
        with rasterio.open(walked / "results" / "maps" / f"tile_{tile}.tif") as written:
            refined = written.read(1)
        coarse = read_prior(prior_path(walked / "vit" / "priors", tile, TEST))
        for name, values in (("coarse", coarse), ("refined", refined)):
            for key, value in paper_scores(target.values, values, target.valid).items():
                assert row[f"{name}.paper.{key}"] == pytest.approx(value, rel=1e-6)
            for key, value in aligned_scores(target.values, values, target.valid).items():
                if not math.isnan(value):
                    assert row[f"{name}.aligned.{key}"] == pytest.approx(value, rel=1e-6)
    for name in ("coarse", "refined", "VAE ceiling"):
        mean = np.mean([row[f"{name}.paper.mae"] for row in rows.values()])
        assert document["summary"][name]["paper.mae"]["mean"] == pytest.approx(mean)
    change = np.array([row["refined.paper.mae"] - row["coarse.paper.mae"] for row in rows.values()])
    assert document["change"]["paper.mae"]["mean"] == pytest.approx(change.mean())
    assert document["change"]["paper.mae"]["standard_error"] == pytest.approx(change.std(ddof=1) / math.sqrt(3))
    assert set(document["protocols"]) == {"paper", "aligned"}
    assert document["config"]["vae_type"] == "AutoencoderKL"


def test_stage_1_scores_agree_in_both_evaluations(walked: Path) -> None:
    alone = read_csv(walked / "results_vit" / "tiles.csv", text_columns=["id"])
    beside = read_csv(walked / "results" / "tiles.csv", text_columns=["id"])
    for one, other in zip(alone, beside, strict=True):
        # The prior went through a 16-bit file: a rounding to 0..255 may flip in single pixels.
        assert one["paper.mae"] == pytest.approx(other["coarse.paper.mae"], abs=0.02)


def test_the_table_has_coarse_refined_change_and_ceiling(walked: Path) -> None:
    table = (walked / "results" / "table.md").read_text()
    labels = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("|")]
    assert labels.count("coarse") == labels.count("refined") == labels.count("change") == 2
    assert labels.count("± standard error") == labels.count("VAE ceiling") == 2


def test_pictures_and_maps_are_written(walked: Path) -> None:
    for folder in ("results", "results_vit"):
        assert len(list((walked / folder / "pictures").glob("*.png"))) == 2
        assert (walked / folder / "overview.png").is_file()
        assert len(list((walked / folder / "maps").glob("*.tif"))) == len(TEST_IDS)
        with rasterio.open(next((walked / folder / "maps").glob("*.png"))) as written:
            assert written.dtypes == ("uint16",)
    assert len(list((walked / "results" / "steps").glob("*.png"))) == 2


def test_maps_as_npy(walked: Path, shared_dataset: Path, tmp_path: Path) -> None:
    config = small_vit_evaluation(shared_dataset, walked / "vit", tmp_path / "npy") | {"map_format": "npy"}
    assert evaluateViT.main(["--config", str(write_config(tmp_path / "c.json", config))]) == 0
    tile = TEST_IDS[0]
    with rasterio.open(walked / "results_vit" / "maps" / f"tile_{tile}.tif") as written:
        assert np.array_equal(np.load(tmp_path / "npy" / "maps" / f"tile_{tile}.npy"), written.read(1))


def test_batch_size_changes_no_score(walked: Path, shared_dataset: Path, tmp_path: Path) -> None:
    config = small_diffusion_evaluation(shared_dataset, walked / "diffusion", tmp_path / "one") | {
        "prior_path": str(walked / "vit" / "priors"),
        "batch_size": 1,
    }
    assert evaluateDiffusion.main(["--config", str(write_config(tmp_path / "c.json", config))]) == 0
    one = read_csv(tmp_path / "one" / "tiles.csv", text_columns=["id"])
    two = read_csv(walked / "results" / "tiles.csv", text_columns=["id"])
    for first, second in zip(one, two, strict=True):
        # Convolutions of another batch size may sum in another order: some 1e-6, which may flip a rounding.
        assert first["refined.paper.mae"] == pytest.approx(second["refined.paper.mae"], abs=0.02)
        assert first["refined.aligned.rmse"] == pytest.approx(second["refined.aligned.rmse"], rel=1e-4)


def test_fewer_steps_are_recorded(walked: Path, shared_dataset: Path, tmp_path: Path) -> None:
    config = small_diffusion_evaluation(shared_dataset, walked / "diffusion", tmp_path / "out") | {
        "prior_path": str(walked / "vit" / "priors"),
        "diffusion_cfg": {"diff_iter": 2},
    }
    assert evaluateDiffusion.main(["--config", str(write_config(tmp_path / "c.json", config))]) == 0
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["timesteps"] == [2, 0]


def test_published_8_bit_priors_beside_the_tiles_are_found(dataset: Path, tmp_path: Path) -> None:
    from tests.conftest import write_prior

    for part, ids in ((TRAINING, TRAINING_IDS), (TEST, TEST_IDS)):
        for tile in ids:
            write_prior(dataset, tile, part, dtype="uint8")
    train = write_config(tmp_path / "train.json", small_diffusion(dataset, tmp_path / "run"))
    assert trainDiffusion.main(["--config", str(train)]) == 0
    score = small_diffusion_evaluation(dataset, tmp_path / "run", tmp_path / "results")
    assert evaluateDiffusion.main(["--config", str(write_config(tmp_path / "score.json", score))]) == 0


@pytest.mark.parametrize("vae_type", ["VA_VAE", "DC_AE"])
def test_the_other_autoencoder_families_train_and_score(shared_dataset: Path, tmp_path: Path, vae_type: str) -> None:
    train = small_diffusion(shared_dataset, tmp_path / "run", vae_type)
    assert trainDiffusion.main(["--config", str(write_config(tmp_path / "train.json", train))]) == 0
    score = small_diffusion_evaluation(shared_dataset, tmp_path / "run", tmp_path / "out") | {"vae_type": vae_type}
    assert evaluateDiffusion.main(["--config", str(write_config(tmp_path / "score.json", score))]) == 0


def test_a_unet_checkpoint_finds_its_autoencoder_beside_it(walked: Path, shared_dataset: Path, tmp_path: Path) -> None:
    checkpoint = walked / "diffusion" / "unet" / "checkpoints" / "best.safetensors"
    config = small_diffusion_evaluation(shared_dataset, checkpoint, tmp_path / "out") | {
        "prior_path": str(walked / "vit" / "priors")
    }
    assert evaluateDiffusion.main(["--config", str(write_config(tmp_path / "c.json", config))]) == 0
    alone = read_csv(tmp_path / "out" / "tiles.csv", text_columns=["id"])
    folder = read_csv(walked / "results" / "tiles.csv", text_columns=["id"])
    assert alone[0]["refined.paper.mae"] == folder[0]["refined.paper.mae"]


def test_losses_on_the_decoded_map(shared_dataset: Path, tmp_path: Path) -> None:
    config = small_diffusion(shared_dataset, tmp_path / "run") | {"loss_types": ["L1Loss", "SSIMAELoss"]}
    assert trainDiffusion.main(["--config", str(write_config(tmp_path / "c.json", config))]) == 0
    row = json.loads((tmp_path / "run" / "unet" / "log.jsonl").read_text().splitlines()[0])
    assert math.isfinite(row["train/latent_l1+map_SSIMAELoss"])


@pytest.mark.parametrize("vae_type", ["AutoencoderKL", "DC_AE"])
@pytest.mark.parametrize("losses", ["L1Loss", "HDNLoss"])
def test_tiles_of_a_size_that_no_stride_divides(tmp_path: Path, vae_type: str, losses: str) -> None:
    dataset = make_dataset(tmp_path / "dataset", size=40)
    train = small_diffusion(dataset, tmp_path / "run", vae_type) | {"loss_types": losses}
    train["vae"] |= {"block_out_channels": [8, 8, 8, 8, 8]}  # stride 16, and 32 with the U-Net's two levels
    assert trainDiffusion.main(["--config", str(write_config(tmp_path / "train.json", train))]) == 0
    score = small_diffusion_evaluation(dataset, tmp_path / "run", tmp_path / "out") | {"vae_type": vae_type}
    assert evaluateDiffusion.main(["--config", str(write_config(tmp_path / "score.json", score))]) == 0
    with rasterio.open(tmp_path / "out" / "maps" / f"tile_{TEST_IDS[0]}.tif") as written:
        assert written.shape == (40, 40)
