"""Requests to the archive: named, unhurried, and repeated a bounded number of times where it makes sense."""

from __future__ import annotations

import http.client
import logging
import random
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlsplit

from Utils.core.errors import UserError

__all__ = ["Failed", "Manners", "NotThere", "Web"]

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

_AGENT = "D3-RSMDE (research; HiRISE stereo products; one connection)"
_LONGEST_PAGE = 50_000_000
_GONE = (401, 403, 404, 410, 451)
_LONGEST_WAIT = 60.0


class NotThere(Exception):
    """The server says that there is no such file, or not for us; asking again does not help."""


class Failed(Exception):
    """A request that failed in a way that may pass: it is repeated."""

    def __init__(self, what: str, wait: float | None = None) -> None:
        """Say what failed, and how many seconds the server asks to wait, if it does."""
        super().__init__(what)
        self.wait = wait


@dataclass(frozen=True)
class Manners:
    """How the archive is asked.

    Attributes:
        pause: seconds from one request to the next.
        attempts: how often each request is made at most.
        timeout: seconds without a byte after which a request has failed.
        rate: most bytes a second; 0 for no limit.
        slowest: bytes a second below which, over ``timeout`` seconds, a download has failed and is taken up again.
        first_wait: seconds before the second attempt; each further wait is twice as long, up to a minute.
    """

    pause: float = 1.0
    attempts: int = 5
    timeout: float = 60.0
    rate: float = 0.0
    slowest: float = 1000.0
    first_wait: float = 2.0


@dataclass
class Web:
    """One connection at a time, with manners.

    Attributes:
        manners: how it asks.
    """

    manners: Manners = field(default_factory=Manners)
    _last: float = field(default=0.0, init=False, repr=False)

    def page(self, url: str) -> str:
        """A page as text.

        Raises:
            NotThere: the server has no such page.
            UserError: all attempts failed.
        """

        def read() -> str:
            with self.opened(url) as answer:
                data: bytes = answer.read(_LONGEST_PAGE)
                wanted = answer.headers.get("Content-Length", "")
                if wanted.isdecimal() and len(data) < min(int(wanted), _LONGEST_PAGE):
                    raise Failed(f"{len(data)} of {wanted} bytes came")
                return data.decode(answer.headers.get_content_charset() or "utf-8", "replace")

        return self.repeated(url, read)

    def opened(self, url: str, headers: Mapping[str, str] | None = None) -> Any:
        """Ask once; gives the open answer, after redirections.

        Raises:
            NotThere, Failed: as described.
            UserError: an address that is none, or not of the web.
        """
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
            raise UserError(f"'{url}' is no address; give one that begins with https://")
        wait = self._last + self.manners.pause - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        # Compressed on the way, a file's length would not be the one that the server names.
        request = urllib.request.Request(
            url, headers={"User-Agent": _AGENT, "Accept-Encoding": "identity", **(headers or {})}
        )
        try:
            return urllib.request.urlopen(request, timeout=self.manners.timeout)
        except urllib.error.HTTPError as error:
            with error:
                if error.code in _GONE:
                    raise NotThere(f"{error.code} {error.reason}") from error
                asked = error.headers.get("Retry-After", "")
                wait_asked = float(asked) if asked.isdecimal() else None
                raise Failed(f"{error.code} {error.reason}", wait_asked) from error
        except (OSError, http.client.HTTPException) as error:
            raise Failed(_reason(error)) from error
        finally:
            self._last = time.monotonic()

    def repeated(self, url: str, work: Callable[[], Result]) -> Result:
        """Do some work on an address until it does not fail, at most ``attempts`` times, waiting longer each time.

        Raises:
            NotThere: as the work raised it.
            UserError: all attempts failed; the line names the last reason.
        """
        for attempt in range(1, self.manners.attempts + 1):
            try:
                return work()
            except (Failed, http.client.HTTPException, TimeoutError, ConnectionError) as error:
                reason = str(error) if isinstance(error, Failed) else _reason(error)
                if attempt == self.manners.attempts:
                    raise UserError(
                        f"'{url}': {reason}, {attempt} times; try again later, what has come is kept"
                    ) from error
                wait = self._wait(attempt, getattr(error, "wait", None))
                logger.info("%s: %s; attempt %d follows in %.0f s", url, reason, attempt + 1, wait)
                time.sleep(wait)
        raise AssertionError("there is at least one attempt")

    def _wait(self, attempt: int, asked: float | None) -> float:
        longest = min(_LONGEST_WAIT, self.manners.first_wait * 2.0 ** (attempt - 1))
        # Not all who were turned away at once come back at once.
        own = longest * random.uniform(0.75, 1.0)
        return own if asked is None else min(max(own, asked), 5 * _LONGEST_WAIT)


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    return " ".join(str(reason).split()) or type(error).__name__
