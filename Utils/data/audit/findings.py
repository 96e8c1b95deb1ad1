"""What an audit finds: one finding is one kind of trouble, with everything that it befell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

ERROR, WARNING = "error", "warning"


@dataclass(frozen=True)
class Finding:
    """One kind of trouble.

    Attributes:
        level: ``ERROR`` (training would not start) or ``WARNING``.
        code: a name for programs.
        what: what is wrong with the items and what to do, for people.
        items: files or tiles, all of them.
    """

    level: str
    code: str
    what: str
    items: Sequence[str]


def printable(text: str) -> str:
    """The text with everything that a terminal would obey, or that is no character at all, as an escape."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape", "surrogatepass").decode()
        for character in text
    )
