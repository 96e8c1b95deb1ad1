"""trainSegmentation.py and evaluateSegmentation.py on small synthetic tiles: train, resume, score, submit, refuse."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import evaluateSegmentation
import trainSegmentation
from Modules.common.components import load_component
from Modules.segmentation import SegmentationNetwork
from Systems.segmentation.build import build_segmentation
from Systems.segmentation.config import SegmentationTrainingConfig
from Systems.segmentation.rates import LAYER_GROUPS, decayed_groups
from Systems.segmentation.task import LandCoverSettings, SegmentationTask
from tests.conftest import Config, write_config, write_raster
from tests.land_cover_sets import COLOURS, HEIGHTS, tile_classes, write_loveda
from Utils.config.config_files import load_config
from Utils.config.land_cover_keys import SelfTrainingSection
from Utils.core.seeds import derive_seed
from Utils.core.tables import read_csv
from Utils.data.land_cover.class_table import LOVEDA, read_mask
from Utils.data.sample import IGNORED_LABEL
from Utils.training.checkpoint import load_checkpoint

MODEL = {"backbone": "test_convnext", "depth_backbone": "test_convnext2", "channels": 8, "pretrained": False}


@pytest.fixture(scope="module")
def loveda(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two domains of three parts; read only."""
    return write_loveda(tmp_path_factory.mktemp("loveda"))


def training(loveda: Path, folder: Path, **changes: Any) -> Config:
    return {
        "dataset_path": str(loveda),
        "output_dir": str(folder),
        "source": ["Urban"],
        "batch_size": 2,
        "lr": 1e-2,
        "lr_schedule": "polynomial",
        "max_steps": 4,
        "window": 48,
        "stride": 32,
        "model": MODEL,
        "augmentation": {"crop": 32},
    } | changes


def evaluation(loveda: Path, model: Path, results: Path, **changes: Any) -> Config:
    return {
        "dataset_path": str(loveda),
        "output_dir": str(results),
        "checkpoint_path": str(model),
        "domains": ["Rural"],
        "pictures": 1,
        "window": 48,
        "stride": 32,
    } | changes


def run(script: Any, folder: Path, config: Config, *more: str) -> int:
    status: int = script.main(["--config", str(write_config(folder / "config.json", config)), *more])
    return status


@pytest.fixture(scope="module")
def trained(loveda: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps in two epochs; read only."""
    folder = tmp_path_factory.mktemp("trained")
    assert run(trainSegmentation, folder, training(loveda, folder / "run")) == 0
    return folder / "run"


def test_a_run_leaves_a_model_that_knows_its_classes_and_domains(trained: Path) -> None:
    network = load_component(SegmentationNetwork, trained / "model")
    config = network.config
    assert list(config["classes"]) == list(LOVEDA.names) and config["fusion"] == "gate"
    assert (list(config["trained_on"]), config["selected_on"], config["tile_size"]) == (["Urban"], "source", 32)
    rows = [json.loads(line) for line in (trained / "final" / "log.jsonl").read_text().splitlines()]
    assert len(rows) == 2 and all(np.isfinite(row["validation/pooled.miou"]) for row in rows)


def test_scores_are_those_of_the_written_class_maps(loveda: Path, trained: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    assert run(evaluateSegmentation, tmp_path, evaluation(loveda, trained, results)) == 0
    document = json.loads((results / "metrics.json").read_text())
    assert (document["domain"], document["selected_on"], document["scored_on"]) == ("target", "source", "Val: Rural")
    hits = pixels = 0
    for tile in ("0", "1"):
        label = read_mask(loveda / "Val" / "Rural" / "masks_png" / f"{tile}.png", LOVEDA)
        picture = Image.open(results / "classes" / f"Rural-{tile}.png")
        drawn = np.asarray(picture)
        assert picture.mode == "P" and picture.getpalette()[:6] == [255, 255, 255, 255, 0, 0]  # type: ignore[index]
        known = label != IGNORED_LABEL
        hits, pixels = hits + (drawn == label)[known].sum(), pixels + known.sum()
    summary = document["summary"]["classes"]
    assert summary["pooled.accuracy"]["mean"] == pytest.approx(hits / pixels)
    assert {"pooled.f1", "pooled.boundary_iou", "pooled.calibration", "classes.iou_water"} <= summary.keys()
    assert "counts as 0" in document["protocols"]["pooled"]
    assert [row["id"] for row in read_csv(results / "tiles.csv", text_columns=["id"])] == ["Rural-0", "Rural-1"]
    table = (results / "table.md").read_text()
    assert "ConvNeXt B + S, depth" in table and "no label of the target" in table and "PyCDA" in table
    assert document["unlabelled_images"] == [] and "self-training" not in table and seen_images(table) == "no"
    assert (results / "report.html").is_file() and len(list((results / "pictures").glob("*.png"))) == 1


def test_self_training_reads_no_label_of_the_target_is_named_and_resumed(
    loveda: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The teacher is the average of the weights, which a checkpoint holds: two and two steps are four."""
    copy = shutil.copytree(loveda, tmp_path / "set")
    shutil.rmtree(copy / "Train" / "Rural" / "masks_png")
    taught = {"ema_decay": 0.8, "self_training": {"domains": ["Rural"], "confidence": 0.1}}
    # A schedule that does not span the run, so that it may be prolonged.
    config = training(copy, tmp_path / "parts", lr_schedule="plateau", warmup_steps=3, **taught)
    assert run(trainSegmentation, tmp_path, config | {"max_steps": 2}) == 0
    assert "3 images of Rural are learnt from without labels" in capsys.readouterr().err
    assert trainSegmentation.main(["--resume", str(tmp_path / "parts"), "--set", "max_steps=4"]) == 0
    assert run(trainSegmentation, tmp_path, config | {"output_dir": str(tmp_path / "whole")}) == 0
    last = "final/checkpoints/last.safetensors"
    one, two = (load_checkpoint(tmp_path / name / last) for name in ("whole", "parts"))
    for kind in ("network", "average"):
        first, second = getattr(one, kind), getattr(two, kind)
        assert first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())
    assert "self-training on Rural (Train)" in (tmp_path / "whole" / "model" / "README.md").read_text()
    results = tmp_path / "scores"
    assert run(evaluateSegmentation, tmp_path, evaluation(copy, tmp_path / "whole", results)) == 0
    assert json.loads((results / "metrics.json").read_text())["unlabelled_images"] == ["Train: Rural"]
    table = (results / "table.md").read_text()
    assert "self-training on images of Train: Rural without labels" in table
    assert seen_images(table) == "yes"


