"""Seeded scenes of boxes, each with several places to look from: furnished rooms, and streets between houses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from Utils.synthetic.box_camera import Box, Camera
from Utils.synthetic.box_image import Colour, Frame, Light, Pattern, Solid, take_frame

ROOM, STREET = "room", "street"
KINDS = (ROOM, STREET)

# Metres around a camera that furniture and cars leave free.
_FREE = 0.7
_SUN_COLOURS: tuple[Colour, ...] = ((0.62, 0.75, 0.95), (0.75, 0.82, 0.93), (0.85, 0.86, 0.88))


@dataclass(frozen=True)
class BoxScene:
    """A scene: what stands in it, its light, and the cameras that look at it."""

    kind: str
    solids: Sequence[Solid]
    light: Light
    cameras: Sequence[Camera]


def make_frames(kind: str, frames: int, size: tuple[int, int], seed: int | np.random.SeedSequence) -> list[Frame]:
    """Make a scene and take its frames; the same arguments give the same frames.

    Args:
        kind: ``room`` or ``street``.
        frames: how many.
        size: height and width in pixels.
        seed: of scene, cameras and noise.

    Raises:
        ValueError: another kind.
    """
    rng = np.random.default_rng(seed)
    scene = make_scene(kind, frames, size, rng)
    return [take_frame(scene.solids, scene.light, camera, rng) for camera in scene.cameras]


def make_scene(kind: str, frames: int, size: tuple[int, int], rng: np.random.Generator) -> BoxScene:
    """Draw a scene of one kind.

    Raises:
        ValueError: another kind.
    """
    if kind not in KINDS:
        raise ValueError(f"no scene of kind '{kind}'; known: {', '.join(KINDS)}")
    return _room(frames, size, rng) if kind == ROOM else _street(frames, size, rng)


def _room(frames: int, size: tuple[int, int], rng: np.random.Generator) -> BoxScene:
    width, length, height = rng.uniform(3.0, 8.0), rng.uniform(3.5, 11.0), rng.uniform(2.4, 3.4)
    cameras = []
    for _ in range(frames):
        x, y = rng.uniform(0.12, 0.88) * width, rng.uniform(0.08, 0.45) * length
        towards = math.degrees(math.atan2(width / 2.0 - x, 0.8 * length - y))
        place = (float(x), float(y), float(rng.uniform(1.1, 1.7)))
        cameras.append(_look(rng, place, towards, 30.0, (-16.0, 3.0), size))
    walls = Box((width / 2.0, length / 2.0, height / 2.0), (width, length, height))
    floor = Box((width / 2.0, length / 2.0, 0.005), (width, length, 0.01))
    ceiling = Box((width / 2.0, length / 2.0, height - 0.005), (width, length, 0.01))
    solids = [
        _solid(rng, walls, _pale(rng), ("plain", "plain", "bricks", "speckles"), (0.25, 0.5), 0.25),
        _solid(rng, floor, _wooden(rng), ("planks", "tiles"), (0.15, 0.5), 0.5),
        Solid(ceiling, (0.85, 0.85, 0.83)),
    ]
    # Doors, windows and pictures at the walls.
    for _ in range(rng.integers(2, 6)):
        wide, high, low = rng.uniform(0.6, 1.8), rng.uniform(0.6, 1.6), rng.uniform(0.0, 1.0)
        middle_high = min(low + high / 2.0, height - high / 2.0)
        if rng.random() < 0.5:
            box = Box((rng.uniform(0.2, 0.8) * width, length - 0.02, middle_high), (wide, 0.04, high))
        else:
            side = 0.02 if rng.random() < 0.5 else width - 0.02
            box = Box((side, rng.uniform(0.2, 0.9) * length, middle_high), (0.04, wide, high))
        solids.append(_solid(rng, box, _any(rng), ("plain", "windows", "speckles"), (0.3, 0.6), 0.4))
    solids += _placed(rng, cameras, (0.0, width), (0.2 * length, length), int(rng.integers(4, 10)), _furniture)
    lamp = (rng.uniform(0.3, 0.7) * width, rng.uniform(0.3, 0.7) * length, height - 0.3)
    light = Light(
        lamp,
        lamp=True,
        ambient=float(rng.uniform(0.25, 0.5)),
        gain=float(rng.uniform(0.8, 1.5)),
        noise=float(rng.uniform(1.0, 4.0)),
    )
    return BoxScene(ROOM, solids, light, cameras)


def _street(frames: int, size: tuple[int, int], rng: np.random.Generator) -> BoxScene:
    road, pavement, end = rng.uniform(6.0, 11.0), rng.uniform(1.5, 4.0), rng.uniform(22.0, 42.0)
    edge = road / 2.0 + pavement
    cameras = []
    for _ in range(frames):
        place = (float(rng.uniform(-0.4, 0.4) * road), float(rng.uniform(0.0, 6.0)), float(rng.uniform(1.3, 2.2)))
        cameras.append(_look(rng, place, 0.0, 18.0, (-8.0, 4.0), size))
    grey = float(rng.uniform(0.1, 0.25))
    ground = Box((0.0, 20.0, -0.5), (200.0, 200.0, 1.0))
    across = Box((rng.uniform(-4.0, 4.0), end + 5.0, 0.0), (80.0, 10.0, 2.0 * rng.uniform(6.0, 16.0)))
    solids = [
        Solid(ground, (grey, grey, grey), "speckles", 0.4, 0.35, int(rng.integers(1000))),
        _solid(rng, across, _any(rng), ("windows", "bricks"), (1.5, 3.0), 0.6),
    ]
    for side in (-1.0, 1.0):
        kerb = Box((side * (road / 2.0 + 50.0), 20.0, 0.0), (100.0, 200.0, 0.24))
        solids.append(_solid(rng, kerb, _pale(rng), ("tiles",), (0.5, 1.0), 0.3))
        y = -12.0
        while y < end:
            deep, wide, high = 12.0, rng.uniform(5.0, 14.0), rng.uniform(4.0, 18.0)
            back = rng.choice([0.0, 0.0, rng.uniform(0.5, 4.0)])
            house = Box((side * (edge + back + deep / 2.0), y + wide / 2.0, high / 2.0), (deep, wide, high))
            solids.append(_solid(rng, house, _any(rng), ("windows", "windows", "bricks"), (1.4, 3.0), 0.65))
            y += wide + rng.choice([0.0, 0.0, rng.uniform(1.0, 5.0)])
    # White lines along the middle of the road, each 2 m long.
    solids += [Solid(Box((0.0, y, 0.0), (0.15, 2.0, 0.02)), (0.8, 0.8, 0.78)) for y in np.arange(3.0, end, 5.0)]
    for side in (-1.0, 1.0):
        near = sorted((side * road / 2.0, side * (road / 2.0 - 2.2)))
        solids += _placed(rng, cameras, (near[0], near[1]), (2.0, end), int(rng.integers(2, 6)), _car)
        beside = sorted((side * edge, side * road / 2.0))
        solids += _placed(rng, cameras, (beside[0], beside[1]), (2.0, end), int(rng.integers(2, 6)), _post)
    sun = (float(rng.uniform(-1.0, 1.0)), float(rng.uniform(-1.0, 0.2)), float(rng.uniform(0.5, 1.2)))
    light = Light(
        sun,
        ambient=float(rng.uniform(0.35, 0.55)),
        sky=_SUN_COLOURS[rng.integers(len(_SUN_COLOURS))],
        haze=float(rng.uniform(0.0, 0.012)),
        gain=float(rng.uniform(0.8, 1.3)),
        noise=float(rng.uniform(1.0, 4.0)),
    )
    return BoxScene(STREET, solids, light, cameras)


def _look(
    rng: np.random.Generator,
    place: tuple[float, float, float],
    towards: float,
    aside: float,
    pitch: tuple[float, float],
    size: tuple[int, int],
) -> Camera:
    """A camera that looks about ``towards``, by up to ``aside`` degrees beside it."""
    # One lens for all: of two lenses, images do not say which one took them.
    return Camera(place, towards + float(rng.uniform(-aside, aside)), float(rng.uniform(*pitch)), 64.0, size)


def _placed(
    rng: np.random.Generator,
    cameras: Sequence[Camera],
    across: tuple[float, float],
    along: tuple[float, float],
    count: int,
    make: object,
) -> list[Solid]:
    """Things that stand in a rectangle of the ground, none of them where a camera is."""
    assert callable(make)
    placed: list[Solid] = []
    for _ in range(count):
        made: list[Solid] = make(rng, float(rng.uniform(*across)), float(rng.uniform(*along)))
        if not any(_covers(solid.box, camera) for solid in made for camera in cameras):
            placed += made
    return placed


def _covers(box: Box, camera: Camera) -> bool:
    """Whether a camera is in a box, or so near that it would see little else."""
    away = math.hypot(box.middle[0] - camera.place[0], box.middle[1] - camera.place[1])
    return away < _FREE + math.hypot(box.size[0], box.size[1]) / 2.0


def _furniture(rng: np.random.Generator, x: float, y: float) -> list[Solid]:
    """A cupboard or chest, or a table on four legs."""
    turn = float(rng.choice([0.0, 0.0, rng.uniform(-45.0, 45.0)]))
    if rng.random() < 0.6:
        wide, deep, high = rng.uniform(0.4, 1.6), rng.uniform(0.4, 0.9), rng.uniform(0.35, 2.0)
        box = Box((x, y, high / 2.0), (wide, deep, high), turn)
        return [_solid(rng, box, _any(rng), ("plain", "planks", "speckles"), (0.2, 0.5), 0.35)]
    wide, deep, high = rng.uniform(0.7, 1.8), rng.uniform(0.6, 1.0), rng.uniform(0.45, 0.85)
    colour = _wooden(rng)
    parts = [Solid(Box((x, y, high), (wide, deep, 0.06), turn), colour, "planks", 0.2, 0.3)]
    sine, cosine = math.sin(math.radians(turn)), math.cos(math.radians(turn))
    for right in (-1.0, 1.0):
        for ahead in (-1.0, 1.0):
            u, v = right * (wide / 2.0 - 0.08), ahead * (deep / 2.0 - 0.08)
            corner = (x + u * cosine + v * sine, y - u * sine + v * cosine, high / 2.0)
            parts.append(Solid(Box(corner, (0.07, 0.07, high), turn), colour))
    return parts


def _car(rng: np.random.Generator, x: float, y: float) -> list[Solid]:
    """A car: a body, a cabin with windows, and dark wheels below."""
    colour, high = _any(rng), rng.uniform(0.6, 0.8)
    return [
        Solid(Box((x, y, 0.25), (1.6, 3.4, 0.5)), (0.04, 0.04, 0.04)),
        Solid(Box((x, y, 0.3 + high / 2.0), (1.8, 4.2, high)), colour),
        Solid(Box((x, y - 0.2, 0.3 + high + 0.3), (1.6, 2.2, 0.6)), (0.1, 0.12, 0.15)),
        Solid(Box((x, y - 0.2, 0.3 + high + 0.63), (1.6, 2.2, 0.06)), colour),
    ]


def _post(rng: np.random.Generator, x: float, y: float) -> list[Solid]:
    """A lamp post or a tree."""
    if rng.random() < 0.5:
        return [Solid(Box((x, y, 3.0), (0.14, 0.14, 6.0)), (0.25, 0.26, 0.27))]
    high, wide = rng.uniform(3.5, 7.0), rng.uniform(1.4, 3.0)
    green = (float(rng.uniform(0.05, 0.2)), float(rng.uniform(0.15, 0.35)), 0.06)
    crown = Box((x, y, high), (wide, wide, 0.8 * high), float(rng.uniform(0.0, 90.0)))
    trunk = Box((x, y, high / 2.0), (0.3, 0.3, high))
    return [Solid(trunk, (0.2, 0.14, 0.09)), Solid(crown, green, "speckles", 0.35, 0.7, int(rng.integers(1000)))]


def _solid(
    rng: np.random.Generator,
    box: Box,
    colour: Colour,
    patterns: Sequence[Pattern],
    cells: tuple[float, float],
    contrast: float,
) -> Solid:
    """A box with a pattern that is drawn from some, with cells of a size in metres between two."""
    pattern = patterns[int(rng.integers(len(patterns)))]
    strength = float(rng.uniform(0.6, 1.0)) * contrast
    return Solid(box, colour, pattern, float(rng.uniform(*cells)), strength, int(rng.integers(1000)))


def _pale(rng: np.random.Generator) -> Colour:
    red, green, blue = rng.uniform(0.45, 0.85) * rng.uniform(0.85, 1.0, 3)
    return float(red), float(green), float(blue)


def _wooden(rng: np.random.Generator) -> Colour:
    bright = rng.uniform(0.2, 0.6)
    return float(bright), float(bright * rng.uniform(0.65, 0.95)), float(bright * rng.uniform(0.4, 0.85))


def _any(rng: np.random.Generator) -> Colour:
    red, green, blue = rng.uniform(0.08, 0.75, 3)
    return float(red), float(green), float(blue)
