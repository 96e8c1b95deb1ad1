"""A folder of files that can be made again, kept under a bound and shared by any number of processes.

<root>/<key>.lock                  held by the one process that fills the key
<root>/<key>/users/<n>-<id>.lock   held by a process that uses the key, which will take n bytes when it is filled
<root>/<key>/...                   the files
<root>/room.lock                   held, shortly, by a process that counts, evicts or becomes a user

Locks are those of the operating system: they end with their process, however it ends.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from Utils.core.files import remove_leftovers

logger = logging.getLogger(__name__)

# Nothing else in the folder is counted, and nothing else is ever removed from it.
_KEY = re.compile(r"cache-[0-9a-f]{32}")
_USERS = "users"
_ROOM_LOCK = "room.lock"
_SECONDS_BEFORE_SAYING_SO = 2.0


class NoRoomError(Exception):
    """The files that are to be kept do not fit the limit.

    Args:
        needed: bytes that the files would take.
        in_use: bytes that cannot be evicted.
    """

    def __init__(self, needed: float, in_use: float) -> None:
        super().__init__(needed, in_use)  # as it was called, so that it can be sent to other processes
        self.needed = needed
        self.in_use = in_use

    def __str__(self) -> str:
        return f"{self.needed:.0f} bytes are needed; {self.in_use:.0f} are in use"


class SharedCache:
    """The folder.

    Args:
        root: the folder; made when it is first filled.
        limit: the most bytes that its files may take.
    """

    def __init__(self, root: Path, limit: float) -> None:
        self.root = root
        self.limit = limit

    def folder(self, key: str) -> Path:
        """Where a key's files lie; ``key`` is ``cache-`` and 32 hexadecimal digits."""
        assert _KEY.fullmatch(key), key
        return self.root / key

    @contextmanager
    def filling(self, key: str) -> Iterator[Path]:
        """Wait until no other process fills the key, then be the only one that does; gives the key's folder.

        Raises:
            OSError: the folder cannot be made or locked.
        """
        folder = self.folder(key)
        self.root.mkdir(parents=True, exist_ok=True)
        lock = self._filling_lock(key)
        try:
            lock.acquire(timeout=_SECONDS_BEFORE_SAYING_SO)
        except Timeout:
            logger.info("waiting for another process that fills '%s'", folder)
            lock.acquire()
        try:
            # These were left by a process that was killed; no other process writes here now.
            remove_leftovers(folder)
            yield folder
        finally:
            lock.release()

    @contextmanager
    def using(self, key: str, wanted: Collection[Path], added: int) -> Iterator[None]:
        """Make room for a key and keep it from being evicted; enter this while ``filling`` it.

        Keys that no process uses or fills are evicted, the one that was used longest ago first, and then files of this
        key that are not ``wanted``, if no other process uses it.

        Args:
            key: the key to make room for.
            wanted: files of this key that are there and stay.
            added: bytes that are going to be written.

        Raises:
            NoRoomError: within the limit, what other processes use leaves too little room.
            OSError: the folder cannot be written.
        """
        with FileLock(self.root / _ROOM_LOCK):
            reserved = self._make_room(key, set(wanted), added)
            users = self.folder(key) / _USERS
            users.mkdir(parents=True, exist_ok=True)
            lock = FileLock(users / f"{reserved}-{secrets.token_hex(8)}.lock")
            lock.acquire(blocking=False)
        self._mark_as_used(key)
        try:
            yield
        finally:
            lock.release()
            with suppress(OSError):
                Path(lock.lock_file).unlink(missing_ok=True)
            self._mark_as_used(key)

    def _make_room(self, key: str, wanted: set[Path], added: int) -> int:
        """Evict until ``added`` bytes fit; returns the bytes that the key will have."""
        own = _files(self.folder(key))
        unwanted = {path: size for path, size in own.items() if path not in wanted}
        needed = sum(own.values()) - sum(unwanted.values()) + added
        if needed > self.limit:
            raise NoRoomError(needed, in_use=0)
        taken = {other: self._taken(other) for other in self._keys() if other != key}
        spare = self.limit - needed - sum(unwanted.values()) - sum(taken.values())
        for other in sorted(taken, key=lambda name: self.folder(name).stat().st_mtime_ns):
            if spare < 0 and self._evict(other):
                logger.info("'%s' was removed to make room", self.folder(other))
                spare += taken[other]
        if spare < 0 and not self._users(key):
            for path, size in unwanted.items():
                path.unlink(missing_ok=True)
                spare += size
            unwanted = {}
        if spare < 0:
            raise NoRoomError(needed, in_use=self.limit - needed - spare)
        return needed + sum(unwanted.values())

    def _taken(self, key: str) -> int:
        """The bytes of a key: those on disk or, while it is being filled, those that it will have."""
        return max(sum(_files(self.folder(key)).values()), *self._users(key), 0)

    def _keys(self) -> list[str]:
        return [entry.name for entry in os.scandir(self.root) if _KEY.fullmatch(entry.name) and entry.is_dir()]

    def _filling_lock(self, key: str) -> BaseFileLock:
        return FileLock(self.root / f"{key}.lock")

    def _users(self, key: str) -> list[int]:
        """The bytes that each process that uses a key has announced; locks of dead processes are removed.

        No other process can become a user in the meantime: it would need the lock that this one holds.
        """
        live = []
        for path in (self.folder(key) / _USERS).glob("*.lock"):
            with suppress(FileNotFoundError):  # its process has just ended
                if _is_held(path):
                    live.append(int(path.name.partition("-")[0]))
                else:
                    path.unlink(missing_ok=True)
        return live

    def _evict(self, key: str) -> bool:
        """Remove a key, unless a process fills or uses it."""
        lock = self._filling_lock(key)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return False
        try:
            if self._users(key):
                return False
            shutil.rmtree(self.folder(key))
            # The lock is held while its file is removed: a process that waits for it finds it gone and makes a new one.
            with suppress(OSError):
                Path(lock.lock_file).unlink(missing_ok=True)
        finally:
            lock.release()
        return True

    def _mark_as_used(self, key: str) -> None:
        with suppress(OSError):
            os.utime(self.folder(key))


def _is_held(path: Path) -> bool:
    try:
        with FileLock(path).acquire(blocking=False):
            return False
    except Timeout:
        return True


def _files(folder: Path) -> dict[Path, int]:
    """The bytes of every file below a folder but for its users' locks; what vanishes meanwhile does not count."""
    found = {}
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            if path.is_file() and path.parent.name != _USERS:
                found[path] = path.stat().st_size
    return found