def seen_images(table: str) -> str:
    """What the table beside published numbers says of images of the target."""
    row = next(line for line in table.splitlines() if line.startswith("| this network"))
    return row.split("|")[2].strip()


def test_the_loss_on_images_without_labels_is_weighted(loveda: Path) -> None:
    torch.manual_seed(0)
    network = SegmentationNetwork("test_convnext", "test_convnext2", classes=LOVEDA.names, channels=8)
    image, depth = torch.rand(2, 3, 32, 32), torch.rand(2, 1, 32, 32)
    label = torch.randint(0, 7, (2, 32, 32))
    square = {"image": image, "depth": depth, "changed_image": image.flip(1), "changed_depth": depth, "pasted": label}
    batch = {"image": image, "depth": depth, "label": label, "unlabelled": square}
    losses = []
    for weight in (None, 1.0, 3.0):
        section = None if weight is None else SelfTrainingSection(domains=["Rural"], weight=weight)
        task = SegmentationTask(network.eval(), LandCoverSettings(self_training=section))
        task.be_taught(network.state_dict)
        losses.append(float(task.loss(batch, []).detach()))
    assert losses[1] > losses[0] + 0.5 and losses[2] - losses[0] == pytest.approx(3 * (losses[1] - losses[0]))


def test_a_submission_is_flat_and_of_plain_numbers(loveda: Path, trained: Path, tmp_path: Path) -> None:
    path = tmp_path / "sent" / "submission.zip"
    config = evaluation(loveda, trained, tmp_path / "results", part="Test", submission=str(path))
    assert run(evaluateSegmentation, tmp_path, config) == 0
    with zipfile.ZipFile(path) as archive:
        assert sorted(archive.namelist()) == ["0.png", "1.png"]
        with archive.open("1.png") as file:
            picture = Image.open(file)
            assert picture.mode == "L" and picture.size == (64, 64)
            drawn = np.asarray(picture)
    assert drawn.max() <= 6
    assert np.array_equal(drawn, np.asarray(Image.open(tmp_path / "results" / "classes" / "Rural-1.png")))


