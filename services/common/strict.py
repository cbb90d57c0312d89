"""Routes that ask who somebody is before they read what was sent, and that read strict JSON."""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.routing import APIRoute

from services.common import jsontext
from services.common.problems import Problem
from services.common.security import Admission

_MOST_FIELDS = 1000
"""How many fields an object may have that becomes a model, which all have far fewer."""
_LONG = 256 * 1024
"""What is longer is read in a thread, so that others are answered meanwhile."""


def refused_json(error: ValueError, what: str = "the body") -> Problem:
    """The problem of a text that `jsontext` refused: 400 when it is no JSON, else 422."""
    if isinstance(error, jsontext.AmbiguousError):
        return Problem(422, f"{what}: {error}", code="invalid", errors=[{"where": what, "what": str(error)}])
    return Problem(400, f"{what} is not JSON: {error}")


def loads(body: bytes) -> Any:
    """What a body says, see `jsontext.loads`.

    Raises:
        Problem: 400 when it is not JSON, 422 when two readers may take it for different things.
    """
    try:
        found = jsontext.loads(body)
    except ValueError as error:
        raise refused_json(error) from error
    if isinstance(found, dict) and len(found) > _MOST_FIELDS:
        what = f"there are {len(found)} fields, more than {_MOST_FIELDS}"
        raise Problem(422, f"body: {what}", code="invalid", errors=[{"where": "body", "what": what}])
    return found


class _StrictJson(Request):
    async def json(self) -> object:
        body = await self.body()
        return await run_in_threadpool(loads, body) if len(body) > _LONG else loads(body)


class StrictRoute(APIRoute):
    """A route whose body is strict JSON, read only for who may send it."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See FastAPI, which would read the body before it asks any dependency."""
        handler: Callable[[Request], Awaitable[Response]] = super().get_route_handler()
        admissions = [
            found.call for found in self.dependant.dependencies if isinstance(found.call, Admission)
        ]

        async def handle(request: Request) -> Response:
            for admission in admissions:
                await admission.admit(request)
            return await handler(_StrictJson(request.scope, request.receive))

        return handle
