"""Where the files lie that a table of a dataset names.

A table may name any file on the machine by its absolute path: it is as trusted as a config. The files are only read,
and only as rasters.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath

from Utils.core.errors import UserError

logger = logging.getLogger(__name__)


class TablePaths:
    """Finds the files of a table.

    A relative path is one below ``root``; without it, below the folder of the table, or below the working folder where
    only that holds the table's first file. An absolute path is taken as it is. Where it is one of another machine,
    ``root`` stands for its first folders: as many of them as leave a path that exists below ``root``.

    Args:
        table: the table.
        root: the config's ``root``; None where it is not given.
        texts: paths as the table names them.

    Raises:
        UserError: ``root`` is no folder.
    """

    def __init__(self, table: Path, root: Path | None, texts: Sequence[str]) -> None:
        if root is not None and not os.path.isdir(root):
            raise UserError(f"root '{root}' is not a folder; give the folder that the paths in '{table}' start from")
        self._root = root
        self._base = table.parent if root is None else root
        self._prefixes: list[tuple[str, ...]] = []
        relative = [text for text in texts if not is_absolute(text)]
        if root is None and relative and not os.path.isfile(self._base / _plain(relative[0])):
            if os.path.isfile(_plain(relative[0])):
                logger.info("'%s': its paths start from the working folder, not from its own", table)
                self._base = Path()

    def find(self, text: str) -> Path:
        """The file that a path of the table means; it may not exist."""
        if not is_absolute(text):
            return self._base / _plain(text)
        path = Path(text)
        if self._root is None or os.path.isfile(path):
            return path
        parts = _parts(text)
        for prefix in self._prefixes:
            if parts[: len(prefix)] == prefix:
                return self._root.joinpath(*parts[len(prefix) :])
        for count in range(1, len(parts)):
            moved = self._root.joinpath(*parts[count:])
            if os.path.isfile(moved):
                self._prefixes.append(parts[:count])
                return moved
        return path

    def remedy(self, text: str) -> str:
        """What to do about a file that is not there."""
        if self._root is not None:
            return f"correct root, '{self._root}', or the paths"
        if is_absolute(text):
            return "absolute paths of another machine: set root to the folder here that holds these files"
        return f"paths start from '{self._base}': set root to the folder that they start from, or correct them"


def is_absolute(text: str) -> bool:
    """Whether a path is absolute, on this system or on Windows."""
    return PurePosixPath(text).is_absolute() or PureWindowsPath(text).is_absolute()


def _plain(text: str) -> PurePath:
    """A relative path; one that was written on Windows too."""
    return PurePosixPath(text if "/" in text else text.replace("\\", "/"))


def _parts(text: str) -> tuple[str, ...]:
    """The folders and the name of an absolute path, without ``..``, which would lead out of the root."""
    path = PurePosixPath(text) if PurePosixPath(text).is_absolute() else PureWindowsPath(text)
    return tuple(part for part in path.parts if part != "..")


def short_names(texts: Sequence[str]) -> list[str]:
    """Ids for files: the name without suffix, behind as many of its folders as make all different.

    ``data/kitchen/1.jpg`` becomes ``1``, or ``kitchen-1`` where another folder has a ``1`` too. Files that are listed
    twice get the same id.
    """
    split = [_parts(text) if is_absolute(text) else _plain(text).parts for text in texts]
    deepest = max((len(parts) for parts in split), default=1)
    different = len(set(split))
    names: list[str] = []
    for count in range(1, deepest + 1):
        names = [_name(parts[-count:]) for parts in split]
        if len(set(names)) == different:
            break
    return names


def _name(parts: Sequence[str]) -> str:
    *folders, name = parts
    text = "-".join([*folders, PurePosixPath(name).stem])
    return "".join(character if character.isalnum() or character in "_-" else "-" for character in text)
