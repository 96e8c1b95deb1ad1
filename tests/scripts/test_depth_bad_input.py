"""Bad input for trainDepth.py, evaluateDepth.py, the audit and relative_depth: one line that names it, status 2."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import Dinov2Config

import evaluateDepth
import predict
import trainDepth
import trainViT
from Modules.depth import EncDec
from Systems import relative_depth
from Systems.audit import main as audit
from tests.conftest import (
    TEST,
    TEST_IDS,
    TRAINING,
    TRAINING_IDS,
    height_path,
    image_path,
    make_dataset,
    small_depth,
    small_vit,
    write_config,
    write_raster,
)
from tests.depth_models import write_depth_model

METRES = {"target": "metres", "max_depth": 300.0}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A relative and a metric network; read only."""
    folder = tmp_path_factory.mktemp("models")
    EncDec("test_resnet", widths=(8,)).save_pretrained(folder / "relative")
    EncDec("test_resnet", widths=(8,), target="metres", max_depth=300.0).save_pretrained(folder / "metres")
    return folder


class Scripts:
    """The scripts on one dataset or table."""

    def __init__(self, folder: Path, models: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.models, self._capsys = folder, models, capsys

    def train(self, dataset: Path, **changes: Any) -> tuple[int, list[str]]:
        return self._run(trainDepth.main, small_depth(dataset, self.folder / "run") | {"epochs": 1} | changes)

    def train_vit(self, dataset: Path, **changes: Any) -> tuple[int, list[str]]:
        return self._run(trainViT.main, small_vit(dataset, self.folder / "run") | changes)

    def evaluate(self, dataset: Path, model: str = "relative", **changes: Any) -> tuple[int, list[str]]:
        places = {"checkpoint_path": str(self.models / model), "output_dir": str(self.folder / "results")}
        return self._run(evaluateDepth.main, {"dataset_path": str(dataset), "pictures": 0} | places | changes)

    def audit(self, dataset: Path) -> tuple[int, list[str]]:
        self._capsys.readouterr()
        status = audit(["--dataset", str(dataset), "--output", str(self.folder / "audit")])
        said = self._capsys.readouterr()
        return status, [*said.out.splitlines(), *said.err.splitlines()]

    def _run(self, main: Callable[[list[str]], int], config: dict[str, Any]) -> tuple[int, list[str]]:
        self._capsys.readouterr()
        status = main(["--config", str(write_config(self.folder / "c.json", config))])
        return status, self._capsys.readouterr().err.strip().splitlines()

    def call(self, main: Callable[[list[str]], int], *words: object) -> tuple[int, list[str]]:
        self._capsys.readouterr()
        status = main([str(word) for word in words])
        return status, self._capsys.readouterr().err.strip().splitlines()


@pytest.fixture
def scripts(tmp_path: Path, models: Path, capsys: pytest.CaptureFixture[str]) -> Scripts:
    return Scripts(tmp_path, models, capsys)


def refused(result: tuple[int, list[str]]) -> str:
    """The one line of a script that refused."""
    status, lines = result
    assert status == 2 and not any("Traceback" in line for line in lines), lines
    (line,) = [line for line in lines if line.startswith("error: ")]
    assert lines[-1] == line
    return line


TABLES = {
    "a delimiter": ("id;image;height\n1;a.png;a.tif\n", "separates its columns by ';'; save it with commas"),
    "one column": ("data/1.png\ndata/2.png\n", "has one column; give a CSV with the columns id, image, height"),
    "Kaggle's paths": (
        "/kaggle/input/kitti/image/0.png,/kaggle/input/kitti/depth/0.png\n",
        "absolute paths of another machine: set root to the folder here that holds these files",
    ),
    "a repeated id": ("id,image,height\n7,a.png,a.tif\n7,b.png,b.tif\n", "id 7 stands in line 2 and again in line 3"),
    "missing files": ("id,image,height\n7,a.png,a.tif\n", "2 files do not exist, first 'a.png' in line 2"),
    "no line": ("", "is empty"),
}


@pytest.mark.parametrize("name", TABLES)
def test_wrong_tables(name: str, scripts: Scripts) -> None:
    text, words = TABLES[name]
    table = scripts.folder / "t.csv"
    table.write_text(text)
    for run in (scripts.train, scripts.evaluate, scripts.train_vit):
        status, lines = run(table)
        assert words in refused((status, lines)) and len(lines) == 1, lines
    status, lines = scripts.audit(table)
    # The audit names each missing file; what keeps it from reading the table is one line.
    assert status == 2 and not any("Traceback" in line for line in lines)
    assert any("set root" in line or words in line for line in lines)
    assert not (scripts.folder / "run").exists() and not (scripts.folder / "results").exists()


def spoilt(folder: Path, heights: int | None = None, images: int | None = None, tiles: int | None = None) -> Path:
    """A dataset whose first ``tiles`` maps, or images, of each part hold one value; None for all."""
    make_dataset(folder, priors=False)
    for part, ids in ((TRAINING, TRAINING_IDS), (TEST, TEST_IDS)):
        for tile in ids[:tiles]:
            if heights is not None:
                write_raster(height_path(folder, tile, part), np.full((32, 32), heights, np.uint8))
            if images is not None:
                write_raster(image_path(folder, tile, part), np.full((3, 32, 32), images, np.uint8))
    return folder


def test_depth_of_zeros(scripts: Scripts) -> None:
    dataset = spoilt(scripts.folder / "d", heights=0)
    for changes in (METRES, METRES | {"hole": 0}, {"hole": 0}):
        line = refused(scripts.train(dataset, **changes))
        assert "5 of 5 training tiles know no depth at all, such as" in line and "set hole and metres_per_unit" in line
    assert "hold one value each" in refused(scripts.train(dataset))
    assert "hold one value each" in refused(scripts.train(dataset, target="summit", max_depth=300.0))
    assert "3 of 3 test tiles know no depth" in refused(scripts.evaluate(dataset, "metres"))
    assert "3 of 3 test tiles know no depth" in refused(scripts.evaluate(dataset, scores="depth", hole=0))
    assert not (scripts.folder / "run").exists() and not (scripts.folder / "results").exists()


def test_some_depth_of_zeros_is_left_out(scripts: Scripts) -> None:
    dataset = spoilt(scripts.folder / "d", heights=0, tiles=1)
    (scripts.folder / "validation.txt").write_text("20\n")
    split = {"val_split_text": str(scripts.folder / "validation.txt")}
    status, lines = scripts.train(dataset, hole=0, **split)
    assert status == 0 and any("1 of 5 training tiles know no depth at all" in line for line in lines)
    (scripts.folder / "validation.txt").write_text("1\n")
    assert "1 of 1 validation tiles know no depth" in refused(scripts.train(dataset, hole=0, **split))
    status, lines = scripts.evaluate(dataset, "metres")
    assert status == 0 and any("1 of 3 test tiles know no depth at all" in line for line in lines)
    document = json.loads((scripts.folder / "results" / "metrics.json").read_text())
    assert document["summary"]["depth"]["metric.abs_rel"]["count"] == 2


def test_images_of_one_colour(scripts: Scripts) -> None:
    dataset = spoilt(scripts.folder / "all", images=127)
    assert "the images of all 5 training tiles, such as" in refused(scripts.train(dataset))
    for status, lines in (scripts.evaluate(dataset), scripts.train_vit(dataset)):
        assert status == 0 and any("3 of 3 tiles" in line or "6 of 6 tiles" in line for line in lines)
        assert any("an image of one colour, in which nothing can be seen" in line for line in lines)
    one = spoilt(scripts.folder / "one", images=0, tiles=1)
    status, lines = scripts.train(one, output_dir=str(scripts.folder / "another"))
    assert status == 0 and any("1 of 6 tiles have an image of one colour" in line for line in lines)
    status, lines = scripts.audit(one)
    assert status == 0 and any("images of one colour" in line for line in lines)


def test_models_that_are_none_of_ours(scripts: Scripts) -> None:
    dataset = make_dataset(scripts.folder / "d", priors=False)
    theirs = scripts.folder / "theirs"
    write_depth_model(theirs)
    line = refused(scripts.evaluate(dataset, checkpoint_path=str(theirs)))
    assert "a depth network of trainDepth.py is needed here" in line and "Systems.relative_depth" in line
    hub = "depth-anything/Depth-Anything-V2-Small-hf"
    assert f"no model at '{hub}'" in refused(scripts.evaluate(dataset, checkpoint_path=hub))
    assert f"'{hub}' does not exist" in refused(scripts.train(dataset, pretrained_model_path=hub))


def test_a_name_with_a_typo_and_an_unknown_polarity(scripts: Scripts, no_network: None) -> None:
    image, output = scripts.folder / "i" / "1.png", scripts.folder / "maps"
    write_raster(image, np.random.default_rng(0).integers(0, 256, (3, 32, 32), dtype=np.uint8))
    typo = "depth-anything/Depth-Anything-V2-Smal-hf"
    unknown = scripts.folder / "unknown"
    write_depth_model(unknown)
    config = json.loads((unknown / "config.json").read_text())
    (unknown / "config.json").write_text(json.dumps(config | {"model_type": Dinov2Config.model_type}))
    for main, out in ((relative_depth.main, output), (predict.main, scripts.folder / "p.tif")):
        line = refused(scripts.call(main, "--model", typo, "--input", image, "--output", out))
        assert f"'{typo}'" in line and f"hf download {typo}" in line
        line = refused(scripts.call(main, "--model", unknown, "--input", image, "--output", out))
        assert "its type is not known; say it with --polarity" in line
    assert not list(scripts.folder.rglob("*.tif"))
