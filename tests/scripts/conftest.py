"""What tests of several scripts share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scripts.bench import Bench


@pytest.fixture
def bench(
    tmp_path: Path, dataset: Path, vit_run: Path, diffusion_run: Path, capsys: pytest.CaptureFixture[str]
) -> Bench:
    return Bench(tmp_path, dataset, vit_run, diffusion_run, capsys)
