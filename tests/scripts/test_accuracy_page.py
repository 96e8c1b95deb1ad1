"""The worked example of docs/accuracy.md gives the numbers that the page shows; skipped without the real ground."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import rasterio

import evaluateScene
from tests.paths import ROOT, SHARED

GROUND = SHARED / "real_data" / "dem_optical" / "alexandria_lidar_2m"


def checkpoints(path: Path) -> Path:
    """A hundred random cells of the terrain model, with their classes by the height of what stands on them."""
    with rasterio.open(GROUND / "dtm.tif") as terrain, rasterio.open(GROUND / "hag.tif") as above:
        place = terrain.transform
        ground, standing = (one.read(1, masked=True).filled(np.nan) for one in (terrain, above))
    rows, columns = np.nonzero(np.isfinite(ground) & np.isfinite(standing))
    lines = ["x,y,height,cover,sigma"]
    for number in np.random.default_rng(2023).permutation(len(rows))[:100]:
        row, column = rows[number], columns[number]
        x, y = place @ (column + 0.5, row + 0.5)
        cover = "open" if standing[row, column] < 0.5 else "trees and roofs"
        lines.append(f"{x:.2f},{y:.2f},{ground[row, column]:.3f},{cover},0.05")
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.skipif(not GROUND.is_dir(), reason="needs the real ground of shared/")
def test_the_example_of_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--prediction", GROUND / "dsm.tif", "--truth", checkpoints(tmp_path / "gcps.csv")]
    given += ["--output", tmp_path / "results", "--points-crs", "EPSG:26918", "--points-accuracy", "sigma"]
    given += ["--points-class", "cover", "--vegetated", "trees and roofs"]
    assert evaluateScene.main([str(each) for each in given]) == 0
    found = json.loads((tmp_path / "results" / "metrics.json").read_text())["scores"]["prediction"]
    page = (ROOT / "docs" / "accuracy.md").read_text(encoding="utf-8")
    for group in ("all", "NVA", "VVA"):
        one = found[group]
        shown = re.search(rf"^\| {group} \| (.*) \|$", page, re.MULTILINE)
        assert shown is not None
        keys = ("mean", "nmad", "rmse_z", "rmse_v")
        assert shown[1].split(" | ") == [f"{one['count']}", *(f"{one[key]:.3f}" for key in keys)]
    out = capsys.readouterr().out
    assert "NVA: 15 checkpoints, fewer than the 30" in out and "surface against ground" in out
