"""The chains of docs/own-data.md with small networks: cut, audit, train, evaluate beside controls, predict, score."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from scipy.ndimage import gaussian_filter

import evaluateDepth
import evaluateDiffusion
import evaluateScene
import evaluateViT
import predict
import trainDepth
import trainDiffusion
import trainViT
from Systems.audit import main as audit
from tests.conftest import (
    small_depth,
    small_diffusion,
    small_diffusion_evaluation,
    small_vit,
    small_vit_evaluation,
    write_config,
)
from tests.scenes import UTM, landscape, write_raster
from tests.Utils.data.cutting.ground import ORIGIN, tiles_of
from Utils.data.cut import main as cut


def write_place(folder: Path, side: int, seed: int, feet: bool) -> None:
    """An orthophoto of 10 m, and a DEM of other pixels with a void, whose heights are in feet."""
    heights = 400.0 * landscape(side, side, seed)
    shade = np.gradient(gaussian_filter(heights, 1.0))[0]
    noise = np.random.default_rng(seed).normal(0.0, 8.0, (3, side, side))
    image = np.clip(128.0 + 20.0 * shade + noise, 1, 255).astype(np.uint8)
    write_raster(folder / "ortho.tif", image, ORIGIN, UTM)
    cells = heights.reshape(side // 2, 2, side // 2, 2).mean(axis=(1, 3)).astype(np.float32)
    cells[4:8, 4:8] = -9999.0
    stored = np.where(cells == -9999.0, cells, cells / 0.3048) if feet else cells
    path = write_raster(folder / "dem.tif", stored, ORIGIN @ Affine.scale(2), UTM, nodata=-9999.0)
    with rasterio.open(path, "r+") as target:
        target.units = ("ft" if feet else "m",)


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two places with an orthophoto and a DEM each, and ``tiles``, what one of them was cut into; read only."""
    folder = tmp_path_factory.mktemp("ground")
    for name, seed in (("mine", 0), ("another", 1)):
        (folder / name).mkdir()
        write_place(folder / name, 160, seed, feet=name == "mine")
    given = ["--image", folder / "mine" / "ortho.tif", "--height", folder / "mine" / "dem.tif"]
    given += ["--output", folder / "tiles", "--size", 32, "--gap", 8, "--folds", 2, "--max-nodata", 0.1]
    assert cut([str(word) for word in (*given, "--coarsen", 8)]) == 0
    given = ["--dataset", folder / "tiles", "--output", folder / "audit"]
    assert audit([str(word) for word in given]) == 0
    return folder


def run(script: Any, path: Path, config: Mapping[str, Any]) -> None:
    assert script.main(["--config", str(write_config(path, config))]) == 0


def predict_another(ground: Path, model: Path, folder: Path) -> float:
    """The error in metres of a model on the place that no tile was cut from, its heights joined to the DEM."""
    another = ground / "another"
    words = ["--model", model, "--input", another / "ortho.tif", "--output", folder / "height.tif"]
    assert predict.main([str(word) for word in (*words, "--reference", another / "dem.tif")]) == 0
    words = ["--prediction", folder / "height.tif", "--truth", another / "dem.tif", "--output", folder / "scored"]
    assert evaluateScene.main([str(word) for word in words]) == 0
    assert list((folder / "scored").glob("*.html"))
    with rasterio.open(folder / "height.tif") as drawn, rasterio.open(another / "ortho.tif") as image:
        assert (drawn.shape, drawn.crs, drawn.transform) == (image.shape, image.crs, image.transform)
        heights = drawn.read(1, masked=True)
    return float(np.ma.median(heights))


def test_from_rasters_to_scored_heights(ground: Path, tmp_path: Path) -> None:
    tiles = ground / "tiles"
    rows = tiles_of(tiles)
    assert len(rows) == 16 and {row["fold"] for row in rows} == {"", "1", "2"}

    folds = [str(tiles / "splits" / f"fold-{number}.txt") for number in (1, 2)]
    config = small_vit(tiles, tmp_path / "vit") | {"k_folds": folds, "not_split": True, "max_steps": 2}
    run(trainViT, tmp_path / "train.json", config)
    # Each training tile has a prior by a network that saw no tile of its blocks.
    training = {row["id"]: row["fold"] for row in rows if row["part"] == "train"}
    for number in ("1", "2"):
        done = json.loads((tmp_path / "vit" / f"fold-{number}" / "priors.json").read_text())
        assert sorted(done["tiles"]) == sorted(tile for tile, fold in training.items() if fold == number)

    controls = {"controls": ["mean", "plane", "low_pass"], "control_cell": 8}
    config = small_vit_evaluation(tiles, tmp_path / "vit", tmp_path / "results") | controls
    run(evaluateViT, tmp_path / "evaluate.json", config | {"prior_path": str(tmp_path / "vit" / "priors")})
    summary = json.loads((tmp_path / "results" / "metrics.json").read_text())
    assert summary["tiles"] == len(rows) - len(training)
    assert len(summary["beside_controls"]) == 3

    config = small_diffusion(tiles, tmp_path / "refiner") | {"not_split": True, "max_steps": 2}
    config |= {"prior_path": str(tmp_path / "vit" / "priors"), "coarse_checkpoint_path": str(tmp_path / "vit")}
    run(trainDiffusion, tmp_path / "refine.json", config)
    config = small_diffusion_evaluation(tiles, tmp_path / "refiner", tmp_path / "refined") | controls
    run(evaluateDiffusion, tmp_path / "evaluate.json", config | {"prior_path": str(tmp_path / "vit" / "priors")})
    summary = json.loads((tmp_path / "refined" / "metrics.json").read_text())
    assert {"coarse", "refined", "VAE ceiling", "control: plane of truth"} <= set(summary["summary"])

    assert np.isfinite(predict_another(ground, tmp_path / "refiner", tmp_path))


def test_from_rasters_to_a_depth_network_in_metres(ground: Path, tmp_path: Path) -> None:
    table = ground / "tiles" / "tiles.csv"
    config = small_depth(table, tmp_path / "run") | {"target": "summit", "max_depth": 400.0, "not_split": True}
    run(trainDepth, tmp_path / "train.json", config | {"epochs": 1})
    config = {
        "dataset_path": str(table),
        "checkpoint_path": str(tmp_path / "run"),
        "output_dir": str(tmp_path / "results"),
        "ground_sample_distance": 10.0,
        "pictures": 1,
        "controls": ["mean", "plane", "low_pass"],
        "control_cell": 8,
    }
    run(evaluateDepth, tmp_path / "evaluate.json", config)
    summary = json.loads((tmp_path / "results" / "metrics.json").read_text())
    assert summary["target"] == "summit" and len(summary["beside_controls"]) == 3
    # The coarser DEM knows more than a plane, and a plane more than nothing.
    errors = [summary["summary"][name]["aligned.rmse"]["mean"] for name in summary["beside_controls"]]
    assert errors == sorted(errors, reverse=True) and errors[-1] > 0.0
    assert np.isfinite(predict_another(ground, tmp_path / "run", tmp_path))
