"""Scripts started for real: by a launcher in several processes, or to be sent signals."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.paths import ROOT

# To be followed by the number of processes, the script and its arguments.
LAUNCHER = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node")


def environment(**more: str) -> dict[str, str]:
    """This process's, made for small networks on a shared machine, and offline."""
    return os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"} | more


def start(arguments: Sequence[object], log: Path, **more: str) -> subprocess.Popen[bytes]:
    """Start ``python <arguments>`` in the repository, its output going to a file."""
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            cwd=ROOT,
            env=environment(**more),
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def run(arguments: Sequence[object], **more: str) -> subprocess.CompletedProcess[str]:
    """Run ``python <arguments>`` in the repository to its end."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )


def launch(processes: int, arguments: Sequence[object], **more: str) -> subprocess.CompletedProcess[str]:
    """Run a script in several connected processes, as ``torchrun`` does."""
    return run([*LAUNCHER, processes, *arguments], **more)


def shown(result: subprocess.CompletedProcess[str]) -> Mapping[str, object]:
    """What a run said, for the message of a failed assertion."""
    return {"status": result.returncode, "out": result.stdout[-3000:], "err": result.stderr[-3000:]}
