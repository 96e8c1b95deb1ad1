"""The gate in front of the API: how many requests come in at once, how large, and that nothing of them stays."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import ExitStack
from typing import Any

from Systems.app.limits import Limits

__all__ = ["CLEANUP", "Gate"]

logger = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

CLEANUP = "d3.cleanup"
"""Entry of a request's scope: an ``ExitStack`` that is closed once the request has ended, however it ends."""

_BUSY_AGAIN_IN = "30"  # seconds


class Gate:
    """Lets requests that carry a scene in, as many as the limits say; an ASGI app around another one.

    Args:
        app: the app behind it.
        limits: of a request, and of all.
        guarded: the paths that the limits are for; all others pass.
    """

    def __init__(self, app: App, limits: Limits, guarded: frozenset[str]) -> None:
        self._app, self._limits, self._guarded = app, limits, guarded
        self._inside = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Carry out a request, or refuse it before its body is read."""
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] not in self._guarded:
            await self._app(scope, receive, send)
            return
        if self._inside >= self._limits.waiting:
            await _refuse(send, 503, f"{self._inside} requests are being worked on already; try again later")
            return
        length = dict(scope["headers"]).get(b"content-length", b"")
        if length.isdigit() and int(length) > self._limits.upload_bytes:
            await _refuse(send, 413, self._too_large())
            return
        self._inside += 1
        try:
            with ExitStack() as cleanup:
                scope[CLEANUP] = cleanup
                await self._carry_out(scope, receive, send)
        finally:
            self._inside -= 1

    async def _carry_out(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, loop = _Body(receive, self._limits.upload_bytes), asyncio.get_running_loop()
        answered = False

        async def answer(message: Message) -> None:
            nonlocal answered
            if not body.is_too_large:  # what the app makes of half a body is no answer
                answered = True
                await send(message)

        # Only the body has this limit: the scene itself is stopped by its job's deadline, and then answered.
        watch = loop.create_task(_expired(body, self._limits.seconds))
        work: asyncio.Task[None] = loop.create_task(self._app(scope, body.receive, answer))  # type: ignore[arg-type]
        try:
            await asyncio.wait({watch, work}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                if watch.result():
                    work.cancel()
                    await asyncio.gather(work, return_exceptions=True)
                    if not answered:
                        await _refuse(send, 408, f"the request was not received within {self._limits.seconds:g} s")
                    return
                await asyncio.wait({work})
            if not body.is_too_large:
                work.result()
            if body.is_too_large and not answered:
                await _refuse(send, 413, self._too_large())
        finally:
            for task in (watch, work):
                task.cancel()

    def _too_large(self) -> str:
        return (
            f"a request has at most {self._limits.upload_bytes:,} bytes here: send a smaller scene, or use predict.py"
        )


class _Body:
    """A request's body as it comes in, counted."""

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive, self._most, self._bytes = receive, most, 0
        self.is_whole = self.is_too_large = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._bytes += len(message.get("body", b""))
            self.is_whole = not message.get("more_body", False)
            if self._bytes > self._most:
                self.is_whole = self.is_too_large = True
                return {"type": "http.disconnect"}  # ends the reading of it
        return message


async def _expired(body: _Body, seconds: float) -> bool:
    """Wait until the body is there (False) or has been waited for too long (True)."""
    waited = 0.0
    while not body.is_whole:
        if waited >= seconds:
            return True
        await asyncio.sleep(0.5)
        waited += 0.5
    return False


async def _refuse(send: Send, status: int, words: str) -> None:
    content = json.dumps({"error": words}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    if status == 503:
        headers.append((b"retry-after", _BUSY_AGAIN_IN.encode()))
    headers.append((b"connection", b"close"))  # what is left of the body is not read
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
