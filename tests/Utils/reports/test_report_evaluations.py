"""Reports of evaluations and of training, from the numbers on disk; and that they stay small."""

from __future__ import annotations

import base64
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import evaluateDiffusion
import evaluateViT
from tests.conftest import (
    TEST_IDS,
    full_disk,
    small_diffusion_evaluation,
    small_vit_evaluation,
    write_config,
)
from tests.report_examples import (
    CEILING,
    run_evaluation,
    test_part,
    write_evaluation,
    write_large_evaluation,
)
from tests.Utils.reports.report_pages import read
from Utils.core.errors import UserError
from Utils.reports.evaluation import Evaluation
from Utils.reports.evaluation_report import choose_examples, write_report
from Utils.scoring.height_scorer import HeightScorer

# Evaluations


def scored(*values: float, ids: list[str] | None = None) -> Evaluation:
    """An evaluation with the given aligned MAE of each tile."""
    found = Evaluation(HeightScorer(), ids=ids or [str(place) for place in range(len(values))])
    found.rows["coarse"] = [{"aligned.mae": value} for value in values]
    return found


@pytest.mark.parametrize(
    ("values", "best", "median", "worst"),
    [
        ([3.0], "0", "", ""),
        ([3.0, 1.0], "1", "", "0"),
        ([3.0, 1.0, 2.0], "1", "2", "0"),
        ([4.0, 3.0, 2.0, 1.0, 0.0], "4", "2", "0"),
        ([9, 8, 7, 6, 5, 4, 3, 2, 1, 0], "987", "654", "210"),
        ([1.0] * 6, "01", "23", "45"),
        ([math.nan, 5.0, math.nan, 4.0, 3.0], "4", "3", "1"),
        ([math.nan, math.nan], "", "", ""),
    ],
)
def test_best_median_and_worst(values: list[float], best: str, median: str, worst: str) -> None:
    chosen = choose_examples(scored(*values))
    assert chosen == {"best": list(best), "median": list(median), "worst": list(worst)}


