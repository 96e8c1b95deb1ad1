"""``make demo-mars``, with the shipped configs, on a few small products and for one epoch; and its table."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import rasterio

from Systems.mars import demo
from Systems.mars.demo_table import demo_table


def shorten(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo at toy size, in ``folder``."""
    configs = folder / "Config"
    configs.mkdir()
    for path in demo.CONFIGS.glob("mars_*.json"):
        config = json.loads(path.read_text())
        if "epochs" in config:
            config |= {"epochs": 1, "epoch_share": 0.5}
            config["model"] |= {"widths": [4]}
        (configs / path.name).write_text(json.dumps(config | {"pictures": 1} if "scores" in config else config))
    monkeypatch.setattr(demo, "CONFIGS", configs)
    for name, value in {"PAIRS": 5, "SIZE": (96, 96), "REPEATS": 0, "TILE": 32, "STEP": 32, "COARSER": 8}.items():
        monkeypatch.setattr(demo, name, value)
    # Two processes would import torch anew, which takes longer than all the rest.
    monkeypatch.setattr(demo, "can_train_together", lambda: False)
    monkeypatch.chdir(folder)


@pytest.mark.slow
def test_the_demo_ends_with_a_table_and_a_scene_in_metres(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shorten(tmp_path, monkeypatch)
    assert demo.main(["--seed", "5"]) == 0
    said = capsys.readouterr()
    assert "about 0:00 left" in said.out
    for name in ("network", "control: shape from shading", "control: plane of truth", "control: shuffled heights"):
        assert f"| {name} " in said.out
    named = re.findall(r"(?:results|output)/\S+[\w]", said.out.rpartition("===")[2])
    assert len(named) == 9 and all((tmp_path / name).exists() for name in named)
    runs = [
        json.loads((tmp_path / "output" / "Demo" / name / "config.json").read_text())
        for name in ("mars", "mars_shuffled")
    ]
    differing = {key for key in runs[0] if runs[0][key] != runs[1][key]}
    assert differing == {"dataset_path", "output_dir"}, "the control differs in nothing but its truths"

    data = tmp_path / "Dataset" / "BASE_DATA_DIR" / "DemoMars"
    with (data / "tiles.csv").open() as one, (data / "shuffled.csv").open() as two:
        pairs = list(zip(csv.DictReader(one), csv.DictReader(two), strict=True))
    training = set((data / "splits" / "train.txt").read_text().split())
    for own, shuffled in pairs:
        assert own["image"] == shuffled["image"]
        assert (own["height"] == shuffled["height"]) != (own["id"] in training)

    results = tmp_path / "results" / "Demo" / "mars"
    with (data / "pairs.csv").open() as file:
        (pair,) = (row for row in csv.DictReader(file) if row["side"] == "test")
    with rasterio.open(results / "scene.tif") as scene, rasterio.open(pair["ortho"]) as image:
        assert (scene.crs, scene.transform, scene.shape) == (image.crs, image.transform, image.shape)
        assert scene.tags()["D3RSMDE_KIND"] == "offset"
    with rasterio.open(results / "scene_tied.tif") as tied, rasterio.open(results / "coarse.tif") as coarse:
        assert tied.tags()["D3RSMDE_KIND"] == "metric" and coarse.crs.is_geographic
        # Tied to means of cells, even a network that knows nothing is some metres off, and not kilometres.
        known = tied.read(1, masked=True).compressed()
    assert float(pair["lowest"]) - 30 < np.median(known) < float(pair["highest"]) + 30


def test_the_table_compares_by_scene() -> None:
    keys = ("relief.mae", "relief.rmse", "relief.plane_removed_mae", "relief.slope_error_degrees")

    def scores(*errors: float) -> list[dict[str, float]]:
        return [dict.fromkeys(keys, error) for error in errors]

    rows = {"height": scores(1.0, 1.0, 3.0, 3.0), "control: shape from shading": scores(4.0, 4.0, 8.0, 8.0)}
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in demo_table(rows, list("aabb")).splitlines()]
    assert lines[0][0] == "relief protocol, 4 tiles of 2 scenes, ± standard error over scenes"
    assert lines[2][:2] == ["network", "2.000 ± 1.000"]
    assert lines[4][:2] == ["network - control: shape from shading, paired", "-4.000 ± 1.000"]
