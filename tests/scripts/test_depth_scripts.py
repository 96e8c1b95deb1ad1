"""trainDepth.py and evaluateDepth.py on a small dataset: train, resume, score, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import evaluateDepth
import trainDepth
from Modules.common.components import load_component
from Modules.depth import EncDec
from tests.conftest import (
    TEST,
    TEST_IDS,
    TRAINING_IDS,
    Config,
    height_path,
    image_path,
    make_dataset,
    small_depth,
    write_config,
    write_raster,
)
from Utils.core.tables import read_csv
from Utils.rasters.tile_files import read_height, read_image
from Utils.scoring.control_maps import low_pass, plane_of
from Utils.scoring.depth.depth_scorer import DepthScorer
from Utils.training.checkpoint import load_checkpoint


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiles of 32 pixels with maps 0..255; read only."""
    return make_dataset(tmp_path_factory.mktemp("tiles") / "dataset", priors=False)


def training(tiles: Path, run: Path, **changes: Any) -> Config:
    return small_depth(tiles, run) | changes


def evaluation(tiles: Path, model: Path, results: Path, **changes: Any) -> Config:
    return {
        "dataset_path": str(tiles),
        "output_dir": str(results),
        "checkpoint_path": str(model),
        "batch_size": 2,
        "pictures": 1,
    } | changes


def run(script: Any, folder: Path, config: Config) -> int:
    status: int = script.main(["--config", str(write_config(folder / "config.json", config))])
    return status


