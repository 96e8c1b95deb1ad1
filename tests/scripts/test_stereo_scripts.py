"""trainStereo.py and evaluateStereo.py on small synthetic scenes: train, resume, score, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import evaluateStereo
import trainStereo
from Modules.common.components import load_component
from Modules.stereo import StereoNetwork
from tests.conftest import Config, write_config
from tests.stereo_sets import copy_set
from Utils.config.stereo_keys import WithViews
from Utils.core.tables import read_csv
from Utils.data.stereo.sets import find_samples
from Utils.data.stereo.stereo_dataset import StereoDataset
from Utils.rasters.tile_files import read_height
from Utils.training.checkpoint import load_checkpoint

SMALL = {"hypotheses": [8, 8, 8], "base": 4, "norm": "group"}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two training scenes and a test scene of three views with pinholes; read only."""
    return copy_set(tmp_path_factory.mktemp("scenes"))


def training(scenes: Path, folder: Path, **changes: Any) -> Config:
    return {
        "dataset_path": str(scenes),
        "output_dir": str(folder),
        "views": 3,
        "optimiser": "RMSprop",
        "lr": 1e-3,
        "lr_schedule": "multistep",
        "lr_milestones": [1],
        "epochs": 2,
        "batch_size": 1,
        "loss_types": ["SmoothL1Loss"],
        "model": SMALL,
    } | changes


def evaluation(scenes: Path, model: Path | None, results: Path, **changes: Any) -> Config:
    known = {"dataset_path": str(scenes), "output_dir": str(results), "views": 3, "pictures": 1, "sweep_planes": 24}
    return known | ({} if model is None else {"checkpoint_path": str(model)}) | changes


def run(script: Any, folder: Path, config: Config, *more: str) -> int:
    status: int = script.main(["--config", str(write_config(folder / "config.json", config)), *more])
    return status


