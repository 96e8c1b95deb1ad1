"""Which views stand beside a reference: how much of it they see, and from how different a direction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from Utils.data.stereo.pinhole_camera import PinholeCamera
from Utils.rasters.rational import RationalModel

__all__ = ["PinholeView", "Relation", "SatelliteView", "ViewGeometry", "best_sources", "relate"]

Floats = NDArray[np.float64]

# Base-to-height ratios on both sides of this are worth less: near ones tell heights badly, far ones look different.
_BEST_RATIO, _WIDTH = 0.35, 0.9  # the width of a bell over the logarithm
_LEAST_OVERLAP = 0.2
_NODES = 9  # places along each side of the reference at which the overlap is looked at


class ViewGeometry(Protocol):
    """What is asked of a view's camera."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of its image in pixels."""

    @property
    def values(self) -> tuple[float, float]:
        """Smallest and largest depth or height that is looked for."""

    def ground(self, columns: Floats, rows: Floats, values: Floats) -> Floats:
        """(N, 3): the points that pixels see at depths or heights."""

    def pixels(self, points: Floats) -> Floats:
        """(N, 2): columns and rows at which points are seen; NaN behind the camera."""

    def directions(self, points: Floats) -> Floats:
        """(N, 3): directions of length 1, in metres, from points to the camera."""


@dataclass(frozen=True)
class PinholeView:
    """A view of a pinhole camera; points are metres of its world."""

    camera: PinholeCamera
    size: tuple[int, int]

    @property
    def values(self) -> tuple[float, float]:
        """The depths of the camera."""
        return self.camera.nearest, self.camera.farthest

    def ground(self, columns: Floats, rows: Floats, values: Floats) -> Floats:
        """See ``ViewGeometry``."""
        homogeneous = np.stack([columns * values, rows * values, values, np.ones_like(values)], axis=1)
        return (homogeneous @ np.linalg.inv(self.camera.projection).T)[:, :3]

    def pixels(self, points: Floats) -> Floats:
        """See ``ViewGeometry``."""
        seen = points @ self.camera.projection[:3, :3].T + self.camera.projection[:3, 3]
        depth = np.where(seen[:, 2:] > 0.0, seen[:, 2:], np.nan)
        return seen[:, :2] / depth

    def directions(self, points: Floats) -> Floats:
        """See ``ViewGeometry``."""
        towards = self.camera.place - points
        return towards / np.linalg.norm(towards, axis=1, keepdims=True)


@dataclass(frozen=True)
class SatelliteView:
    """A view with an RPC; points are longitude, latitude and height."""

    model: RationalModel
    size: tuple[int, int]
    values: tuple[float, float]

    def ground(self, columns: Floats, rows: Floats, values: Floats) -> Floats:
        """See ``ViewGeometry``."""
        return np.stack([*self.model.locate(columns, rows, values), values], axis=1)

    def pixels(self, points: Floats) -> Floats:
        """See ``ViewGeometry``."""
        return np.stack(self.model.project(points[:, 0], points[:, 1], points[:, 2]), axis=1)

    def directions(self, points: Floats) -> Floats:
        """See ``ViewGeometry``."""
        columns, rows = self.pixels(points).T
        rise = 0.5 * (self.values[1] - self.values[0])
        higher = self.ground(columns, rows, points[:, 2] + rise)
        step = (higher - points)[:, :2] * _metres_per_degree(points[:, 1])
        towards = np.concatenate([step, np.full((len(points), 1), rise)], axis=1)
        return towards / np.linalg.norm(towards, axis=1, keepdims=True)


def _metres_per_degree(latitudes: Floats) -> Floats:
    """(N, 2): about; only angles follow from it."""
    degree = math.radians(6_371_000.0)
    return np.stack([degree * np.cos(np.radians(latitudes)), np.full_like(latitudes, degree)], axis=1)


@dataclass(frozen=True)
class Relation:
    """How a source stands to a reference.

    Attributes:
        overlap: share of the reference's pixels that the source sees, at middle depth or height, in 0..1.
        ratio: base-to-height: twice the tangent of half the angle between their rays.
    """

    overlap: float
    ratio: float

    @property
    def score(self) -> float:
        """The higher, the better the source; 0 without overlap."""
        if self.overlap <= 0.0 or self.ratio <= 0.0:
            return 0.0
        return self.overlap * math.exp(-0.5 * (math.log(self.ratio / _BEST_RATIO) / _WIDTH) ** 2)


def relate(reference: ViewGeometry, source: ViewGeometry) -> Relation:
    """Overlap and base-to-height ratio of two views, at the middle of the reference's depths or heights."""
    height, width = reference.size
    rows, columns = (
        nodes.ravel()
        for nodes in np.meshgrid(np.linspace(0, height - 1, _NODES), np.linspace(0, width - 1, _NODES), indexing="ij")
    )
    middle = np.full(len(rows), 0.5 * (reference.values[0] + reference.values[1]))
    points = reference.ground(columns, rows, middle)
    seen = source.pixels(points)
    limits = np.array([source.size[1] - 1, source.size[0] - 1])
    with np.errstate(invalid="ignore"):
        inside = np.isfinite(seen).all(axis=1) & (seen >= 0).all(axis=1) & (seen <= limits).all(axis=1)
    if not inside.any():
        return Relation(0.0, 0.0)
    cosines = (reference.directions(points[inside]) * source.directions(points[inside])).sum(axis=1)
    angle = float(np.median(np.arccos(np.clip(cosines, -1.0, 1.0))))
    return Relation(float(inside.mean()), 2.0 * math.tan(angle / 2.0))


def best_sources(relations: Sequence[Relation], count: int) -> list[int]:
    """Places of the best sources, the best first; none that sees less than a fifth of the reference.

    Args:
        relations: of each source to the reference.
        count: how many are wanted; fewer where fewer see enough.
    """
    able = [place for place, relation in enumerate(relations) if relation.overlap >= _LEAST_OVERLAP]
    return sorted(able, key=lambda place: -relations[place].score)[:count]
