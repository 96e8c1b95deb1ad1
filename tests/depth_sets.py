"""Small datasets in the layouts in which NYU, KITTI and Cityscapes come, for the tests of depth networks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.conftest import write_raster

ROOMS = ("basement_0001a_out", "basement_0001b_out", "kitchen_0002_out", "office_0003_out")
DRIVES = ("2011_09_26_drive_0001_sync", "2011_09_26_drive_0002_sync", "2011_09_28_drive_0001_sync")
CITIES = ("aachen", "bremen", "ulm")
BASELINE, FOCAL = 0.2, 2000.0


def metres(number: int, height: int, width: int) -> NDArray[np.float64]:
    """A floor (H, W) that comes nearer downwards and a box on it, 2 to about 9 metres, another one for each number."""
    rng = np.random.default_rng(number)
    depth = np.repeat(np.linspace(9.0, 2.5, height)[:, None], width, axis=1)
    top, left = rng.integers(0, height // 2), rng.integers(0, width // 2)
    depth[top : top + height // 3, left : left + width // 3] = rng.uniform(2.0, 4.0)
    return depth


def image_of(depth: NDArray[np.float64], number: int) -> NDArray[np.uint8]:
    """Fog: what is far is bright, with noise (3, H, W)."""
    noise = np.random.default_rng(1000 + number).normal(0.0, 4.0, (3, *depth.shape))
    return np.clip(25.0 * depth + noise, 0, 255).astype(np.uint8)


def write_nyu(
    folder: Path, frames: int = 3, size: tuple[int, int] = (48, 64), test_size: tuple[int, int] = (48, 64)
) -> tuple[Path, Path]:
    """Tables of training and test frames as published: rooms in folders, 8 bits; test frames in millimetres."""
    lines, number = [], 0
    for room in ROOMS:
        for frame in range(1, frames + 1):
            number += 1
            depth, names = metres(number, *size), f"data/nyu2_train/{room}/{frame}"
            write_raster(folder / f"{names}.png", np.rint(depth * 25.5).astype(np.uint8))
            write_raster(folder / f"{names}_image.png", image_of(depth, number))
            lines.append(f"{names}_image.png,{names}.png\n")
    tests = []
    for number in (0, 1, 700):
        depth, name = metres(50 + number, *test_size), f"data/nyu2_test/{number:05}"
        write_raster(folder / f"{name}_depth.png", np.rint(depth * 1000.0).astype(np.uint16))
        write_raster(folder / f"{name}_colors.png", image_of(depth, 50 + number))
        tests.append(f"{name}_colors.png,{name}_depth.png\n")
    (folder / "data" / "nyu2_train.csv").write_text("".join(lines))
    (folder / "data" / "nyu2_test.csv").write_text("".join(tests))
    return folder / "data" / "nyu2_train.csv", folder / "data" / "nyu2_test.csv"


def write_kitti(folder: Path, frames: int = 2) -> tuple[Path, Path]:
    """Tables of training and test frames: drives in folders, metres x 256 at a fifth of the pixels, several sizes."""
    lines = []
    for place, drive in enumerate(DRIVES):
        for frame in range(frames):
            number, size = 10 * place + frame, (40 + place, 120 + 2 * place)
            depth = metres(number, *size) * 5.0
            known = np.random.default_rng(number).random(size) < 0.2
            stored = np.where(known, np.rint(depth * 256.0), 0).astype(np.uint16)
            image, truth = f"image/{drive}/{frame:010}.png", f"depth/{drive}/{frame:010}.png"
            write_raster(folder / image, image_of(depth / 5.0, number))
            write_raster(folder / truth, stored)
            lines.append(f"{image},{truth}\n")
    (folder / "train.csv").write_text("".join(lines))
    (folder / "test.csv").write_text("".join(lines[-2 * frames :]))
    return folder / "train.csv", folder / "test.csv"


def write_cityscapes(folder: Path, frames: int = 2, height: int = 32, width: int = 64) -> tuple[Path, Path]:
    """Tables of training and test frames: disparities, a camera file a frame, and the pictures of classes beside."""
    lines: dict[str, list[str]] = {"train": [], "val": []}
    for place, city in enumerate(CITIES):
        part = "val" if city == "ulm" else "train"
        for frame in range(frames):
            number, name = 10 * place + frame, f"{part}/{city}/{city}_{frame:06}_000019"
            depth = metres(number, height, width) * 3.0
            stored = np.rint(BASELINE * FOCAL / depth * 256.0 + 1.0).astype(np.uint16)
            stored[0] = 0
            image, truth = f"leftImg8bit/{name}_leftImg8bit.png", f"disparity/{name}_disparity.png"
            write_raster(folder / image, image_of(depth / 3.0, number))
            write_raster(folder / truth, stored)
            colours = np.random.default_rng(number).integers(0, 256, (3, height, width), dtype=np.uint8)
            write_raster(folder / f"gtFine/{name}_gtFine_color.png", colours)
            camera = folder / f"camera/{name}_camera.json"
            camera.parent.mkdir(parents=True, exist_ok=True)
            camera.write_text(json.dumps({"extrinsic": {"baseline": BASELINE}, "intrinsic": {"fx": FOCAL}}))
            lines[part].append(f"{image},{truth}\n")
    for part, listed in lines.items():
        (folder / f"{part}.csv").write_text("".join(listed))
    return folder / "train.csv", folder / "val.csv"
