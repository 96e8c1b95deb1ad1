"""The comparison on real ground at toy size: its tables, its controls, its files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from benchmarks import real_ground
from Modules.d3rsmde.dem_refiner import DemRefiner
from tests.scenes import landscape, write_raster

SIZE = 160


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """An image that is lit from one side, and the true heights of its pixels."""
    truth = 700.0 + 300.0 * landscape(SIZE, SIZE, seed=3)
    down, across = np.gradient(truth)
    grain = np.random.default_rng(0).standard_normal((3, SIZE, SIZE))
    bands = np.clip(128 + 2.5 * (down + across) + 3.0 * gaussian_filter(grain, (0, 1, 1)), 1, 255)
    image = write_raster(tmp_path / "image.tif", bands.astype(np.uint8))
    return image, write_raster(tmp_path / "truth.tif", truth.astype(np.float32))


def test_a_scene_is_scored_beside_its_controls(
    tmp_path: Path, files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    scene = ["--scene", "NAME", *map(str, files)]
    output = tmp_path / "results"
    assert real_ground.main(["--output", str(output), *scene, "--factor", "8", "--noise", "3", "--voids", "0.05"]) == 0
    scores = json.loads((output / "scores.json").read_text())["scores"]["NAME"]
    heights = {name: found["rmse"] for name, found in scores.items()}
    assert heights["shading"] < 0.95 * heights["DEM alone"] < 0.95 * heights["bicubic"]
    assert heights["image of elsewhere"] < 1.01 * heights["DEM alone"]
    table = (output / "table.md").read_text()
    assert table.strip() in capsys.readouterr().out
    change = 100 * (heights["shading"] / heights["DEM alone"] - 1)
    assert f"{change:+.1f}" in table and "5 % in voids" in table and "| worst" in table


def test_a_refiner_of_dems_is_scored_with_its_image_without_and_with_another(
    tmp_path: Path, files: tuple[Path, Path]
) -> None:
    # Untrained, it draws the relief from shading as it is.
    DemRefiner((8, 16)).save_pretrained(tmp_path / "refiner")
    output = tmp_path / "results"
    given = ["--scene", "NAME", *map(str, files), "--model", str(tmp_path / "refiner")]
    assert real_ground.main(["--output", str(output), *given]) == 0
    scores = json.loads((output / "scores.json").read_text())["scores"]["NAME"]
    heights = {name: found["rmse"] for name, found in scores.items()}
    assert heights["model"] == pytest.approx(heights["shading"], rel=1e-3)
    assert heights["model without image"] == pytest.approx(heights["DEM alone"], rel=1e-5)
    assert heights["model, image of elsewhere"] < 1.01 * heights["DEM alone"]
    assert heights["both"] < 1.01 * heights["shading"]


def test_constants_are_derived_for_real_and_synthetic_ground_apart(
    tmp_path: Path, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(real_ground, "_TRUSTED", real_ground._TRUSTED[:2])
    output = tmp_path / "constants"
    given = ["--scene", "NAME", *map(str, files), "--synthetic", "1", "--derive", "--factor", "16"]
    assert real_ground.main(["--output", str(output), *given]) == 0
    lines = (output / "constants.md").read_text().splitlines()
    assert "synthetic: RMSE (%)" in lines[2] and "real: slope, worst (%)" in lines[2]
    assert len(lines) == 6


def test_nothing_to_score_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert real_ground.main(["--output", str(tmp_path / "x")]) == 2
    assert "give --scene, --tiles or --synthetic" in capsys.readouterr().err


def test_a_scene_of_few_cells_is_refused(
    tmp_path: Path, files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--output", str(tmp_path / "x"), "--scene", "NAME", *map(str, files), "--factor", "30"]
    assert real_ground.main(given) == 2
    assert "fewer than 8 cells of 30 pixels" in capsys.readouterr().err
