"""Runs scripts side by side, for the demos: each process has its share of the threads, and its output is passed on.

The threads of one process wait for one another after every operation, and the demo's networks have many small ones.
On two cores with other work beside it a step of the ViT took 0.17 s with one thread and 0.64 s with two.
"""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from Utils.core.stopping import stop_asked

# Seconds between two checks whether a process has ended or a signal has come.
_PAUSE = 0.1


def available_threads() -> int:
    """Threads that torch may use here: OMP_NUM_THREADS, or the cores that this process may use."""
    if os.environ.get("OMP_NUM_THREADS", "").isdigit():
        return int(os.environ["OMP_NUM_THREADS"])
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Job:
    """A script with its arguments, as a process of its own.

    Attributes:
        command: script and arguments.
        after: the job starts only once this file exists; None for at once.
        step: the step of a demo that its lines belong to; empty where the lines say so themselves.
    """

    command: Sequence[object]
    after: Path | None = None
    step: str = ""

    @property
    def is_ready(self) -> bool:
        """Whether the job can start."""
        return self.after is None or self.after.is_file()


def run_together(jobs: Sequence[Job], threads: int, tell: Callable[[str, Job], None]) -> int:
    """Run jobs, as many at a time as there are threads for, in their order.

    Args:
        jobs: the jobs; one that waits for a file does not hold up those behind it.
        threads: number of threads, which are divided among the processes.
        tell: is called with every line that one of the processes writes, and its job.

    Returns:
        The exit status of the first process that failed, after which the others are stopped; 0 if none failed.
    """
    count = max(min(threads, len(jobs)), 1)
    environment = os.environ | {"OMP_NUM_THREADS": str(max(threads // count, 1))}
    waiting, workers = list(jobs), list[_Worker]()
    try:
        while not stop_asked() and not any(_ended(workers)):
            ready = next((job for job in waiting if job.is_ready), None)
            running = len(workers) - len(_ended(workers))
            if ready is not None and running < count:
                waiting.remove(ready)
                workers.append(_Worker(ready, environment))
            elif not running:
                break  # all are done, or what is left waits for a file that none will write
            _pass_on(workers, tell)
            time.sleep(_PAUSE)
    finally:
        statuses = [worker.end() for worker in workers]
    _pass_on(workers, tell)
    return next((status for status in statuses if status), 0)


class _Worker:
    """A process whose output is read as it comes."""

    def __init__(self, job: Job, environment: dict[str, str]) -> None:
        self.job = job
        command = [sys.executable, *map(str, job.command)]
        self.lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self.lines.put(line.rstrip("\n"))

    def end(self) -> int:
        """Ask the process to stop if it still runs, wait for it, and return its exit status."""
        self.process.terminate()
        status = self.process.wait()
        self._reader.join()
        return status


def _ended(workers: Sequence[_Worker]) -> list[int]:
    """Exit statuses of the processes that have ended."""
    return [status for worker in workers if (status := worker.process.poll()) is not None]


def _pass_on(workers: Sequence[_Worker], tell: Callable[[str, Job], None]) -> None:
    for worker in workers:
        while not worker.lines.empty():
            tell(worker.lines.get(), worker.job)
