"""``make clean`` removes what can be made again without training, and nothing else."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.paths import ROOT

KEPT = ("output/ViT/J_K/model/weights", "output/README.md", "results/README.md", "Dataset/BASE_DATA_DIR/Mine/tile")
REMOVED = (
    ".venv/bin/python",
    ".mypy_cache/x",
    "Utils/__pycache__/x.pyc",
    "Dataset/BASE_DATA_DIR/Demo/tile",
    "Dataset/BASE_DATA_DIR/DemoDepth/tile",
)


def test_clean_leaves_trained_runs_and_tracked_files(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in (*KEPT, *REMOVED):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x", encoding="utf-8")
    done = subprocess.run(["make", "clean"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert all((tmp_path / name).is_file() for name in KEPT)
    assert not any((tmp_path / name).exists() for name in REMOVED)
    assert "left: output (trained runs), results" in done.stdout
