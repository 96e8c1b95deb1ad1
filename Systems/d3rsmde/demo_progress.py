"""How far the demo is, and how long it will still take; ``make demo`` prints it with every step and epoch."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

# How the training loop begins the line of an epoch: stage, epoch, number of epochs.
_EPOCH = re.compile(r"(\S+) (\d+)/(\d+): ")


@dataclass(frozen=True)
class Step:
    """A step of the demo.

    Attributes:
        name: what it is asked for by; of a stage of training, the stage's name.
        seconds: about what it takes on two quiet cores, an estimate; it weighs the steps against one another.
    """

    name: str
    seconds: float


class Progress:
    """What is done of some steps, and the time that the rest will take at the pace so far.

    Args:
        steps: all of them, in their order; some may be worked on at the same time.
        clock: gives seconds.
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

    def follow(self, line: str) -> str:
        """A line of the training loop; with the progress below it, where it says that a step's epoch is over."""
        found = _EPOCH.match(line)
        if not found or found[1] not in self._seconds:
            return line
        self._shares[found[1]] = int(found[2]) / int(found[3])
        return f"{line}\n    demo: {self.line()}"

    def line(self) -> str:
        """Time gone and time left; the latter is the steps' own estimate until something is done."""
        gone = self._clock() - self._started
        total = sum(self._seconds.values())
        done = sum(seconds * self._shares[name] for name, seconds in self._seconds.items())
        left = (total - done) * (gone / done if done else 1.0)
        return f"{done / total:.0%} done, {_duration(gone)} gone, about {_duration(left)} left"


class EpochLines(logging.Filter):
    """Adds the demo's progress to what the training loop logs; hides nothing."""

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self._progress = progress

    def filter(self, record: logging.LogRecord) -> bool:
        """Let the record through."""
        record.msg, record.args = self._progress.follow(record.getMessage()), None
        return True


def _duration(seconds: float) -> str:
    """Minutes and seconds, as 3:07."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
