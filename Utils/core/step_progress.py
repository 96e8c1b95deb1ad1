"""The progress of a demo and the time that is left; ``make demo`` prints it with every step and epoch."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

# The beginning of the training loop's line for an epoch: stage, epoch, number of epochs.
_EPOCH = re.compile(r"(\S+) (\d+)/(\d+): ")


@dataclass(frozen=True)
class Step:
    """A step of a demo.

    Attributes:
        name: name of the step; for a stage of training, the name of the stage.
        seconds: rough time on two quiet cores, which weighs the steps against one another.
    """

    name: str
    seconds: float


class Progress:
    """How many of some steps are done, and the time that the rest will take at the pace so far.

    Args:
        steps: all steps in order; some may run at the same time.
        clock: returns the time in seconds.
    """

    def __init__(self, steps: Sequence[Step], clock: Callable[[], float] = time.perf_counter) -> None:
        self._seconds = {step.name: step.seconds for step in steps}
        self._shares = dict.fromkeys(self._seconds, 0.0)
        self._clock = clock
        self._started = clock()

    def begin(self, name: str) -> None:
        """Note that a step begins, and that all before it are done."""
        place = list(self._seconds).index(name)
        self._shares.update(dict.fromkeys(list(self._seconds)[:place], 1.0))

    def finish(self) -> None:
        """Note that all is done."""
        self._shares = dict.fromkeys(self._seconds, 1.0)

    def follow(self, line: str, step: str = "") -> str:
        """Follow a line of the training loop; returns it, with the progress below if it says that an epoch is over.

        Args:
            line: the line.
            step: the step that it belongs to; by default the stage that it names.
        """
        found = _EPOCH.match(line)
        name = step or (found[1] if found else "")
        if not found or name not in self._seconds:
            return line
        self._shares[name] = int(found[2]) / int(found[3])
        return f"{line}\n    demo: {self.line()}"

    def line(self) -> str:
        """Time spent and time left; until something is done, the latter is the estimate of the steps."""
        gone = self._clock() - self._started
        total = sum(self._seconds.values())
        done = sum(seconds * self._shares[name] for name, seconds in self._seconds.items())
        left = (total - done) * (gone / done if done else 1.0)
        return f"{done / total:.0%} done, {_duration(gone)} gone, about {_duration(left)} left"


class EpochLines(logging.Filter):
    """Adds the progress to what the training loop logs; hides nothing. ``step`` is as in ``Progress.follow``."""

    def __init__(self, progress: Progress, step: str = "") -> None:
        super().__init__()
        self._progress = progress
        self._step = step

    def filter(self, record: logging.LogRecord) -> bool:
        """Let the record through."""
        record.msg, record.args = self._progress.follow(record.getMessage(), self._step), None
        return True


def _duration(seconds: float) -> str:
    """Minutes and seconds, as 3:07."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
