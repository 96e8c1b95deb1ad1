"""Errors that a user can correct: the scripts print them as one line and exit with status 2."""

from __future__ import annotations

import errno
import os
from pathlib import Path

_LONGEST = 4000


class UserError(ValueError):
    """Something in the user's files or command: says what was given, what is allowed, and how to fix it."""

    def __init__(self, message: str) -> None:
        """Keep the message as one line, whatever it quotes from a file."""
        super().__init__(one_line(message))


def one_line(message: str) -> str:
    """A message as one line that can be printed: no control characters, which could rewrite a terminal.

    A worker of a loader sends its error wrapped in a traceback; of that only the last line, its own message, is kept.
    """
    lines = message.strip().splitlines() or [""]
    if lines[0].startswith("Caught ") and len(lines) > 1:
        lines = [lines[-1].partition(": ")[2] or lines[-1]]
    text = " ".join(lines)
    if not text.isprintable():
        text = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST // 2]} ... {text[-_LONGEST // 2 :]}"  # what is wrong, and what to do
    return text


class RasterError(ValueError):
    """A raster that cannot be used. The message is one line: the file, what is wrong, what to do."""

    def __init__(self, path: str | os.PathLike[str], problem: str, remedy: str) -> None:
        """Compose the line from the file, the problem and the remedy."""
        super().__init__(path, problem, remedy)  # as it was called, so that it can be sent to other processes
        self.path = Path(path)
        self._line = one_line(f"{os.fspath(path)}: {problem}; {remedy}")

    def __str__(self) -> str:
        return self._line


def write_error(path: Path, error: Exception, consequence: str) -> UserError:
    """A failed write as a ``UserError``; ``consequence`` says what is lost or kept."""
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    # safetensors reports the operating system's error as text only.
    full = full or any(word in str(error) for word in ("No space left", "File too large", "quota exceeded"))
    first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
    reason = "no space left on the disk (or file too large); free some" if full else first_line
    return UserError(f"cannot write '{path}': {reason}; {consequence}")


def as_user_error(error: Exception) -> UserError:
    """An error of a library or of a network as a ``UserError`` with its first line."""
    return error if isinstance(error, UserError) else UserError(first_line(error))


def first_line(error: Exception) -> str:
    """The first line of an error's message, or the name of its kind."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
