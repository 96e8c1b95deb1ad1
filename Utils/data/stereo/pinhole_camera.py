"""Camera files of WHU-MVS and of WHU-TLC's pinhole version, and the one convention that everything else uses.

Two conventions are published, and their files look alike. Aerial files (the Wuhan group's) hold the pose: camera to
world, in the axes of photogrammetry (X right, Y up, Z backward). Satellite files (SatMVS's) hold world to camera, in
the axes of computer vision (x right, y down, z forward). Here all become world to camera, with x right, y down, z
forward, so that the third coordinate is the depth: E = inv(pose diag(1, -1, -1, 1)).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from Modules.common.plain_json import read_text
from Utils.core.errors import UserError
from Utils.core.files import atomic_write_bytes

Convention = Literal["pose", "world_to_camera"]
"""What the matrix of a camera file is: camera to world with Y up and Z backward, or world to camera with y down."""

_TO_VISION = np.diag([1.0, -1.0, -1.0, 1.0])
_WORDS = 22  # 16 of the matrix, focal length and principal point, the range's ends and the interval
_ORTHOGONAL = 1e-3  # how far the rotation of a file with few digits may be from a rotation


@dataclass(frozen=True)
class PinholeCamera:
    """One view's camera.

    Attributes:
        extrinsics: (4, 4) world to camera; x right, y down, z forward, metres.
        focal: focal length in pixels.
        centre: column and row of the principal point; whole numbers are pixel centres.
        nearest: smallest depth in metres that is looked for.
        farthest: largest depth.
        interval: metres between depths, as the dataset's authors chose it.
    """

    extrinsics: NDArray[np.floating[Any]]
    focal: float
    centre: tuple[float, float]
    nearest: float
    farthest: float
    interval: float

    @property
    def projection(self) -> NDArray[np.floating[Any]]:
        """(4, 4): P = [K E; 0 0 0 1], from the world to column x depth, row x depth, depth."""
        intrinsics = np.diag([self.focal, self.focal, 1.0, 1.0])
        intrinsics[:2, 2] = self.centre
        return intrinsics @ self.extrinsics

    @property
    def place(self) -> NDArray[np.floating[Any]]:
        """(3,): where the camera is, in metres."""
        return np.linalg.inv(self.extrinsics)[:3, 3]


def read_camera(path: Path, convention: Convention | None = None) -> PinholeCamera:
    """Read a camera file of WHU-MVS, raw or processed, or of WHU-TLC's pinhole version.

    Args:
        path: text of 22 numbers or more; the raw release has a line of words before them.
        convention: what its matrix is; None to tell by it: a camera looks down, so that its third axis in the world
            points up in photogrammetry and down in computer vision. It cannot be told of cameras that look sideways.

    Raises:
        UserError: a file that cannot be read, or numbers that are no camera.
    """
    numbers = _numbers(path)
    matrix, (focal, column, row) = np.array(numbers[:16]).reshape(4, 4), numbers[16:19]
    nearest, farthest, interval = numbers[19:22]
    _check_matrix(path, matrix)
    if not focal > 0.0:
        raise UserError(f"camera file '{path}': focal length {focal:g}; it is positive, in pixels")
    if not (0.0 < nearest < farthest and interval > 0.0):
        raise UserError(
            f"camera file '{path}': depths from {nearest:g} to {farthest:g} m in steps of {interval:g}; the nearest "
            "is positive, the farthest larger, and the interval positive"
        )
    if (convention or _told(path, matrix)) == "pose":
        matrix = np.linalg.inv(matrix @ _TO_VISION)
    return PinholeCamera(matrix, focal, (column, row), nearest, farthest, interval)


def _numbers(path: Path) -> list[float]:
    try:
        words = read_text(path).split()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"camera file '{path}' cannot be read: {reason}") from error
    if words and words[0].lower().strip(":") == "extrinsic":
        words = words[1:]
    try:
        numbers = [float(word) for word in words[:_WORDS]]
    except ValueError as error:
        raise UserError(f"camera file '{path}': {error}; it holds a 4 x 4 matrix, f x0 y0, and the depths") from error
    if len(numbers) < _WORDS or not np.isfinite(numbers).all():
        raise UserError(
            f"camera file '{path}' holds {len(numbers)} numbers; it needs {_WORDS} finite ones: a 4 x 4 matrix, "
            "f x0 y0, and nearest depth, farthest depth, interval"
        )
    return numbers


def _check_matrix(path: Path, matrix: NDArray[np.floating[Any]]) -> None:
    rotation = matrix[:3, :3]
    off = float(np.abs(rotation @ rotation.T - np.eye(3)).max())
    if off > _ORTHOGONAL or np.linalg.det(rotation) < 0.0 or not np.allclose(matrix[3], (0.0, 0.0, 0.0, 1.0)):
        raise UserError(
            f"camera file '{path}': its matrix is no rotation and shift (it is {off:.2g} off); the first 16 numbers "
            "are a rotation and a place, row by row, and 0 0 0 1"
        )


def _told(path: Path, matrix: NDArray[np.floating[Any]]) -> Convention:
    upwards = matrix[2, 2]  # of both, the third axis's share along the world's height
    if abs(upwards) < 0.2:
        raise UserError(
            f"camera file '{path}': the camera looks sideways, so its convention cannot be told; set cameras to pose "
            "or world_to_camera"
        )
    return "pose" if upwards > 0.0 else "world_to_camera"


def write_camera(path: Path, camera: PinholeCamera, size: tuple[int, int], convention: Convention = "pose") -> None:
    """Write a camera file as the processed WHU-MVS has it.

    Args:
        path: name of the file, in an existing folder.
        camera: the camera.
        size: height and width of its image in pixels.
        convention: what the matrix in the file is.

    Raises:
        OSError: the file cannot be written.
    """
    matrix = camera.extrinsics
    if convention == "pose":
        matrix = np.linalg.inv(matrix) @ _TO_VISION
    rows = [" ".join(f"{value:.12g}" for value in row) for row in matrix]
    inner = f"{camera.focal:.12g} {camera.centre[0]:.12g} {camera.centre[1]:.12g}"
    depths = f"{camera.nearest:.12g} {camera.farthest:.12g} {camera.interval:.12g}"
    lines = [*rows, "", inner, "", depths, f"0 0 0 0 0 {size[1]} {size[0]}"]
    atomic_write_bytes(path, ("\n".join(lines) + "\n").encode("ascii"))
