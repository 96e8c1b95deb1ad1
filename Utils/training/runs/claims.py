"""Claims on the stages of a run: one launch at a time works on a stage, on any machine that shares the file system.

<stage>/claim.lock    locked as long as a process works on the stage, by the operating system: it ends with the process
<stage>/status.json   what became of it, for people and for ``python -m Utils.training.runs``
"""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from Utils.core.errors import UserError, write_error
from Utils.core.files import remove_leftovers
from Utils.core.processes import agreed, launch, on_main
from Utils.core.stopping import Stopped
from Utils.core.tables import write_json
from Utils.training.run_files import LOCK_FILE, STATUS_FILE

logger = logging.getLogger(__name__)

# A process that only checks whether a lock is free may hold it for an instant.
_SECONDS_TO_TRY = 2.0


class ClaimedError(Exception):
    """Another launch works on the stage; the message names it."""


def claimed_by(stage: Path) -> str:
    """The launch that works on a stage; empty where there is none."""
    if not (stage / LOCK_FILE).is_file():
        return ""
    locks: list[BaseFileLock] = []
    owner = _lock(stage, locks)
    for lock in locks:
        lock.release()
    return owner


@contextmanager
def claim(stage: Path) -> Iterator[None]:
    """Claim a stage for this launch; its status file says how the work ended.

    Args:
        stage: folder of the stage; made if it is missing.

    Raises:
        ClaimedError: another launch has the stage.
        UserError: the folder cannot be written.
    """
    locks: list[BaseFileLock] = []
    owner = on_main(lambda: _lock(stage, locks))
    if owner:
        raise ClaimedError(f"'{stage}' is being worked on by {owner}")
    started = _now()
    try:
        _write_status(stage, started, "running")
        yield
    except BaseException as error:
        is_stop = isinstance(error, Stopped | KeyboardInterrupt)
        _write_status(stage, started, "stopped" if is_stop else "failed", str(error) or type(error).__name__)
        raise
    else:
        _write_status(stage, started, "finished")
    finally:
        for lock in locks:
            lock.release()


def _lock(stage: Path, locks: list[BaseFileLock]) -> str:
    """Lock a stage and add the lock to ``locks``; returns the holder if another launch has it."""
    lock = FileLock(stage / LOCK_FILE)
    try:
        stage.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=_SECONDS_TO_TRY)
        remove_leftovers(stage)
    except Timeout:
        return _owner(stage)
    except OSError as error:
        raise write_error(stage / LOCK_FILE, error, "the run's folder must be one that can be written") from error
    locks.append(lock)
    return ""


def _owner(stage: Path) -> str:
    try:
        status = json.loads((stage / STATUS_FILE).read_text(encoding="utf-8"))
        return f"process {int(status['process'])} on host {status['host']!s}, since {status['started']!s}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def _write_status(stage: Path, started: str, state: str, reason: str = "") -> None:
    """Write the status of a stage. The work matters more than this note, so a full disk does not stop it here."""
    if not launch().is_main_process:
        return
    status = {
        "state": state,
        "reason": " ".join(reason.split()),
        "host": socket.gethostname(),
        "process": os.getpid(),
        "started": started,
        "updated": _now(),
    }
    try:
        write_json(stage / STATUS_FILE, status)
    except OSError as error:
        logger.warning("cannot write '%s': %s", stage / STATUS_FILE, error.strerror or error)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def claimed_elsewhere(run: Path, claims: Sequence[ClaimedError]) -> UserError:
    """The error for a run whose remaining stages are all claimed by other launches."""
    return agreed(
        UserError(
            f"nothing is left to do in '{run}': {'; '.join(str(error) for error in claims)}; "
            f"wait for it, or stop it and continue with --resume {run}"
        )
    )
