"""Cameras of synthetic stereo scenes: pinholes with any tilt, and a satellite's line sensor (pushbroom)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from Utils.synthetic.stereo_ground import Floats


@dataclass(frozen=True)
class Pinhole:
    """A camera of one centre, in the axes of photogrammetry: X right, Y up, Z backward.

    Attributes:
        place: (3,) metres.
        rotation: (3, 3), turns directions of the camera into directions of the world.
        focal: focal length in pixels.
        centre: column and row of the principal point; whole numbers are pixel centres.
        size: height and width in pixels.
    """

    place: Floats
    rotation: Floats
    focal: float
    centre: tuple[float, float]
    size: tuple[int, int]

    @property
    def pose(self) -> Floats:
        """(4, 4): camera to world."""
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = self.rotation, self.place
        return pose

    def rays(self) -> tuple[Floats, Floats]:
        """Origins and directions (H * W, 3) of the pixel centres; a direction is a metre long along the optical axis.

        The distance at which a ray meets something is therefore its depth.
        """
        rows, columns = np.mgrid[: self.size[0], : self.size[1]].reshape(2, -1)
        right, down = (columns - self.centre[0]) / self.focal, (rows - self.centre[1]) / self.focal
        seen = np.stack([right, -down, -np.ones_like(right)], axis=1)
        return np.broadcast_to(self.place, seen.shape).copy(), seen @ self.rotation.T

    def project(self, points: Floats) -> Floats:
        """(N, 2): column and row at which points (N, 3) are seen."""
        seen = (points - self.place) @ self.rotation
        depth = -seen[:, 2]
        column = self.centre[0] + self.focal * seen[:, 0] / depth
        return np.stack([column, self.centre[1] - self.focal * seen[:, 1] / depth], axis=1)


def turned(omega: float, phi: float, kappa: float) -> Floats:
    """The rotation Rx(omega) Ry(phi) Rz(kappa), camera to world, of angles in degrees; zeros look straight down."""
    (so, co), (sp, cp), (sk, ck) = (
        (math.sin(math.radians(each)), math.cos(math.radians(each))) for each in (omega, phi, kappa)
    )
    about_x = np.array([[1.0, 0.0, 0.0], [0.0, co, -so], [0.0, so, co]])
    about_y = np.array([[cp, 0.0, sp], [0.0, 1.0, 0.0], [-sp, 0.0, cp]])
    about_z = np.array([[ck, -sk, 0.0], [sk, ck, 0.0], [0.0, 0.0, 1.0]])
    return about_x @ about_y @ about_z


@dataclass(frozen=True)
class Pushbroom:
    """A line sensor on a satellite: each row is seen from another place, and the attitude drifts.

    Attributes:
        place: (3,) metres, where the satellite is at the middle row.
        velocity: (3,) metres that it moves in a row.
        rotation: (3, 3), turns directions of the camera (X along the line, Y ahead, Z backward) into the world's.
        drift: (3,) radians a row by which the attitude turns about the camera's X, Y and Z.
        wobble: (3,) radians of a slow sine, whose period is ``period`` rows.
        period: rows.
        focal: focal length in pixels.
        size: height and width in pixels.
    """

    place: Floats
    velocity: Floats
    rotation: Floats
    drift: Floats
    wobble: Floats
    period: float
    focal: float
    size: tuple[int, int]

    def rays(self) -> tuple[Floats, Floats]:
        """Origins and directions (H * W, 3) of the pixel centres; directions go down by a metre in height."""
        rows, columns = np.mgrid[: self.size[0], : self.size[1]].reshape(2, -1)
        time = rows - (self.size[0] - 1) / 2.0
        across = (columns - (self.size[1] - 1) / 2.0) / self.focal
        angles = self._angles(time)
        # Of angles this small, the rotation is 1 + the cross product.
        seen = np.stack([across, np.zeros_like(across), -np.ones_like(across)], axis=1)
        seen = (seen + np.cross(angles, seen)) @ self.rotation.T
        return self.place + time[:, None] * self.velocity, seen / -seen[:, 2:]

    def project(self, points: Floats) -> Floats:
        """(N, 2): column and row at which points (N, 3) are seen."""
        time = np.zeros(len(points))
        for _ in range(12):
            # In the sensor's plane a point has no component ahead; a row moves it by about a pixel.
            ahead = self._seen(points, time)[:, 1] * self.focal
            later = self._seen(points, time + 1.0)[:, 1] * self.focal
            time = time - ahead / (later - ahead)
        column = self._seen(points, time)[:, 0] * self.focal + (self.size[1] - 1) / 2.0
        return np.stack([column, time + (self.size[0] - 1) / 2.0], axis=1)

    def _angles(self, time: Floats) -> Floats:
        slow = np.sin(2.0 * math.pi * time / self.period)
        return time[:, None] * self.drift + slow[:, None] * self.wobble

    def _seen(self, points: Floats, time: Floats) -> Floats:
        """(N, 2): how far across and ahead of the sensor's plane points lie, for a depth of 1."""
        away = (points - self.place - time[:, None] * self.velocity) @ self.rotation
        angles = self._angles(time)
        # The inverse of v -> v + a x v, to all orders that matter: applied to v - a x v it leaves a x (a x v).
        first = away - np.cross(angles, away)
        back = first + np.cross(angles, np.cross(angles, away))
        return back[:, :2] / -back[:, 2:]
