"""One scene, from the upload to the result: its folder, its time, how far it is, and what was said of it."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

from Utils.core.errors import one_line

__all__ = ["Job", "without_paths"]

_MOST_MESSAGES = 50
# A path from the root of the server, of which the last part is kept.
_PATH = re.compile(r"(?<![\w.:/])/(?:[^\s/'\",;:()]+/)+(?=[^\s/'\",;:()]|$)")


@dataclass
class Job:
    """One scene, from the upload to the result.

    Attributes:
        folder: all of its files; it is deleted at the end.
        deadline: when it is stopped, by ``time.monotonic``.
        part: what is being done, for users.
        done: number of its steps that are done.
        total: number of its steps; 0 while nothing is counted.
        messages: what was noticed on the way, in one line each.
    """

    folder: Path
    deadline: float
    part: str = "waiting for its turn"
    done: int = 0
    total: int = 0
    messages: list[str] = field(default_factory=list)
    _reason: str = ""
    _status: int = 503

    def stop(self, reason: str = "cancelled", status: int = 503) -> None:
        """Ask the job to stop at its next step."""
        if not self._reason:
            self._reason, self._status = reason, status

    def stop_reason(self) -> str:
        """Why the job is to stop; empty while it may go on."""
        if not self._reason and time.monotonic() > self.deadline:
            self.stop("it took longer than the limit on time; cut the scene up, or use predict.py", 504)
        return self._reason

    def note(self, part: str, done: int = 0, total: int = 0) -> None:
        """Take down what is being done."""
        self.part, self.done, self.total = part, done, total

    def hear(self, text: str) -> None:
        """Take down what was noticed, once."""
        message = self.without_paths(text)
        if message not in self.messages and len(self.messages) < _MOST_MESSAGES:
            self.messages.append(message)

    @property
    def status(self) -> int:
        """The status by which HTTP says why the job was stopped."""
        return self._status

    def without_paths(self, text: str) -> str:
        """A message as visitors see it: files by name, without the folders of the server."""
        return without_paths(text, self.folder)


def without_paths(text: str, folder: Path) -> str:
    """A text as visitors see it, in one line: files by name, without ``folder`` or any other of the server."""
    return _PATH.sub("", one_line(text).replace(f"{folder}{os.sep}", ""))
