"""The demo's progress and its processes side by side."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from Systems.d3rsmde import demo, demo_processes
from Systems.d3rsmde.demo_processes import Job, run_together
from Systems.d3rsmde.demo_progress import EpochLines, Progress, Step
from Utils.training.loop import logger as loop_logger

STEPS = (Step("data", 10.0), Step("fold-1", 20.0), Step("fold-2", 20.0), Step("scene", 50.0))


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_what_is_left_follows_the_pace_so_far() -> None:
    clock = Clock()
    progress = Progress(STEPS, clock)
    assert progress.line() == "0% done, 0:00 gone, about 1:40 left"
    clock.now = 20.0  # twice as long as estimated
    progress.begin("fold-1")
    assert progress.line() == "10% done, 0:20 gone, about 3:00 left"
    clock.now = 80.0
    progress.begin("scene")
    assert progress.line() == "50% done, 1:20 gone, about 1:20 left"
    progress.finish()
    assert progress.line() == "100% done, 1:20 gone, about 0:00 left"


def test_epochs_of_steps_side_by_side_add_up() -> None:
    clock = Clock()
    progress = Progress(STEPS, clock)
    progress.begin("fold-1")
    clock.now = 15.0
    assert progress.follow("fold-2: 9 training, 1 validation tiles") == "fold-2: 9 training, 1 validation tiles"
    assert progress.follow("fold-2 1/2: train/HDNLoss 1 (5 s)").endswith("demo: 20% done, 0:15 gone, about 1:00 left")
    assert "demo: 25% done" in progress.follow("fold-1 1/4: train/HDNLoss 1 (5 s)")
    assert progress.follow("another 1/2: of no step") == "another 1/2: of no step"


def test_the_training_loop_s_lines_are_followed(caplog: pytest.LogCaptureFixture) -> None:
    lines = EpochLines(Progress(STEPS, Clock()))
    loop_logger.addFilter(lines)
    try:
        with caplog.at_level(logging.INFO):
            loop_logger.info("%s", "fold-1 2/2: train/HDNLoss 1 (5 s)")
    finally:
        loop_logger.removeFilter(lines)
    assert "demo: 20% done" in caplog.text


def test_every_stage_of_the_demo_is_a_step() -> None:
    names = [step.name for step in demo._STEPS]
    assert len(set(names)) == len(names)
    assert {"fold-1", "fold-3", "final", "vae", "unet", "evaluateViT", "evaluateDiffusion"} <= set(names)


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
    return run_together([helper, Job([script]), helper], threads, told.append), told


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
    assert demo_processes.available_threads() == 3
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert demo_processes.available_threads() >= 1
