"""Processes side by side, each with its share of the threads."""

from __future__ import annotations

from pathlib import Path

import pytest

from Utils.core.side_by_side import Job, available_threads, run_together

SCRIPT = """
import sys, time, pathlib
run = pathlib.Path("{run}")
if "helper" in sys.argv:
    print("helper")
    sys.exit({status})
run.mkdir()
(run / "config.json").touch()
print("begun")
time.sleep({seconds})
print("over")
"""


def train(
    folder: Path, status: int = 0, seconds: float = 1.0, threads: int = 3, never: bool = False
) -> tuple[int, list[str]]:
    script, run, told = folder / "script.py", folder / "run", list[str]()
    script.write_text(SCRIPT.format(run=run, status=status, seconds=seconds))
    helper = Job([script, "helper"], after=run / ("never" if never else "config.json"))
    return run_together([helper, Job([script]), helper], threads, lambda line, job: told.append(line)), told


def test_helpers_join_a_run_once_it_exists(tmp_path: Path) -> None:
    status, told = train(tmp_path)
    assert status == 0
    assert sorted(told) == ["begun", "helper", "helper", "over"]


def test_with_one_thread_jobs_run_one_after_another(tmp_path: Path) -> None:
    status, told = train(tmp_path, threads=1)
    assert status == 0
    assert told == ["begun", "over", "helper", "helper"]


def test_a_job_whose_file_never_comes_is_left_out(tmp_path: Path) -> None:
    status, told = train(tmp_path, never=True)
    assert status == 0
    assert told == ["begun", "over"]


def test_a_process_that_fails_stops_the_others(tmp_path: Path) -> None:
    status, told = train(tmp_path, status=3, seconds=600.0, threads=2)
    assert status not in (0, None)
    assert "over" not in told


def test_threads_are_those_that_the_user_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert available_threads() == 3
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert available_threads() >= 1
