"""Accuracy in constant memory, and the tables, documents and figures that are written of it."""

from __future__ import annotations

import json
import math
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rasterio import Affine

from tests.Utils.scenes.accuracy_maps import (
    GRID,
    score,
    terrain,
    write_dem,
)
from Utils.core.tables import read_csv
from Utils.scenes.accuracy import error_statistics as statistics
from Utils.scenes.accuracy import height_grid
from Utils.scenes.accuracy.accuracy_figure import save_accuracy_figure
from Utils.scenes.accuracy.accuracy_tables import write_tables
from Utils.scenes.accuracy.scene_scores import PREDICTION, SceneScores
from Utils.scenes.accuracy.scene_scoring import score_scene

# Constant memory


def test_a_sample_keeps_everything_until_it_is_full() -> None:
    sample = statistics.Sample({"a": np.float32}, 100, seed=0)
    for start in range(0, 100, 25):
        sample.add({"a": np.arange(start, start + 25)})
    assert sample.rate == 1.0
    assert np.array_equal(sample["a"], np.arange(100))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 900), min_size=1, max_size=12), st.integers(1, 400), st.integers(0, 1000))
def test_a_sample_never_outgrows_its_limit(sizes: list[int], limit: int, seed: int) -> None:
    sample = statistics.Sample({"a": np.float64, "b": np.int64}, limit, seed)
    place = 0
    for size in sizes:
        sample.add({"a": np.arange(place, place + size) * 2.0, "b": np.arange(place, place + size)})
        place += size
    assert sample.count <= limit
    assert sample.count == place or sample.rate < 1.0
    # Columns stay together, and no pixel comes twice.
    assert np.array_equal(sample["a"], sample["b"] * 2.0)
    assert len(np.unique(sample["b"])) == sample.count


def test_a_full_sample_favours_no_place() -> None:
    sample = statistics.Sample({"a": np.int64}, 20_000, seed=3)
    for start in range(0, 1_000_000, 10_000):
        sample.add({"a": np.arange(start, start + 10_000)})
    assert 10_000 <= sample.count <= 20_000
    shares = np.histogram(sample["a"], bins=20, range=(0, 1_000_000))[0]
    # Binomial counts: five standard deviations.
    expected = sample.count / 20
    assert np.abs(shares - expected).max() < 5 * math.sqrt(expected)
    assert sample.count / 1_000_000 == pytest.approx(sample.rate, rel=0.05)


def test_sampled_medians_are_near_the_exact_ones_and_it_is_said(tmp_path: Path) -> None:
    truth = terrain(200, 200)
    prediction = truth + np.random.default_rng(4).normal(1.0, 2.0, truth.shape)
    exact = score(tmp_path, prediction, truth)
    sampled = score(tmp_path, prediction, truth, sample_limit=4000)
    again = score(tmp_path, prediction, truth, sample_limit=4000)
    one, other = (found.overall.scores[PREDICTION] for found in (exact, sampled))
    assert again.overall.scores == sampled.overall.scores
    assert 2000 <= sampled.sampling["sampled"] <= 4000
    assert not sampled.sampling["exact"]
    assert "sample" in sampled.sampling["method"]
    # What is a sum stays exact.
    for key in ("bias", "mae", "rmse", "slope_error_degrees"):
        assert other[key] == one[key]
    # Four standard errors of 2000 and more normal errors of 2 m.
    for key in ("median_error", "nmad", "le90"):
        assert other[key] == pytest.approx(one[key], abs=4 * 1.5 * 2.0 / math.sqrt(2000))
        assert other[key] != one[key]


def test_memory_does_not_grow_with_the_scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(height_grid, "WINDOW", 256)
    peaks = []
    for size in (512, 1536):
        heights = np.broadcast_to(np.arange(size, dtype=np.float32), (size, size))
        profile = {"tiled": True, "blockxsize": 256, "blockysize": 256}
        path = write_dem(tmp_path / "p.tif", heights, heights * 0 + 1, names=("height", "uncertainty"),
                         tags={"D3RSMDE_KIND": "metric"}, **profile)  # fmt: skip
        truth = write_dem(tmp_path / "t.tif", heights, transform=GRID @ Affine.translation(0.5, 0.5), **profile)
        score_scene(path, truth, sample_limit=10_000)
        tracemalloc.start()
        score_scene(path, truth, sample_limit=10_000)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # Nine times the pixels; sums by block and the reduced maps grow a little.
    assert peaks[1] < 1.5 * peaks[0]


# What is written


@pytest.fixture
def full(tmp_path: Path) -> SceneScores:
    """All that can be asked for at once."""
    truth = terrain(90, 120)
    generator = np.random.default_rng(3)
    path = write_dem(
        tmp_path / "p.tif", truth + generator.normal(0.0, 2.0, truth.shape), np.full(truth.shape, 2.0),
        names=("height", "uncertainty"), tags={"D3RSMDE_KIND": "metric", "D3RSMDE_MODEL": "toy"},
    )  # fmt: skip
    baseline = write_dem(tmp_path / "b.tif", truth + 3.0)
    return score_scene(path, write_dem(tmp_path / "t.tif", truth), baseline=baseline)


