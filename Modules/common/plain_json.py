"""Checks of text and JSON from strangers: they are bounded and plain, and the sizes in them are those of networks.

This file does not import torch, because every command reads a config before it needs a network.
"""

from __future__ import annotations

import errno
import json
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LARGEST_TEXT = 16 * 2**20
"""Most bytes of a config, split file or index: 16 MiB are a million tile ids."""

# Config files nest 3 levels; beyond some hundred, Python's own recursion limits differ from function to function.
_DEEPEST = 32
# 64-bit numbers have 19 digits; Python itself refuses from 4300 on, in words about its settings.
_MOST_DIGITS = 19
# No published network has a width, depth, side or step count beyond it.
_LARGEST_SIZE = 65_536


def read_text(path: Path, largest: int = LARGEST_TEXT) -> str:
    """Read a UTF-8 text file of limited size; a byte order mark, as Windows editors put in front, is dropped.

    Raises:
        OSError: the file is missing, unreadable or not a regular one: reading would wait for a pipe, and a device never
            ends.
        ValueError: the file is longer than ``largest`` bytes or not UTF-8, or its name has a NUL.
    """
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # opening a folder gives a clear error
        raise OSError(errno.EINVAL, "it is a device or a pipe, not a regular file")
    with path.open("rb") as stream:
        content = stream.read(largest + 1)
    if len(content) > largest:
        raise ValueError(f"it is longer than {largest:,} bytes")
    return content.decode("utf-8-sig")


def parse_json(text: str) -> Any:
    """Parse JSON that is plain, as ``check_json`` says.

    Raises:
        ValueError: not JSON, or not plain.
    """
    try:
        data = json.loads(text, parse_int=_integer)
    except RecursionError as error:
        raise ValueError(f"it is nested deeper than {_DEEPEST} levels") from error
    check_json(data)
    return data


def check_json(data: Any) -> None:
    """Refuse what no config holds, in data as ``json.loads`` gives it.

    Raises:
        ValueError: nested too deep, a number of more than 64 bits, or text with a NUL, which no path may hold, or with
            half a character, which no file can be written with.
    """
    pending = [(data, 0)]
    while pending:
        value, depth = pending.pop()
        if depth > _DEEPEST:
            raise ValueError(f"it is nested deeper than {_DEEPEST} levels")
        if isinstance(value, dict):
            pending += [(item, depth + 1) for pair in value.items() for item in pair]
        elif isinstance(value, list):
            pending += [(item, depth + 1) for item in value]
        elif isinstance(value, str) and any(char == "\0" or "\ud800" <= char <= "\udfff" for char in value):
            raise ValueError(f"the text {value[:60]!r} holds a NUL or half a character")
        elif isinstance(value, int) and abs(value) >= 2**63:
            raise ValueError("a whole number has more than 64 bits")


def _integer(digits: str) -> int:
    if len(digits.removeprefix("-")) > _MOST_DIGITS:
        raise ValueError(f"a whole number has {len(digits)} digits")
    return int(digits)


def check_sizes(config: Mapping[str, Any]) -> None:
    """Refuse the config of a network or schedule with a size that none has; text and fractions are left alone.

    Raises:
        ValueError: such a size, or what ``check_json`` refuses.
    """
    check_json(dict(config))
    pending: list[tuple[str, Any]] = list(config.items())
    while pending:
        name, value = pending.pop()
        if isinstance(value, dict):
            pending += value.items()
        elif isinstance(value, list | tuple):
            pending += [(name, item) for item in value]
        elif isinstance(value, int) and abs(value) > _LARGEST_SIZE:
            raise ValueError(f"its '{name}' is {value}, and no size of a network is beyond {_LARGEST_SIZE:,}")
