"""``make demo-depth``, with the shipped configs, on a few scenes and for two epochs; and its table."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from Systems.depth import demo
from Systems.depth.control_table import control_table
from Utils.core.tables import read_csv
from Utils.reports.controls import MEAN_MAP, MEAN_NUMBER


def shorten(folder: Path, monkeypatch: pytest.MonkeyPatch, **changes: object) -> None:
    """The demo at toy size, in ``folder``."""
    configs = folder / "Config"
    configs.mkdir()
    for path in demo.CONFIGS.glob("depth_*.json"):
        config = json.loads(path.read_text())
        if "epochs" in config:
            config |= {"epochs": 2, "validate_every": 2}
            config["model"] |= {"backbone": "test_resnet", "widths": [8]}
        (configs / path.name).write_text(json.dumps(config | changes))
    monkeypatch.setattr(demo, "CONFIGS", configs)
    monkeypatch.setattr(demo, "TRAIN_SCENES", 8)
    monkeypatch.setattr(demo, "TEST_SCENES", 4)
    monkeypatch.setattr(demo, "FRAMES", 2)
    monkeypatch.setattr(demo, "FRAME_SIZE", (32, 32))
    # Two processes would import torch anew, which takes longer than all the rest.
    monkeypatch.setattr(demo, "can_train_together", lambda: False)
    monkeypatch.chdir(folder)


def test_the_demo_ends_with_a_table_and_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shorten(tmp_path, monkeypatch)
    assert demo.main(["--seed", "5"]) == 0
    said = capsys.readouterr()
    assert "about 0:00 left" in said.out
    assert all(
        part in said.out
        for part in (
            "| network ",
            f"| {MEAN_MAP} ",
            f"| {MEAN_NUMBER} ",
            "| control: mean map of its kind ",
            "| control: shuffled truths ",
        )
    )
    named = re.findall(r"(?:results|output)/\S+[\w]", said.out.rpartition("===")[2])
    assert len(named) == 7 and all((tmp_path / name).exists() for name in named)
    # Both trainings say how much of the demo is done.
    assert said.err.count("demo: ") == 4
    results = tmp_path / "results" / "Demo"
    assert "8 frames of 4 scenes" in (results / "depth" / "controls.md").read_text()
    document = json.loads((results / "depth" / "metrics.json").read_text())
    assert document["config"]["seed"] == 5 and document["target"] == "metres"
    assert set(document["summary"]) == {"depth", MEAN_MAP, MEAN_NUMBER}
    page = (results / "depth" / "report.html").read_text(encoding="utf-8").lower()
    assert "depth of 8 test tiles" in page and "height of" not in page and "heights" not in page
    runs = [
        json.loads((tmp_path / "output" / "Demo" / name / "config.json").read_text())
        for name in ("depth", "depth_shuffled")
    ]
    differing = {key for key in runs[0] if runs[0][key] != runs[1][key]}
    assert differing == {"dataset_path", "output_dir"}, "the control differs in nothing but its truths"
    assert read_csv(results / "depth_shuffled" / "tiles.csv")[0].keys().isdisjoint({"depth.metric.rmse"})


def test_a_failing_script_fails_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(tmp_path, monkeypatch, misspelt=1)
    assert demo.main([]) == 2


def scores(*errors: float) -> list[dict[str, float]]:
    return [{f"metric.{key}": error for key in ("rmse", "abs_rel", "rmse_log", "delta1")} for error in errors]


def test_the_table_compares_by_scene() -> None:
    rows = {
        "network": scores(1.0, 1.0, 3.0, 3.0),
        MEAN_MAP: scores(4.0, 4.0, 6.0, 6.0),
        MEAN_NUMBER: scores(5.0, 5.0, 7.0, 7.0),
        "control: shuffled truths": scores(8.0, 8.0, 8.0, 8.0),
    }
    text = control_table(rows, ["room-1", "room-1", "street-2", "street-2"])
    table, network, shuffled = text.split("\n\n")
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    assert cells[0][0].startswith("metric protocol, 4 frames of 2 scenes")
    assert cells[0][-2:] == ["RMSE (m), rooms ↓", "RMSE (m), streets ↓"]
    # Means of 1 and 3; over two scenes the standard error is 1, over four frames it would be 0.58.
    assert cells[2][:2] == ["network", "2.000 ± 1.000"] and cells[2][-2:] == ["1.000 ± n/a", "3.000 ± n/a"]
    assert "divided by 2.50; the difference is -3.000 ± 0.000 m, paired over 2 scenes" in network
    assert "divided by 0.62; the difference is +3.000 ± 1.000 m" in shuffled
