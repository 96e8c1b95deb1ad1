"""The four scripts on a dataset that is a table: what they say of it is what they say of its folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import evaluateDiffusion
import evaluateViT
import trainDiffusion
import trainViT
from tests.conftest import (
    TEST,
    TEST_IDS,
    TRAINING,
    TRAINING_IDS,
    Config,
    height_path,
    image_path,
    prior_path,
    small_diffusion,
    small_diffusion_evaluation,
    small_vit,
    small_vit_evaluation,
    write_config,
)


@pytest.fixture
def table(tmp_path: Path, shared_dataset: Path) -> Path:
    """A table of the shared dataset in a folder of its own, with paths relative to the dataset."""
    lines = ["id,image,height,prior,part,fold"]
    for part, name, ids in ((TRAINING, "train", TRAINING_IDS), (TEST, "test", TEST_IDS)):
        for place, tile in enumerate(ids):
            files = [find(Path(), tile, part).as_posix() for find in (image_path, height_path, prior_path)]
            lines.append(",".join([tile, *files, name, str(place % 2) if part == TRAINING else ""]))
    path = tmp_path / "mine.csv"
    path.write_text("\n".join(lines))
    return path


def run(script, config: Config, table: Path, *arguments: str, **changes: object) -> int:
    """The exit status on the table, whose paths start from the dataset that the config names."""
    config = config | {"dataset_path": str(table), "root": config["dataset_path"]} | changes
    return script.main(["--config", str(write_config(table.parent / "c.json", config)), *arguments])


def test_training_takes_a_table(table: Path, shared_dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = table.parent / "run"
    vit, diffusion = small_vit(shared_dataset, output), small_diffusion(shared_dataset, output) | {"prior_path": ""}
    assert run(trainViT, vit, table, "--dry-run", k_folds="table") == 0
    said = capsys.readouterr().out
    assert f"tiles of 32 x 32 pixels in '{table}'" in said and "fold-2" in said and "fold-3" not in said
    assert run(trainViT, vit, table, "--dry-run", validate_on="test") == 0
    assert run(trainDiffusion, diffusion, table, "--dry-run") == 0
    assert not output.exists()


def test_evaluation_takes_a_table(table: Path, shared_dataset: Path, vit_run: Path, diffusion_run: Path) -> None:
    results = table.parent / "vit"
    assert run(evaluateViT, small_vit_evaluation(shared_dataset, vit_run, results), table) == 0
    scores = json.loads((results / "metrics.json").read_text())
    folder = {"dataset_path": str(shared_dataset), "root": ""}
    assert run(evaluateViT, small_vit_evaluation(shared_dataset, vit_run, results), table, **folder) == 0
    assert json.loads((results / "metrics.json").read_text())["summary"] == scores["summary"]
    # With an empty prior_path, the priors are those that the table names.
    config = small_diffusion_evaluation(shared_dataset, diffusion_run, table.parent / "diffusion") | {"prior_path": ""}
    assert run(evaluateDiffusion, config, table) == 0
    assert "mine.csv" in (table.parent / "diffusion" / "report.html").read_text(encoding="utf-8")


def test_bad_tables_are_one_line(table: Path, shared_dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vit = small_vit(shared_dataset, table.parent / "run")

    def refused(text: str, **changes: object) -> str:
        table.write_text(text)
        capsys.readouterr()
        assert run(trainViT, vit, table, **changes) == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        return line

    assert "separates its columns by ';'" in refused("id;image;height\n1;a;b\n")
    assert "2 files do not exist, first '/kaggle/a.png'" in refused("/kaggle/a.png,/kaggle/a.tif\n")
    assert "set root to the folder here" in refused("/kaggle/a.png,/kaggle/a.tif\n", root="")
    assert not (table.parent / "run").exists()
    shutil.move(table, table.parent / "other.csv")
    assert run(trainViT, vit, table) == 2
