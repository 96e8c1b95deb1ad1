"""The jobs of the page's visitors: one each, whose files stay until the next one or until the visitor leaves."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from Systems.app.job import Job
from Systems.app.page_results import PageResults
from Systems.app.work.workshop import Workshop

__all__ = ["Sessions"]


@dataclass
class _Session:
    job: Job
    results: PageResults | None = None


class Sessions:
    """Who has which job.

    Args:
        workshop: which opens and closes the jobs.
    """

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop
        self._lock = threading.Lock()
        self._sessions: dict[str, _Session] = {}

    def open(self, session: str) -> Job:
        """A job for a visitor; the one before is stopped, and its files are deleted."""
        self.forget(session)
        job = self._workshop.open_job()
        with self._lock:
            self._sessions[session] = _Session(job)
        return job

    def keep(self, session: str, job: Job, results: PageResults) -> None:
        """Keep what came of a job, unless the visitor has left or begun another."""
        with self._lock:
            found = self._sessions.get(session)
            if found is not None and found.job is job:
                found.results = results
                return
        self._workshop.close_job(job)

    def results(self, session: str) -> PageResults | None:
        """What came of the visitor's last job."""
        with self._lock:
            found = self._sessions.get(session)
            return found.results if found is not None else None

    def cancel(self, session: str) -> None:
        """Ask the visitor's job to stop; one that has ended stays as it is."""
        with self._lock:
            found = self._sessions.get(session)
        if found is not None and found.results is None:
            found.job.stop()

    def close(self, session: str, job: Job) -> None:
        """Delete what is left of a job that has ended without a result."""
        with self._lock:
            found = self._sessions.get(session)
            if found is not None and found.job is job:
                del self._sessions[session]
        self._workshop.close_job(job)

    def forget(self, session: str) -> None:
        """Stop and delete the visitor's job, if there is one."""
        with self._lock:
            found = self._sessions.pop(session, None)
        if found is not None:
            self._workshop.close_job(found.job)
