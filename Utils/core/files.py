"""Files that are either whole or absent: they are written under a temporary name and then renamed."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["atomic_write_bytes", "hidden_name", "longest_name", "remove_leftovers", "replacing"]

# Most bytes of a file's name, where the system does not say.
_LONGEST_NAME = 255

# The names that ``replacing`` gives.
_TEMPORARY = ".*.tmp"


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary file name in the folder of ``path``; on a clean exit it takes the place of ``path``.

    The body must write (and close) the temporary file. Whatever is raised in the body, the temporary file is
    removed and an older ``path`` stays as it was. The temporary name ends in ``.tmp``, so a search for the wanted
    suffix cannot find what a killed process left; writers that go by the suffix must be told their format.

    Raises:
        OSError: the file cannot be written; its class is the system's own, and its ``filename`` is ``path``.
    """
    path = Path(path)
    # Not tempfile, whose files only their owner can read: results are there to be shared.
    temporary = path.with_name(hidden_name(path, f".{secrets.token_hex(6)}.tmp"))
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        # A failed write() carries no file name and a failed open() the temporary one: neither helps a reader.
        if isinstance(error, OSError) and error.filename in (None, str(temporary), temporary):
            raise OSError(error.errno, _reason(error, path), str(path)) from error
        raise


def atomic_write_bytes(path: str | os.PathLike[str], data: bytes | memoryview) -> None:
    """Write ``data`` to ``path`` so that a reader sees the old file or the whole new one, never a part.

    Raises:
        OSError: the file cannot be written (disk full, no such folder, no permission); it names ``path``.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def hidden_name(path: Path, ending: str) -> str:
    """The name of a hidden file beside ``path``, with an ending of its own; never longer than names may be.

    A name that has to be cut carries a digest of the whole one, so that two long names stay two.
    """
    name = os.fsencode(path.name)
    room = _LONGEST_NAME - len(os.fsencode(ending)) - 1
    if len(name) <= room:
        return f".{path.name}{ending}"
    digest = hashlib.sha256(name).hexdigest()[:12]
    # Cut between characters: a part of one is not text.
    kept = name[: room - len(digest) - 1].decode("utf-8", "ignore")
    return f".{kept}.{digest}{ending}"


def longest_name(folder: Path) -> int:
    """Most bytes that a file's name may have in an existing folder."""
    try:
        return os.pathconf(folder, "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):
        return _LONGEST_NAME


def remove_leftovers(folder: Path, recursively: bool = True) -> None:
    """Remove the temporary files of processes that were killed; call it only where no other process writes."""
    for leftover in folder.rglob(_TEMPORARY) if recursively else folder.glob(_TEMPORARY):
        leftover.unlink(missing_ok=True)


def _reason(error: OSError, path: Path) -> str:
    if isinstance(error, FileNotFoundError) and not path.parent.is_dir():
        return f"there is no folder {path.parent}; create it first"
    return error.strerror or str(error)
