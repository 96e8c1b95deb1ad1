"""Listings of folders as web servers write them: names, whether they are folders, and sizes where they are shown."""

from __future__ import annotations

import re
from dataclasses import dataclass
from html.parser import HTMLParser
from urllib.parse import unquote, urljoin, urlsplit

__all__ = ["Entry", "parse_listing"]

# A name that may become a file's here: nothing that leads elsewhere.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,150}")
_SIZE = re.compile(r"(?<![\w:.-])(\d+(?:\.\d+)?)\s?([KMGT])?(?:i?B)?(?![\w:-])", re.IGNORECASE)
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}|\d{2}-[A-Za-z]{3}-\d{4}|\d{1,2}:\d{2}(?::\d{2})?")
_FACTORS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}


@dataclass(frozen=True)
class Entry:
    """A line of a listing.

    Attributes:
        name: of the file or folder, without slashes.
        is_folder: whether it is a folder.
        size: bytes as the listing shows them, rounded; None where it shows none.
    """

    name: str
    is_folder: bool
    size: int | None = None


def parse_listing(html: str, url: str) -> list[Entry]:
    """The entries of a folder's page, in its order, each name once.

    Links that sort the list, lead up or lead elsewhere, and names with unusual characters, are no entries.

    Args:
        html: the page.
        url: its address, ending in a slash.
    """
    reader = _Links()
    reader.feed(html)
    reader.close()
    base = urlsplit(url)
    found: dict[str, Entry] = {}
    for href, after in reader.links:
        target = urlsplit(urljoin(url, href))
        path = unquote(target.path)
        below = unquote(base.path)
        if target.query or target.netloc != base.netloc or not path.startswith(below):
            continue
        name = path[len(below) :].removesuffix("/")
        if _NAME.fullmatch(name):
            found.setdefault(name, Entry(name, path.endswith("/"), _size(after)))
    return list(found.values())


def _size(text: str) -> int | None:
    """The size in the text that follows a link; dates and times are no sizes."""
    sizes = _SIZE.findall(_DATE.sub(" ", text))
    return round(float(sizes[-1][0]) * _FACTORS[sizes[-1][1].upper()]) if sizes else None


class _Links(HTMLParser):
    """The targets of a page's links, each with the text between its end and the next one, up to the end of its row."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[tuple[str, str]] = []
        self._inside = False
        self._open = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            href = dict(attrs).get("href")
            self._inside, self._open = True, href is not None
            if href is not None:
                self.links.append((href, ""))
        elif tag == "tr":
            self._open = False

    def handle_endtag(self, tag: str) -> None:
        if tag == "a":
            self._inside = False

    def handle_data(self, data: str) -> None:
        if self._open and not self._inside and self.links:
            href, after = self.links[-1]
            line, _, rest = data.partition("\n")
            self.links[-1] = href, f"{after} {line}"
            # In plain text a line is an entry; in a table the row ends it.
            self._open = not (rest and line.strip())
