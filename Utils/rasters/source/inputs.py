"""Finding the scenes that a user names by files, folders and globs."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from Utils.core.errors import UserError
from Utils.rasters.places import is_file, raster_place

__all__ = ["SUFFIXES", "find_scenes"]

SUFFIXES = (".tif", ".tiff", ".jp2", ".vrt", ".png", ".jpg", ".jpeg", ".img")
"""Files that count as scenes in a folder; a file that is named itself may have any suffix."""


def find_scenes(inputs: Sequence[str]) -> list[Path]:
    """Find the scenes that files, folders and globs name.

    A folder stands for every raster in it (:data:`SUFFIXES`), not in its sub-folders; hidden files are left out. A
    glob may contain ``**``. A file may lie inside an archive (:mod:`Utils.rasters.places`).

    Returns:
        Sorted paths, each file once.

    Raises:
        UserError: no inputs, or one that finds nothing.
    """
    if not inputs:
        raise UserError("no input: give files, folders or globs of rasters")
    found = [path for given in inputs for path in _matches(given)]
    # Compared by the resolved path: scene.tif, ./scene.tif and a link to it are one scene, under the name given first.
    unique = {path.resolve(): path for path in reversed(found)}
    return sorted(unique.values())


def _matches(given: str) -> list[Path]:
    path = raster_place(given)
    if is_file(path):
        return [path]
    if os.path.isdir(path):
        try:
            scenes = [entry for entry in path.iterdir() if _is_scene(entry)]
        except OSError as error:
            raise UserError(f"{given}: this folder cannot be read ({error.strerror}); check its permissions") from error
        if not scenes:
            raise UserError(f"{given}: no raster in this folder; scenes end in {', '.join(SUFFIXES)}")
        return scenes
    if not glob.has_magic(given):
        raise UserError(f"{given}: no such file or folder; check the path")
    files = [Path(name) for name in glob.glob(given, recursive=True) if Path(name).is_file()]
    # Beside scene.tif lie scene.tif.aux.xml and scene.tfw; but *.ntf is meant as it stands.
    scenes = [file for file in files if _is_scene(file)] or [raster_place(file) for file in files]
    if not scenes:
        raise UserError(f"{given}: no file fits this pattern; check it")
    return scenes


def _is_scene(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