@given(st.lists(st.floats(0, 100) | st.just(math.nan) | st.integers(0, 3).map(float), max_size=40))
def test_examples_are_in_order_and_none_comes_twice(values: list[float]) -> None:
    found = scored(*values)
    chosen = choose_examples(found)
    scores = dict(zip(found.ids, values, strict=True))
    listed = [tile for kind in ("best", "median", "worst") for tile in chosen[kind]]
    assert len(set(listed)) == len(listed)
    assert [scores[tile] for tile in listed] == sorted(scores[tile] for tile in listed)
    counted = sorted(value for value in values if not math.isnan(value))
    if counted:
        assert scores[chosen["best"][0]] == counted[0]
    if len(counted) > 1:
        assert scores[chosen["worst"][-1]] == counted[-1]
    if len(counted) > 2:
        below, above = counted[(len(counted) - 1) // 2 - 1], counted[min(len(counted) // 2 + 1, len(counted) - 1)]
        assert below <= scores[chosen["median"][len(chosen["median"]) // 2]] <= above


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two maps of eleven tiles, one without a valid height, none with a picture of its own; read only."""
    folder = tmp_path_factory.mktemp("report")
    dataset = test_part(folder / "dataset", [str(number) for number in range(1, 12)], empty=["4"])
    return write_evaluation(dataset, folder / "results")


def markdown_tables(path: Path) -> list[list[list[str]]]:
    blocks = path.read_text(encoding="utf-8").strip().split("\n\n")
    cells = [[[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()] for block in blocks]
    return [[rows[0], *rows[2:]] for rows in cells]


def test_the_report_has_the_tables_of_table_md(report: Path) -> None:
    page, tables = read(report), markdown_tables(report.parent / "table.md")
    assert len(tables) == 2
    assert page.tables[:2] == tables
    assert [row[0] for row in tables[0]][1:] == ["coarse", "refined", "change", "± standard error", CEILING]
    assert "10 of 11 tiles" in tables[0][0][0]


def test_the_report_has_a_row_a_tile(report: Path) -> None:
    import csv

    with (report.parent / "tiles.csv").open(encoding="utf-8") as stream:
        scores = {row["id"]: row for row in csv.DictReader(stream)}
    headings, *rows = read(report).tables[2]
    assert headings[:4] == ["tile", "aligned MAE ↓, coarse", "aligned MAE ↓, refined", "change"]
    assert [row[0] for row in rows] == list(scores) == [str(number) for number in range(1, 12)]
    for row in rows:
        expected = scores[row[0]]
        if row[0] == "4":
            assert set(row[1:]) == {"n/a"}
            continue
        before, after = (float(expected[f"{name}.aligned.mae"]) for name in ("coarse", "refined"))
        assert row[1:4] == [f"{before:.3f}", f"{after:.3f}", f"{after - before:+.3f}"]
        assert row[headings.index("paper PSNR (dB) ↑")] == f"{float(expected['refined.paper.psnr']):.2f}"


def test_the_report_draws_best_median_and_worst(report: Path) -> None:
    page = read(report)
    assert not (report.parent / "pictures").exists(), "no picture was asked for"
    titles = page.text_of("h3")
    tiles = [title.removeprefix("Tile ") for title in titles if title.startswith("Tile ")]
    shown = [float(re.findall(r"^aligned MAE ([\d.]+),", title)[0]) for title in titles if title.startswith("aligned")]
    assert len(set(tiles)) == len(tiles) == len(shown) == 9 and "4" not in tiles
    assert shown == sorted(shown)
    # A slider's two, and three panels each of truth, coarse and refined.
    assert len(page.attributes("img")) == 9 * (2 + 9)
    assert len(page.attributes("input", type="range")) == 9
    assert {"Best tiles", "Median tiles", "Worst tiles"} <= set(page.text_of("h2"))


def test_the_panels_are_those_of_the_evaluation(report: Path) -> None:
    """What the page reads back from disk is what was scored: its refined map lies between prior and truth."""
    import io

    from PIL import Image

    page = read(report)
    images = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(str(found["src"]).split(",")[1]))), np.int64)
        for found in page.attributes("img")[:11]
    ]
    # before, after, then image, coarse, refined, truth, error, error, relief, relief, relief
    coarse, refined, truth = images[3], images[4], images[5]
    assert np.abs(refined - truth).mean() < np.abs(coarse - truth).mean()
    assert np.abs(refined - coarse).mean() > 1.0


def test_the_report_tells_the_runs_facts(report: Path) -> None:
    page = read(report)
    assert {"protocols", "software", "machine", "config"} <= set(page.text_of("summary"))
    assert {"date", "model", "batch_size", "timesteps", "seconds_per_tile", "device"} <= set(page.text_of("dt"))
    assert "summary" not in page.text_of("summary"), "the means are tables"
    assert "2, 1, 0" in page.text_of("dd")
    assert json.loads((report.parent / "metrics.json").read_text(encoding="utf-8"))["machine"]["device"] == "cpu"


def test_a_single_map_has_no_slider_and_no_change(tmp_path: Path) -> None:
    dataset = test_part(tmp_path / "dataset", ["1", "2", "3"])
    page = read(write_evaluation(dataset, tmp_path / "results", stages=1, map_format="npy"))
    assert page.attributes("input", type="range") == []
    assert len(page.attributes("img")) == 3 * 6
    assert page.tables[2][0][:2] == ["tile", "aligned MAE ↓"] and "change" not in page.tables[2][0]
    assert {"Best tile", "Median tile", "Worst tile"} <= set(page.text_of("h2"))


def test_tiles_without_any_score_leave_a_report_without_examples(tmp_path: Path) -> None:
    dataset = test_part(tmp_path / "dataset", ["1", "2"], empty=["1", "2"])
    page = read(write_evaluation(dataset, tmp_path / "results"))
    assert page.text_of("h2") == ["Summary", "All tiles", "Facts"]
    assert page.attributes("img") == []


ENTRIES = {"coarse": "prior"}


def test_a_report_that_cannot_be_written_is_an_error_that_names_it(tmp_path: Path) -> None:
    dataset = test_part(tmp_path / "dataset", ["1", "2", "3"])
    found, config, tiles = run_evaluation(dataset, tmp_path / "results")
    with full_disk(20_000), pytest.raises(UserError, match=r"cannot write '.*report\.html': no space left on the disk"):
        write_report(found, config, {}, tiles, ENTRIES)
    assert not (tmp_path / "results" / "report.html").exists()
    assert (tmp_path / "results" / "table.md").is_file()


def test_a_map_that_is_gone_is_an_error_that_names_it(tmp_path: Path) -> None:
    dataset = test_part(tmp_path / "dataset", ["1", "2", "3"])
    found, config, tiles = run_evaluation(dataset, tmp_path / "results")
    (tmp_path / "results" / "maps" / "tile_2.tif").unlink()
    with pytest.raises(UserError, match=r"tile_2\.tif: no such file"):
        write_report(found, config, {}, tiles, ENTRIES)


def test_a_large_report_stays_small(tmp_path: Path) -> None:
    path = write_large_evaluation(tmp_path)
    assert path.stat().st_size < 10e6
    page = path.read_text(encoding="utf-8")
    assert page.count("<tr>") == 2 * (1 + 4) + 1 + 5000
    assert page.count("<img ") == 9 * 11


# Training curves


def write_log(stage: Path, *rows: dict[str, Any]) -> None:
    stage.mkdir(parents=True, exist_ok=True)
    (stage / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's plan and logs: a fold, and the stage that made the model."""
    folder = tmp_path / "run"
    rows = [{"epoch": epoch, "train/L1Loss": 1.0 / epoch, "validation/paper.mae": 10.0 / epoch} for epoch in (1, 2, 3)]
    rows[1]["validation/paper.mae"] = None  # type: ignore[assignment]
    write_log(folder / "final", *rows)
    write_log(folder / "fold-1", *rows)
    plan = [{"name": "fold-1", "held_out": ["1"]}, {"name": "final", "held_out": []}, {"name": "none", "held_out": []}]
    (folder / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    return folder


@pytest.mark.parametrize("place", ["", "model", "final/checkpoints/best.safetensors"])
def test_training_curves_are_found_from_whatever_was_scored(run: Path, place: str) -> None:
    from Utils.reports.training_curves import training_curves

    if place:
        (run / place).parent.mkdir(parents=True, exist_ok=True)
        (run / place).touch() if place.endswith("safetensors") else (run / place).mkdir()
    training, validation = training_curves(run / place)
    assert (training.title, validation.title) == ("final: training", "final: validation")
    assert training.series["L1Loss"] == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]
    (first, second, third) = validation.series["paper MAE"]
    assert (first, third) == ((1, 10.0), (3, pytest.approx(10 / 3))) and math.isnan(second[1])


def test_a_damaged_log_costs_the_curves_alone(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    from Utils.reports.training_curves import training_curves

    (run / "final" / "log.jsonl").write_text('{"epoch": 1,', encoding="utf-8")
    assert training_curves(run) == []
    assert "no training curves" in caplog.text
    assert training_curves(run.parent / "elsewhere") == []


# The scripts


def test_the_scripts_write_a_report(shared_dataset: Path, vit_run: Path, diffusion_run: Path, tmp_path: Path) -> None:
    for script, config, names in (
        (evaluateViT, small_vit_evaluation(shared_dataset, vit_run, tmp_path / "vit"), ["coarse"]),
        (
            evaluateDiffusion,
            small_diffusion_evaluation(shared_dataset, diffusion_run, tmp_path / "diffusion"),
            ["coarse", "refined", "change", "± standard error", "VAE ceiling"],
        ),
    ):
        assert script.main(["--config", str(write_config(tmp_path / "config.json", config))]) == 0
        results = Path(config["output_dir"])
        page = read(results / "report.html")
        assert page.tables[:2] == markdown_tables(results / "table.md")
        assert [row[0] for row in page.tables[0][1:]] == names
        assert [row[0] for row in page.tables[2][1:]] == list(TEST_IDS)
        assert "Training" in page.text_of("h2")
