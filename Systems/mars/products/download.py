"""Downloads a file so that it is whole or absent: into a .part, which a later attempt or run takes up again."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from Systems.mars.products.web import Failed, Web
from Utils.core.errors import RasterError, write_error
from Utils.rasters.planetary.whole_files import check_whole_product

__all__ = ["Fetched", "download"]

logger = logging.getLogger(__name__)

_PIECE = 256 * 1024
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
_REFUSED_RANGE = "416"


@dataclass(frozen=True)
class Fetched:
    """A file that is there.

    Attributes:
        size: its bytes.
        transferred: of these, the bytes that came over the network in this call.
    """

    size: int
    transferred: int


def download(web: Web, url: str, path: Path) -> Fetched:
    """Bring a file here; its folder is made.

    What has come of it before is not asked for again, where the server tells that the file is the same. The length is
    checked against what the server says, and products are checked for being whole.

    Raises:
        NotThere: the server has no such file.
        UserError: all attempts failed, or the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file() and web.repeated(url, lambda: _is_same(web, url, path)):
        return Fetched(path.stat().st_size, 0)
    part = _Part(path)
    transferred = 0

    def attempt() -> int:
        nonlocal transferred
        size, came = _attempt(web, url, part)
        transferred += came
        try:
            check_whole_product(part.file)
        except RasterError as error:
            part.remove()
            raise Failed(f"{size} bytes came, and {error}") from error
        return size

    try:
        size = web.repeated(url, attempt)
        part.finish()
    except OSError as error:
        raise write_error(path, error, "what has come is kept, and the next run goes on") from error
    return Fetched(size, transferred)


def _is_same(web: Web, url: str, path: Path) -> bool:
    """Whether a file that came by another way has the length that the server names, and is whole."""
    with web.opened(url) as answer:
        wanted = answer.headers.get("Content-Length", "")
    size = path.stat().st_size
    try:
        check_whole_product(path)
    except RasterError as error:
        logger.info("%s; it is downloaded again", error)
        return False
    if wanted != str(size):
        logger.info("%s: has %d bytes, and the server says %s; it is downloaded again", path, size, wanted or "nothing")
    return wanted == str(size)


class _Part:
    """The file that grows, and beside it what tells that the server still has the same."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path.with_name(f"{path.name}.part")
        self._note = path.with_name(f"{path.name}.part.json")

    @property
    def size(self) -> int:
        return self.file.stat().st_size if self.file.is_file() else 0

    @property
    def mark(self) -> str:
        """What the server called the version of the file; empty where it is not known."""
        try:
            return str(json.loads(self._note.read_text(encoding="utf-8"))["mark"])
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def remember(self, mark: str) -> None:
        self._note.write_text(json.dumps({"mark": mark}), encoding="utf-8")

    def remove(self) -> None:
        for file in (self.file, self._note):
            file.unlink(missing_ok=True)

    def finish(self) -> None:
        os.replace(self.file, self.path)
        self._note.unlink(missing_ok=True)


def _attempt(web: Web, url: str, part: _Part) -> tuple[int, int]:
    """One request; gives the file's size and how many bytes came, or raises Failed with the part kept."""
    start, headers = part.size, {}
    if start and part.mark:
        headers = {"Range": f"bytes={start}-", "If-Range": part.mark}
    try:
        answer = web.opened(url, headers)
    except Failed as error:
        if headers and str(error).startswith(_REFUSED_RANGE):
            # All has come before, or more than there is: only a new start can tell.
            part.remove()
        raise
    with answer:
        place, total = _place(answer, start, bool(headers))
        mark = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
        # A weak mark does not promise the same bytes.
        part.remember("" if mark.startswith("W/") else mark)
        came = _receive(web, answer, part.file, place)
    size = part.size
    if total is None:
        logger.info("%s: the server does not say how long it is; %d bytes came", url, size)
    elif size > total:
        part.remove()
        raise Failed(f"{size} bytes came, and the server says {total}")
    elif size < total:
        raise Failed(f"{size} of {total} bytes came")
    return size, came


def _place(answer: Any, start: int, asked: bool) -> tuple[int, int | None]:
    """Where the bytes of an answer belong, and how long the whole file is; None where the server does not say."""
    length = answer.headers.get("Content-Length", "")
    if answer.status != 206:
        return 0, int(length) if length.isdecimal() else None
    found = _RANGE.fullmatch(answer.headers.get("Content-Range", "").strip())
    if not asked or found is None or int(found[1]) != start:
        raise Failed(f"the server sends another part than bytes from {start}")
    return start, int(found[2]) if found[2] != "*" else None


def _receive(web: Web, answer: Any, file: Path, place: int) -> int:
    """Write the body at a place of a file; gives the number of bytes."""
    manners, begun, came = web.manners, time.monotonic(), 0
    since, since_bytes = begun, 0
    with file.open("r+b" if place else "wb") as stream:
        stream.seek(place)
        stream.truncate()
        # A body that ends too soon is noticed by its length.
        with contextlib.suppress(EOFError):
            while data := answer.read1(_PIECE):
                stream.write(data)
                came += len(data)
                now = time.monotonic()
                if manners.rate:
                    time.sleep(max(0.0, begun + came / manners.rate - now))
                elif now - since > manners.timeout:
                    if (came - since_bytes) / (now - since) < manners.slowest:
                        raise Failed(f"less than {manners.slowest:g} bytes a second came for {now - since:.0f} s")
                    since, since_bytes = now, came
    return came
