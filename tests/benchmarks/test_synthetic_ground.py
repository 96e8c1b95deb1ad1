"""Synthetic and real ground side by side: the tables at toy size, and their numbers for pictures that are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import synthetic_ground
from benchmarks.real_ground import RealScene
from benchmarks.synthetic_ground import statistics, synthetic_tile
from tests.toys import toy_model
from Utils.synthetic.terrain import write_dataset


def test_tables_of_tiles_and_of_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy_model().save_pretrained(tmp_path / "model")
    write_dataset(tmp_path / "data", 2, 0, 64, seed=3, workers=1)
    folder = tmp_path / "data" / "singleRGBNormalization"
    arguments = ["--output", tmp_path / "out", "--tiles", folder, "--model", tmp_path / "model", "--piece", "32"]
    assert synthetic_ground.main([str(argument) for argument in arguments]) == 0
    table = (tmp_path / "out" / "table.md").read_text(encoding="utf-8")
    assert table.strip() in capsys.readouterr().out
    for words in (
        "2 real tiles",
        "2 synthetic tiles",
        "2 whole tiles",
        "pieces of 32",
        "model: refined",
        "darkness",
        "2 to 4 px",
    ):
        assert words in table


def test_statistics_of_a_known_picture() -> None:
    # A cone lit from the left, dark where it is low: slopes explain it.
    rows, columns = np.mgrid[-64:64, -64:64] / 64.0
    height = 200 * np.exp(-4 * (rows**2 + columns**2)) * (1 + 0.2 * np.sin(20 * columns))
    light = 128 - 8 * np.gradient(height, axis=1)
    found = statistics(RealScene("cone", np.repeat(np.clip(light, 0, 255)[None], 3, 0).astype(np.uint8), height))
    assert found["share of fine brightness that slopes explain (%)"] > 95
    assert found["colour: largest less smallest band"] == 0
    assert abs(found["brightness"] - 0.5) < 0.02
    noise = np.random.default_rng(0).integers(0, 255, (3, 128, 128)).astype(np.uint8)
    found = statistics(RealScene("noise", noise, height))
    assert found["share of fine brightness that slopes explain (%)"] < 2
    falls = [value for name, value in found.items() if name.startswith("image: fall")]
    assert np.abs(falls).max() < 0.5


def test_synthetic_tiles_have_plains_and_seas_like_real_ones() -> None:
    # Of the real tiles that were compared, a third of the ground lies below a tenth of the range; before the terrain
    # had plains it was 5 %.
    low = [statistics(synthetic_tile(128, seed))["heights below a tenth of the range (%)"] for seed in range(6)]
    assert np.mean(low) > 12
