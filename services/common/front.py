"""What every listener of the platform asks first: by which name it was called, and from whose page.

A browser on this machine reaches 127.0.0.1 for any page that it shows. A page whose own name was made to
point here (DNS rebinding) sends that name as Host, and a form of another page sends that page's Origin: both
are refused, whether the service asks for credentials or not.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from http import HTTPStatus
from urllib.parse import urlsplit

import orjson
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_AUTHORITY = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::[0-9]{1,5})?", re.ASCII)
_READING = frozenset({"GET", "HEAD", "OPTIONS"})


def is_loopback(name: str) -> bool:
    """Whether a name or address is this machine's own, whoever is asked."""
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def name_of(authority: str) -> str | None:
    """The name or address in a Host header, in small letters; None when it is none."""
    found = _AUTHORITY.fullmatch(authority)
    return (found[1] or found[2]).rstrip(".").lower() if found else None


def is_ours(authority: str, address: str, names: Collection[str]) -> bool:
    """Whether a listener may be called so.

    Args:
        authority: The Host header.
        address: The address that the connection came to.
        names: Names that are taken beside it.
    """
    name = name_of(authority)
    return name is not None and (is_loopback(name) or name == address or name in names)


class FrontMiddleware:
    """Refuses what does not name this service, and what another page would change here.

    Args:
        app: What is inside.
        hosts: Names by which the service may be called beside its own address and 127.0.0.1, localhost.
        origins: Origins of other pages that may call, `*` for any.
    """

    def __init__(self, app: ASGIApp, *, hosts: Collection[str] = (), origins: Collection[str] = ()) -> None:
        self._app = app
        self._hosts = frozenset(name.lower() for name in hosts)
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        said = headers.getlist("host")
        refusal: Response | None = None
        if len(said) != 1 or not is_ours(said[0], (scope.get("server") or ("",))[0], self._hosts):
            name = said[0][:100] if said else "missing"
            refusal = _refuse(
                scope,
                HTTPStatus.MISDIRECTED_REQUEST,
                "unknown_host",
                f"the Host {name} is not a name of this service: call it by its address, or add the name to"
                " ALLOWED_HOSTS",
            )
        elif scope["method"] not in _READING and not self._may_come_from(headers.get("origin"), said[0]):
            refusal = _refuse(
                scope,
                HTTPStatus.FORBIDDEN,
                "foreign_origin",
                "a page of another origin may not change anything here: list its origin in CORS_ORIGINS",
            )
        await (refusal or self._inside)(scope, receive, send)

    async def _inside(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).setdefault("x-content-type-options", "nosniff")
            await send(message)

        await self._app(scope, receive, sending)

    def _may_come_from(self, origin: str | None, host: str) -> bool:
        if origin is None or origin in self._origins or "*" in self._origins:
            return True
        try:
            return urlsplit(origin).netloc.lower() == host.lower()
        except ValueError:
            return False


def _refuse(scope: Scope, status: HTTPStatus, code: str, detail: str) -> Response:
    scope.setdefault("state", {})["error_code"] = code
    body = {
        "type": f"urn:tallyhouse:problem:{code}",
        "title": status.phrase,
        "status": status.value,
        "detail": detail.encode(errors="replace").decode(),
    }
    return Response(orjson.dumps(body), status_code=status, media_type="application/problem+json")
