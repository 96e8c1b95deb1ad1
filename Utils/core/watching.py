"""Long work that somebody watches: it says which step it is at, and stops between two steps where it is asked to.

Scripts have nobody who watches, and nothing here does anything then.  The app watches each scene that it predicts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from Utils.core.stopping import Stopped

__all__ = ["Watcher", "note_step", "watched_by"]


@dataclass(frozen=True)
class Watcher:
    """Whoever watches the work of a thread.

    Attributes:
        told: called with the name of a part of the work, how many of its steps are done, and how many there are.
        stop_reason: called before each step; text other than the empty one ends the work with it.
    """

    told: Callable[[str, int, int], None]
    stop_reason: Callable[[], str]


_watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


@contextmanager
def watched_by(watcher: Watcher) -> Iterator[None]:
    """Let a watcher see what the body does in this thread."""
    before = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(before)


def note_step(part: str, done: int, total: int) -> None:
    """Tell the watcher, if there is one, how far a part of the work is.

    Args:
        part: name of the part, for users.
        done: number of its steps that are done.
        total: number of all its steps.

    Raises:
        Stopped: the watcher asks to stop; what is finished stays as it is.
    """
    watcher = _watcher.get()
    if watcher is None:
        return
    reason = watcher.stop_reason()
    if reason:
        raise Stopped(reason)
    watcher.told(part, done, total)
