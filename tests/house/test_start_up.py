"""What a command answers without work it answers at once; and work begins soon after torch is there."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Config, small_vit, write_config
from tests.launching import environment
from tests.paths import ROOT

COMMANDS = (
    ["trainViT.py"],
    ["evaluateViT.py"],
    ["trainDiffusion.py"],
    ["evaluateDiffusion.py"],
    ["predict.py"],
    ["app.py"],
    ["evaluateScene.py"],
    ["prepareMars.py"],
    ["-m", "Systems.mars.products"],
    ["-m", "Systems.audit"],
    ["-m", "Systems.relative_depth"],
    ["-m", "Utils.training.runs.listing"],
    ["-m", "Utils.data.splits"],
    ["-m", "Systems.d3rsmde.demo"],
    ["-m", "Systems.depth.demo"],
    ["-m", "Systems.segmentation.ablation"],
    ["-m", "Systems.segmentation.demo"],
    ["-m", "Systems.mars.demo"],
    ["-m", "Systems.stereo.demo"],
)
HEAVY = ("torch", "timm", "diffusers", "transformers", "accelerate", "scipy", "skimage", "matplotlib")


def seconds(arguments: list[str]) -> tuple[float, subprocess.CompletedProcess[str]]:
    """CPU seconds of ``python <arguments>``, which other work on the machine does not lengthen."""
    before = os.times()
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
    )
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return used, done


@pytest.fixture(scope="module")
def torch_seconds() -> float:
    """CPU seconds of ``import torch`` on this machine: the best of two."""
    return min(seconds(["-c", "import torch"])[0] for _ in range(2))


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_and_wrong_arguments_are_answered_without_torch(command: list[str], torch_seconds: float) -> None:
    """One process asks for both, as ``__main__``, and says what it had imported by the end."""
    module = command[-1].removesuffix(".py")
    code = (
        "import runpy, sys\n"
        "for argument in ('--help', '--no-such-argument'):\n"
        "    sys.argv = ['x', argument]\n"
        f"    try: runpy.run_module({module!r}, run_name='__main__')\n"
        f"    except SystemExit as end: print(end.code, [name for name in {HEAVY!r} if name in sys.modules])"
    )
    used, done = seconds(["-c", code])
    lines = done.stdout.splitlines()
    assert lines[0].startswith("usage:") and lines[-2:] == ["0 []", "2 []"], done.stderr
    # A second where importing torch takes three.
    assert used < torch_seconds / 3


@pytest.mark.parametrize("script", ["trainViT.py", "trainDiffusion.py", "evaluateViT.py", "evaluateDiffusion.py"])
def test_a_wrong_config_is_answered_without_torch(script: str, torch_seconds: float, tmp_path: Path) -> None:
    config = write_config(tmp_path / "c.json", {"dataset_path": "d", "epoch": 3})
    used, done = seconds([script, "--config", str(config)])
    assert done.returncode == 2 and done.stderr.startswith("error: config")
    assert used < torch_seconds / 3


def test_the_work_begins_soon_after_torch_is_there(shared_dataset: Path, torch_seconds: float, tmp_path: Path) -> None:
    """A dry run lists, plans and reads every tile: all of the work that comes before the networks."""
    config: Config = small_vit(shared_dataset, tmp_path / "run")
    arguments = ["trainViT.py", "--config", str(write_config(tmp_path / "c.json", config)), "--dry-run"]
    tried = []
    # Other work on the machine spoils caches, and with them a run's time: the best of three at most.
    while len(tried) < 3 and min(tried, default=math.inf) >= 1.5 * torch_seconds:
        used, done = seconds(arguments)
        assert done.returncode == 0, done.stderr
        tried.append(used)
    assert min(tried) < 1.5 * torch_seconds, tried
