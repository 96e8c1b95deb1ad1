"""Files are whole or absent, and errors name them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from Utils.core.files import atomic_write_bytes, replacing


def test_writes_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "result.bin"
    atomic_write_bytes(path, b"old")
    atomic_write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["result.bin"]


def test_failure_keeps_the_old_file_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "result.bin"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as temporary:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["result.bin"]


def test_temporary_is_beside_and_without_the_suffix(tmp_path: Path) -> None:
    with replacing(tmp_path / "tile.png") as temporary:
        assert temporary.parent == tmp_path and temporary.suffix == ".tmp"
        temporary.write_bytes(b"x")
        assert list(tmp_path.glob("*.png")) == []


def test_missing_folder_is_named(tmp_path: Path) -> None:
    path = tmp_path / "absent" / "result.bin"
    with pytest.raises(FileNotFoundError, match="there is no folder") as caught:
        atomic_write_bytes(path, b"x")
    assert caught.value.filename == str(path)


def test_folder_in_the_way(tmp_path: Path) -> None:
    path = tmp_path / "result.bin"
    path.mkdir()
    with pytest.raises(OSError, match=r"result\.bin") as caught:
        atomic_write_bytes(path, b"x")
    assert caught.value.filename == str(path)
    assert os.listdir(tmp_path) == ["result.bin"]


def test_errors_of_other_files_keep_their_names(tmp_path: Path) -> None:
    other = tmp_path / "source.bin"
    with pytest.raises(FileNotFoundError) as caught, replacing(tmp_path / "result.bin"):
        other.read_bytes()
    assert caught.value.filename in (str(other), other)


def test_a_name_of_the_longest_length(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 250 + ".bin")
    atomic_write_bytes(path, b"x")
    assert path.read_bytes() == b"x"


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_result_has_ordinary_permissions(tmp_path: Path) -> None:
    plain, atomic = tmp_path / "plain", tmp_path / "atomic"
    plain.write_bytes(b"x")
    atomic_write_bytes(atomic, b"x")
    assert stat.S_IMODE(atomic.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)
