"""Types: mypy finds nothing.  A test among the others, so that it takes one core while they take the rest."""

from __future__ import annotations

import subprocess
import sys

from tests.paths import ROOT


def test_mypy_finds_nothing() -> None:
    command = [sys.executable, "-m", "mypy", "Modules", "Utils", "Systems"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
