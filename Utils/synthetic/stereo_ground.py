"""Synthetic ground for stereo: smooth terrain with houses and trees on it, textured in metres down to a pixel.

Coordinates are metres: x to the east, y to the north, z upwards. The origin is the middle of the scene.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

GroundKind = Literal["town", "terrain"]
KINDS: tuple[GroundKind, ...] = ("town", "terrain")
Floats = NDArray[np.float64]

LOWEST, HIGHEST = -6.0, 24.0
"""Heights in metres between which all ground, houses and trees lie."""

_TABLE = 256  # random numbers along each side of a texture's table, which repeats beyond
_FINEST_CELL = 1.4  # ground pixels that a cell of the finest octave covers
_OCTAVES = 6
# How a texture goes on down a wall: each metre of height shifts it by so much, so that no wall shows stripes.
_DOWN_A_WALL = (0.83, 0.57)


@dataclass(frozen=True)
class Waves:
    """Terrain: a sum of sines.

    Attributes:
        level: mean height in metres.
        vectors: (K, 2) wave vectors, radians a metre.
        amplitudes: (K,) metres.
        phases: (K,) radians.
    """

    level: float
    vectors: Floats
    amplitudes: Floats
    phases: Floats

    def heights(self, x: Floats, y: Floats) -> Floats:
        """Height in metres at each place."""
        angles = x[..., None] * self.vectors[:, 0] + y[..., None] * self.vectors[:, 1] + self.phases
        return self.level + np.sin(angles) @ self.amplitudes

    def normals(self, x: Floats, y: Floats) -> Floats:
        """(N, 3): upward normals of length 1."""
        angles = x[..., None] * self.vectors[:, 0] + y[..., None] * self.vectors[:, 1] + self.phases
        slopes = np.cos(angles) @ (self.amplitudes[:, None] * self.vectors)  # (N, 2)
        normals = np.concatenate([-slopes, np.ones_like(slopes[:, :1])], axis=1)
        return normals / np.linalg.norm(normals, axis=1, keepdims=True)


@dataclass(frozen=True)
class House:
    """A convex body: what lies behind all of its faces, n . p <= offset. The last four faces are walls.

    Attributes:
        normals: (F, 3) outward normals of length 1.
        offsets: (F,) metres.
    """

    normals: Floats
    offsets: Floats


@dataclass(frozen=True)
class Tree:
    """A crown, an ellipsoid.

    Attributes:
        middle: x, y and z in metres.
        radii: half of its axes in metres along x, y and z.
    """

    middle: Floats
    radii: Floats


@dataclass(frozen=True)
class Paint:
    """How a surface looks.

    Attributes:
        colour: red, green and blue in 0..1.
        contrast: how far the texture changes the colour; 0 for a surface without texture.
    """

    colour: tuple[float, float, float]
    contrast: float


@dataclass(frozen=True)
class Hits:
    """Where rays meet a ground.

    Attributes:
        distance: (N,) lengths of the ray's direction from its origin.
        point: (N, 3) metres.
        normal: (N, 3) of length 1.
        paint: (N,) number of the surface's paint.
    """

    distance: Floats
    point: Floats
    normal: Floats
    paint: NDArray[np.int64]


@dataclass(frozen=True)
class Ground:
    """All that cameras see.

    Attributes:
        terrain: the terrain. Its slopes are far less steep than rays are.
        houses: convex bodies, each with two paints: roof and walls.
        trees: crowns, each with one paint.
        paints: of the terrain two (field and road), then those of the houses, then those of the trees.
        sun: direction to the sun, of length 1.
        tables: (octaves, _TABLE, _TABLE) random numbers of the texture, with mean 0 and standard deviation 1.
        pixel: metres that a pixel covers; the texture's finest octave fits it.
    """

    terrain: Waves
    houses: Sequence[House]
    trees: Sequence[Tree]
    paints: Sequence[Paint]
    sun: Floats
    tables: NDArray[np.float32]
    pixel: float

    def meet(self, origins: Floats, directions: Floats) -> Hits:
        """Where rays first meet the ground; they come from above ``HIGHEST``, and go downwards.

        Args:
            origins: (N, 3) metres.
            directions: (N, 3), of any length.
        """
        hits = self._meet_terrain(origins, directions)
        paint = 2
        for house in self.houses:
            _meet_house(house, origins, directions, hits, paint)
            paint += 2
        for tree in self.trees:
            _meet_tree(tree, origins, directions, hits, paint)
            paint += 1
        hits.point[:] = origins + hits.distance[:, None] * directions
        on_terrain = hits.paint == 0
        x, y = hits.point[on_terrain, 0], hits.point[on_terrain, 1]
        hits.normal[on_terrain] = self.terrain.normals(x, y)
        return hits

    def _meet_terrain(self, origins: Floats, directions: Floats) -> Hits:
        """March in steps through the heights that terrain can have, then halve the step in which a ray goes under."""
        span = float(np.abs(self.terrain.amplitudes).sum()) + 1e-6
        top, bottom = self.terrain.level + span, self.terrain.level - span
        down = directions[:, 2]
        before = (top - origins[:, 2]) / down
        after = (bottom - origins[:, 2]) / down
        found = np.zeros(len(down), bool)
        low, high = before.copy(), after.copy()
        for step in range(1, _MARCH + 1):
            reached = before + (after - before) * step / _MARCH
            under = ~found & self._is_under(origins, directions, reached)
            high[under] = reached[under]
            found |= under
            low[~found] = reached[~found]
        for _ in range(_HALVINGS):
            middle = 0.5 * (low + high)
            under = self._is_under(origins, directions, middle)
            high = np.where(under, middle, high)
            low = np.where(under, low, middle)
        for _ in range(_CORRECTIONS):
            # Rays are steep and slopes are not: the height that is left is met nearly below.
            point = origins + high[:, None] * directions
            high = high - (point[:, 2] - self.terrain.heights(point[:, 0], point[:, 1])) / down
        count = len(down)
        return Hits(high, np.zeros((count, 3)), np.zeros((count, 3)), np.zeros(count, np.int64))

    def _is_under(self, origins: Floats, directions: Floats, distance: Floats) -> NDArray[np.bool_]:
        point = origins + distance[:, None] * directions
        return point[:, 2] <= self.terrain.heights(point[:, 0], point[:, 1])

    def colours(self, hits: Hits) -> NDArray[np.float32]:
        """(N, 3): what a sensor without noise records, around 0..1."""
        noise = self._texture(hits.point, hits.paint)
        colour = np.array([paint.colour for paint in self.paints], np.float32)[hits.paint]
        contrast = np.array([paint.contrast for paint in self.paints], np.float32)[hits.paint]
        light = 0.5 + 0.6 * np.clip(hits.normal @ self.sun, 0.0, None)
        self._lay_roads(hits, colour, contrast)
        return (colour * ((1.0 + contrast * noise) * light)[:, None]).astype(np.float32)

    def _lay_roads(self, hits: Hits, colour: NDArray[np.float32], contrast: NDArray[np.float32]) -> None:
        """Terrain has two paints, where a slow noise is below and above 0."""
        terrain = np.flatnonzero(hits.paint == 0)
        place = hits.point[terrain, :2] / (24.0 * self.pixel)
        road = _look_up(self.tables[0], place[:, 0] + 40.0, place[:, 1] + 90.0) > 0.6
        colour[terrain[road]] = self.paints[1].colour
        contrast[terrain[road]] = self.paints[1].contrast

    def _texture(self, point: Floats, paint: NDArray[np.int64]) -> NDArray[np.float32]:
        """(N,): noise of all octaves with standard deviation 1, another one for each paint."""
        along = point[:, 0] + _DOWN_A_WALL[0] * point[:, 2] + 37.3 * paint
        across = point[:, 1] + _DOWN_A_WALL[1] * point[:, 2] + 71.9 * paint
        total = np.zeros(len(point), np.float32)
        for octave, table in enumerate(self.tables):
            cell = _FINEST_CELL * self.pixel * 2.0**octave
            total += _look_up(table, along / cell, across / cell)
        return total / np.float32(math.sqrt(len(self.tables)))


_MARCH, _HALVINGS, _CORRECTIONS = 8, 8, 6


def _look_up(table: NDArray[np.float32], x: Floats, y: Floats) -> NDArray[np.float32]:
    found: NDArray[np.float32] = ndimage.map_coordinates(table, [y, x], order=1, mode="grid-wrap")
    return found


def _meet_house(house: House, origins: Floats, directions: Floats, hits: Hits, paint: int) -> None:
    """Clip each ray at all faces: it enters through the last of those that it meets from outside."""
    towards = directions @ house.normals.T  # (N, F)
    gap = house.offsets - origins @ house.normals.T
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = gap / towards
    entering = np.where(towards < 0.0, distance, np.where((towards == 0.0) & (gap < 0.0), np.inf, -np.inf))
    leaving = np.where(towards > 0.0, distance, np.inf)
    face = entering.argmax(axis=1)
    first = entering[np.arange(len(face)), face]
    nearer = (first < leaving.min(axis=1)) & (first < hits.distance)
    hits.distance[nearer] = first[nearer]
    hits.normal[nearer] = house.normals[face[nearer]]
    wall = face[nearer] >= len(house.normals) - 4
    hits.paint[nearer] = paint + wall


def _meet_tree(tree: Tree, origins: Floats, directions: Floats, hits: Hits, paint: int) -> None:
    start, along = (origins - tree.middle) / tree.radii, directions / tree.radii
    a, b, c = (along**2).sum(axis=1), (start * along).sum(axis=1), (start**2).sum(axis=1) - 1.0
    # From far away b * b - a * c loses all digits; the nearest point of the ray keeps them.
    nearest = start - (b / a)[:, None] * along
    left = 1.0 - (nearest**2).sum(axis=1)
    first = -b / a - np.sqrt(np.clip(left, 0.0, None) / a)
    nearer = (left > 0.0) & (first < hits.distance) & (c > 0.0)
    hits.distance[nearer] = first[nearer]
    surface = (nearest + ((first + b / a)[:, None] * along))[nearer] / tree.radii
    hits.normal[nearer] = surface / np.linalg.norm(surface, axis=1, keepdims=True)
    hits.paint[nearer] = paint


def make_ground(kind: GroundKind, seed: int, extent: float, pixel: float) -> Ground:
    """A ground that follows from its seed.

    Args:
        kind: town (houses and trees on gentle terrain) or terrain (hills with few trees).
        seed: not negative.
        extent: side in metres of the square that things stand on.
        pixel: metres that a pixel of the images will cover.
    """
    rng = np.random.default_rng(seed)
    town = kind == "town"
    terrain = _make_terrain(rng, extent, (1.0, 3.5) if town else (8.0, 13.0))
    area = (extent / 60.0) ** 2
    houses, paints = _make_houses(rng, terrain, extent, round(area * rng.uniform(12.0, 22.0)) if town else 0)
    trees: list[Tree] = []
    crowns: list[Paint] = []
    for _ in range(round(area * (rng.uniform(3.0, 9.0) if town else rng.uniform(2.0, 8.0)))):
        trees.append(_make_tree(rng, terrain, extent))
        crowns.append(Paint((rng.uniform(0.08, 0.25), rng.uniform(0.25, 0.45), rng.uniform(0.05, 0.2)), 0.3))
    field = Paint((rng.uniform(0.3, 0.6), rng.uniform(0.4, 0.65), rng.uniform(0.25, 0.5)), rng.uniform(0.25, 0.6))
    road = Paint(_grey(rng, 0.4, 0.7), rng.uniform(0.04, 0.25))
    sun = np.array([rng.uniform(-0.8, 0.8), rng.uniform(-0.8, 0.8), 1.0])
    tables = rng.standard_normal((_OCTAVES, _TABLE, _TABLE)).astype(np.float32)
    # Between its points a table is interpolated, which takes from its variance.
    return Ground(
        terrain, houses, trees, [field, road, *paints, *crowns], sun / np.linalg.norm(sun), 1.5 * tables, pixel
    )


def _make_terrain(rng: np.random.Generator, extent: float, relief: tuple[float, float]) -> Waves:
    lengths = extent * np.array([1.6, 1.1, 0.7, 0.45, 0.3, 0.2])
    turns = rng.uniform(0.0, 2.0 * math.pi, len(lengths))
    vectors = 2.0 * math.pi / lengths[:, None] * np.stack([np.cos(turns), np.sin(turns)], axis=1)
    shares = (lengths / lengths[0]) ** 1.3 * rng.uniform(0.5, 1.0, len(lengths))
    total = float(rng.uniform(*relief))
    amplitudes = total * shares / shares.sum()
    level = LOWEST + total + float(rng.uniform(0.0, 2.0))
    return Waves(level, vectors, amplitudes, rng.uniform(0.0, 2.0 * math.pi, len(lengths)))


def _make_houses(
    rng: np.random.Generator, terrain: Waves, extent: float, count: int
) -> tuple[list[House], list[Paint]]:
    houses: list[House] = []
    paints: list[Paint] = []
    street = rng.uniform(0.0, math.pi / 2.0)  # most houses stand along it
    for _ in range(count):
        x, y = rng.uniform(-0.5, 0.5, 2) * extent
        half = rng.uniform(2.5, 8.0), rng.uniform(2.5, 5.5)
        turn = street if rng.random() < 0.7 else rng.uniform(0.0, math.pi)
        ground = float(terrain.heights(np.array(x), np.array(y)))
        eaves = float(rng.choice([rng.uniform(3.0, 8.0), rng.uniform(8.0, 18.0)], p=[0.55, 0.45]))
        pitch = float(rng.choice([0.0, math.radians(rng.uniform(15.0, 40.0))])) if eaves < 10.0 else 0.0
        top = min(ground + eaves, HIGHEST - math.tan(pitch) * half[1] - 0.5)
        houses.append(_house((x, y), half, turn, top, pitch))
        textured = rng.random() < 0.65
        paints.append(Paint(_roof_colour(rng), rng.uniform(0.2, 0.5) if textured else rng.uniform(0.0, 0.03)))
        paints.append(Paint(_grey(rng, 0.35, 0.8), rng.uniform(0.1, 0.4)))
    return houses, paints


def _house(place: tuple[float, float], half: tuple[float, float], turn: float, top: float, pitch: float) -> House:
    """A house with its eaves at the height ``top``; its roof rises by ``pitch`` radians to a ridge along its length."""
    along = np.array([math.cos(turn), math.sin(turn), 0.0])
    across = np.array([-math.sin(turn), math.cos(turn), 0.0])
    up = np.array([0.0, 0.0, 1.0])
    ridge = top + math.tan(pitch) * half[1]
    slopes = [math.cos(pitch) * up + side * math.sin(pitch) * across for side in ((1.0, -1.0) if pitch else (0.0,))]
    middle = np.array([*place, 0.0])
    roof = [(normal, float(normal @ (middle + ridge * up))) for normal in slopes]
    walls = [(side * axis, float(side * axis @ middle) + half[0]) for axis in (along,) for side in (1.0, -1.0)]
    walls += [(side * across, float(side * across @ middle) + half[1]) for side in (1.0, -1.0)]
    normals, offsets = zip(*roof, *walls, strict=True)
    return House(np.array(normals), np.array(offsets))


def _make_tree(rng: np.random.Generator, terrain: Waves, extent: float) -> Tree:
    x, y = rng.uniform(-0.5, 0.5, 2) * extent
    wide, high = rng.uniform(1.5, 3.5), rng.uniform(1.5, 3.5)
    middle = float(terrain.heights(np.array(x), np.array(y))) + rng.uniform(1.5, 4.0)
    return Tree(np.array([x, y, min(middle, HIGHEST - high)]), np.array([wide, wide, high]))


def _grey(rng: np.random.Generator, low: float, high: float) -> tuple[float, float, float]:
    red, green, blue = rng.uniform(low, high) * rng.uniform(0.9, 1.0, 3)
    return float(red), float(green), float(blue)


def _roof_colour(rng: np.random.Generator) -> tuple[float, float, float]:
    if rng.random() < 0.5:
        return _grey(rng, 0.2, 0.9)
    return float(rng.uniform(0.4, 0.75)), float(rng.uniform(0.2, 0.4)), float(rng.uniform(0.15, 0.35))
