"""A depth network as stage 1 of D³-RSMDE: folds, out-of-fold priors, refinement, evaluation, a whole scene."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch

import evaluateDepth
import evaluateDiffusion
import evaluateViT
import predict
import trainDepth
import trainDiffusion
from Modules.d3rsmde.pipeline import D3RSMDE
from Modules.depth import EncDec
from Systems.depth.build import load_depth
from tests.conftest import (
    TEST,
    TEST_IDS,
    TRAINING_IDS,
    Config,
    image_path,
    make_dataset,
    prior_path,
    small_depth,
    small_diffusion,
    small_diffusion_evaluation,
    small_vit_evaluation,
    write_config,
    write_raster,
)
from Utils.data.splits import make_folds
from Utils.rasters.tile_files import read_image, read_prior
from Utils.training.run_files import best_checkpoint


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiles of 32 pixels without priors; read only."""
    return make_dataset(tmp_path_factory.mktemp("tiles") / "dataset", priors=False)


def run(script: Any, folder: Path, config: Config) -> int:
    status: int = script.main(["--config", str(write_config(folder / "config.json", config))])
    return status


@pytest.fixture(scope="module")
def walked(tiles: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The four steps, each with what the one before it has written; read only."""
    folder = tmp_path_factory.mktemp("walk")
    depth = small_depth(tiles, folder / "depth") | {"k_folds": 2, "direction": "height", "epochs": 1}
    depth["prior_path"] = str(folder / "priors")
    assert run(trainDepth, folder, depth) == 0
    scoring = small_vit_evaluation(tiles, folder / "depth", folder / "depth_scores")
    assert run(evaluateDepth, folder, scoring | {"prior_path": str(folder / "priors")}) == 0
    refining = small_diffusion(tiles, folder / "diffusion")
    refining |= {"prior_path": str(folder / "priors"), "coarse_checkpoint_path": str(folder / "depth")}
    assert run(trainDiffusion, folder, refining) == 0
    refined = small_diffusion_evaluation(tiles, folder / "diffusion", folder / "scores")
    assert run(evaluateDiffusion, folder, refined | {"prior_path": str(folder / "priors")}) == 0
    return folder


def drawn(network: EncDec, tiles: Path, tile: str, part: str) -> np.ndarray:
    """A tile's relative height, by hand: the network's map between its own extremes."""
    with torch.no_grad():
        values = network(torch.from_numpy(read_image(image_path(tiles, tile, part)))[None])[0, 0].numpy()
    return (values - values.min()) / np.ptp(values)


def test_every_training_prior_is_by_a_network_that_never_saw_the_tile(tiles: Path, walked: Path) -> None:
    folds = make_folds(sorted(TRAINING_IDS, key=int), 2, seed=3)
    assert sorted(tile for fold in folds for tile in fold) == sorted(TRAINING_IDS)
    final = load_depth(walked / "depth")
    for number, fold in enumerate(folds, start=1):
        left_out = load_depth(best_checkpoint(walked / "depth" / f"fold-{number}"))
        for tile in fold:
            prior = read_prior(prior_path(walked / "priors", tile))
            np.testing.assert_allclose(prior, drawn(left_out, tiles, tile, "singleRGBNormalization"), atol=1e-3)
            assert np.abs(prior - drawn(final, tiles, tile, "singleRGBNormalization")).max() > 0.01


def test_the_priors_of_test_tiles_are_by_the_final_network(tiles: Path, walked: Path) -> None:
    final = load_depth(walked / "depth")
    for tile in TEST_IDS:
        np.testing.assert_allclose(
            read_prior(prior_path(walked / "priors", tile, TEST)), drawn(final, tiles, tile, TEST), atol=1e-3
        )


def test_the_model_folder_holds_the_depth_network_and_draws_what_was_evaluated(tiles: Path, walked: Path) -> None:
    model = D3RSMDE.from_pretrained(walked / "diffusion" / "model")
    assert isinstance(model.coarse, EncDec) and model.refines
    assert (model.coarse.config["direction"], model.coarse.config["tile_size"]) == ("height", 32)
    image = torch.from_numpy(read_image(image_path(tiles, "7", TEST)))[None]
    coarse = model.predict_coarse(image)[0, 0].numpy()
    np.testing.assert_allclose(coarse, read_prior(prior_path(walked / "priors", "7", TEST)), atol=1e-3)
    document = json.loads((walked / "scores" / "metrics.json").read_text())
    assert set(document["summary"]) >= {"coarse", "refined"}


def test_a_scene_goes_through_both_stages(tiles: Path, walked: Path, tmp_path: Path) -> None:
    with rasterio.open(image_path(tiles, "5", TEST)) as source:
        image = np.tile(source.read(), (1, 2, 2))
    write_raster(tmp_path / "scene.tif", image, crs="EPSG:32643", transform=rasterio.Affine(30, 0, 0, 0, -30, 0))
    arguments = ["--model", walked / "diffusion", "--input", tmp_path / "scene.tif", "--output", tmp_path / "h.tif"]
    assert predict.main([str(value) for value in arguments]) == 0
    facts = json.loads((tmp_path / "h.json").read_text())["model"]
    assert (facts["predicts"], facts["direction"], facts["stages"]) == ("relative height", "height", 2)


def test_evaluate_vit_scores_a_depth_network_too(tiles: Path, walked: Path, tmp_path: Path) -> None:
    assert run(evaluateViT, tmp_path, small_vit_evaluation(tiles, walked / "depth", tmp_path / "r")) == 0
    for tile in TEST_IDS:
        np.testing.assert_array_equal(
            read_prior(prior_path(tmp_path / "r" / "priors", tile, TEST)),
            read_prior(prior_path(walked / "priors", tile, TEST)),
        )


def test_the_folds_end_to_end_in_metres_below_the_summit(tiles: Path, tmp_path: Path) -> None:
    depth = small_depth(tiles, tmp_path / "run") | {"k_folds": 2, "target": "summit", "max_depth": 300.0, "epochs": 1}
    assert run(trainDepth, tmp_path, depth) == 0
    network = load_depth(best_checkpoint(tmp_path / "run" / "fold-1"))
    tile = make_folds(sorted(TRAINING_IDS, key=int), 2, seed=3)[0][0]
    upside_down = drawn(network, tiles, tile, "singleRGBNormalization")
    np.testing.assert_allclose(read_prior(prior_path(tmp_path / "run" / "priors", tile)), 1 - upside_down, atol=1e-3)


def refused(script: Any, folder: Path, config: Config, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a script ends with."""
    capsys.readouterr()
    assert run(script, folder, config) == 2
    said = capsys.readouterr().err.strip()
    assert "Traceback" not in said
    return said.splitlines()[-1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"k_folds": 2}, "k_folds write priors for D³-RSMDE, which are heights, and direction is not given"),
        ({"k_folds": 2, "direction": "depth"}, "and direction is depth"),
        ({"k_folds": 1, "direction": "height"}, "cross-fitting needs 2 folds or more"),
        ({"direction": "up"}, "direction"),
        ({"target": "summit", "max_depth": 9.0, "direction": "depth"}, "metres below the highest ground"),
        ({"target": "metres", "max_depth": 9.0, "direction": "inverse depth"}, "inverse depth has no metres"),
    ],
)
def test_a_direction_that_does_not_fit_is_refused(
    changes: dict[str, Any], words: str, tiles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in refused(trainDepth, tmp_path, small_depth(tiles, tmp_path / "run") | changes, capsys)


def test_a_network_of_unknown_direction_is_no_stage_one_until_its_run_is_told(
    tiles: Path, walked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(trainDepth, tmp_path, small_depth(tiles, tmp_path / "run") | {"epochs": 1}) == 0
    assert "does not say what rises in the maps" in capsys.readouterr().err
    refining = small_diffusion(tiles, tmp_path / "diffusion") | {"prior_path": str(walked / "priors")}
    refining |= {"coarse_checkpoint_path": str(tmp_path / "run")}
    assert "--set direction=height" in refused(trainDiffusion, tmp_path, refining, capsys)
    assert "gives no priors" in refused(
        evaluateDepth,
        tmp_path,
        small_vit_evaluation(tiles, tmp_path / "run", tmp_path / "r") | {"prior_path": str(tmp_path / "p")},
        capsys,
    )
    assert trainDepth.main(["--resume", str(tmp_path / "run"), "--set", "direction=height"]) == 0
    assert load_depth(tmp_path / "run").draws == "height"
    assert trainDiffusion.main(["--config", str(write_config(tmp_path / "c.json", refining)), "--dry-run"]) == 0


def test_a_model_whose_stage_one_has_no_direction_is_refused() -> None:
    with pytest.raises(ValueError, match="does not say what rises"):
        D3RSMDE(coarse=EncDec("test_resnet", widths=(8,)))
