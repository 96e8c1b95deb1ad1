"""What a visitor may ask of the app, and the refusal of what goes beyond it."""

from __future__ import annotations

from dataclasses import dataclass

from Utils.core.errors import UserError

__all__ = ["Limits", "Refusal"]

MEGABYTE = 10**6


@dataclass(frozen=True)
class Limits:
    """Bounds of one request, and of all together.

    Attributes:
        upload_bytes: bytes of one request, all of its files together.
        pixels: height x width of an image or a DEM.
        seconds: time from the first byte of a request to its answer, waiting included.
        at_once: scenes that are predicted at the same time; the memory of a prediction is needed so often.
        waiting: requests that are received, wait or are predicted at the same time; the next one is refused at once.
        memory_bytes: resident memory of one process that predicts; above it, its request is refused.
    """

    upload_bytes: int = 200 * MEGABYTE
    pixels: int = 50_000_000
    seconds: float = 600.0
    at_once: int = 1
    waiting: int = 8
    memory_bytes: int = 16_000 * MEGABYTE


class Refusal(UserError):
    """A request that is not carried out, with the status by which HTTP says why."""

    def __init__(self, status: int, message: str) -> None:
        """``status`` is 404, 413, 415, 422, 500, 503 or 504."""
        super().__init__(message)
        self.status = status
