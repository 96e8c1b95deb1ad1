"""A synthetic dataset of depth: frames of rooms and streets, as a table, with true depth in metres.

``python -m Utils.synthetic.depth_frames --dataset DIR`` writes ``tiles.csv`` and, as a control, ``shuffled.csv``.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from Utils.core.tables import write_csv
from Utils.synthetic.box_scenes import KINDS, make_frames
from Utils.synthetic.dataset_folder import claim, make_scenes

__all__ = ["SHUFFLED", "TABLE", "VALIDATION", "write_dataset"]

logger = logging.getLogger(__name__)

TABLE, SHUFFLED = "tiles.csv", "shuffled.csv"
"""The dataset, and the same with the depth of another scene for every training image."""
VALIDATION = Path("splits") / "validation.txt"
"""The split file of the frames to validate on, all frames of a tenth of the training scenes."""

_METRES_A_STEP = 0.001  # of the 16-bit files, as in NYU's; 0 stands for no depth


@dataclass(frozen=True)
class _ScenePlan:
    """One scene of a dataset."""

    kind: str
    number: int
    part: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.number:04d}"


def write_dataset(
    folder: Path,
    train_scenes: int,
    test_scenes: int,
    frames: int,
    size: tuple[int, int],
    seed: int,
    workers: int | None = None,
) -> None:
    """Write images, depth, the two tables and the split file, and a README.txt that says what they are.

    Every second scene is a room, the others are streets. No scene is in two parts. The files depend on the arguments
    alone, not on ``workers``.

    Args:
        folder: made if it does not exist.
        train_scenes: scenes of the training part; a tenth of them, at least one of each kind, is for validation.
        test_scenes: scenes of the test part.
        frames: frames of each scene.
        size: height and width of a frame in pixels.
        seed: not negative.
        workers: processes that make scenes; by default one per core that this process may use.

    Raises:
        ValueError: a number is out of range.
        FileExistsError: ``folder`` holds another dataset than the one that would be written.
    """
    if train_scenes < 4 or test_scenes < 1 or frames < 1 or min(size) < 1 or seed < 0:
        given = f"{train_scenes} training and {test_scenes} test scenes of {frames} frames of {size}, seed {seed}"
        raise ValueError(f"cannot write a dataset of {given}: give 4 training scenes and 1 of the others or more")
    described = _description(train_scenes, test_scenes, frames, size, seed)
    claim(folder, described, (TABLE, SHUFFLED, "images", "depth", "splits"))
    for name in ("images", "depth", "splits"):
        (folder / name).mkdir(exist_ok=True)
    training, test = _plan("train", train_scenes, seed), _plan("test", test_scenes, seed)
    make_scenes(partial(_write_scene, folder, frames, size), [*training, *test], workers)
    rows = [_row(plan, frame) for plan in (*training, *test) for frame in range(frames)]
    write_csv(folder / TABLE, rows)
    write_csv(folder / SHUFFLED, _shuffled(rows, training, frames, seed))
    held_out = training[-max(len(KINDS), len(training) // 10) :]
    ids = [f"{plan.name}-{frame}\n" for plan in held_out for frame in range(frames)]
    (folder / VALIDATION).write_text("".join(ids), encoding="utf-8")
    logger.info("wrote %d training and %d test frames to %s", len(training) * frames, len(test) * frames, folder)


def _description(train_scenes: int, test_scenes: int, frames: int, size: tuple[int, int], seed: int) -> str:
    return (
        f"Synthetic rooms and streets, seed {seed}: {train_scenes} training and {test_scenes} test scenes of "
        f"{frames} frames with {size[1]} x {size[0]} pixels each, made by "
        "Utils/synthetic/depth_frames.py (D3-RSMDE). They are boxes with textures, light and haze, seen by a "
        "pinhole camera of 64 degrees. Depth is the distance along the optical axis, in 16-bit PNGs: metres = stored "
        "number x 0.001, 0 = no depth (sky). tiles.csv names the files. In shuffled.csv the training images have the "
        "depth of frames of other scenes: who learns from it learns nothing about images. No scene is in two parts, "
        "and splits/validation.txt names whole scenes.\n"
    )


def _plan(part: str, scenes: int, seed: int) -> list[_ScenePlan]:
    """The scenes of a part, each with a seed of its own; those of the test start at 5000."""
    plans = []
    for number in range(scenes):
        branch = np.random.SeedSequence(seed, spawn_key=(part == "test", number))
        own = int(branch.generate_state(1, np.uint64)[0])
        kind = KINDS[number % len(KINDS)]
        plans.append(_ScenePlan(kind, number + (5000 if part == "test" else 0), part, own))
    return plans


def _write_scene(folder: Path, frames: int, size: tuple[int, int], plan: _ScenePlan) -> None:
    for number, frame in enumerate(make_frames(plan.kind, frames, size, plan.seed)):
        name = f"{plan.name}-{number}.png"
        Image.fromarray(frame.image).save(folder / "images" / name)
        stored = np.rint(np.minimum(frame.depth / _METRES_A_STEP, 65535.0)).astype(np.uint16)
        Image.fromarray(stored).save(folder / "depth" / name)


def _row(plan: _ScenePlan, frame: int) -> dict[str, object]:
    name = f"{plan.name}-{frame}"
    files = {"image": f"images/{name}.png", "height": f"depth/{name}.png"}
    return {"id": name, **files, "part": plan.part, "scene": plan.name, "scale": _METRES_A_STEP, "nodata": 0}


def _shuffled(
    rows: Sequence[dict[str, object]], training: Sequence[_ScenePlan], frames: int, seed: int
) -> list[dict[str, object]]:
    """The rows, with the depth of another scene in each that is for training."""
    rng = np.random.default_rng([seed, 1])
    changed = [dict(row) for row in rows]
    for frame in range(frames):
        # Around a circle in random order, every scene gets the depth of the one behind it.
        circle = rng.permutation(len(training))
        for scene, other in zip(circle, np.roll(circle, 1), strict=True):
            changed[scene * frames + frame]["height"] = rows[other * frames + frame]["height"]
    return changed


def main(arguments: Sequence[str] | None = None) -> None:
    """Write a synthetic dataset of depth."""
    parser = argparse.ArgumentParser(prog="python -m Utils.synthetic.depth_frames", description=main.__doc__)
    parser.add_argument("--dataset", type=Path, required=True, help="folder to write")
    parser.add_argument("--train-scenes", type=int, default=160, help="default %(default)s")
    parser.add_argument("--test-scenes", type=int, default=40, help="default %(default)s")
    parser.add_argument("--frames", type=int, default=3, help="frames a scene, default %(default)s")
    parser.add_argument("--height", type=int, default=64, help="pixels, default %(default)s")
    parser.add_argument("--width", type=int, default=96, help="pixels, default %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default %(default)s")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    size = given.height, given.width
    try:
        write_dataset(given.dataset, given.train_scenes, given.test_scenes, given.frames, size, given.seed)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
