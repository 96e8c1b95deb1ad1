"""Scripts started as processes of their own: one, or several that are connected, or to be sent signals.

Starting Python and importing torch, timm and diffusers takes eight seconds of a core.  Processes are therefore forked
from a server that has imported all of it and done nothing else; what they run is the script itself, as ``__main__``,
with arguments, environment, folder and output of its own.  With ``fresh=True`` a Python is started as a user does it.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy

from tests.paths import ROOT

# To be followed by the number of processes, the script and its arguments.
LAUNCHER = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node")
# Seconds that only a hang takes: on a busy machine a minute's work was seen to take twenty.
HANG = 600.0
PRELOADED = (
    "trainViT",
    "trainDiffusion",
    "evaluateViT",
    "evaluateDiffusion",
    "predict",
    "Systems.d3rsmde.coarse_run",
    "Systems.d3rsmde.refiner_run",
    "Systems.d3rsmde.evaluations",
    "Modules.d3rsmde.pipeline",
    "Utils.scenes.scene_run",
    "Utils.training.loop",
    "benchmarks.case",
    "accelerate",
    "timm",
    "torch.distributed.run",
    "torch.utils.data",
    "torch.utils.tensorboard",
    "tests.killing",
)


def fork_server() -> ForkServerContext:
    """The server, started if it was not; what the benchmarks fork in the same test process comes from it as well."""
    # The server leaves out what it cannot find, and would then be slow without a word.
    assert all(importlib.util.find_spec(name) for name in PRELOADED)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    # It finds its imports in the working directory.
    with contextlib.chdir(ROOT):
        forkserver.ensure_running()
    return context


class Forked:
    """A process forked from the server, with what tests use of `subprocess.Popen`."""

    def __init__(self, process: BaseProcess) -> None:
        process.start()
        assert process.pid is not None
        self.pid = process.pid
        self._process = process
        _started.append(self)

    @property
    def returncode(self) -> int | None:
        """The exit status, minus the signal's number for one that was killed, or None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """The same, by the name that `subprocess.Popen` has for it."""
        return self.returncode

    def wait(self, timeout: float = HANG) -> int:
        """Wait for the end; its exit status."""
        self._process.join(timeout)
        status = self.returncode
        if status is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout)
        return status

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


Started = Forked | subprocess.Popen[bytes]
_started: list[Started] = []


def end_all() -> None:
    """Kill what a failed test left running."""
    while _started:
        _started.pop().kill()


# multiprocessing would wait for them, were it asked first.
atexit.register(end_all)


def environment(**more: str) -> dict[str, str]:
    """This process's, made for small networks on a shared machine, and offline."""
    return os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"} | more


def start(
    arguments: Sequence[object],
    log: Path,
    *,
    errors: Path | None = None,
    group: bool = False,
    fresh: bool = False,
    variables: Mapping[str, str] | None = None,
) -> Started:
    """Start ``python <arguments>`` in the repository.

    Args:
        arguments: a script, -m and a module, or -c and a program; and its arguments.
        log: file to which output is appended.
        errors: file for stderr, if not ``log``.
        group: whether it is to lead a process group of its own.
        fresh: whether to start a new Python, instead of forking one that has imported everything.
        variables: of the environment, beside this process's.
    """
    words = [str(argument) for argument in arguments]
    log.touch()
    everything = environment(**(variables or {}))
    if not fresh:
        process = fork_server().Process(target=_become, args=(words, everything, log, errors or log, group))
        return Forked(process)
    with log.open("ab") as output, (errors or log).open("ab") as said:
        _started.append(
            subprocess.Popen(
                [sys.executable, *words],
                cwd=ROOT,
                env=everything,
                stdout=output,
                stderr=said,
                start_new_session=group,
            )
        )
    return _started[-1]


def _become(arguments: list[str], variables: dict[str, str], log: Path, errors: Path, group: bool) -> None:
    """Turn the forked process into ``python <arguments>``."""
    if group:
        os.setsid()
    for number, path in ((1, log), (2, errors)):
        output = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.dup2(output, number)
        os.close(output)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", buffering=1, closefd=False)
    # Every fork would draw the same numbers, and start processes of its own as it was started.
    numpy.random.seed()
    multiprocessing.set_start_method(None, force=True)
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(variables)
    warnings.simplefilter("ignore")
    match arguments:
        case ["-m", module, *_]:
            sys.argv = arguments[1:]
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        case ["-c", program, *rest]:
            sys.argv = ["-c", *rest]
            exec(compile(program, "<program>", "exec"), {"__name__": "__main__"})
        case [script, *_]:
            sys.argv = arguments
            runpy.run_path(script, run_name="__main__")


def run(arguments: Sequence[object], fresh: bool = False) -> subprocess.CompletedProcess[str]:
    """Run ``python <arguments>`` in the repository to its end."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        status = start(arguments, out, errors=err, fresh=fresh).wait(HANG)
        return subprocess.CompletedProcess([str(part) for part in arguments], status, out.read_text(), err.read_text())


class Launch:
    """Several connected processes, as ``torchrun`` starts them: one that fails ends them all."""

    def __init__(self, processes: int, arguments: Sequence[object], log: Path, errors: Path | None = None) -> None:
        from torch.distributed import TCPStore

        # Theirs to meet at; it chooses a port that is free.
        self._store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(self._store.port), "WORLD_SIZE": str(processes)}
        place |= {"LOCAL_WORLD_SIZE": str(processes), "TORCHELASTIC_USE_AGENT_STORE": "True"}
        self.ranks = [
            start(arguments, log, errors=errors, variables=place | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
            for rank in range(processes)
        ]

    def terminate(self) -> None:
        """Send SIGTERM to all of them."""
        for rank in self.ranks:
            rank.terminate()

    def wait(self, timeout: float = HANG) -> int:
        """Wait for all of them; 0, or the status of the first that failed."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            statuses = [rank.poll() for rank in self.ranks]
            if failed := [status for status in statuses if status]:
                self.terminate()
                for rank in self.ranks:
                    rank.wait()
                return failed[0]
            if None not in statuses:
                return 0
            time.sleep(0.01)
        raise subprocess.TimeoutExpired("a launch", timeout)


def launch(processes: int, arguments: Sequence[object]) -> subprocess.CompletedProcess[str]:
    """Run a script in several connected processes to its end."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        status = Launch(processes, arguments, out, err).wait()
        return subprocess.CompletedProcess([str(part) for part in arguments], status, out.read_text(), err.read_text())


def until(condition: Callable[[], bool], process: Started | Launch | None = None) -> None:
    """Wait for something that another process does; as long as it takes, if the process lives."""
    deadline = time.monotonic() + HANG
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        assert not isinstance(process, Forked | subprocess.Popen) or process.poll() is None, "the process ended before"
        time.sleep(0.01)


def shown(result: subprocess.CompletedProcess[str]) -> Mapping[str, object]:
    """What a run said, for the message of a failed assertion."""
    return {"status": result.returncode, "out": result.stdout[-3000:], "err": result.stderr[-3000:]}
