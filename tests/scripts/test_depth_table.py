"""trainDepth.py and evaluateDepth.py on a dataset that is a table, with the control that never looks at an image."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import evaluateDepth
import trainDepth
from tests.conftest import Config, small_depth, write_config
from Utils.core.tables import read_csv
from Utils.data.dataset_table import read_table
from Utils.rasters.tile_files import read_height
from Utils.reports.controls import MEAN_MAP, MEAN_NUMBER
from Utils.synthetic.depth_frames import SHUFFLED, TABLE, VALIDATION, write_dataset


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six training and two test scenes of two frames; read only."""
    folder = tmp_path_factory.mktemp("frames") / "d"
    write_dataset(folder, 6, 2, 2, (32, 32), seed=0, workers=1)
    return folder


def config(frames: Path, run: Path, table: str = TABLE) -> Config:
    return small_depth(frames / table, run) | {
        "val_split_text": str(frames / VALIDATION),
        "target": "metres",
        "max_depth": 60.0,
        "epochs": 1,
    }


@pytest.fixture(scope="module")
def trained(frames: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the table; read only."""
    folder = tmp_path_factory.mktemp("run")
    given = write_config(folder / "c.json", config(frames, folder / "run"))
    assert trainDepth.main(["--config", str(given)]) == 0
    return folder / "run"


def scored(folder: Path, table: Path, run: Path, **changes: object) -> int:
    given: Config = {
        "dataset_path": str(table),
        "output_dir": str(folder / "r"),
        "checkpoint_path": str(run),
        "pictures": 1,
        "controls": ["mean_map", "mean"],
    }
    return evaluateDepth.main(["--config", str(write_config(folder / "e.json", given | changes))])


def test_training_takes_scale_parts_and_splits_from_a_table(
    frames: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = json.loads((trained / "plan.json").read_text())
    text = json.dumps(plan)
    held = (frames / VALIDATION).read_text().split()
    assert all(tile in text for tile in held) and "-50" not in text, "no test scene is in the plan"
    # In the file's own unit of millimetres all would lie beyond 60 m.
    given = write_config(tmp_path / "c.json", config(frames, tmp_path / "run") | {"max_depth": 0.1})
    capsys.readouterr()
    assert trainDepth.main(["--config", str(given), "--dry-run"]) == 2
    assert "all lie beyond max_depth 0.1 m, up to" in capsys.readouterr().err


def test_a_table_elsewhere_trains_the_same_network(frames: Path, trained: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "mine.csv"
    shutil.copy(frames / TABLE, elsewhere)
    changes = {"dataset_path": str(elsewhere), "root": str(frames)}
    given = write_config(tmp_path / "c.json", config(frames, tmp_path / "run") | changes)
    assert trainDepth.main(["--config", str(given)]) == 0
    weights = "model/diffusion_pytorch_model.safetensors"
    assert (tmp_path / "run" / weights).read_bytes() == (trained / weights).read_bytes()


def test_shuffled_truths_train_another_network(frames: Path, trained: Path, tmp_path: Path) -> None:
    given = write_config(tmp_path / "c.json", config(frames, tmp_path / "run", SHUFFLED))
    assert trainDepth.main(["--config", str(given)]) == 0
    weights = "model/diffusion_pytorch_model.safetensors"
    assert (tmp_path / "run" / weights).read_bytes() != (trained / weights).read_bytes()


def test_the_mean_of_training_is_scored_as_it_is(frames: Path, trained: Path, tmp_path: Path) -> None:
    assert scored(tmp_path, frames / TABLE, trained) == 0
    rows = read_csv(tmp_path / "r" / "tiles.csv", text_columns=["id"])
    table = read_table(frames / TABLE)
    maps = {
        part: [read_height(frames / row.height, row.coding) for row in table.of_part(part)] for part in parts(table)
    }
    training, test = (maps[part] for part in sorted(maps, key=lambda part: -len(maps[part])))
    total = sum(np.where(each.valid, each.values, 0.0).astype(np.float64) for each in training)
    count = sum(each.valid.astype(np.float64) for each in training)
    number = total.sum() / count.sum()
    by_pixel = np.where(count > 0, total / np.maximum(count, 1), number)
    for row, truth in zip(rows, test, strict=True):
        for name, guess in ((MEAN_MAP, by_pixel), (MEAN_NUMBER, np.full_like(by_pixel, number))):
            expected = np.sqrt(np.mean((guess - truth.values)[truth.valid] ** 2))
            assert row[f"{name}.metric.rmse"] == pytest.approx(expected, rel=1e-5)
    assert f"| {MEAN_MAP}" in (tmp_path / "r" / "table.md").read_text()


def parts(table: object) -> set[str]:
    return {row.part for row in table.rows}  # type: ignore[attr-defined]


def test_a_mean_that_cannot_be_taken_is_one_line(
    frames: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (frames / TABLE).read_text().splitlines()
    place = lines[0].split(",").index("part")
    bare = [",".join(cell for at, cell in enumerate(line.split(",")) if at != place) for line in lines]
    (tmp_path / "bare.csv").write_text("\n".join(bare))
    assert scored(tmp_path, tmp_path / "bare.csv", trained, root=str(frames)) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("error: control 'mean': ") and "no training tiles beside those that are scored" in said
