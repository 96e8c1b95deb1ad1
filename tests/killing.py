"""Runs that are killed again and again, each process forked from one that has everything imported.

python -m tests.killing SCRIPT CONFIG RUN KILLS SEED LONGEST

Starts the training script, kills it with SIGKILL after a random time, starts it again with --resume, and so on; then
lets it run to its end.  Prints a JSON list: for each kill, whether the run was still going on.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import tests.conftest  # noqa: F401  one thread, no network


def main() -> int:
    script, config, run, kills, seed, longest = sys.argv[1:]
    train = importlib.import_module(script).main
    draw = random.Random(int(seed))
    hits = []
    for _ in range(int(kills)):
        process = start(train, config, Path(run))
        time.sleep(draw.uniform(0.0, float(longest)))
        os.kill(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
        hits.append(os.WIFSIGNALED(status))
    _, status = os.waitpid(start(train, config, Path(run)), 0)
    print(json.dumps(hits))
    return os.waitstatus_to_exitcode(status)


def start(train: object, config: str, run: Path) -> int:
    """Fork a process that trains; its number."""
    process = os.fork()
    if process == 0:
        arguments = ["--resume", str(run)] if (run / "config.json").exists() else ["--config", config]
        os._exit(train(arguments))  # type: ignore[operator]
    return process


if __name__ == "__main__":
    sys.exit(main())
