"""``make demo-stereo``, with the shipped configs, on a few scenes and for two steps; and its table."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from Systems.stereo import demo
from Systems.stereo.demo_table import demo_table, gate_lines

KEPT = ("plain", "guided", "satellite")


def shorten(folder: Path, monkeypatch: pytest.MonkeyPatch, **changes: object) -> None:
    """The demo at toy size, in ``folder``."""
    configs = folder / "Config"
    configs.mkdir()
    for path in demo.CONFIGS.glob("stereo_*.json"):
        config = json.loads(path.read_text(encoding="utf-8"))
        if "max_steps" in config:
            config |= {"max_steps": 2, "warmup_steps": 1}
            config["model"] |= {"hypotheses": [8, 8, 8], "base": 2}
        else:
            config |= {"sweep_planes": 8, "pictures": 1}
        (configs / path.name).write_text(json.dumps(config | changes), encoding="utf-8")
    monkeypatch.setattr(demo, "CONFIGS", configs)
    monkeypatch.setattr(demo, "TRAIN_SCENES", 2)
    monkeypatch.setattr(demo, "TEST_SCENES", 2)
    monkeypatch.setattr(demo, "SIZE", (32, 32))
    monkeypatch.setattr(demo, "WORKERS", 1)
    monkeypatch.setattr(demo, "SATELLITE_SIZE", (96, 96))
    monkeypatch.setattr(demo, "METHODS", tuple(method for method in demo.METHODS if method.name in KEPT))
    # Several processes would import torch anew, which takes longer than all the rest.
    monkeypatch.setattr(demo, "can_train_together", lambda: False)
    monkeypatch.chdir(folder)


def test_the_demo_ends_with_a_table_and_a_dsm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shorten(tmp_path, monkeypatch)
    assert demo.main(["--seed", "5"]) == 0
    said = capsys.readouterr()
    assert "about 0:00 left" in said.out
    for row in ("| control: constant ", "| control: NCC sweep ", "| plain ", "| relative depth, ours (guided) "):
        assert row in said.out
    assert said.out.count("gate 0.5") == 3 and "control: guided by constant maps" in said.out
    named = re.findall(r"(?:results|output)/[\w/.-]+\w", said.out.rpartition("===")[2])
    assert len(named) == 8 and all((tmp_path / name).exists() for name in named), named
    measured = json.loads((tmp_path / "results/Demo/stereo/dsm/metrics.json").read_text(encoding="utf-8"))
    assert measured
    folder = tmp_path / "output/Demo/stereo"
    runs = [json.loads((folder / name / "config.json").read_text(encoding="utf-8")) for name in KEPT]
    differing = [{key for key in runs[0] if runs[0][key] != run[key]} for run in runs[1:]]
    assert differing[0] == {"output_dir", "model", "relative_depth_folder"}
    assert differing[1] == differing[0] | {"dataset_path", "interval"}


def test_a_failing_script_fails_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(tmp_path, monkeypatch, misspelt=1)
    assert demo.main([]) == 2


def test_the_published_and_the_shuffled_network_differ_in_what_they_are_told() -> None:
    arguments = {method.name: demo._training(method, Path("data"), Path("runs"), 0) for method in demo.METHODS}
    settings = {name: dict(str(part).split("=", 1) for part in parts[3::2]) for name, parts in arguments.items()}
    assert {key for key in settings["guided"] if settings["guided"][key] != settings["shuffled"][key]} == {
        "output_dir",
        "relative_depth_folder",
    }
    assert settings["published"]["model.relative_depth"] == '"concatenated"'
    assert settings["published"]["relative_depth_folder"] == settings["guided"]["relative_depth_folder"]


def scores(*errors: float) -> list[dict[str, float]]:
    keys = ("stereo.mae", "stereo.median", "stereo.below_0_6m", "stereo.below_1m", "occluded.mae")
    return [{key: error for key in keys} | {"textureless.mae": float("nan")} for error in errors]


def test_the_table_shows_means_over_scenes_and_the_gates() -> None:
    rows = {"control: constant": scores(4.0, 6.0), "control: NCC sweep": scores(2.0, 4.0), "plain": scores(1.0, 2.0)}
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in demo_table("depth", rows).splitlines()]
    assert cells[0][0] == "depth, 2 scenes, ± standard error" and cells[0][1] == "MAE (m) ↓"
    assert cells[4][:2] == ["plain", "1.500 ± 0.500"] and cells[4][5] == "n/a"
    sweep, constant = gate_lines(rows, "plain")
    assert "0.50 of that of 'control: NCC sweep' (gate 0.5: met)" in sweep
    assert "0.30 of that of 'control: constant' (gate 0.3: met)" in constant
    assert "NOT met" in gate_lines(rows | {"plain": scores(1.1, 2.0)}, "plain")[0]
