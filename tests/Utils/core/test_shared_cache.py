"""The shared folder: its bound, what is evicted and what is not, and processes that end without a word."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.launching import HANG
from tests.paths import ROOT
from Utils.core.shared_cache import NoRoomError, SharedCache

A, B, C = (f"cache-{letter * 32}" for letter in "abc")


@contextmanager
def in_use(cache: SharedCache, key: str, *sizes: int) -> Iterator[None]:
    """Fill a key with files of these sizes, those that are there being kept, and use it."""
    with cache.filling(key) as folder:
        wanted = {folder / f"{place}.bin": size for place, size in enumerate(sizes)}
        there = [path for path in wanted if path.is_file()]
        missing = {path: size for path, size in wanted.items() if path not in there}
        use = cache.using(key, there, sum(missing.values()))
        use.__enter__()
        for path, size in missing.items():
            path.write_bytes(bytes(size))
    try:
        yield
    finally:
        use.__exit__(None, None, None)


def fill(cache: SharedCache, key: str, *sizes: int) -> None:
    with in_use(cache, key, *sizes):
        pass
    # Two uses within one tick of the file system's clock would have no order.
    time.sleep(0.02)


def contents(root: Path) -> dict[str, int]:
    """Bytes by key."""
    return {key.name: sum(p.stat().st_size for p in key.rglob("*.bin")) for key in root.glob("cache-*") if key.is_dir()}


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    cache = SharedCache(tmp_path, 100)
    for key in (A, B, A):
        fill(cache, key, 20, 20)
    fill(cache, C, 30)
    assert contents(tmp_path) == {A: 40, C: 30}
    assert not (tmp_path / f"{B}.lock").exists()
    fill(cache, B, 60)
    assert contents(tmp_path) == {C: 30, B: 60}


def test_the_bound_is_exact(tmp_path: Path) -> None:
    fill(SharedCache(tmp_path, 100), A, 40)
    fill(SharedCache(tmp_path, 100), B, 60)
    assert contents(tmp_path) == {A: 40, B: 60}
    with in_use(SharedCache(tmp_path, 99), B, 60):
        assert contents(tmp_path) == {B: 60}
    with pytest.raises(NoRoomError, match="60 bytes are needed; 0 are in use"):
        fill(SharedCache(tmp_path, 59), B, 60)
    assert contents(tmp_path) == {B: 60}, "what does not fit at all evicts nothing"


def test_nothing_else_in_the_folder_is_counted_or_removed(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_bytes(bytes(1000))
    (tmp_path / f"{A}x").mkdir()
    cache = SharedCache(tmp_path, 100)
    for key in (A, B, C):
        fill(cache, key, 60)
    assert contents(tmp_path) == {C: 60, f"{A}x": 0}
    assert (tmp_path / "thesis" / "chapter.txt").stat().st_size == 1000


def test_a_key_in_use_is_not_evicted(tmp_path: Path) -> None:
    cache = SharedCache(tmp_path, 100)
    with in_use(cache, A, 60):
        fill(cache, B, 40)
        with pytest.raises(NoRoomError, match="50 bytes are needed; 60 are in use"):
            fill(cache, C, 50)
        assert contents(tmp_path) == {A: 60}
        with in_use(cache, A, 60), pytest.raises(NoRoomError):
            fill(cache, C, 50)
    fill(cache, C, 50)
    assert contents(tmp_path) == {C: 50}


def test_room_is_kept_for_what_another_process_is_still_writing(tmp_path: Path) -> None:
    cache = SharedCache(tmp_path, 100)
    with cache.filling(A), cache.using(A, [], 70):
        with pytest.raises(NoRoomError, match="[1-9]\\d* are in use"):
            fill(cache, B, 40)
        fill(cache, C, 30)


def test_files_of_a_key_that_nobody_wants_any_more_make_room(tmp_path: Path) -> None:
    cache = SharedCache(tmp_path, 100)
    fill(cache, A, 30, 30, 30)
    with cache.filling(A) as folder:
        kept = [folder / "0.bin"]
        with cache.using(A, kept, 10):
            assert contents(tmp_path) == {A: 90}, "they stay while there is room"
            # The first user of the key may want them.
            with pytest.raises(NoRoomError, match="[1-9]\\d* are in use"), cache.using(A, kept, 20):
                pass
            assert contents(tmp_path) == {A: 90}
        with cache.using(A, kept, 20):
            assert list(folder.glob("*.bin")) == kept


def start_user(root: Path, key: str, size: int) -> subprocess.Popen[str]:
    """A process that uses a key until it is killed."""
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from tests.Utils.core.test_shared_cache import in_use\n"
        "from Utils.core.shared_cache import SharedCache\n"
        f"with in_use(SharedCache(Path({str(root)!r}), 100), {key!r}, {size}):\n"
        "    print('in use', flush=True)\n"
        "    time.sleep(600)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "in use\n"
    return process


def test_a_killed_process_protects_nothing(tmp_path: Path) -> None:
    cache = SharedCache(tmp_path, 100)
    process = start_user(tmp_path, A, 60)
    try:
        with pytest.raises(NoRoomError, match="[1-9]\\d* are in use"):
            fill(cache, B, 50)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert list((tmp_path / A / "users").iterdir()), "it had no time to tidy up"
    fill(cache, B, 50)
    assert contents(tmp_path) == {B: 50}


def test_one_process_fills_at_a_time_and_an_evicted_key_can_be_waited_for(tmp_path: Path) -> None:
    cache = SharedCache(tmp_path, 100)
    order: list[str] = []

    def wait_for_turn() -> None:
        with cache.filling(A):
            order.append("second")

    with cache.filling(A):
        thread = threading.Thread(target=wait_for_turn)
        thread.start()
        time.sleep(0.3)
        order.append("first")
        # As an evicting process does, which holds the lock.
        (tmp_path / f"{A}.lock").unlink()
    thread.join(timeout=HANG)
    assert order == ["first", "second"]


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    cache = SharedCache(tmp_path, 100)
    fill(cache, A, 10)
    leftover = tmp_path / A / "ab" / ".name.safetensors.0123456789ab.tmp"
    leftover.parent.mkdir()
    leftover.write_bytes(bytes(5))
    with cache.filling(A):
        assert not leftover.exists()


def test_no_lock_is_left_by_a_user_that_ends_well(tmp_path: Path) -> None:
    fill(SharedCache(tmp_path, 100), A, 10)
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == sorted(["room.lock", f"{A}.lock", "0.bin"])
    assert os.listdir(tmp_path / A / "users") == []
