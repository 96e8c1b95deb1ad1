"""Checks, before the long work, that an output can be written."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from Utils.core.errors import UserError, write_error

__all__ = ["BLOCK", "check_output", "space_needed"]

BLOCK = 512
"""Rows and columns of the blocks that an output consists of."""

_SUFFIXES = (".tif", ".tiff")


def space_needed(height: int, width: int, bands: int) -> int:
    """Give the most bytes that writing may take on the disk: strips, file and overviews at once, uncompressed."""
    padded = [-(-side // BLOCK) * BLOCK for side in (height, width)]
    raw = 4 * bands * padded[0] * padded[1]
    # The overviews add a third, in the file and once more while they are made.
    return 2 * raw + 2 * raw // 3 + 2**20


def check_output(path: Path, inputs: Sequence[Path], bytes_needed: int, overwrite: bool) -> None:
    """Check before the long work that the output can be written.

    Args:
        path: the output.
        inputs: every file that is read, including the sources of a VRT (``SceneSource.files``).
        bytes_needed: free space that writing takes (:func:`space_needed`).
        overwrite: whether an older file may be replaced.

    Raises:
        UserError: the output is one of the inputs, also through a link; another suffix than .tif or .tiff; no such
            folder, or one that cannot be written; an older file or a folder in the way; too little space.
    """
    path = Path(path)
    if path.suffix.lower() not in _SUFFIXES:
        raise UserError(f"output '{path}': heights are written as GeoTIFF; give a name ending in .tif")
    if not path.parent.is_dir():
        raise UserError(f"output '{path}': there is no folder '{path.parent}'; create it first")
    if path.is_dir():
        raise UserError(f"output '{path}': is a folder; give the name of a file")
    if path.exists():
        same = [file for file in inputs if file.exists() and path.samefile(file)]
        if same:
            raise UserError(f"output '{path}': is the input '{same[0]}', which would be lost; give another name")
        if not overwrite:
            raise UserError(f"output '{path}': exists already; give another name, or --overwrite to replace it")
    try:
        # Asking for permissions is not enough: the disk may be mounted for reading only.
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise write_error(path, error, f"give a folder that can be written, not '{path.parent}'") from error
    free = shutil.disk_usage(path.parent).free
    if free < bytes_needed:
        raise UserError(
            f"output '{path}': needs up to {_gigabytes(bytes_needed)} on the disk, {_gigabytes(free)} are free; "
            "free some or give a folder on another disk"
        )


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:,.2f} GB"
