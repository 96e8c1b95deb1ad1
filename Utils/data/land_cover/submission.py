"""A submission to LoveDA's challenges: one flat zip with a PNG of class numbers for every test image.

The challenge reads plain 8-bit PNGs whose values are 0 for background to 6 for agriculture, under the names of the
images, at the root of the zip: a folder inside, or values from 1 on as in the masks, score nothing or little.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from Utils.core.errors import UserError, write_error
from Utils.core.files import atomic_write_bytes

__all__ = ["check_submission", "write_submission"]

Size = tuple[int, int]


def write_submission(path: Path, pictures: Mapping[str, bytes], expected: Mapping[str, Size], classes: int) -> None:
    """Write the zip, after checking what it would hold; the file is whole or absent.

    Args:
        path: the zip, in an existing folder or one that can be made.
        pictures: PNG of every image, by the image's file name.
        expected: height and width of every image that is asked for, by its file name.
        classes: how many classes there are.

    Raises:
        UserError: the zip would not be taken, or cannot be written.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, picture in pictures.items():
            archive.writestr(name, picture)
    check_submission(buffer.getvalue(), expected, classes, str(path))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_bytes(path, buffer.getvalue())
    except OSError as error:
        raise write_error(path, error, "the scores and class maps are written") from error


def check_submission(content: bytes, expected: Mapping[str, Size], classes: int, where: str) -> None:
    """Refuse a zip that the challenge would not take.

    Args:
        content: the zip.
        expected: height and width of every image that is asked for, by its file name.
        classes: how many classes there are; numbers go from 0 to one less.
        where: what errors call the zip.

    Raises:
        UserError: a folder inside, a missing, doubled or further file, another size, number format or value.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = archive.namelist()
        for name in names:
            if "/" in name or "\\" in name:
                raise UserError(f"'{where}': '{name}' lies in a folder; all files lie at the root")
        for what, wrong in (
            ("stands twice", sorted(name for name in set(names) if names.count(name) > 1)),
            ("is missing", sorted(set(expected) - set(names))),
            ("is asked for by nobody", sorted(set(names) - set(expected))),
        ):
            if wrong:
                raise UserError(f"'{where}': '{wrong[0]}' {what} ({len(wrong)} of {len(expected)})")
        for name in names:
            _check_picture(archive.read(name), expected[name], classes, f"'{where}': '{name}'")


def _check_picture(content: bytes, size: Size, classes: int, what: str) -> None:
    with Image.open(io.BytesIO(content)) as picture:
        if picture.format != "PNG" or picture.mode != "L":
            raise UserError(f"{what} is a {picture.format} of mode {picture.mode}; it is to be a PNG of 8-bit numbers")
        if (picture.height, picture.width) != tuple(size):
            raise UserError(
                f"{what} is {picture.width} x {picture.height} pixels, and its image is {size[1]} x {size[0]}"
            )
        largest = int(np.asarray(picture).max())
    if largest >= classes:
        raise UserError(f"{what} holds the value {largest}; class numbers go from 0 to {classes - 1}")
