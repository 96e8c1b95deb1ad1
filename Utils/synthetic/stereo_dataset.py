"""Synthetic stereo datasets in the layouts of real ones: processed WHU-MVS with pinholes, WHU-TLC with RPCs.

``python -m Utils.synthetic.stereo_dataset --dataset DIR [--cameras rpc]`` writes ``train`` and ``test``.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from Utils.data.stereo.pinhole_camera import PinholeCamera, write_camera
from Utils.rasters.pfm import write_pfm
from Utils.rasters.rational.writing import write_rational
from Utils.synthetic.dataset_folder import claim, make_scenes
from Utils.synthetic.pushbroom_rpc import fit_rational
from Utils.synthetic.stereo_cameras import Pinhole
from Utils.synthetic.stereo_ground import KINDS, GroundKind
from Utils.synthetic.stereo_scenes import INTERVAL, MOST_VIEWS, StereoScene, make_satellite_scene, make_scene

__all__ = ["CONSTANT", "RELATIVE", "SHUFFLED", "write_dataset"]

logger = logging.getLogger(__name__)

CameraKind = Literal["pinhole", "rpc"]

RELATIVE = "depthAnything"
SHUFFLED, CONSTANT = "depthAnything_shuffled", "depthAnything_constant"
"""Folders of controls beside the relative maps: those of another scene, and maps of one grey."""

_PARTS = ("train", "test")
_FOLDERS = {"pinhole": ("image", "camera", "depth"), "rpc": ("image", "rpc", "height")}
_GREY = 128
_GREY_IMAGES = " Images are grey."


@dataclass(frozen=True)
class _ScenePlan:
    """One scene of a dataset."""

    kind: GroundKind
    number: int
    part: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.kind}{self.number:04d}_0000"


def write_dataset(
    folder: Path,
    train_scenes: int,
    test_scenes: int,
    views: int,
    size: tuple[int, int],
    seed: int,
    noise: float = 0.05,
    workers: int | None = None,
    cameras: CameraKind = "pinhole",
    grey: bool = False,
) -> None:
    """Write images, cameras, depth or height and relative depth of every view, and a README.txt that describes them.

    Two of three scenes are towns, the others terrain. No scene is in two parts. The files depend on the arguments
    alone, not on ``workers``.

    Args:
        folder: made if it does not exist.
        train_scenes: scenes of the training part.
        test_scenes: scenes of the test part.
        views: views of each scene, 2 to 5 of pinholes and 2 to 3 of line sensors; view 1 is in the middle.
        size: height and width of a view in pixels.
        seed: not negative.
        noise: of the sensor, where 1 is white.
        workers: processes that make scenes; by default one per core that this process may use.
        cameras: pinhole writes the layout of the processed WHU-MVS, rpc that of WHU-TLC.
        grey: whether images have the same grey in all three channels, as those of panchromatic sensors are read.

    Raises:
        ValueError: a number is out of range.
        FileExistsError: ``folder`` holds another dataset than the one that would be written.
    """
    if min(train_scenes, test_scenes, min(size)) < 1 or seed < 0 or not 2 <= views <= MOST_VIEWS[cameras]:
        given = f"{train_scenes} training and {test_scenes} test scenes of {views} views of {size}, seed {seed}"
        least = f"1 scene of each part or more, and 2 to {MOST_VIEWS[cameras]} views"
        raise ValueError(f"cannot write a dataset of {given}: give {least}")
    described = _description(train_scenes, test_scenes, views, size, seed, noise, cameras, grey)
    claim(folder, described, _PARTS)
    plans = [*_plan("train", train_scenes, seed), *_plan("test", test_scenes, seed)]
    for part in _PARTS:
        for name in (*_FOLDERS[cameras], RELATIVE, SHUFFLED, CONSTANT):
            for view in range(views):
                (folder / part / name / str(view)).mkdir(parents=True, exist_ok=True)
    make_scenes(partial(_write_scene, folder, views, size, noise, cameras, grey), plans, workers)
    for part in _PARTS:
        _write_controls(folder / part, [plan.name for plan in plans if plan.part == part], views, size, seed)
    logger.info("wrote %d training and %d test scenes to %s", train_scenes, test_scenes, folder)


def _description(
    train_scenes: int,
    test_scenes: int,
    views: int,
    size: tuple[int, int],
    seed: int,
    noise: float,
    cameras: CameraKind,
    grey: bool,
) -> str:
    values = {
        "pinhole": "the processed WHU-MVS. Depth is the distance along the optical axis in metres; cameras are poses "
        "in photogrammetric axes.",
        "rpc": "WHU-TLC. Heights are metres; cameras are rational polynomials, fitted to line sensors on a satellite.",
    }
    return (
        f"Synthetic towns and terrain, seed {seed}: {train_scenes} training and {test_scenes} test scenes of {views} "
        f"views with {size[1]} x {size[0]} pixels each and noise {noise:g}, made by Utils/synthetic/stereo_dataset.py "
        f"(D3-RSMDE) in the layout of {values[cameras]} The maps in {RELATIVE} are the true depth, bent, blurred and "
        "without scale or shift (near is dark): they are better than those of any monocular model. Controls: "
        f"{SHUFFLED} holds the maps of other scenes, {CONSTANT} maps of one grey.{_GREY_IMAGES if grey else ''}\n"
    )


def _plan(part: str, scenes: int, seed: int) -> list[_ScenePlan]:
    """The scenes of a part, each with a seed of its own; those of the test start at 5000."""
    plans = []
    for number in range(scenes):
        branch = np.random.SeedSequence(seed, spawn_key=(part == "test", number))
        own = int(branch.generate_state(1, np.uint64)[0])
        kind = KINDS[number % 3 == 2]
        plans.append(_ScenePlan(kind, number + (5000 if part == "test" else 0), part, own))
    return plans


def _write_scene(
    folder: Path,
    views: int,
    size: tuple[int, int],
    noise: float,
    cameras: CameraKind,
    grey: bool,
    plan: _ScenePlan,
) -> None:
    make = make_scene if cameras == "pinhole" else make_satellite_scene
    scene = make(plan.kind, views, size, plan.seed, noise)
    if grey:
        scene = replace(scene, frames=[replace(frame, image=_grey(frame.image)) for frame in scene.frames])
    # Anywhere on Earth but near the poles, where degrees of longitude are short.
    origin = tuple(np.random.default_rng([plan.seed, 4]).uniform((-180.0, -65.0), (180.0, 65.0)))
    write_scene(folder / plan.part, plan.name, scene, (float(origin[0]), float(origin[1])))


def _grey(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(image).convert("L").convert("RGB"))


def write_scene(folder: Path, name: str, scene: StereoScene, origin: tuple[float, float]) -> None:
    """Write a scene's files into a part of a dataset whose folders are there.

    Args:
        folder: ``train`` or ``test`` of the dataset.
        name: of the scene's files in every view.
        scene: an aerial scene or one of line sensors.
        origin: longitude and latitude in degrees of a scene of line sensors.
    """
    for view, (camera, frame, (low, high)) in enumerate(zip(scene.cameras, scene.frames, scene.ranges, strict=True)):
        place = f"{view}/{name}"
        Image.fromarray(frame.image).save(folder / "image" / f"{place}.png")
        Image.fromarray(frame.relative).save(folder / RELATIVE / f"{place}.png")
        if isinstance(camera, Pinhole):
            write_pfm(folder / "depth" / f"{place}.pfm", frame.depth)
            extrinsics = np.linalg.inv(camera.pose @ np.diag([1.0, -1.0, -1.0, 1.0]))
            known = PinholeCamera(extrinsics, camera.focal, camera.centre, low, high, INTERVAL)
            write_camera(folder / "camera" / f"{place}.txt", known, camera.size)
        else:
            write_pfm(folder / "height" / f"{place}.pfm", frame.depth)
            write_rational(folder / "rpc" / f"{place}.rpc", fit_rational(camera, origin, (low, high)))


def _write_controls(folder: Path, names: Sequence[str], views: int, size: tuple[int, int], seed: int) -> None:
    """Write the relative maps of other scenes, and constant ones; around a circle, each scene gets another's maps."""
    circle = np.random.default_rng([seed, 5]).permutation(len(names))
    for scene, other in zip(circle, np.roll(circle, 1), strict=True):
        for view in range(views):
            kept = (folder / RELATIVE / str(view) / f"{names[other]}.png").read_bytes()
            (folder / SHUFFLED / str(view) / f"{names[scene]}.png").write_bytes(kept)
            flat = Image.fromarray(np.full(size, _GREY, np.uint8))
            flat.save(folder / CONSTANT / str(view) / f"{names[scene]}.png")


