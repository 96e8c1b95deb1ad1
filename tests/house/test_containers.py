"""The files of docker/: what a linter says of them, and whether what they copy and install is there.

Images cannot be built where the tests run.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest

import d3
from tests.paths import ROOT

FILES = [ROOT / "docker" / name for name in ("Dockerfile", "Dockerfile.cuda")]
# Without it, only the parts of this file that need no linter are run.
HADOLINT = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")


def steps(path: Path) -> list[str]:
    """The instructions of a Dockerfile, each on one line."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return [line for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines() if line]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_an_image_holds_what_it_runs_and_no_root(path: Path) -> None:
    found = steps(path)
    copied = [name for step in found if step.startswith("COPY") for name in step.split()[1:-1]]
    for name in copied:
        assert list(ROOT.glob(name)), f"{name} is not in the repository"
    assert {"*.py", "Config", "Modules", "Utils", "Systems"} <= set(copied)
    installed = re.findall(r"--requirement (requirements\S*)", " ".join(found))
    assert installed and set(installed) <= set(copied)
    users = [step.split()[1] for step in found if step.startswith("USER")]
    assert users and users[-1] not in ("0", "root") and found.index(f"USER {users[-1]}") > found.index("COPY *.py ./")
    assert any(step.startswith("HEALTHCHECK") and "/health" in step for step in found)
    (command,) = (step for step in found if step.startswith("CMD"))
    assert re.findall(r'"([^"]+)"', command)[0] in d3.COMMANDS
    assert all(re.fullmatch(r"FROM \S+:\S*\d\S*", step) for step in found if step.startswith("FROM"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
@pytest.mark.skipif(HADOLINT is None, reason="hadolint is not installed")
def test_a_linter_finds_nothing(path: Path) -> None:
    assert HADOLINT is not None
    done = subprocess.run([HADOLINT, "--no-color", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_install_lines_run_in_a_new_environment(path: Path, tmp_path: Path) -> None:
    """Nothing is downloaded: the packages of this environment must be what the lines ask for."""
    venv.create(tmp_path / "new")
    (site,) = (tmp_path / "new").glob("lib/python*/site-packages")
    (site / "packages_of_the_tests.pth").write_text(f"{Path(np.__file__).parents[1]}\n", encoding="utf-8")
    for file in ROOT.glob("requirements*.txt"):
        shutil.copy(file, tmp_path)
    lines = [step.removeprefix("RUN ") for step in steps(path) if step.startswith("RUN") and "pip install" in step]
    assert lines
    pip = f"'{tmp_path / 'new' / 'bin' / 'python'}' -m pip install --no-index --no-build-isolation"
    for line in lines:
        script = f"set -eu; TORCH_INDEX=; {line.replace('pip install', pip)}"
        done = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