@pytest.fixture(scope="module")
def metric_run(tiles: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in metres, two epochs; read only."""
    folder = tmp_path_factory.mktemp("metric")
    config = training(tiles, folder / "run", target="metres", max_depth=80.0, metres_per_unit=0.25, hole=0.0)
    assert run(trainDepth, folder, config) == 0
    return folder / "run"


def test_scores_in_metres_are_those_of_the_written_maps(tiles: Path, metric_run: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    config = evaluation(tiles, metric_run, results, metres_per_unit=0.25, hole=0.0, farthest=80.0)
    assert run(evaluateDepth, tmp_path, config) == 0
    document = json.loads((results / "metrics.json").read_text())
    assert set(document["protocols"]) == {"metric", "offset", "aligned", "median"}
    assert (document["target"], document["max_depth"]) == ("metres", 80.0)
    assert "to 80 m" in document["protocols"]["metric"]
    assert (results / "report.html").is_file() and list((results / "pictures").glob("*.png"))
    for row in read_csv(results / "tiles.csv", text_columns=["id"]):
        truth = read_height(height_path(tiles, str(row["id"]), TEST))
        drawn = read_height(results / "maps" / f"tile_{row['id']}.tif").values
        assert 0 < drawn.min() and drawn.max() < 80
        # A PNG of 16 bits holds no metres.
        assert not (results / "maps" / f"tile_{row['id']}.png").exists()
        found = DepthScorer().score(0.25 * truth.values, drawn, truth.values > 0)
        for key, value in found.items():
            assert row[key] == pytest.approx(value, rel=1e-5)


def test_controls_are_scored_beside_the_network(
    tiles: Path, metric_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    config = evaluation(tiles, metric_run, results, metres_per_unit=0.25, hole=0.0)
    config |= {"controls": ["mean", "plane", "low_pass"], "control_cell": 8}
    assert run(evaluateDepth, tmp_path, config) == 0
    mean, plane, cells = "control: mean of training", "control: plane of truth", "control: truth in cells of 8 pixels"
    document = json.loads((results / "metrics.json").read_text())
    assert list(document["summary"]) == ["depth", mean, plane, cells] and "change" not in document

    known = []
    for tile in TRAINING_IDS:
        values = read_height(height_path(tiles, tile)).values
        known.append(0.25 * values[values > 0])
    level = np.concatenate(known).mean()
    rows = read_csv(results / "tiles.csv", text_columns=["id"])
    for row in rows:
        truth = 0.25 * read_height(height_path(tiles, str(row["id"]), TEST)).values
        error = truth[truth > 0] - level
        assert row[f"{mean}.metric.rmse"] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-4)
        valid = truth > 0
        rmse = np.sqrt(((plane_of(truth, valid) - truth)[valid] ** 2).mean())
        # A plane below 1 mm is cut there by the protocol, so it may be a little worse than that, and never better.
        assert rmse * 0.999 <= row[f"{plane}.metric.rmse"] <= row[f"{mean}.metric.rmse"]
        drawn = low_pass(truth, valid, 8)
        assert row[f"{cells}.aligned.rmse"] <= np.sqrt(((drawn - truth)[valid] ** 2).mean()) * 1.001
    better = [row["depth.metric.abs_rel"] - row[f"{mean}.metric.abs_rel"] for row in rows]
    found = document["beside_controls"][mean]["metric.abs_rel"]
    assert found["mean"] == pytest.approx(np.mean(better)) and found["count"] == len(rows)
    said = capsys.readouterr().out
    assert said.count("From control: ") == 3 and f"From {mean} to depth the metric AbsRel changes by" in said
    assert said.split("From control: ")[1].splitlines()[0] in (results / "report.html").read_text()


def test_a_mean_of_training_needs_training_tiles(
    tiles: Path, metric_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [f"{image_path(tiles, tile, TEST)},{height_path(tiles, tile, TEST)}" for tile in TEST_IDS]
    (tmp_path / "test.csv").write_text("\n".join(lines) + "\n")
    config = evaluation(tmp_path / "test.csv", metric_run, tmp_path / "results", metres_per_unit=0.25, hole=0.0)
    said = refused(evaluateDepth, tmp_path, config | {"controls": ["mean"]}, capsys)
    assert "control 'mean'" in said and "has no training tiles beside those that are scored" in said
    assert "leave 'mean' out" in said
    assert run(evaluateDepth, tmp_path, config | {"controls": ["plane"]}) == 0


def test_a_mean_of_disparities_is_refused(
    tiles: Path, metric_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = evaluation(tiles, metric_run, tmp_path / "results", disparity={}, controls=["plane", "mean"])
    assert "control 'mean' cannot be made of disparities" in refused(evaluateDepth, tmp_path, config, capsys)


def test_the_model_folder_is_plain_and_draws_what_the_evaluation_drew(
    tiles: Path, metric_run: Path, tmp_path: Path
) -> None:
    assert {path.suffix for path in (metric_run / "model").iterdir()} == {".json", ".md", ".safetensors"}
    assert run(evaluateDepth, tmp_path, evaluation(tiles, metric_run, tmp_path / "r")) == 0
    network = load_component(EncDec, metric_run / "model").eval()
    image = torch.from_numpy(read_image(image_path(tiles, "7", TEST)))[None]
    with torch.no_grad():
        drawn = network(image)[0, 0].numpy()
    # Another batch and memory layout: sums in another order.
    np.testing.assert_allclose(drawn, read_height(tmp_path / "r" / "maps" / "tile_7.tif").values, atol=1e-3)


def test_one_epoch_and_one_resumed_are_two(tiles: Path, metric_run: Path, tmp_path: Path) -> None:
    config = training(tiles, tmp_path / "run", target="metres", max_depth=80.0, metres_per_unit=0.25, hole=0.0)
    assert run(trainDepth, tmp_path, config | {"epochs": 1}) == 0
    assert trainDepth.main(["--resume", str(tmp_path / "run"), "--set", "epochs=2"]) == 0
    name = "final/checkpoints/last.safetensors"
    whole, resumed = (load_checkpoint(folder / name).network for folder in (metric_run, tmp_path / "run"))
    assert whole.keys() == resumed.keys() and all(torch.equal(whole[key], resumed[key]) for key in whole)
    model = "model/diffusion_pytorch_model.safetensors"
    one, other = load_file(metric_run / model), load_file(tmp_path / "run" / model)
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(("target", "more"), [("relative", {}), ("summit", {"max_depth": 300.0})])
def test_maps_without_a_level_are_scored_as_heights(
    tiles: Path, tmp_path: Path, target: str, more: dict[str, Any]
) -> None:
    assert run(trainDepth, tmp_path, training(tiles, tmp_path / "run", target=target, epochs=1, **more)) == 0
    assert run(evaluateDepth, tmp_path, evaluation(tiles, tmp_path / "run", tmp_path / "r")) == 0
    document = json.loads((tmp_path / "r" / "metrics.json").read_text())
    assert set(document["protocols"]) == {"paper", "aligned"} | ({"offset"} if target == "summit" else set())
    drawn = read_height(tmp_path / "r" / "maps" / "tile_7.tif").values
    assert (drawn.max() < 0) == (target == "summit"), "metres below the summit point upwards in files"
    if target == "relative":
        assert (
            run(evaluateDepth, tmp_path, evaluation(tiles, tmp_path / "run", tmp_path / "a", scores="agreement")) == 0
        )
        assert set(json.loads((tmp_path / "a" / "metrics.json").read_text())["protocols"]) == {"agreement"}


def test_the_published_protocol_scores_its_frames(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    EncDec("test_resnet", widths=(8,)).save_pretrained(tmp_path / "model")
    rng = np.random.default_rng(0)
    for tile in ("0", "653", "654"):
        write_raster(height_path(tmp_path / "d", tile, TEST), rng.integers(500, 9000, (480, 640), dtype=np.uint16))
        write_raster(image_path(tmp_path / "d", tile, TEST), rng.integers(0, 256, (3, 480, 640), dtype=np.uint8))
    config = evaluation(tmp_path / "d", tmp_path / "model", tmp_path / "r", scores="published", metres_per_unit=0.001)
    assert run(evaluateDepth, tmp_path, config) == 0
    assert [row["id"] for row in read_csv(tmp_path / "r" / "tiles.csv", text_columns=["id"])] == ["0", "653"]
    assert set(json.loads((tmp_path / "r" / "metrics.json").read_text())["protocols"]) == {"published"}
    assert "2 of the 654 frames" in capsys.readouterr().err


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
        ({"target": "metres"}, "target metres needs max_depth, in metres"),
        ({"max_depth": 10.0}, "target relative has no unit: remove max_depth"),
        ({"loss_types": ["SSIMEdgeL1"]}, "did you mean 'SSIMEdgeL1Loss'"),
        ({"model": {"widths": [8]}}, "EncDecIRv2 is built as published, without 'widths'"),
        ({"model": {"backbone": "test_resnot", "pretrained": False}}, "unknown backbone 'test_resnot'"),
        ({"target": "metres", "max_depth": 0.5, "metres_per_unit": 255.0, "hole": 0}, "nothing can be learnt"),
        ({"pretrained_model_path": "nowhere"}, "'nowhere' does not exist"),
    ],
)
def test_a_bad_training_is_refused_in_one_line(
    changes: dict[str, Any], words: str, tiles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in refused(trainDepth, tmp_path, training(tiles, tmp_path / "run", **changes), capsys)
    assert not (tmp_path / "run").exists()


def test_pretrained_weights_offline_are_refused_before_anything_is_written(
    tiles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], no_network: None
) -> None:
    said = refused(trainDepth, tmp_path, training(tiles, tmp_path / "run", model={}), capsys)
    assert "inception_resnet_v2" in said and "set model.pretrained to false" in said
    assert not (tmp_path / "run" / "model").exists()


def test_pixels_that_cannot_be_drawn_are_counted(
    tiles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = training(tiles, tmp_path / "run", target="metres", max_depth=100.0, epochs=1)
    assert trainDepth.main(["--config", str(write_config(tmp_path / "c.json", config)), "--dry-run"]) == 0
    assert "lie beyond max_depth 100 m, up to 255 m, and are left out" in capsys.readouterr().err


def test_scores_that_the_network_rules_out(
    tiles: Path, metric_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], vit_run: Path
) -> None:
    for changes, words in (
        ({"scores": "published"}, "this network draws metres"),
        ({"crop": "eigen_nyu"}, "crop 'eigen_nyu': it is for frames of 640 x 480 pixels, and these are 32 x 32"),
        ({"farthest": 1e-4}, "must be larger than nearest"),
        ({"checkpoint_path": str(vit_run)}, "holds a model of D³-RSMDE"),
        ({"checkpoint_path": str(tiles)}, "holds no finished model"),
        ({"checkpoint_path": str(tmp_path / "none")}, "does not exist"),
    ):
        said = refused(evaluateDepth, tmp_path, evaluation(tiles, metric_run, tmp_path / "r", **changes), capsys)
        assert words in said
