"""Small stereo datasets for tests, made once a process and copied."""

from __future__ import annotations

import shutil
import tempfile
from functools import cache
from pathlib import Path

from Utils.synthetic.stereo_dataset import write_dataset


@cache
def _made(cameras: str, views: int, size: tuple[int, int]) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="stereo-sets-")) / "set"
    write_dataset(folder, 2, 1, views, size, seed=5, workers=1, cameras=cameras)
    return folder


def copy_set(folder: Path, cameras: str = "pinhole", views: int = 3, size: tuple[int, int] = (32, 64)) -> Path:
    """A copy of a synthetic dataset, of two training scenes and one test scene, that a test may change."""
    made = folder / f"set-{cameras}"
    shutil.copytree(_made(cameras, views, size), made)
    return made
