"""Limits on what a client may ask: the size of a body, the rate of requests."""

from __future__ import annotations

import asyncio
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.common.problems import Problem

_MOST_CLIENTS = 10_000
_BODIES_TOGETHER = 4
"""How many of the longest bodies may be in memory at once."""


class BodyLimitMiddleware:
    """Bounds what a body may be: its bytes, the time it takes to arrive, what all of them hold at once.

    A body that is longer than `most` bytes is refused with 413, whether it says so beforehand or not. One
    that is compressed by gzip is handed on decompressed, and counts as that; of another compression it is
    refused with 415. A body is read only as far as what is inside asks for it.

    Args:
        app: What is inside.
        most: The longest body.
        shorter: Paths whose bodies may only be shorter, with the longest.
        seconds: How long a body may take to arrive.
    """

    def __init__(
        self, app: ASGIApp, *, most: int, shorter: Mapping[str, int] | None = None, seconds: float = 60
    ) -> None:
        self._app, self._most, self._shorter, self._seconds = app, most, shorter or {}, seconds
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most = min(self._shorter.get(scope["path"], self._most), self._most)
        headers = Headers(scope=scope)
        declared, coding = headers.get("content-length", ""), headers.get("content-encoding", "identity")
        problem: Problem | None = None
        if declared.isdecimal() and int(declared[:20]) > most:
            problem = _too_long(most)
        elif coding.strip().lower() not in ("gzip", "x-gzip", "identity", ""):
            problem = Problem(
                415,
                f"the body's Content-Encoding is {coding[:50]}: send gzip, or leave it out",
                headers={"Accept-Encoding": "gzip"},
            )
        if problem is not None:
            scope.setdefault("state", {})["error_code"] = problem.code
            await problem.response()(scope, receive, send)
            return
        body = _Body(self, receive, most, gzipped="gzip" in coding.lower())
        if body.gzipped:
            kept = [
                item for item in scope["headers"] if item[0] not in (b"content-encoding", b"content-length")
            ]
            scope["headers"] = kept
        try:
            await self._app(scope, body.receive, send)
        finally:
            self._held -= body.length

    def hold(self, length: int) -> None:
        """Take note of bytes that a request holds from now on.

        Raises:
            Problem: 503, when all requests together hold too many.
        """
        self._held += length
        if self._held > _BODIES_TOGETHER * self._most:
            raise Problem(
                503,
                "too many bodies are being read: try again in 1 s",
                code="busy",
                headers={"Retry-After": "1"},
            )

    @property
    def seconds(self) -> float:
        """How long a body may take to arrive."""
        return self._seconds


class _Body:
    """The body of one request, as far as it has come."""

    def __init__(self, limits: BodyLimitMiddleware, receive: Receive, most: int, *, gzipped: bool) -> None:
        self._limits, self._receive, self._most, self.gzipped = limits, receive, most, gzipped
        self._gunzip = zlib.decompressobj(wbits=31) if gzipped else None
        self._came = self.length = 0
        self._until: float | None = None
        self._whole = False

    async def receive(self) -> Message:
        if self._whole:  # what comes now is that the client goes away
            return await self._receive()
        loop = asyncio.get_running_loop()
        self._until = self._until or loop.time() + self._limits.seconds
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._receive()
        except TimeoutError as error:
            raise Problem(
                408,
                f"the body did not arrive within {self._limits.seconds:g} s: send it again",
                headers={"Connection": "close"},
            ) from error
        if message["type"] != "http.request":
            return message
        self._whole = not message.get("more_body", False)
        content = message.get("body", b"")
        self._came += len(content)
        if self._came > self._most:
            raise _too_long(self._most)
        if self._gunzip is not None:
            content = self._decompressed(self._gunzip, content)
            message = {**message, "body": content}
        self.length += len(content)
        self._limits.hold(len(content))
        if self.length > self._most:
            raise _too_long(self._most)
        return message

    def _decompressed(self, gunzip: Any, content: bytes) -> bytes:
        try:
            # One byte more than may be is enough to see that it is too long.
            found: bytes = gunzip.decompress(content, self._most - self.length + 1)
        except zlib.error as error:
            raise Problem(400, f"the body is not gzip, as its Content-Encoding says: {error}") from error
        if gunzip.unused_data:
            raise Problem(400, "the body goes on after the end of its gzip data: send one gzip member")
        if self._whole and self._came and not gunzip.eof and len(found) + self.length <= self._most:
            raise Problem(400, "the body's gzip data ends too early: send all of it")
        return found


def _too_long(most: int) -> Problem:
    return Problem(413, f"the body is longer than {most} bytes: send it in parts")


class RateLimit:
    """A token bucket for each client, in this process.

    Args:
        per_second: Tokens that come back in a second; 0 for no limit.
        burst: The most that a bucket holds.
        clock: A monotonic clock in seconds.
    """

    def __init__(self, per_second: float, burst: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second, self._burst, self._clock = per_second, burst, clock
        self._lock = threading.Lock()
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> None:
        """Take a token of a client's.

        Raises:
            Problem: 429, when there is none.
        """
        if not self._per_second:
            return
        now = self._clock()
        with self._lock:
            tokens, at = self._buckets.pop(client, (float(self._burst), now))
            tokens = min(self._burst, tokens + (now - at) * self._per_second)
            enough = tokens >= 1
            self._buckets[client] = (tokens - 1 if enough else tokens, now)
            if len(self._buckets) > _MOST_CLIENTS:
                self._buckets.popitem(last=False)
        if not enough:
            wait = max(1, round((1 - tokens) / self._per_second))
            raise Problem(
                429,
                f"more than {self._per_second:g} requests a second: try again in {wait} s",
                headers={"Retry-After": str(wait)},
            )
