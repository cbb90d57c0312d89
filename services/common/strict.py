"""Bodies of strict JSON."""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import orjson
from fastapi import Request, Response
from fastapi.routing import APIRoute


class _StrictJson(Request):
    """Reads bodies by orjson: what could not be written back (NaN, lone surrogates) is no JSON."""

    async def json(self) -> object:
        return orjson.loads(await self.body())


class StrictRoute(APIRoute):
    """A route whose body is strict JSON."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See FastAPI."""
        handler: Callable[[Request], Awaitable[Response]] = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await handler(_StrictJson(request.scope, request.receive))

        return handle
