"""The progress of a demo's steps."""

from __future__ import annotations

import logging

import pytest

from Utils.core.step_progress import EpochLines, Progress, Step
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
