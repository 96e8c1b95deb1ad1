"""Config/Mars on small tiles of the form that prepareMars.py writes: trained, scored pair by pair, beside controls."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import evaluateDepth
import trainDepth
from tests.conftest import write_config
from tests.mars_sets import write_mars_tiles
from Utils.config.config_files import read_merged
from Utils.core.tables import read_csv
from Utils.rasters.tile_files import read_height
from Utils.scoring.relief import relief_scores

ROOT = Path(__file__).resolve().parents[2]


def config(name: str, table: Path, **changes: Any) -> dict[str, Any]:
    """A shipped config on other tiles."""
    merged, _ = read_merged(ROOT / "Config" / "Mars" / f"{name}.json")
    merged |= {key: str(table.parent / "splits" / Path(value).name) for key, value in merged.items() if "split" in key}
    return merged | {"dataset_path": str(table), "num_workers": 0} | changes


def run(script: Any, folder: Path, document: dict[str, Any]) -> int:
    status: int = script.main(["--config", str(write_config(folder / "config.json", document))])
    return status


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mars_tiles(tmp_path_factory.mktemp("mars"), scenes=6, side=32, tests=2)


@pytest.fixture(scope="module")
def trained(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    shorter = {"epochs": 2, "epoch_share": 0.5, "batch_size": 2, "precision": "fp32", "output_dir": str(folder / "run")}
    assert run(trainDepth, folder, config("HiRISE_small_train", table, **shorter)) == 0
    return folder / "run"


def test_tiles_are_scored_pair_by_pair_beside_controls(table: Path, trained: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    given = config("HiRISE_small_evaluate", table, checkpoint_path=str(trained), output_dir=str(results), pictures=1)
    assert run(evaluateDepth, tmp_path, given) == 0
    document = json.loads((results / "metrics.json").read_text())
    assert set(document["protocols"]) == {"relief", "published"} and document["target"] == "summit"
    assert document["height_reference"] == "radius (2 tiles), areoid (2 tiles)"

    rows = read_csv(results / "tiles.csv", text_columns=["id"])
    for row in rows:
        pair, name = str(row["id"])[:-12], str(row["id"])[-11:]
        truth = read_height(table.parent / "heights" / pair / f"{name}.tif")
        drawn = read_height(results / "maps" / f"tile_{row['id']}.tif").values
        assert drawn.max() < 0, "metres below the summit, upwards"
        for key, value in relief_scores(truth.values, drawn, truth.valid, 2.0).items():
            assert row[f"height.relief.{key}"] == pytest.approx(value, rel=1e-4)
        # The plane that fits the truth is removed from no error, and the summit everywhere is a level map.
        assert row["control: plane of truth.relief.plane_removed_mae"] == pytest.approx(
            row["control: summit everywhere.relief.plane_removed_mae"], rel=1e-3
        )
    shaded = [row["control: shape from shading.relief.mae"] for row in rows]
    assert int(np.isnan(shaded).sum()) == 2, "the tiles whose tags tell no sun"

    pairs = read_csv(results / "pairs.csv")
    assert len(pairs) == 2 * 6 and {row["tiles"] for row in pairs} == {2}
    # 6 of 1024 pixels of each tile are void; one of two tiles has no shape from shading.
    counts = {row["map"]: row["pixels"] for row in pairs}
    assert counts["height"] == 2036 and counts["control: shape from shading"] == 1018
    of_network = [row for row in pairs if row["map"] == "height"]
    assert [row["height_reference"] for row in of_network] == ["radius", "areoid"]
    assert of_network[0]["relief.mae"] == pytest.approx(np.mean([row["height.relief.mae"] for row in rows[:2]]))
    said = (results / "pairs.md").read_text()
    assert "2 scenes, ± standard error over scenes" in said and "height - control: shape from shading, paired" in said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"scores": "depth"}, "set height or relief"),
        ({"scores": "height"}, "control 'zero' is for scores of relief"),
    ],
)
def test_scores_that_do_not_fit_are_refused(
    table: Path, trained: Path, tmp_path: Path, changes: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = config("HiRISE_small_evaluate", table, checkpoint_path=str(trained), output_dir=str(tmp_path / "r"))
    assert run(evaluateDepth, tmp_path, given | changes) == 2
    assert said in capsys.readouterr().err


def test_weights_of_losses_are_one_for_each(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(trainDepth, tmp_path, config("HiRISE_small_train", table, loss_weights=[1.0])) == 2
    assert "loss_weights has 1 numbers for 3 losses" in capsys.readouterr().err
