"""How every service listens: uvicorn, with bounds on what comes before a request's body.

python -m services.pancake --host 127.0.0.1 --port 8001
"""

from __future__ import annotations

import argparse
import asyncio
from asyncio.events import TimerHandle
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_MOST_HEAD = 64 * 1024
"""Bytes of a request line and headers."""
_HEAD_SECONDS = 30
"""For so long a connection may be open without a whole request line and headers."""


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which by itself waits for ever for a request's head, and keeps all of it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio."""
        super().connection_made(transport)
        self._head: int | None = 0
        self._timer: TimerHandle | None = None
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        if self._head is not None:
            self._head += len(data)
            if self._timer is None:
                self._arm()
        super().data_received(data)
        if self._head is not None and self._head > _MOST_HEAD and not self.transport.is_closing():
            self.send_400_response(f"The request line and headers are longer than {_MOST_HEAD} bytes.")

    def on_headers_complete(self) -> None:
        """See httptools."""
        self._disarm()
        # In one piece they may have come with more than a head may have.
        if sum(len(name) + len(value) for name, value in self.headers) + len(self.url) > _MOST_HEAD:
            raise ValueError("the head of the request is too long")
        self._head = None
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """See httptools."""
        self._head = 0
        super().on_message_complete()

    def _arm(self) -> None:
        self._timer = self.loop.call_later(_HEAD_SECONDS, self._give_up)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()


def configuration(app: ASGIApp | str, host: str, port: int, **more: Any) -> uvicorn.Config:
    """How an application is served.

    X-Forwarded-For is left alone here: which proxies are believed is each service's own setting.
    """
    options: dict[str, Any] = {
        "http": BoundedProtocol,
        "ws": "none",
        "proxy_headers": False,
        "server_header": False,
        "access_log": False,
        "timeout_graceful_shutdown": 10,
    }
    return uvicorn.Config(app, host=host, port=port, **(options | more))


def main(app: str, *, port: int) -> None:
    """Serve an application until the process is told to stop.

    Args:
        app: Where it is, as `module:name`.
        port: Where it listens unless the command line says otherwise.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {app.rpartition('.')[0]}")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=port, help="port to listen on (%(default)s)")
    options = parser.parse_args()
    uvicorn.Server(configuration(app, options.host, options.port)).run()
