"""Errors as problem details (RFC 9457), the same for every service.

A client always gets `application/problem+json` with `type`, `title`, `status`, `detail` and, for a refused
body or query, `errors`: the first of what was wrong where, and `error_count` when there is more. It never
gets a stack trace; that goes to the log.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import Scope

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
MOST_ERRORS = 20
"""How many errors an answer shows."""
_MOST_TEXT = 300
"""How many characters of a text an answer repeats, which may be the sender's own."""

SCHEMA: dict[str, Any] = {
    "type": "object",
    "title": "Problem",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["where", "what"],
                "properties": {"where": {"type": "string"}, "what": {"type": "string"}},
            },
        },
        "error_count": {
            "type": "integer",
            "description": "How many errors there are, when not all are shown.",
        },
    },
}


class Problem(HTTPException):
    """An error that the client is to see.

    Args:
        status: The HTTP status.
        detail: One line: what, where, remedy.
        code: A short stable word for logs and metrics; the status' phrase in snake case when left out.
        errors: What was wrong where, for refused input; the first of them are shown.
        headers: Headers of the answer, such as Retry-After.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        code: str | None = None,
        errors: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, _shown(detail), dict(headers or {}))
        self.status = status
        self.code = code or HTTPStatus(status).phrase.lower().replace(" ", "_").replace("-", "_")
        self.errors = [
            {"where": _shown(error["where"]), "what": _shown(error["what"])} for error in errors[:MOST_ERRORS]
        ]
        self.error_count = len(errors)

    def response(self) -> Response:
        """The answer for this problem."""
        body: dict[str, Any] = {
            "type": f"urn:tallyhouse:problem:{self.code}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
        }
        if self.errors:
            body["errors"] = self.errors
        if self.error_count > len(self.errors):
            body["error_count"] = self.error_count
        return Response(
            orjson.dumps(body), status_code=self.status, media_type=MEDIA_TYPE, headers=self.headers
        )


def _shown(text: str) -> str:
    """A text cut to what an answer repeats, without what JSON cannot hold."""
    short = text if len(text) <= _MOST_TEXT else f"{text[:_MOST_TEXT]}…"
    return short.encode(errors="replace").decode()


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI entries of the problems that a route may answer with."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": SCHEMA}},
        }
        for status in statuses
    }


def from_validation(error: RequestValidationError) -> Problem:
    """What FastAPI refused, as a problem: 400 when the body is no JSON at all, else 422."""
    items = error.errors()
    found = [
        {"where": ".".join(_shown(str(part)) for part in item["loc"]), "what": str(item["msg"])}
        for item in items[:MOST_ERRORS]
    ]
    if any(item["type"] == "json_invalid" for item in items[:1]):
        return Problem(400, "the body is not JSON: send one UTF-8 JSON document", errors=found)
    first = found[0] if found else {"where": "request", "what": "invalid"}
    problem = Problem(422, f"{first['where']}: {first['what']}", code="invalid", errors=found)
    problem.error_count = len(items)
    return problem


def as_problem(error: Exception) -> Problem:
    """Any error as the problem that a client is to see."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, RequestValidationError):
        return from_validation(error)
    if isinstance(error, HTTPException):
        return Problem(error.status_code, str(error.detail), headers=error.headers)
    return Problem(500, "unexpected error: the service's log has it")


def _allowed(app: FastAPI, scope: Scope) -> list[str]:
    """The methods that a path takes, whichever of its routes takes them."""
    methods: set[str] = set()
    for route in app.router.routes:
        match, _ = route.matches(scope)
        if match is not Match.NONE:
            methods |= set(getattr(route, "methods", None) or {"GET", "HEAD"})
    return sorted(methods)


def install(app: FastAPI) -> None:
    """Make every error of `app` a problem, and leave its code in the request's state for the log."""

    async def answer(request: Request, error: Exception) -> Response:
        problem = as_problem(error)
        if problem.status == HTTPStatus.INTERNAL_SERVER_ERROR:
            log.error("unexpected error in %s %s", request.method, request.url.path, exc_info=error)
        if problem.status == HTTPStatus.METHOD_NOT_ALLOWED:
            # Starlette names the methods of the first route of the path only.
            problem.headers = {**(problem.headers or {}), "Allow": ", ".join(_allowed(app, request.scope))}
        request.state.error_code = problem.code
        return problem.response()

    for kind in (HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, answer)
