"""The four scripts on one dataset, which a test may spoil."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import evaluateDiffusion
import evaluateViT
import trainDiffusion
import trainViT
from tests.conftest import (
    TEST,
    TRAINING,
    Config,
    small_diffusion,
    small_diffusion_evaluation,
    small_vit,
    small_vit_evaluation,
    write_config,
)

SCRIPTS: dict[str, Any] = {
    "trainViT": trainViT,
    "evaluateViT": evaluateViT,
    "trainDiffusion": trainDiffusion,
    "evaluateDiffusion": evaluateDiffusion,
}
TRAINING_SCRIPTS = ("trainViT", "trainDiffusion")
DIFFUSION_SCRIPTS = ("trainDiffusion", "evaluateDiffusion")


class Bench:
    """The four scripts on one dataset, which a test may spoil."""

    def __init__(
        self, folder: Path, dataset: Path, vit_run: Path, diffusion_run: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.folder = folder
        self.dataset = dataset
        self.output = folder / "output"
        self.configs: dict[str, Config] = {
            "trainViT": small_vit(dataset, self.output),
            "evaluateViT": small_vit_evaluation(dataset, vit_run, self.output),
            "trainDiffusion": small_diffusion(dataset, self.output),
            "evaluateDiffusion": small_diffusion_evaluation(dataset, diffusion_run, self.output),
        }
        self._capsys = capsys

    def tile(self, script: str) -> tuple[str, str]:
        """Part and id of a tile that a script reads."""
        return (TRAINING, "10") if script in TRAINING_SCRIPTS else (TEST, "7")

    def run(self, script: str, arguments: Sequence[object] = (), **changes: Any) -> tuple[int, str, str]:
        """Status, stdout and stderr of a script on its config with ``changes``."""
        given = ["--config", write_config(self.folder / "c.json", self.configs[script] | changes)]
        return self.call(script, [*given, *arguments])

    def call(self, script: str, arguments: Sequence[object]) -> tuple[int, str, str]:
        self._capsys.readouterr()
        status = SCRIPTS[script].main([str(argument) for argument in arguments])
        captured = self._capsys.readouterr()
        return status, captured.out, captured.err

    def refuse(self, script: str, arguments: Sequence[object] = (), **changes: Any) -> str:
        """The one line with which a script refuses to start, having written nothing."""
        before = self.listing()
        message = one_error(self.run(script, arguments, **changes))
        assert self.listing() | {"c.json"} == before | {"c.json"}
        return message

    def listing(self) -> set[str]:
        return {str(path.relative_to(self.folder)) for path in self.folder.rglob("*")}


def one_error(result: tuple[int, str, str]) -> str:
    """The error line of a run that ended with one."""
    status, out, err = result
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, err
    assert err.splitlines()[-1] == lines[0], "the error comes last"
    assert "Traceback" not in out + err
    assert status == 2
    return lines[0].removeprefix("error: ")


def all_finite(path: Path) -> bool:
    return all(bool(torch.isfinite(value).all()) for value in load_file(path).values())


def losses_of(stage: Path) -> list[float]:
    rows = [json.loads(line) for line in (stage / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return [value for row in rows for key, value in row.items() if key.startswith("train/")]


def truncate(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
