"""Whole synthetic stereo scenes: a ground, and cameras around it with jitter, tilt and kappa."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from Utils.synthetic.stereo_cameras import Pinhole, Pushbroom, turned
from Utils.synthetic.stereo_frames import Frame, take_frame
from Utils.synthetic.stereo_ground import HIGHEST, KINDS, LOWEST, Ground, GroundKind, make_ground

REFERENCE = 1
"""The view in the middle of the others."""
PIXEL = 0.5
"""Metres on the ground that a pixel covers, about."""
INTERVAL = 0.14
"""Metres between depths or heights, about a 14th of a pixel of parallax."""

# Where the views of an aerial scene are, in baselines to the east and north of the middle one.
_AROUND = ((-1.0, 0.0), (0.0, 0.0), (1.0, 0.0), (0.0, -1.0), (0.0, 1.0))
_FOCAL, _BASELINE = 200.0, 25.0  # pixels and metres: half a pixel of parallax a metre of height
_TURN = 0.75  # of the way to the middle of the scene that cameras aside of it turn
_ALTITUDE = 600_000.0
_FORWARD = (-16.0, 0.0, 16.0)  # degrees by which the line sensors look ahead
MOST_VIEWS = {"pinhole": len(_AROUND), "rpc": len(_FORWARD)}


@dataclass(frozen=True)
class StereoScene:
    """A scene as its cameras see it.

    Attributes:
        kind: town or terrain.
        cameras: one a view.
        frames: what each has recorded.
        ranges: the smallest and largest value, depth or height in metres, that is worth looking for in each view.
    """

    kind: GroundKind
    cameras: Sequence[Pinhole | Pushbroom]
    frames: Sequence[Frame]
    ranges: Sequence[tuple[float, float]]


def make_scene(kind: GroundKind, views: int, size: tuple[int, int], seed: int, noise: float = 0.05) -> StereoScene:
    """Aerial views of a ground; view ``REFERENCE`` is in the middle.

    Args:
        kind: what is seen.
        views: 2 to 5.
        size: height and width in pixels.
        seed: not negative; all follows from it.
        noise: see ``take_frame``.
    """
    rng = np.random.default_rng([seed, 1])
    cameras = [_aerial(rng, place, size) for place in _AROUND[:views]]
    ranges = [_depths(camera) for camera in cameras]
    return _taken(kind, cameras, ranges, size, seed, noise)


def make_satellite_scene(
    kind: GroundKind, views: int, size: tuple[int, int], seed: int, noise: float = 0.05
) -> StereoScene:
    """Views of a satellite's line sensors that look back, down and ahead; the arguments are those of ``make_scene``."""
    rng = np.random.default_rng([seed, 2])
    heading = rng.uniform(-15.0, 15.0)
    cameras = [_satellite(rng, heading, ahead, size) for ahead in _FORWARD[:views]]
    return _taken(kind, cameras, [(LOWEST, HIGHEST)] * views, size, seed, noise)


def _taken(
    kind: GroundKind,
    cameras: Sequence[Pinhole | Pushbroom],
    ranges: Sequence[tuple[float, float]],
    size: tuple[int, int],
    seed: int,
    noise: float,
) -> StereoScene:
    assert kind in KINDS
    ground = scene_ground(kind, size, seed)
    rng = np.random.default_rng([seed, 3])
    return StereoScene(kind, cameras, [take_frame(ground, camera, rng, noise) for camera in cameras], ranges)


def scene_ground(kind: GroundKind, size: tuple[int, int], seed: int) -> Ground:
    """The ground of a scene, which reaches beyond the middle view, because the others see more."""
    return make_ground(kind, seed, 1.5 * max(size) * PIXEL + _BASELINE, PIXEL)


def _aerial(rng: np.random.Generator, place: tuple[float, float], size: tuple[int, int]) -> Pinhole:
    """A camera about 100 m above the ground, which turns most of the way to the middle of the scene."""
    jitter = rng.uniform(-1.5, 1.5, 3)
    x, y, z = place[0] * _BASELINE + jitter[0], place[1] * _BASELINE + jitter[1], PIXEL * _FOCAL + 2.0 * jitter[2]
    inwards = [_TURN * math.degrees(math.atan2(each, z)) for each in (x, y)]
    omega, phi, kappa = rng.uniform(-1.5, 1.5), rng.uniform(-1.5, 1.5), rng.uniform(-4.0, 4.0)
    rotation = turned(omega - inwards[1], phi + inwards[0], kappa)
    centre = (size[1] - 1) / 2.0, (size[0] - 1) / 2.0
    return Pinhole(np.array([x, y, z]), rotation, _FOCAL, centre, size)


def _depths(camera: Pinhole) -> tuple[float, float]:
    """The depths at which a camera's rays can meet what lies between ``LOWEST`` and ``HIGHEST``."""
    origins, directions = camera.rays()
    nearest, farthest = ((height - origins[:, 2]) / directions[:, 2] for height in (HIGHEST, LOWEST))
    return float(nearest.min()), float(farthest.max())


def _satellite(rng: np.random.Generator, heading: float, ahead: float, size: tuple[int, int]) -> Pushbroom:
    """A line sensor that looks ``ahead`` degrees forward, and up to 5 degrees aside."""
    aside = rng.uniform(-5.0, 5.0)
    # X across the track, Y along it, Z up, turned by the heading; then the sensor is pitched and rolled.
    rotation = turned(0.0, 0.0, -heading) @ turned(ahead + rng.uniform(-1.0, 1.0), 0.0, 0.0) @ turned(0.0, aside, 0.0)
    sight = -rotation[:, 2]
    middle = np.array([*rng.uniform(-2.0, 2.0, 2), 5.0])
    place = middle - sight * (_ALTITUDE / -sight[2])
    velocity = turned(0.0, 0.0, -heading) @ np.array([0.0, -PIXEL, 0.0])  # rows go down the image
    wobble = rng.uniform(-1.0, 1.0, 3) * np.array([0.3, 0.3, 20.0]) * PIXEL / _ALTITUDE
    drift = rng.uniform(-1.0, 1.0, 3) * 0.01 * PIXEL / _ALTITUDE
    focal = float(np.linalg.norm(place - middle)) / PIXEL
    return Pushbroom(place, velocity, rotation, drift, wobble, rng.uniform(1.5, 4.0) * size[0], focal, size)