@pytest.fixture(scope="module")
def stereo_run(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs; read only."""
    folder = tmp_path_factory.mktemp("trained")
    assert run(trainStereo, folder, training(scenes, folder / "run")) == 0
    return folder / "run"


def test_a_run_leaves_a_model_that_knows_its_cameras(stereo_run: Path) -> None:
    network = load_component(StereoNetwork, stereo_run / "model")
    assert network.config["interval_parallax"] > 0
    assert network.config["geometry"] == "pinhole" and list(network.config["hypotheses"]) == [8, 8, 8]
    rows = [json.loads(line) for line in (stereo_run / "final" / "log.jsonl").read_text().splitlines()]
    assert [row["lr"] for row in rows] == [1e-3, pytest.approx(6e-4)]
    assert all(np.isfinite(row["validation/stereo.mae"]) for row in rows)


def test_scores_are_those_of_the_written_maps_beside_baselines(scenes: Path, stereo_run: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    assert run(evaluateStereo, tmp_path, evaluation(scenes, stereo_run, results)) == 0
    document = json.loads((results / "metrics.json").read_text())
    assert {"stereo", "textureless", "occluded", "pooled"} == set(document["protocols"])
    assert set(document["summary"]) == {"depth", "control: constant", "control: NCC sweep"}
    assert (document["network"], document["cameras"], document["views"]) == ("CasMVSNet", "pinhole", 3)
    assert (results / "report.html").is_file() and list((results / "pictures").glob("*.png"))
    options = WithViews(views=3)
    samples = find_samples(scenes, "test", options)
    (row,) = read_csv(results / "tiles.csv", text_columns=["id"])
    sample = StereoDataset(samples, list(samples))[0]
    drawn = read_height(results / "maps" / f"tile_{row['id']}.tif").values
    error = np.abs(drawn - sample["target"][0].numpy())[sample["mask"][0].numpy()]
    assert float(row["depth.stereo.mae"]) == pytest.approx(float(error.mean()), rel=1e-5)
    assert float(row["depth.stereo.below_1m"]) == pytest.approx(float((error < 1).mean()), abs=1e-6)
    truth = sample["target"][sample["mask"]]
    constant = float((truth - truth.median()).abs().mean())
    assert float(row["control: constant.stereo.mae"]) == pytest.approx(constant, rel=1e-4)


def test_every_view_in_turn_has_a_table_of_its_own(scenes: Path, tmp_path: Path) -> None:
    """Without a network the sweep is what is scored."""
    results = tmp_path / "results"
    assert run(evaluateStereo, tmp_path, evaluation(scenes, None, results, reference=None)) == 0
    rows = read_csv(results / "views.csv", text_columns=["view", "map"])
    assert [(row["view"], row["map"]) for row in rows] == [
        (view, name) for view in "012" for name in ("depth", "control: constant")
    ]
    assert "no network" in json.loads((results / "metrics.json").read_text())["model"]


def test_two_and_two_steps_are_four_steps(scenes: Path, tmp_path: Path) -> None:
    """With accumulation and batch norm, whose statistics belong to the state."""
    options = {"model": SMALL | {"norm": "batch", "network": "UCSNet"}, "accumulate": 2, "not_split": True}
    config = training(scenes, tmp_path / "whole", max_steps=4, lr_schedule="multistep_by_step", **options)
    assert run(trainStereo, tmp_path, config) == 0
    parts = tmp_path / "parts"
    assert run(trainStereo, tmp_path, config | {"output_dir": str(parts), "max_steps": 2}) == 0
    assert trainStereo.main(["--resume", str(parts), "--set", "max_steps=4"]) == 0
    places = (tmp_path / "whole", parts)
    whole, resumed = (load_checkpoint(place / "final/checkpoints/last.safetensors") for place in places)
    assert whole.network.keys() == resumed.network.keys()
    assert all(torch.equal(value, resumed.network[name]) for name, value in whole.network.items())
    # The rate fell after the first step, not after the first epoch.
    rows = (tmp_path / "whole" / "final" / "log.jsonl").read_text().splitlines()
    assert json.loads(rows[-1])["lr"] == pytest.approx(6e-4)


@pytest.mark.parametrize(("cameras", "fusion"), [("pinhole", "concatenated"), ("rpc", "guided")])
def test_relative_depth_is_learnt_from_and_asked_for(cameras: str, fusion: str, tmp_path: Path) -> None:
    scenes = copy_set(tmp_path, cameras)
    model = SMALL | {"relative_depth": fusion, "pretrained": False, "network": "UCSNet"}
    more = {"relative_depth_folder": "depthAnything", "interval": 0.5, "precision": "bf16", "max_steps": 1}
    config = training(scenes, tmp_path / "run", model=model, not_split=True, **more)
    assert run(trainStereo, tmp_path, config) == 0
    given = evaluation(scenes, tmp_path / "run", tmp_path / "results", interval=0.5, baselines=[])
    assert run(evaluateStereo, tmp_path, given) == 2
    assert run(evaluateStereo, tmp_path, given | {"relative_depth_folder": "depthAnything", "precision": "bf16"}) == 0
    document = json.loads((tmp_path / "results" / "metrics.json").read_text())
    assert list(document["summary"]) == ["height" if cameras == "rpc" else "depth"]


def test_a_network_of_other_cameras_is_refused(
    stereo_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scenes = copy_set(tmp_path, "rpc")
    assert run(evaluateStereo, tmp_path, evaluation(scenes, stereo_run, tmp_path / "results", interval=0.5)) == 2
    assert "learnt depth with pinhole cameras" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"flips": ["horizontal"]}, "a camera cannot be mirrored"),
        ({"relative_depth_folder": "depthAnything"}, "relative_depth_folder is given without model.relative_depth"),
        ({"model": SMALL | {"relative_depth": "guided"}}, "without relative_depth_folder"),
        ({"model": SMALL | {"hypotheses": [12, 8, 8]}}, "multiples of 8"),
        ({"stage_weights": [1.0, 1.0, 0.0]}, "leaves out the last stage"),
        ({"loss_types": "HDNLoss"}, "unknown loss 'HDNLoss'"),
        ({"views": 4}, "has 3 views, and views asks for 4"),
        ({"value_range": [1.0, 2.0]}, "outside of"),
        ({"lr_schedule": "multistep_by_step", "lr_milestones": []}, "go together"),
    ],
)
def test_mistakes_get_one_line(
    changes: Config, said: str, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(trainStereo, tmp_path, training(scenes, tmp_path / "run") | changes) == 2
    shown = capsys.readouterr().err
    assert said in shown and "Traceback" not in shown
    assert not (tmp_path / "run").exists()


def test_an_evaluation_of_nothing_is_refused(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for changes, said in (
        ({"baselines": ["constant"]}, "there is nothing to score"),
        ({"controls": ["mean"]}, "controls"),
        ({"sweep_window": 8}, "odd number"),
        ({"checkpoint_path": str(tmp_path / "none")}, "does not exist"),
        ({"checkpoint_path": str(scenes)}, "no finished model"),
    ):
        assert run(evaluateStereo, tmp_path, evaluation(scenes, None, tmp_path / "results") | changes) == 2
        assert said in capsys.readouterr().err


def test_a_dry_run_writes_nothing(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(trainStereo, tmp_path, training(scenes, tmp_path / "run"), "--dry-run") == 0
    assert run(evaluateStereo, tmp_path, evaluation(scenes, None, tmp_path / "results"), "--dry-run") == 0
    assert "in order" in capsys.readouterr().out
    assert not (tmp_path / "run").exists() and not (tmp_path / "results").exists()
