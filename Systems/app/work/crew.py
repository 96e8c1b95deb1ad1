"""Processes that work on strangers' files, so that a crash inside GDAL or torch ends one request and not the app.

They are started with the app and stay: what they import and the model that they hold is there for the next request.
One that dies, hangs or takes too much memory is replaced.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import psutil  # type: ignore[import-untyped]  # installed together with accelerate

from Systems.app.limits import Refusal
from Utils.core.errors import RasterError, UserError
from Utils.core.stopping import Stopped

if TYPE_CHECKING:
    from Systems.app.job import Job

__all__ = ["PRELOADED", "Crew", "refuse_networks"]

T = TypeVar("T")

logger = logging.getLogger(__name__)

_ROOT = Path(__file__).resolve().parents[3]
_LOOK = 0.2  # seconds between two looks at a job
_PATIENCE = 5.0  # seconds from the wish that a job stops until its process is ended
PRELOADED = (
    "Modules.d3rsmde.pipeline",
    "Modules.depth.enc_dec",
    "Systems.app.page_results",
    "Systems.app.uploads",
    "Systems.models",
    "Utils.scenes.classes.class_run",
    "Utils.scenes.scene_run",
)
"""What processes have imported before their first job; on Linux before they are forked, so that a new one is quick."""

# Linux ends the process of the highest score when memory runs out: rather one of these than the app.
_OUT_OF_MEMORY_SCORE = "500"


class Crew:
    """A fixed number of processes, each of which carries out one job at a time.

    Args:
        count: number of processes.
        memory_bytes: resident memory above which a process is ended.
        prepare: called in each new process before its first job; it is sent there, so it stands in a module.
    """

    def __init__(self, count: int, memory_bytes: int, prepare: Callable[[], object]) -> None:
        context = _context()
        workers = [_Worker(context, memory_bytes, prepare) for _ in range(count)]
        self._workers = workers
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        for worker in workers:
            self._idle.put(worker)
            # The app answers meanwhile; the first job waits for the rest of it.
            threading.Thread(target=worker.start, daemon=True).start()

    def carry_out(self, job: Job, work: Callable[..., T], *arguments: object) -> T:
        """Do the work of a job in one of the processes, when it is the job's turn.

        Args:
            job: which is told how far the work is, and which says when it is to stop.
            work: a function of a module. It may call ``note_step`` and log.
            arguments: of the function; they and its result are sent from process to process.

        Raises:
            Refusal: of the work itself; its status if the job was stopped; 413 if it took too much memory; 500 if the
                process died.
            UserError: of the work, a ``RasterError`` included.
            RuntimeError: any other error of the work, with its traceback as text.
        """
        worker = self._turn(job)
        try:
            return worker.carry_out(job, work, arguments)
        finally:
            self._idle.put(worker)

    def _turn(self, job: Job) -> _Worker:
        while True:
            with contextlib.suppress(queue.Empty):
                return self._idle.get(timeout=_LOOK)
            if job.stop_reason():
                raise Refusal(job.status, f"stopped while it waited for its turn: {job.stop_reason()}")

    @property
    def busy(self) -> int:
        """Number of processes that are at work."""
        return len(self._workers) - self._idle.qsize()

    def close(self) -> None:
        """End all processes."""
        for worker in self._workers:
            worker.end()


class _Worker:
    """One process, and its replacement after it has ended."""

    def __init__(self, context: BaseContext, memory_bytes: int, prepare: Callable[[], object]) -> None:
        self._context, self._memory_bytes, self._prepare = context, memory_bytes, prepare
        self._lock = threading.Lock()
        self._process: Any = None
        self._line: Connection | None = None
        self._closed = False
        self._number = 0

    def start(self) -> None:
        """Start the process, unless it runs."""
        with self._lock:
            if self._closed or (self._process is not None and self._process.is_alive()):
                return
            self._kill()
            self._line, theirs = self._context.Pipe()
            self._process = self._context.Process(  # type: ignore[attr-defined]
                target=_serve, args=(theirs, self._prepare), name="scene", daemon=True
            )
            self._process.start()
            theirs.close()  # so that the line ends where the process does

    def end(self) -> None:
        """End the process for good."""
        with self._lock:
            self._closed = True
            self._kill()

    def carry_out(self, job: Job, work: Callable[..., T], arguments: tuple[object, ...]) -> T:
        """See ``Crew.carry_out``."""
        self.start()
        self._number += 1
        answered = False
        try:
            kind, *answer = self._followed(job, work, arguments)
            answered = True
        except (EOFError, ConnectionError) as error:
            raise Refusal(500, self._how_it_ended()) from error
        finally:
            if not answered:  # whatever it is doing, nobody waits for it
                with self._lock:
                    self._kill()
        match kind:
            case "done":
                result: T = answer[0]
                return result
            case "stopped":
                raise Refusal(job.status, f"stopped: {answer[0]}")
            case "refused":
                raise Refusal(*answer)
            case "wrong":
                raise UserError(answer[0])
        raise RuntimeError(answer[0])

    def _followed(self, job: Job, work: Callable[..., T], arguments: tuple[object, ...]) -> tuple[Any, ...]:
        """Send the work, and pass on what is said of it until its answer comes."""
        line = self._line
        if line is None or self._closed:
            raise Refusal(503, "the app is being ended")
        line.send((self._number, work, arguments))
        stop_by = looked = 0.0
        while True:
            if line.poll(_LOOK):
                message: tuple[Any, ...] = line.recv()
                match message:
                    case ("step", part, done, total):
                        job.note(part, done, total)
                    case ("said", text):
                        job.hear(text)
                    case _:
                        return message
            if time.monotonic() < looked + _LOOK:
                continue
            looked = time.monotonic()
            reason = job.stop_reason()
            if reason and not stop_by:
                line.send((self._number, reason))
                stop_by = looked + _PATIENCE
            if stop_by and looked > stop_by:
                raise Refusal(job.status, f"stopped: {reason}")
            self._check_memory()

    def _check_memory(self) -> None:
        try:
            taken = psutil.Process(self._process.pid).memory_info().rss
        except psutil.Error:  # it has just ended, which the line tells
            return
        if taken > self._memory_bytes:
            raise Refusal(
                413, f"it takes more than {self._memory_bytes / 1e9:.1f} GB of memory: cut it up, or use predict.py"
            )

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
        if self._line is not None:
            self._line.close()
        self._process = self._line = None

    def _how_it_ended(self) -> str:
        self._process.join(1.0)
        status = self._process.exitcode
        how = signal.Signals(-status).name if status is not None and status < 0 else f"status {status}"
        logger.error("a process that worked on a scene ended with %s; it is replaced", how)
        return (
            f"the process that worked on it ended ({how}): the file may be damaged in a way that a library does not "
            "survive, or it needs more memory than this machine has; the app goes on without it"
        )


def refuse_networks() -> None:
    """Keep every copy of GDAL in this process from the network and from code in files; read when GDAL starts."""
    os.environ["CPL_VSIL_CURL_ALLOWED_FILENAME"] = "none"
    os.environ["GDAL_VRT_ENABLE_PYTHON"] = "NO"


def _context() -> BaseContext:
    """How processes are started: forked from a server that has imported what they need, on Linux; else anew."""
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    with contextlib.chdir(_ROOT):  # where the server looks for them
        forkserver.ensure_running()
    return context


def _serve(line: Connection, prepare: Callable[[], object]) -> None:
    """The life of a process: carry out what comes, until the app's end of the line is closed."""
    from Utils.core.command_line import set_up_process

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the app, which then ends its processes
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OUT_OF_MEMORY_SCORE, encoding="ascii")
    refuse_networks()
    set_up_process()
    prepare()
    # The app is gone, or no longer wants to know.
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            match line.recv():
                case (number, work, arguments):
                    line.send(_outcome(line, number, work, arguments))
                case _:  # a wish to stop that came after the end
                    pass


