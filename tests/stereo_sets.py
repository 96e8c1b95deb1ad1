"""Small stereo datasets for tests, made once a process and copied."""

from __future__ import annotations

import shutil
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from Utils.rasters.pfm import read_pfm
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


def raw_of(folder: Path, tmp_path: Path) -> Path:
    """The raw release of a processed dataset: a folder a scene, a header in camera files, depth in 1/64 m."""
    raw = tmp_path / "raw"
    for part in ("train", "test"):
        for image in (folder / part / "image").rglob("*.png"):
            view, (scene, _, tile) = image.parent.name, image.stem.partition("_")
            for name in ("Images", "Cams", "Depths"):
                (raw / part / name / scene / view).mkdir(parents=True, exist_ok=True)
            shutil.copy(image, raw / part / "Images" / scene / view / f"{tile}.png")
            text = (folder / part / "camera" / view / f"{image.stem}.txt").read_text(encoding="utf-8")
            place = raw / part / "Cams" / scene / view / f"{tile}.txt"
            place.write_text(f"extrinsic\n{text}", encoding="utf-8")
            depth = read_pfm(folder / part / "depth" / view / f"{image.stem}.pfm")
            stored = np.rint(64.0 * depth).astype(np.uint16)
            stored[0, 0] = 0
            Image.fromarray(stored).save(raw / part / "Depths" / scene / view / f"{tile}.png")
    return raw
