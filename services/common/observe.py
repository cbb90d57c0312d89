"""What a service tells of itself: JSON logs, Prometheus metrics, one request id."""

from __future__ import annotations

import logging
import re
import sys
import time
import uuid
from collections.abc import Collection
from contextvars import ContextVar
from datetime import UTC, datetime

import orjson
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_OF_LOGGING = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

access = logging.getLogger("access")


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, the request's id, and what `extra` brought."""

    def format(self, record: logging.LogRecord) -> str:
        """The line for a record."""
        line: dict[str, object] = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request_id := REQUEST_ID.get():
            line["request_id"] = request_id
        line |= {name: value for name, value in vars(record).items() if name not in _OF_LOGGING}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


def configure_logging(level: str) -> None:
    """Send every logger of the process to stderr as JSON, and leave requests to the access log here."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = name != "uvicorn.access"


class Metrics:
    """The metrics that every service has, in a registry of its own so that tests do not share them.

    Args:
        requests: Name of the histogram of answers.
        errors: Name of the counter of errors, without `_total`.
    """

    def __init__(
        self, *, requests: str = "http_request_duration_seconds", errors: str = "http_errors"
    ) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Histogram(
            requests,
            "Time to answer a request.",
            ["method", "endpoint", "status"],
            registry=self.registry,
            buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
        )
        self.errors = Counter(
            errors,
            "Requests answered with an error, by its code.",
            ["endpoint", "code"],
            registry=self.registry,
        )
        self.store = Histogram(
            "store_operation_duration_seconds",
            "Time that the store took, each try by itself.",
            ["operation", "outcome"],
            registry=self.registry,
            buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5),
        )

    def exposition(self) -> tuple[bytes, str]:
        """The metrics as Prometheus reads them, and their content type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST


class ObserveMiddleware:
    """Gives each request an id, a line in the access log and its place in the metrics.

    The endpoint in all of them is the route's template, never the path, so that their number is bounded.

    Args:
        app: What is inside.
        metrics: Where durations and errors go.
        quiet: Endpoints asked so often that only what failed is worth a line in the access log; the rest
            is there at the level DEBUG.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics, quiet: Collection[str] = ()) -> None:
        self._app, self._metrics, self._quiet = app, metrics, quiet

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        token = REQUEST_ID.set(request_id)
        state = scope.setdefault("state", {})
        started, status = time.perf_counter(), 500

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            seconds = time.perf_counter() - started
            endpoint = endpoint_of(scope)
            code = state.get("error_code")
            self._metrics.requests.labels(scope["method"], endpoint, str(status)).observe(seconds)
            if status >= 400:
                self._metrics.errors.labels(endpoint, code or str(status)).inc()
            level = logging.WARNING if status >= 500 else logging.INFO
            if status < 400 and endpoint in self._quiet:
                level = logging.DEBUG
            if access.isEnabledFor(level):
                access.log(
                    level,
                    "%s %s %d",
                    scope["method"],
                    endpoint,
                    status,
                    extra={
                        "method": scope["method"],
                        "endpoint": endpoint,
                        "status": status,
                        "latency_ms": round(seconds * 1000, 3),
                        "error_code": code,
                        "client": (scope.get("client") or ("",))[0],
                        "principal": state.get("principal"),
                    },
                )
            REQUEST_ID.reset(token)


def endpoint_of(scope: Scope) -> str:
    """The template of the route that a request came to, such as `/run/{run_id}`."""
    if scope["path"].startswith("/static/"):
        return "/static"
    path = getattr(scope.get("route"), "path", None)
    return path if isinstance(path, str) else "unmatched"