def test_the_oracle_is_named(loveda: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = training(loveda, tmp_path / "run", oracle=["Rural"], max_steps=1, class_weights="balanced")
    assert run(trainSegmentation, tmp_path, config | {"auxiliary_weight": 0.4}) == 0
    said = capsys.readouterr().err
    assert "oracle: labels of Rural select the weights" in said and "class weights: background" in said
    assert run(evaluateSegmentation, tmp_path, evaluation(loveda, tmp_path / "run", tmp_path / "r")) == 0
    assert "(oracle): not comparable" in (tmp_path / "r" / "table.md").read_text()


@pytest.mark.parametrize(
    ("fusion", "source"), [("none", "true"), ("depth_alone", "true"), ("gate", "shuffled"), ("add", "grey")]
)
def test_controls_are_trained_alike(loveda: Path, fusion: str, source: str, tmp_path: Path) -> None:
    """Without maps where none are read; a training whose part Val is missing holds tiles out."""
    shutil.copytree(loveda / "Train", tmp_path / "set" / "Train")
    if fusion == "none" or source == "grey":
        shutil.rmtree(tmp_path / "set" / "Train" / "Urban" / "depth_png")
    more = {"model": MODEL | {"fusion": fusion}, "depth_source": source, "max_steps": 1}
    assert run(trainSegmentation, tmp_path, training(tmp_path / "set", tmp_path / "run", **more)) == 0
    log = (tmp_path / "run" / "final" / "log.jsonl").read_text()
    assert "validation/pooled.miou" in log


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"source": ["Forest"]}, "has no domain 'Forest' in its part Train: it has Rural, Urban"),
        ({"oracle": ["Urban"]}, "which is a source"),
        ({"validate_on": "test"}, "the part Test has no labels"),
        ({"relative_depth_folder": "maps"}, "python -m Systems.relative_depth"),
        ({"class_weights": [1.0, 2.0]}, "class_weights has 2 numbers, and there are 7 classes"),
        ({"model": MODEL | {"fusion": "none"}, "depth_source": "grey"}, "model.fusion none sees no map"),
        ({"model": MODEL | {"backbone": "test_convnot"}}, "unknown backbone 'test_convnot'"),
        ({"root": "elsewhere"}, "root belongs to a table"),
        ({"loss_types": "HDNLoss"}, "unknown loss 'HDNLoss'"),
        ({"self_training": {"domains": ["Urban"]}}, "which is a source and has labels"),
        ({"self_training": {"domains": ["Rural"]}}, "self_training needs ema_decay"),
        ({"self_training": {"domains": ["Hills"]}, "ema_decay": 0.9}, "has no domain 'Hills'"),
        ({"stride": 60}, "stride 60 leaves pixels out between windows of 48"),
        ({"class_table": "nowhere.json"}, "class_table 'nowhere.json': No such file"),
    ],
)
def test_mistakes_get_one_line(
    changes: Config, said: str, loveda: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(trainSegmentation, tmp_path, training(loveda, tmp_path / "run") | changes) == 2
    shown = capsys.readouterr().err
    assert said in shown and "Traceback" not in shown
    assert not (tmp_path / "run").exists()


def test_evaluations_that_cannot_be(
    loveda: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = {"classes": [{"name": "sand", "colour": [1, 2, 3]}, {"name": "sea", "colour": [4, 5, 6]}]}
    table = write_config(tmp_path / "classes.json", own)
    for changes, said in (
        ({"part": "Test"}, "has no masks"),
        ({"class_table": str(table)}, "draws background, building"),
        ({"domains": ["Urban", "Rural"], "submission": "s.zip"}, "a challenge is of one domain"),
        ({"checkpoint_path": str(loveda)}, "no finished model"),
    ):
        config = evaluation(loveda, trained, tmp_path / "results") | changes
        assert run(evaluateSegmentation, tmp_path, config) == 2
        assert said in capsys.readouterr().err


def test_of_a_frozen_encoder_only_adapters_and_the_rest_learn(loveda: Path, tmp_path: Path) -> None:
    """The optimiser holds nothing of the frozen part, which a run leaves as it was built."""
    model = MODEL | {"backbone": "test_vit", "fusion": "none", "adapter_width": 4, "options": {"patch_size": 8}}
    config = training(loveda, tmp_path / "run", model=model, max_steps=2, layer_decay=1.0)
    assert run(trainSegmentation, tmp_path, config) == 0
    loaded = load_config(tmp_path / "config.json", SegmentationTrainingConfig)
    torch.manual_seed(derive_seed(loaded.seed, "final", "weights"))
    built = build_segmentation(loaded, LOVEDA)
    learns = {name for name, value in built.named_parameters() if value.requires_grad}
    frozen = {name for name, value in built.named_parameters() if not value.requires_grad}
    assert {name.split(".")[-2] for name in learns if name.startswith("encoder.")} == {"down", "up"}
    assert frozen and all(name.startswith("encoder.") for name in frozen)
    checkpoint = load_checkpoint(tmp_path / "run" / "final" / "checkpoints" / "last.safetensors")
    before = built.state_dict()
    assert {name for name in learns | frozen if torch.equal(checkpoint.network[name], before[name])} == frozen
    moments = [state["exp_avg"] for state in checkpoint.optimiser.values()]
    assert sum(value.numel() for value in moments) == sum(before[name].numel() for name in learns)


def test_classes_and_files_of_ones_own(tmp_path: Path) -> None:
    """A CSV of tiles that lie anywhere, and a JSON of classes: trained, scored, and written in their colours."""
    own = {
        "classes": [
            {"name": "meadow", "colour": [90, 160, 60], "value": 30},
            {"name": "house", "colour": [200, 80, 60], "value": 7},
            {"name": "lane", "colour": [120, 120, 120], "value": 200},
            {"name": "lake", "colour": [30, 60, 150], "value": 12},
        ],
        "ignored_values": [99],
    }
    names = [entry["name"] for entry in own["classes"]]  # type: ignore[index]
    values = np.array([30, 7, 200, 12], np.uint8)
    lines = ["image,mask,part,domain,relative_depth"]
    for number in range(5):
        labels = tile_classes(number, 32)
        part, domain = ("Train", "valley") if number < 3 else ("Val", "valley") if number == 3 else ("Val", "hills")
        image, mask, depth = (tmp_path / "files" / f"{what}_{number}.tif" for what in ("air", "map", "relief"))
        coded = values[labels]
        coded[0] = 99
        write_raster(image, np.moveaxis(COLOURS[labels], -1, 0).astype(np.uint8))
        write_raster(mask, coded)
        write_raster(depth, HEIGHTS[labels].astype(np.float32))
        lines.append(",".join([*(path.name for path in (image, mask)), part, domain, depth.name]))
    table = tmp_path / "tiles.csv"
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    common = {
        "dataset_path": str(table),
        "root": str(tmp_path / "files"),
        "class_table": str(write_config(tmp_path / "classes.json", own)),
        "window": 32,
        "stride": 32,
    }
    more = {"source": ["valley"], "max_steps": 1, "class_weights": "balanced", "batch_size": 3}
    assert run(trainSegmentation, tmp_path, training(table, tmp_path / "run") | common | more) == 0
    network = load_component(SegmentationNetwork, tmp_path / "run" / "model")
    assert list(network.config["classes"]) == names and list(network.config["values"]) == values.tolist()
    scores = evaluation(table, tmp_path / "run", tmp_path / "scores", domains=["hills"]) | common
    assert run(evaluateSegmentation, tmp_path, scores) == 0
    document = json.loads((tmp_path / "scores" / "metrics.json").read_text())
    assert (document["domain"], document["scored_on"]) == ("target", "Val: hills")
    assert {f"classes.iou_{name}" for name in names} <= document["summary"]["classes"].keys()
    drawn = Image.open(tmp_path / "scores" / "classes" / "hills-air_4.png")
    palette = drawn.getpalette()
    assert palette is not None and palette[:12] == [c for entry in own["classes"] for c in entry["colour"]]  # type: ignore[index]
    assert np.asarray(drawn).max() < 4
    assert "published" not in (tmp_path / "scores" / "table.md").read_text()


def test_dry_runs_write_nothing(loveda: Path, trained: Path, tmp_path: Path) -> None:
    assert run(trainSegmentation, tmp_path, training(loveda, tmp_path / "run"), "--dry-run") == 0
    assert run(evaluateSegmentation, tmp_path, evaluation(loveda, trained, tmp_path / "results"), "--dry-run") == 0
    assert not (tmp_path / "run").exists() and not (tmp_path / "results").exists()


def test_the_first_blocks_learn_most_slowly_and_vectors_do_not_decay() -> None:
    network = SegmentationNetwork("test_convnext", "test_convnext2", classes=LOVEDA.names, channels=8)
    groups = decayed_groups(network, 0.9)
    parameters = [value for group in groups for value in group.parameters]
    assert len(parameters) == len(set(parameters)) == len(list(network.parameters()))
    scale = {value: group.lr_scale for group in groups for value in group.parameters}
    for encoder in network.encoders:
        rates = [scale[value] for value in encoder.parameters()]
        assert rates == sorted(rates) and rates[0] == pytest.approx(0.9**LAYER_GROUPS) and rates[-1] < 1
    assert all(scale[value] == 1.0 for value in network.classifier.parameters())
    for group in groups:
        assert all((value.ndim <= 1) == (group.weight_decay == 0.0) for value in group.parameters)