def test_json_holds_all_that_was_measured(full: SceneScores, tmp_path: Path) -> None:
    write_tables(full, tmp_path)
    document = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert document["scores"] == {name: pytest.approx(row) for name, row in full.overall.scores.items()}
    assert document["prediction"]["tags"]["D3RSMDE_MODEL"] == "toy"
    assert document["prediction"]["metres_per_pixel"] == [10.0, 10.0]
    assert {document[role]["path"].rsplit("/", 1)[-1] for role in ("prediction", "truth", "baseline")} == {
        "p.tif", "t.tif", "b.tif",
    }  # fmt: skip
    assert document["pixels"]["valid_share"] == 1.0
    assert [one["label"] for one in document["slope_classes"]] == ["0-5", "5-15", "15-30", ">30"]
    assert document["slope_classes"][-1]["high_degrees"] is None
    assert document["uncertainty"]["within_68"] == full.coverage.within_68  # type: ignore[union-attr]
    assert document["order_statistics"]["exact"] is True
    assert {"rasterio", "gdal", "numpy"} <= set(document["software"])
    assert document["date"].startswith("20")


def test_csv_has_a_row_for_every_class_and_map(full: SceneScores, tmp_path: Path) -> None:
    write_tables(full, tmp_path)
    rows = read_csv(tmp_path / "classes.csv", text_columns=["slope_class"])
    named = ["baseline", "prediction", "change", "percent", "standard_error", "correlated_error"]
    assert [row["map"] for row in rows[:6]] == named
    assert [row["slope_class"] for row in rows[1::5]] == ["all", "0-5", "5-15", "15-30", ">30"]
    assert rows[1]["rmse"] == full.overall.scores[PREDICTION]["rmse"]
    assert rows[2]["rmse"] == pytest.approx(rows[1]["rmse"] - rows[0]["rmse"])  # type: ignore[operator]


def test_the_table_shows_both_maps_their_change_and_the_coverage(full: SceneScores, tmp_path: Path) -> None:
    table = write_tables(full, tmp_path)
    assert (tmp_path / "table.md").read_text(encoding="utf-8") == table + "\n"
    lines = [line for line in table.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    first = {row[0]: row for row in cells[2:8]}
    errors = ["± standard error, 1 blocks", "± from the variogram"]
    assert list(first) == ["baseline", "prediction", "change", "change (%)", *errors]
    rmse = [heading.startswith("RMSE") for heading in cells[0]].index(True)
    assert first["baseline"][rmse] == "3.000"
    assert float(first["prediction"][rmse]) == pytest.approx(2.0, abs=0.1)
    assert float(first["change"][rmse]) == pytest.approx(-1.0, abs=0.1)
    assert first["± standard error, 1 blocks"][rmse] == "—"
    assert 0.0 < float(first["± from the variogram"][rmse]) < 0.5
    assert "compared as it is" in table
    assert "inside 1 sigma (%)" in table
    assert ">30" in table


def red_and_blue(path: Path) -> tuple[int, int]:
    """Pixels of the strong colours at the two ends of the error scale."""
    with Image.open(path) as picture:
        assert picture.mode == "RGB"
        pixels = np.asarray(picture).astype(int)
    red = (pixels[..., 0] > 90) & (pixels[..., 1] < 40) & (pixels[..., 2] < 60)
    blue = (pixels[..., 2] > 90) & (pixels[..., 0] < 30) & (pixels[..., 1] < 80)
    return int(red.sum()), int(blue.sum())


def test_the_figure_shows_too_high_in_red(tmp_path: Path) -> None:
    truth = terrain(90, 120)
    truth_path = write_dem(tmp_path / "t.tif", truth)
    for sign in (1.0, -1.0):
        found = score_scene(write_dem(tmp_path / "p.tif", truth + sign * 5), truth_path)
        save_accuracy_figure(tmp_path / "f.png", found)
        red, blue = red_and_blue(tmp_path / "f.png")
        # The map's whole panel against the end of the colour bar.
        assert (red > 20 * blue) if sign > 0 else (blue > 20 * red)
        assert max(red, blue) > 20_000


@pytest.mark.parametrize("shape", [(3, 200), (200, 3), (1, 1)])
def test_a_figure_of_every_shape(tmp_path: Path, shape: tuple[int, int]) -> None:
    truth = terrain(*shape)
    save_accuracy_figure(tmp_path / "f.png", score(tmp_path, truth + 1.0, truth))
    save_accuracy_figure(tmp_path / "f.png", score(tmp_path, truth, truth))
    with Image.open(tmp_path / "f.png") as picture:
        assert 800 < picture.width < 3000
        assert 500 < picture.height < 2000


def test_the_figure_takes_baseline_and_uncertainty(full: SceneScores, tmp_path: Path) -> None:
    save_accuracy_figure(tmp_path / "f.png", full)
    with Image.open(tmp_path / "f.png") as picture:
        assert picture.width > 1600
