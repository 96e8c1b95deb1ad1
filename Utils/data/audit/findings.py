"""The findings of an audit: a finding is one kind of problem, with all files or tiles that have it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

ERROR, WARNING = "error", "warning"


@dataclass(frozen=True)
class Finding:
    """One kind of problem.

    Attributes:
        level: ``ERROR`` (training would not start) or ``WARNING``.
        code: a short name of the problem, for programs.
        what: what is wrong with the items and what to do, for people.
        items: all files or tiles with this problem.
    """

    level: str
    code: str
    what: str
    items: Sequence[str]


def printable(text: str) -> str:
    """The text with control characters, which a terminal would obey, and invalid characters as escapes."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape", "surrogatepass").decode()
        for character in text
    )