def _outcome(line: Connection, number: int, work: Callable[..., Any], arguments: tuple[object, ...]) -> tuple[Any, ...]:
    from Utils.core.watching import Watcher, watched_by
    from Utils.rasters.environment import gdal_environment

    one_at_a_time = threading.Lock()

    def tell(*message: object) -> None:
        with one_at_a_time:  # threads of the work log
            line.send(message)

    def stop_reason() -> str:
        while line.poll():
            about, reason = line.recv()
            if about == number:
                return str(reason)
        return ""

    watcher = Watcher(lambda part, done, total: tell("step", part, done, total), stop_reason)
    try:
        with watched_by(watcher), _heard(lambda text: tell("said", text)), gdal_environment():
            return "done", work(*arguments)
    except Stopped as stopped:
        return "stopped", str(stopped)
    except Refusal as refusal:
        return "refused", refusal.status, str(refusal)
    except (UserError, RasterError) as error:
        return "wrong", str(error)
    except (EOFError, ConnectionError):
        raise
    except Exception:
        return "failed", traceback.format_exc()


@contextlib.contextmanager
def _heard(tell: Callable[[str], None]) -> Iterator[None]:
    """Pass on what is logged for the visitor; the server's log gets it as well."""

    class Teller(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.INFO:
                tell(record.getMessage())

    teller = Teller()
    logging.getLogger().addHandler(teller)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(teller)
