"""What the fuzz tests share: how many examples, damaged bytes, and JSON that is nearly right.

Examples are the same on every machine and run in seconds.  For a long run with new ones, give their number:

    FUZZ_EXAMPLES=20000 python -m pytest tests/test_fuzz_files.py tests/test_fuzz_weights.py
"""

from __future__ import annotations

import os
import struct
from copy import deepcopy
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

_GIVEN = os.environ.get("FUZZ_EXAMPLES")


def fuzz(examples: int) -> settings:
    """Settings for ``examples`` examples, or as many as the environment asks for."""
    return settings(
        max_examples=int(_GIVEN or examples),
        derandomize=_GIVEN is None,
        deadline=None,
        database=None,
        # A file is written anew for every example, in the same folder.
        suppress_health_check=list(HealthCheck),
    )


def is_clean(error: Exception) -> bool:
    """Whether a message is one line that a terminal can show."""
    return bool(str(error)) and str(error).isprintable() and len(str(error)) < 5000


# Numbers at which readers of headers overflow, in the widths and byte orders of PNG, TIFF, ZIP and safetensors.
_EXTREMES = [
    struct.pack(order + kind, value)
    for kind, bits in (("H", 16), ("I", 32), ("Q", 64))
    for value in (0, 1, 2 ** (bits - 1) - 1, 2 ** (bits - 1), 2**bits - 1)
    for order in "<>"
]


@st.composite
def damaged(draw: st.DrawFn, whole: bytes, keep: int = 0) -> bytes:
    """``whole`` with a few things done to it: bits flipped, numbers made extreme, pieces cut, doubled or put in.

    The first ``keep`` bytes stay, so that a reader recognises the format and goes on.
    """
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, 5))):
        last = max(keep, len(content) - 1)
        # Headers stand at the beginning, and directories often at the end.
        near = st.integers(keep, min(last, keep + 200)) | st.integers(max(keep, last - 200), last)
        place = draw(near | st.integers(keep, last))
        match draw(st.sampled_from(["flip", "extreme", "insert", "cut", "double", "end"])):
            case "flip" if place < len(content):
                content[place] ^= draw(st.integers(1, 255))
            case "extreme":
                number = draw(st.sampled_from(_EXTREMES))
                content[place : place + len(number)] = number
            case "insert":
                content[place:place] = draw(st.binary(min_size=1, max_size=20))
            case "cut":
                del content[place : place + draw(st.integers(1, 50))]
            case "double":
                content[place:place] = content[place : place + draw(st.integers(1, 50))]
            case "end":
                del content[place:]
    return bytes(content)


ODD_TEXT = st.text(max_size=20) | st.sampled_from(
    ["", "\0", "../../x", "/etc/passwd", "\ud800", "\x1b[31m", "a\nb", "\u202e", "x" * 300, "NaN", "1e999"]
)
ODD_NUMBERS = (
    st.integers(-3, 70)
    | st.sampled_from([2**16 + 1, 2**31, -(2**31), 2**53, 2**63, 10**18, 10**30, -(10**400)])
    | st.floats(allow_nan=True, allow_infinity=True)
    | st.sampled_from([1e308, -0.0, 5e-324])
)
JSON = st.recursive(
    st.none() | st.booleans() | ODD_NUMBERS | ODD_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ODD_TEXT, inner, max_size=4),
    max_leaves=8,
)


@st.composite
def nearly(draw: st.DrawFn, whole: Any, times: int = 3) -> Any:
    """JSON data with up to ``times`` values dropped, replaced, nested or added."""
    data = deepcopy(whole)
    for _ in range(draw(st.integers(1, times))):
        places = list(_places(data))
        if not places:
            return draw(JSON)
        holder, key = draw(st.sampled_from(places))
        match draw(st.sampled_from(["drop", "replace", "replace", "nest", "add", "swap"])):
            case "drop":
                del holder[key]
            case "replace":
                holder[key] = draw(JSON)
            case "nest":
                holder[key] = draw(st.sampled_from([[holder[key]], {"a": holder[key]}, _deep(holder[key])]))
            case "add" if isinstance(holder, dict):
                holder[draw(ODD_TEXT)] = draw(JSON)
            case "swap":
                other, at = draw(st.sampled_from(places))
                holder[key] = deepcopy(other[at])
    return data


def _places(data: Any) -> Any:
    """Every (container, key) in JSON data."""
    items = list(data.items()) if isinstance(data, dict) else list(enumerate(data)) if isinstance(data, list) else []
    for key, value in items:
        yield data, key
        yield from _places(value)


def _deep(value: Any) -> Any:
    for _ in range(200):
        value = [value]
    return value
