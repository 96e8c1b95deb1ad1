"""Ray casting of boxes through a perspective camera: depth in closed form, and which surface each pixel sees.

World coordinates are metres: x to the right, y ahead, z up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# A ray that runs along a face would be divided by zero; this direction is closer to it than any pixel is.
_PARALLEL = 1e-12


@dataclass(frozen=True)
class Camera:
    """A pinhole camera without distortion.

    Attributes:
        place: x, y and z in metres.
        yaw: degrees to the right of straight ahead.
        pitch: degrees upwards.
        field_of_view: degrees from the left to the right edge of the image.
        size: height and width in pixels.
    """

    place: tuple[float, float, float]
    yaw: float
    pitch: float
    field_of_view: float
    size: tuple[int, int]

    @property
    def focal_length(self) -> float:
        """Pixels."""
        return self.size[1] / 2.0 / math.tan(math.radians(self.field_of_view) / 2.0)

    def rays(self) -> Floats:
        """The directions (H * W, 3) of the pixel centres, each one metre long along the optical axis.

        A point that a ray reaches after t of its lengths therefore has the depth t.
        """
        height, width = self.size
        yaw, pitch = math.radians(self.yaw), math.radians(self.pitch)
        right = np.array([math.cos(yaw), -math.sin(yaw), 0.0])
        ahead = np.array([math.sin(yaw) * math.cos(pitch), math.cos(yaw) * math.cos(pitch), math.sin(pitch)])
        up = np.cross(right, ahead)
        across = (np.arange(width) + 0.5 - width / 2.0) / self.focal_length
        above = (height / 2.0 - np.arange(height) - 0.5) / self.focal_length
        directions = ahead + across[None, :, None] * right + above[:, None, None] * up
        return directions.reshape(-1, 3)


@dataclass(frozen=True)
class Box:
    """A box that may be turned about its upright axis; seen from within, it is a room.

    Attributes:
        middle: x, y and z of its centre in metres.
        size: its lengths along its own x, y and z, in metres.
        turn: degrees by which its y points to the right of straight ahead.
    """

    middle: tuple[float, float, float]
    size: tuple[float, float, float]
    turn: float = 0.0


@dataclass(frozen=True)
class Hits:
    """What the rays of an image meet, all arrays with one entry a pixel (N,).

    Attributes:
        depth: metres along the optical axis; infinite where a ray meets nothing.
        box: number of the box; -1 for none.
        face: 0, 1 or 2 for a face across the box's x, y or z.
        point: (N, 3) where on the box, in metres in its own axes from its centre.
        normal: (N, 3) the face's direction in the world, towards the camera.
    """

    depth: Floats
    box: NDArray[np.int64]
    face: NDArray[np.int64]
    point: Floats
    normal: Floats


def cast(camera: Camera, boxes: Sequence[Box]) -> Hits:
    """Find the nearest surface of every pixel, by the slab method (Kay and Kajiya, SIGGRAPH 1986)."""
    rays = camera.rays()
    count = len(rays)
    hits = Hits(
        np.full(count, np.inf),
        np.full(count, -1),
        np.zeros(count, np.int64),
        np.zeros((count, 3)),
        np.zeros((count, 3)),
    )
    unit = rays / np.linalg.norm(rays, axis=1, keepdims=True)
    for number, box in enumerate(boxes):
        near = _near(unit, np.array(box.middle) - camera.place, float(np.linalg.norm(box.size)) / 2.0)
        turned = _turn(box.turn)
        start = turned @ (np.array(camera.place) - box.middle)
        along = rays[near] @ turned.T
        along = np.where(np.abs(along) < _PARALLEL, _PARALLEL, along)
        half = np.array(box.size) / 2.0
        one, other = (-half - start) / along, (half - start) / along
        enters, leaves = np.minimum(one, other), np.maximum(one, other)
        first, last = enters.max(axis=1), leaves.min(axis=1)
        # From within, the far side is what is seen.
        within = first <= 0.0
        depth = np.where(within, last, first)
        nearer = (first < last) & (last > 0.0) & (depth < hits.depth[near])
        face = np.where(within, leaves.argmin(axis=1), enters.argmax(axis=1))[nearer]
        chosen, depth, along = near[nearer], depth[nearer], along[nearer]
        hits.depth[chosen], hits.box[chosen], hits.face[chosen] = depth, number, face
        hits.point[chosen] = start + depth[:, None] * along
        towards = -np.sign(along[np.arange(len(face)), face])
        hits.normal[chosen] = towards[:, None] * turned[face]
    return hits


def _near(unit: Floats, middle: Floats, radius: float) -> NDArray[np.int64]:
    """Numbers of the rays, of length 1, that come near enough to a sphere to be looked at; all from within it."""
    away = float(np.linalg.norm(middle))
    if away <= radius:
        return np.arange(len(unit))
    least = math.sqrt(1.0 - (radius / away) ** 2)
    return np.flatnonzero(unit @ (middle / away) >= least - 1e-9)


def _turn(degrees: float) -> Floats:
    """The matrix (3, 3) that takes directions of the world into those of a turned box; its rows are the box's axes."""
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    return np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])
