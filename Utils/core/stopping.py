"""Ctrl-C and SIGTERM, which schedulers send: finish the step, save, and end in good order.

The first signal asks; work that can be resumed looks for it between its steps.  A second Ctrl-C ends at once.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

logger = logging.getLogger(__name__)

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_asked: list[str] = []


class Stopped(Exception):
    """The work was asked to stop, and everything done is saved; the message says how to continue."""


@contextmanager
def stopping_on_signals() -> Iterator[None]:
    """Note signals instead of ending at once; of nested uses only the outermost has an effect."""
    if not is_main_thread() or signal.getsignal(signal.SIGTERM) is _note:
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    _asked.clear()
    for number in _SIGNALS:
        signal.signal(number, _note)
    try:
        yield
    finally:
        _asked.clear()
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def interrupted_by_termination() -> Iterator[None]:
    """Let SIGTERM end the body as Ctrl-C does, so that what it tidies up on the way out is tidied up."""
    if not is_main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def stop_asked() -> str:
    """The signal that asked to stop, empty for none."""
    return _asked[0] if _asked else ""


def stop_if_asked() -> None:
    """Raise ``Stopped`` if a signal has come; for work that has nothing to save.

    Raises:
        Stopped: a signal has come.
    """
    if _asked:
        raise Stopped(_asked[0])


def is_main_thread() -> bool:
    """Whether signal handlers can be set here."""
    return threading.current_thread() is threading.main_thread()


def _note(number: int, frame: FrameType | None) -> None:
    if _asked and number == signal.SIGINT:
        raise KeyboardInterrupt
    if not _asked:
        logger.warning("%s: stopping after this step (Ctrl-C again: at once)", signal.Signals(number).name)
    _asked.append(signal.Signals(number).name)
