"""The chain of docs/own-data.md with one network at toy size: cut, train, evaluate, predict, score."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from scipy.ndimage import gaussian_filter

import evaluateScene
import evaluateViT
import predict
import trainViT
from tests.conftest import small_vit, small_vit_evaluation, write_config
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


def test_from_rasters_to_scored_heights(tmp_path: Path) -> None:
    for name, seed in (("mine", 0), ("another", 1)):
        (tmp_path / name).mkdir()
        write_place(tmp_path / name, 160, seed, feet=name == "mine")
    mine, tiles = tmp_path / "mine", tmp_path / "tiles"
    given = ["--image", mine / "ortho.tif", "--height", mine / "dem.tif", "--output", tiles]
    given += ["--size", 32, "--gap", 8, "--folds", 2, "--max-nodata", 0.1, "--coarsen", 8]
    assert cut([str(word) for word in given]) == 0
    rows = tiles_of(tiles)
    assert len(rows) == 16 and {row["fold"] for row in rows} == {"", "1", "2"}

    folds = [str(tiles / "splits" / f"fold-{number}.txt") for number in (1, 2)]
    config = small_vit(tiles, tmp_path / "run") | {"k_folds": folds, "not_split": True, "max_steps": 2}
    assert trainViT.main(["--config", str(write_config(tmp_path / "train.json", config))]) == 0
    # Each training tile has a prior by a network that saw no tile of its blocks.
    training = {row["id"]: row["fold"] for row in rows if row["part"] == "train"}
    for number in ("1", "2"):
        done = json.loads((tmp_path / "run" / f"fold-{number}" / "priors.json").read_text())
        assert sorted(done["tiles"]) == sorted(tile for tile, fold in training.items() if fold == number)

    config = small_vit_evaluation(tiles, tmp_path / "run", tmp_path / "results")
    assert evaluateViT.main(["--config", str(write_config(tmp_path / "evaluate.json", config))]) == 0
    summary = json.loads((tmp_path / "results" / "metrics.json").read_text())
    assert summary["tiles"] == len(rows) - len(training)

    another, height = tmp_path / "another", tmp_path / "height.tif"
    words = ["--model", tmp_path / "run", "--input", another / "ortho.tif", "--output", height]
    assert predict.main([str(word) for word in (*words, "--reference", another / "dem.tif")]) == 0
    words = ["--prediction", height, "--truth", another / "dem.tif", "--output", tmp_path / "scored"]
    assert evaluateScene.main([str(word) for word in words]) == 0
