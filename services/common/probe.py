"""A small HTTP server beside a worker that is no web service: /health, /ready and /metrics."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import orjson
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest


def serve(
    host: str,
    port: int,
    *,
    service: str,
    registry: CollectorRegistry,
    ready: Callable[[], Mapping[str, object]],
) -> ThreadingHTTPServer:
    """Answer in threads of its own until the process ends.

    Args:
        host: Address to listen on.
        port: Port to listen on.
        service: Its name, for /health.
        registry: What /metrics shows.
        ready: What keeps the worker from working, by dependency; nothing when it works.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                self._answer(200, CONTENT_TYPE_LATEST, generate_latest(registry))
            elif path == "/health":
                self._json(200, {"status": "healthy", "service": service})
            elif path == "/ready":
                wrong = ready()
                self._json(503 if wrong else 200, {"status": "not ready" if wrong else "ready", **wrong})
            else:
                self._json(404, {"status": "not found"})

        def _json(self, status: int, body: Mapping[str, object]) -> None:
            self._answer(status, "application/json", orjson.dumps(body, default=str))

        def _answer(self, status: int, media_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", media_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: it is asked every few seconds."""

    server = ThreadingHTTPServer((host, port), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="probe", daemon=True).start()
    return server
