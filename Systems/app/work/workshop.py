"""Where scenes are predicted: one at a time or few, each watched, each in a folder of its own that goes with it."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent import futures
from pathlib import Path
from typing import TypeVar

from Systems.app.job import Job
from Systems.app.limits import Limits
from Systems.app.offered_models import OfferedModel
from Systems.app.work.crew import Crew
from Systems.app.work.scene_work import prepare_checks, prepare_scenes

__all__ = ["Workshop"]

T = TypeVar("T")


class Workshop:
    """Predicts scenes within limits; one for the page and the API together.

    Strangers' files are opened in processes of its own and nowhere else: one for the look at an upload, which no scene
    keeps waiting, and as many for scenes as may be predicted at once.

    Args:
        models: what may be chosen.
        limits: bounds of each job, and of all.
        root: folder in which the jobs' folders are made; it must be there as long as the workshop.
        prepare: called in each process for scenes when it starts.
    """

    def __init__(
        self,
        models: list[OfferedModel],
        limits: Limits,
        root: Path,
        prepare: Callable[[], object] = prepare_scenes,
    ) -> None:
        # Absolute, because the processes that check and predict may have another working directory.
        self.models, self.limits, self._root = models, limits, root.resolve()
        self._checks = Crew(1, limits.memory_bytes, prepare_checks)
        self._scenes = Crew(limits.at_once, limits.memory_bytes, prepare)
        self._drawing = futures.ThreadPoolExecutor(1, "drawing")

    @property
    def running(self) -> int:
        """Number of scenes that are being predicted."""
        return self._scenes.busy

    def open_job(self) -> Job:
        """A job with an empty folder; whoever opens it calls ``close_job`` whatever happens."""
        folder = Path(tempfile.mkdtemp(prefix="job-", dir=self._root))
        return Job(folder, time.monotonic() + self.limits.seconds)

    def close_job(self, job: Job) -> None:
        """Stop the job and delete its files."""
        job.stop()
        shutil.rmtree(job.folder, ignore_errors=True)

    def check(self, job: Job, check: Callable[..., T], *arguments: object) -> T:
        """Look at an upload, in a process that does nothing else; raises what ``Crew.carry_out`` raises."""
        return self._checks.carry_out(job, check, *arguments)

    def carry_out(self, job: Job, work: Callable[..., T], *arguments: object) -> T:
        """Do the work of a job when it is its turn; raises what ``Crew.carry_out`` raises."""
        return self._scenes.carry_out(job, work, *arguments)

    def draw(self, work: Callable[[], T]) -> T:
        """Draw something small of a result, in a thread that stays, without waiting for scenes.

        matplotlib keeps fonts for each thread that ever drew: with new threads, memory and open files would grow.
        """
        return self._drawing.submit(work).result()

    def close(self) -> None:
        """End the processes."""
        self._checks.close()
        self._scenes.close()
        self._drawing.shutdown(wait=False)
