"""Errors that a user can mend: the scripts print them as one line and exit with status 2."""

from __future__ import annotations

import errno
from pathlib import Path


class UserError(ValueError):
    """Something in the user's files or command: says what was given, what is allowed, and how to fix it."""


def write_error(path: Path, error: Exception, consequence: str) -> UserError:
    """A failed write as a ``UserError``; ``consequence`` says what is lost or kept."""
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    # safetensors reports the operating system's error as text only.
    full = full or any(word in str(error) for word in ("No space left", "File too large", "quota exceeded"))
    first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
    reason = "no space left on the disk (or file too large); free some" if full else first_line
    return UserError(f"cannot write '{path}': {reason}; {consequence}")
