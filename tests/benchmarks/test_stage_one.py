"""The comparison of two kinds of stage 1 at toy size: what it runs, what it writes, what it does not run again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import stage_one
from benchmarks.stage_one_report import CONTROL, format_report
from Modules.d3rsmde.pipeline import D3RSMDE
from Modules.depth import EncDec

ROWS = (CONTROL, "DPT coarse", "DPT refined", "EncDec coarse", "EncDec refined")


def scores(value: float) -> list[dict[str, float]]:
    """Two tiles whose every score is a value, and 2 more."""
    keys = ("paper.mae", "paper.ssim", "aligned.mae", "aligned.ssim", "aligned.gradient_error")
    return [dict.fromkeys(keys, value), dict.fromkeys(keys, value + 2.0)]


def result(seed: int, **values: float) -> dict[str, object]:
    facts = {"parameters": 2e6, "steps": 3, "step_seconds": 0.5, "stage_1_seconds": 9.0, "stage_2_seconds": 8.0}
    rows = {name: scores(values.get(name.replace(" ", "_"), 0.0)) for name in ROWS}
    return {"seed": seed, "arms": {"DPT": facts, "EncDec": facts}, "rows": rows}


def line(table: str, start: str) -> str:
    """The last line of the tables that begins with a name."""
    return [text for text in table.splitlines() if text.startswith(f"| {start} ")][-1]


def test_changes_are_paired_and_errors_are_over_tiles_then_over_seeds() -> None:
    table = format_report(
        [result(0, DPT_coarse=10.0, EncDec_coarse=7.0), result(1, DPT_coarse=10.0, EncDec_coarse=9.0)]
    )
    first, _, seeds = (part for part in table.split("\n\n") if "DPT coarse" in part)
    assert "11.00 ± 1.00" in line(first, "DPT coarse")
    # Both tiles change alike, so that the change has no error though the scores have one.
    assert "-3.00 ± 0.00" in line(first, "EncDec coarse - DPT coarse")
    # Changes of -3 and -1: their mean, and their deviation over the root of two.
    assert "-2.00 ± 1.00" in line(seeds, "EncDec coarse - DPT coarse")
    assert "+0.00 ± 0.00" in line(seeds, "EncDec refined - DPT refined")


@pytest.mark.slow
def test_the_comparison_runs_and_keeps_what_is_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--output", str(tmp_path), "--sizes", "toy", "--seeds", "0"]
    assert stage_one.main(arguments) == 0
    table = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert all(f"| {name} " in table for name in ROWS)
    found = json.loads((tmp_path / "seed-0" / "result.json").read_text())
    assert {name: len(rows) for name, rows in found["rows"].items()} == dict.fromkeys(ROWS, 3)
    assert all(facts["stage_1_seconds"] > 0 for facts in found["arms"].values())
    models = {arm: D3RSMDE.from_pretrained(tmp_path / "seed-0" / arm / "diffusion" / "model") for arm in stage_one.ARMS}
    assert isinstance(models["EncDec"].coarse, EncDec) and not isinstance(models["DPT"].coarse, EncDec)
    own, other = (model.vae.state_dict() for model in models.values())
    assert all((own[key] == other[key]).all() for key in own), "both arms have one autoencoder"
    written = (tmp_path / "seed-0" / "result.json").stat().st_mtime_ns
    capsys.readouterr()
    assert stage_one.main(arguments) == 0
    assert (tmp_path / "seed-0" / "result.json").stat().st_mtime_ns == written
    assert stage_one.main([*arguments, "--lr", "0.5"]) == 2
    assert "made with other settings" in capsys.readouterr().err
