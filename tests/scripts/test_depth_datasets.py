"""trainDepth.py and evaluateDepth.py on datasets as they are published, toy ones and real frames."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import evaluateDepth
import trainDepth
from Modules.depth import EncDec
from Systems.audit import main as audit
from Systems.depth.config import DepthEvaluationConfig, DepthTrainingConfig
from tests.conftest import Config, write_config
from tests.depth_sets import write_cityscapes, write_kitti, write_nyu
from tests.paths import ROOT, SHARED
from Utils.config.config_files import load_config, read_merged
from Utils.core.tables import read_csv
from Utils.rasters.tile_files import raster_size, read_height
from Utils.training.run_files import LOG_FILE

FRAMES = SHARED / "real_data" / "depth_frames"
needs_frames = pytest.mark.skipif(not FRAMES.is_dir(), reason="the real frames are not here")
SMALL = {"backbone": "test_resnet", "pretrained": False, "widths": [8, 8], "norm_momentum": 0.3}


def shipped(name: str, table: Path, root: Path, **changes: Any) -> Config:
    """A shipped config on a toy dataset."""
    config = read_merged(ROOT / "Config" / "Depth" / f"{name}.json")[0]
    return config | {"dataset_path": str(table), "root": str(root), "num_workers": 0} | changes


def train(name: str, table: Path, root: Path, run: Path, **changes: Any) -> int:
    toy = {"epochs": 1, "batch_size": 2, "model": SMALL, "image_size": [24, 32], "output_dir": str(run)}
    return trainDepth.main(
        ["--config", str(write_config(root / "c.json", shipped(name, table, root, **toy | changes)))]
    )


def evaluate(name: str, table: Path, root: Path, run: Path, results: Path, **changes: Any) -> int:
    places = {"checkpoint_path": str(run), "output_dir": str(results), "pictures": 1}
    config = shipped(name, table, root, **places | changes)
    return evaluateDepth.main(["--config", str(write_config(root / "e.json", config))])


@pytest.mark.parametrize("name", ["NYU", "KITTI", "Cityscapes"])
def test_the_shipped_configs_say_what_they_are(name: str) -> None:
    training = load_config(ROOT / "Config" / "Depth" / f"{name}_train.json", DepthTrainingConfig)
    evaluation = load_config(ROOT / "Config" / "Depth" / f"{name}_evaluate.json", DepthEvaluationConfig)
    for config in (training, evaluation):
        assert name in config.description
    assert "not from its pictures of classes" in training.description or name != "Cityscapes"
    # The batch rules of the paper.
    assert (training.optimiser, training.optimiser_options) == ("Adam", {"amsgrad": True})
    assert (training.lr, training.lr_schedule, training.epochs) == (1e-4, "linear_by_epoch", 15)
    assert training.batch_size == 16 and training.whole_batches and training.flips == ["horizontal"]
    assert (training.image_size, training.validation_share, training.weight_decay) == ([240, 320], 0.3, 0.0)
    assert training.losses == ["SSIMEdgeL1Loss"] and training.model.backbone == "EncDecIRv2"
    # And what is this project's own: scenes are kept whole.
    assert training.split_by == "scene"
    assert training.direction == "depth"
    assert training.output_dir == evaluation.checkpoint_path


def test_rooms_are_kept_whole_and_frames_are_resized(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, test = write_nyu(tmp_path)
    assert train("NYU_train", table, tmp_path, tmp_path / "run", validation_share=0.5) == 0
    said = capsys.readouterr().err
    assert "NYU Depth v2 as published" in said and "have frames in training and in validation" not in said
    network = EncDec.from_pretrained(tmp_path / "run" / "model")
    assert list(network.config["image_size"]) == [24, 32]
    limits = {"crop": "none", "batch_size": 2}
    assert evaluate("NYU_evaluate", test, tmp_path, tmp_path / "run", tmp_path / "r", **limits) == 0
    document = json.loads((tmp_path / "r" / "metrics.json").read_text())
    assert set(document["protocols"]) == {"aligned", "median"} and document["tiles"] == 3
    assert document["input"] == "images resized to 32 x 24 pixels"
    assert raster_size(tmp_path / "r" / "maps" / "tile_00001_colors.tif") == (48, 64)


def test_a_split_by_frame_is_said_to_leak(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, _ = write_nyu(tmp_path)
    assert train("NYU_train", table, tmp_path, tmp_path / "run", split_by="frame") == 0
    said = capsys.readouterr().err
    assert "have frames in training and in validation, which then looks better than it is; split_by scene" in said


def test_frames_of_several_sizes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, test = write_kitti(tmp_path)
    assert train("KITTI_train", table, tmp_path, tmp_path / "run") == 0
    assert evaluate("KITTI_evaluate", test, tmp_path, tmp_path / "run", tmp_path / "r", batch_size=3) == 0
    assert "frames have 2 sizes, and are drawn one by one" in capsys.readouterr().err
    document = json.loads((tmp_path / "r" / "metrics.json").read_text())
    assert set(document["protocols"]) == {"metric", "offset", "aligned", "median"}
    assert all("Garg's crop" in text for text in document["protocols"].values())
    assert audit(["--dataset", str(table), "--config", str(tmp_path / "c.json"), "--output", str(tmp_path / "a")]) == 0
    capsys.readouterr()
    # Without a size to bring them to they make no batch.
    assert train("KITTI_train", table, tmp_path, tmp_path / "none", image_size=None) == 2
    assert "all tiles of a dataset must have one size" in capsys.readouterr().err


def test_disparities_are_trained_on_and_scored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, test = write_cityscapes(tmp_path)
    assert train("Cityscapes_train", table, tmp_path, tmp_path / "run") == 0
    assert evaluate("Cityscapes_evaluate", test, tmp_path, tmp_path / "run", tmp_path / "r") == 0
    assert "from disparities" in capsys.readouterr().err
    (row, _) = read_csv(tmp_path / "r" / "tiles.csv", text_columns=["id"])
    drawn = read_height(tmp_path / "r" / "maps" / f"tile_{row['id']}.tif").values
    stored = read_height(tmp_path / "disparity/val/ulm" / f"{str(row['id']).replace('leftImg8bit', 'disparity')}.png")
    true = np.where(stored.values > 1, 400.0 * 256.0 / np.maximum(stored.values - 1.0, 1e-9), 0.0)
    inside = true > 0
    assert row["metric.rmse"] == pytest.approx(np.sqrt(np.mean((drawn - true)[inside] ** 2)), rel=1e-4)
    said = table.read_text().replace("disparity/", "gtFine/").replace("_disparity", "_gtFine_color")
    table.write_text(said)
    assert train("Cityscapes_train", table, tmp_path, tmp_path / "colours") == 2
    (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert line.startswith("error: ") and "pictures of classes (segmentation), and no depth" in line


def test_offset_alone_forgives_a_shift_of_heights(tmp_path: Path) -> None:
    table, _ = write_kitti(tmp_path)
    changes = {"target": "summit", "max_depth": 80.0, "split_by": "frame", "direction": "height"}
    assert train("KITTI_train", table, tmp_path, tmp_path / "run", **changes) == 0
    assert evaluate("KITTI_evaluate", table, tmp_path, tmp_path / "run", tmp_path / "r", scores="height") == 0
    document = json.loads((tmp_path / "r" / "metrics.json").read_text())
    assert set(document["protocols"]) == {"paper", "aligned", "offset"}
    for name in ("table.md", "tiles.csv", "report.html"):
        text = (tmp_path / "r" / name).read_text(encoding="utf-8")
        assert all(protocol in text for protocol in document["protocols"])


def copied(names: list[tuple[Path, Path]], folder: Path) -> Path:
    """A table of real frames, which stay where they are."""
    (folder / "frames.csv").write_text("".join(f"{image},{depth}\n" for image, depth in names))
    return folder / "frames.csv"


def random_network(folder: Path, target: str, max_depth: float | None, size: tuple[int, int]) -> Path:
    torch.manual_seed(0)
    EncDec("test_resnet", widths=(8,), target=target, max_depth=max_depth, image_size=size).save_pretrained(folder)
    return folder


@needs_frames
@pytest.mark.parametrize(("name", "size"), [("NYU", (480, 640)), ("KITTI", (375, 1242))])
def test_real_frames_run_through_all_protocols(name: str, size: tuple[int, int], tmp_path: Path) -> None:
    """An untrained network, since three frames say nothing of accuracy: what is shown is that they are read."""
    folder = FRAMES / f"{name.lower()}_demo"
    images, truths = (sorted((folder / kind).iterdir()) for kind in ("rgb", "depth"))
    table = copied(list(zip(images, truths, strict=True)), tmp_path)
    found: dict[str, set[str]] = {}
    for target, max_depth, scores in (
        ("metres", 80.0, ["depth"]),
        ("relative", None, ["depth", "agreement"]),
        ("summit", 80.0, ["height"]),
    ):
        model = random_network(tmp_path / target, target, max_depth, (240, 320))
        for kind in scores:
            results = tmp_path / f"{target}-{kind}"
            assert evaluate(f"{name}_evaluate", table, tmp_path, model, results, scores=kind, pictures=0) == 0
            document = json.loads((results / "metrics.json").read_text())
            found[f"{target} {kind}"] = set(document["protocols"])
            rows = read_csv(results / "tiles.csv", text_columns=["id"])
            assert len(rows) == 3 and raster_size(results / "maps" / f"tile_{rows[0]['id']}.tif") == size
            first = {"depth": "aligned.abs_rel", "height": "aligned.mae", "agreement": "agreement.accuracy"}[kind]
            assert all(np.isfinite(float(row[first])) for row in rows)
    assert found["metres depth"] == {"metric", "offset", "aligned", "median"}
    assert found["relative depth"] == {"aligned", "median"}
    assert found["summit height"] == {"paper", "aligned", "offset"}
    assert found["relative agreement"] == {"agreement"}


@needs_frames
def test_real_frames_in_the_published_protocol(tmp_path: Path) -> None:
    images, truths = (sorted((FRAMES / "nyu_demo" / kind).iterdir()) for kind in ("rgb", "depth"))
    for number, image in enumerate(images):
        shutil.copy(image, tmp_path / f"{number:05}_colors.jpg")
    names = [(tmp_path / f"{number:05}_colors.jpg", truth) for number, truth in enumerate(truths)]
    model = random_network(tmp_path / "model", "relative", None, (240, 320))
    table = copied(names, tmp_path)
    assert evaluate("NYU_evaluate", table, tmp_path, model, tmp_path / "r", scores="published", pictures=0) == 0
    document = json.loads((tmp_path / "r" / "metrics.json").read_text())
    assert set(document["protocols"]) == {"published"} and document["published_numbers"]["published.rmse"] == 0.2281
    # A map of about one half is 3.75 m everywhere: bad, and finite.
    assert 0.05 < document["summary"]["depth"]["published.abs_rel"]["mean"] < 3


@needs_frames
@pytest.mark.parametrize("name", ["NYU", "KITTI"])
def test_real_frames_can_be_trained_on(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = FRAMES / f"{name.lower()}_demo"
    images, truths = (sorted((folder / kind).iterdir()) for kind in ("rgb", "depth"))
    table = copied(list(zip(images, truths, strict=True)), tmp_path)
    changes = {"target": "metres", "max_depth": 80.0, "image_size": [96, 128], "not_split": True}
    unit = {"metres_per_unit": 0.001} if name == "NYU" else {}
    assert train(f"{name}_train", table, tmp_path, tmp_path / "run", **changes, **unit) == 0
    rows = [json.loads(line) for line in (tmp_path / "run" / "final" / LOG_FILE).read_text().splitlines()]
    assert np.isfinite(rows[-1]["train/SSIMEdgeL1Loss"])
    if name == "KITTI":
        assert "beyond max_depth 80 m, up to 84.89" in capsys.readouterr().err
