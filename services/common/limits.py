"""Limits on what a client may ask: the size of a body, the rate of requests."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.common.problems import Problem

_MOST_CLIENTS = 10_000


class BodyLimitMiddleware:
    """Refuses a body that is longer than `most` bytes with 413, whether it says so beforehand or not."""

    def __init__(self, app: ASGIApp, *, most: int) -> None:
        self._app, self._most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        problem = Problem(413, f"the body is longer than {self._most} bytes: send it in parts")
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdecimal() and int(declared) > self._most:
            scope.setdefault("state", {})["error_code"] = problem.code
            await problem.response()(scope, receive, send)
            return
        length = 0

        async def receiving() -> Message:
            nonlocal length
            message = await receive()
            length += len(message.get("body", b""))
            if length > self._most:
                raise problem
            return message

        await self._app(scope, receiving, send)


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
