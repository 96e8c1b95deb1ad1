"""Names of outputs, and checks, before the long work, that they can be written."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from Utils.core.errors import UserError, write_error
from Utils.core.files import longest_name
from Utils.rasters.places import stem

__all__ = ["BESIDE", "BLOCK", "check_output", "name_outputs", "space_needed"]

BLOCK = 512
"""Rows and columns of the blocks that an output consists of."""

BESIDE = (".json", ".png", ".html")
"""Suffixes of the files that may be written beside an output."""

_SUFFIXES = (".tif", ".tiff")


def name_outputs(scenes: Sequence[Path], output: str | os.PathLike[str]) -> list[Path]:
    """Give one file a scene, in order.

    Args:
        scenes: the scenes, each once.
        output: for one scene a file; an existing folder, or a name with a slash at its end; for several scenes a
            folder, which is made.

    Raises:
        UserError: several scenes for one file, or a folder that cannot be made.
    """
    given, path = os.fspath(output), Path(output)
    if len(scenes) == 1 and not (os.path.isdir(given) or given.endswith("/")):
        return [path]
    if path.suffix.lower() in _SUFFIXES and not path.is_dir():
        raise UserError(f"--output '{path}': {len(scenes)} scenes go into a folder; give its name")
    return outputs_in_folder(scenes, path, ".tif")


def outputs_in_folder(rasters: Sequence[Path], folder: Path, suffix: str) -> list[Path]:
    """Give each raster a file of its name in a folder, which is made.

    Raises:
        UserError: two rasters of one name, or a folder that cannot be made.
    """
    names = [f"{stem(raster)}{suffix}" for raster in rasters]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        alike = ", ".join(str(raster) for raster, name in zip(rasters, names, strict=True) if name == twice[0])
        raise UserError(f"{alike} would all be written to '{folder / twice[0]}'; give them one by one")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output '{folder}': {error.strerror}; give the name of a folder") from error
    return [folder / name for name in names]


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
        UserError: the output is one of the inputs, also through a link; another suffix than .tif or .tiff; a name
            that is too long; no such folder, or one that cannot be written; an older file or a folder in the way; too
            little space.
    """
    path = Path(path)
    _check_length(path)
    if path.suffix.lower() not in _SUFFIXES:
        raise UserError(f"output '{path}': rasters are written as GeoTIFF; give a name ending in .tif")
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


def _check_length(path: Path) -> None:
    try:
        longest = longest_name(path.parent)
        path.parent.is_dir()
    except OSError as error:
        raise UserError(f"output '{path}': {error.strerror}; give another name") from error
    needed = max(len(os.fsencode(path.with_suffix(suffix).name)) for suffix in (path.suffix, *BESIDE))
    if needed > longest:
        raise UserError(
            f"output '{path}': the name is too long by {needed - longest} bytes for it and the files beside it "
            f"({', '.join(BESIDE)}); here names have at most {longest} bytes. Give a shorter name"
        )


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:,.2f} GB"
