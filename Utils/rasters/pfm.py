"""PFM files (portable float maps), in which stereo datasets keep depth: one band of float32, the last row first."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from Utils.core.errors import RasterError
from Utils.core.files import atomic_write_bytes
from Utils.rasters.tile_files import MAX_TILE_PIXELS

__all__ = ["read_pfm", "write_pfm"]

_LONGEST_HEADER = 200


def read_pfm(path: str | os.PathLike[str]) -> NDArray[np.float32]:
    """Read a map of one band, the first row at the top.

    Args:
        path: a file that begins with ``Pf``, width and height, and a scale whose sign tells the byte order.

    Returns:
        (H, W) float32 as stored, NaN and infinity included; the size of the scale is not applied, as no dataset means
        anything by it.

    Raises:
        RasterError: missing, damaged or too large file, or one with three bands.
    """
    if not Path(path).is_file():
        raise RasterError(path, "no such file", "check the path and the name of the view")
    with Path(path).open("rb") as stream:
        start = stream.read(_LONGEST_HEADER)
        words, length = _header(path, start)
        try:
            width, height, scale = int(words[1]), int(words[2]), float(words[3])
        except ValueError as error:
            raise _damaged(path, "a damaged header") from error
        if not (width > 0 and height > 0 and math.isfinite(scale) and scale != 0.0):
            raise _damaged(path, f"a header of {width} x {height} pixels and scale {scale:g}")
        if width * height > MAX_TILE_PIXELS:
            size = f"{width} x {height} pixels"
            raise RasterError(
                path, f"the header gives {size}", f"a tile may have {MAX_TILE_PIXELS:,} pixels; cut it up"
            )
        stream.seek(length)
        body = stream.read(4 * width * height + 1)
    if len(body) != 4 * width * height:
        raise _damaged(path, f"{len(body)} bytes of pixels, and {width} x {height} need {4 * width * height}")
    stored = np.frombuffer(body, "<f4" if scale < 0 else ">f4").reshape(height, width)
    return np.ascontiguousarray(stored[::-1]).astype(np.float32)


def _header(path: str | os.PathLike[str], start: bytes) -> tuple[list[str], int]:
    """The four words of a header, and its length in bytes: one byte of white space ends it."""
    words: list[str] = []
    place = 0
    while len(words) < 4:
        while place < len(start) and start[place : place + 1].isspace():
            place += 1
        end = place
        while end < len(start) and not start[end : end + 1].isspace():
            end += 1
        if end >= len(start):
            break
        words.append(start[place:end].decode("ascii", "replace"))
        place = end
    if words and words[0] == "PF":
        raise RasterError(path, "a PFM with three bands", "a map of depth has one; is this an image?")
    if len(words) < 4 or words[0] != "Pf":
        raise _damaged(path, "no header of a PFM")
    return words, place + 1


def _damaged(path: str | os.PathLike[str], problem: str) -> RasterError:
    return RasterError(path, problem, "copy or write it again")


def write_pfm(path: str | os.PathLike[str], values: ArrayLike) -> None:
    """Write a map as a little-endian PFM; the file is whole or absent.

    Args:
        path: name of the file, in an existing folder.
        values: (H, W) in any unit; NaN where there is none.

    Raises:
        ValueError: values not two-dimensional.
        OSError: the file cannot be written.
    """
    array = np.asarray(values)
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"{os.fspath(path)}: a map is (height, width); got shape {array.shape}")
    header = f"Pf\n{array.shape[1]} {array.shape[0]}\n-1.0\n".encode("ascii")
    atomic_write_bytes(path, header + array[::-1].astype("<f4").tobytes())