def main(arguments: Sequence[str] | None = None) -> None:
    """Write a synthetic stereo dataset."""
    parser = argparse.ArgumentParser(prog="python -m Utils.synthetic.stereo_dataset", description=main.__doc__)
    parser.add_argument("--dataset", type=Path, required=True, help="folder to write")
    parser.add_argument("--train-scenes", type=int, default=80, help="default %(default)s")
    parser.add_argument("--test-scenes", type=int, default=12, help="default %(default)s")
    parser.add_argument("--views", type=int, default=3, help="views a scene, 2 to 5, default %(default)s")
    parser.add_argument("--height", type=int, default=96, help="pixels, default %(default)s")
    parser.add_argument("--width", type=int, default=96, help="pixels, default %(default)s")
    parser.add_argument("--noise", type=float, default=0.05, help="where 1 is white, default %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default %(default)s")
    parser.add_argument("--cameras", choices=sorted(_FOLDERS), default="pinhole", help="default %(default)s")
    parser.add_argument("--grey", action="store_true", help="grey images, as those of panchromatic sensors")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    counts = given.train_scenes, given.test_scenes, given.views
    try:
        size = given.height, given.width
        write_dataset(given.dataset, *counts, size, given.seed, given.noise, cameras=given.cameras, grey=given.grey)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
