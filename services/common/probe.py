"""A small HTTP server beside a worker that is no web service: /health, /ready and /metrics."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping

import orjson
import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from services.common.front import FrontMiddleware
from services.common.serve import configuration


def serve(
    host: str,
    port: int,
    *,
    service: str,
    registry: CollectorRegistry,
    ready: Callable[[], Mapping[str, object]] = dict,
    hosts: Collection[str] = (),
) -> threading.Thread:
    """Answer in threads of its own until the process ends.

    Args:
        host: Address to listen on.
        port: Port to listen on.
        service: Its name, for /health.
        registry: What /metrics shows.
        ready: What keeps the worker from working, by dependency; nothing when it works.
        hosts: Names by which it may be called, see `FrontMiddleware`.

    Returns:
        The thread, which never ends.
    """

    def answer(body: Mapping[str, object], status: int = 200) -> Response:
        return Response(orjson.dumps(body, default=str), status, media_type="application/json")

    async def health(_: Request) -> Response:
        return answer({"status": "healthy", "service": service})

    async def readiness(_: Request) -> Response:
        wrong = dict(ready())
        return answer({"status": "not ready" if wrong else "ready", **wrong}, 503 if wrong else 200)

    def metrics(_: Request) -> Response:
        # In a thread: a collector may ask a database.
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    async def unknown(_: Request, __: Exception) -> Response:
        return answer({"status": "not found"}, 404)

    app = Starlette(
        routes=[Route("/health", health), Route("/ready", readiness), Route("/metrics", metrics)],
        exception_handlers={404: unknown},
    )
    app.router.redirect_slashes = False
    settings = configuration(
        FrontMiddleware(app, hosts=hosts), host, port, log_level="warning", loop="asyncio"
    )
    socket = settings.bind_socket()  # here, so that a busy port ends the process
    thread = threading.Thread(
        target=uvicorn.Server(settings).run, args=([socket],), name="probe", daemon=True
    )
    thread.start()
    return thread
