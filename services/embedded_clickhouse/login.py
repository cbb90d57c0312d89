"""Who may ask: one account with a password, by a name of this server, and never a page in a browser."""

import base64
import binascii
import secrets
from collections.abc import Collection

from fastapi import Request

from services.common.front import is_ours
from services.embedded_clickhouse.errors import ClickHouseError, refused


class Login:
    """The account, and the names by which the server may be called.

    Args:
        user: Its name.
        password: Its password; never empty.
        hosts: Names taken in the Host header beside the address itself and those of the loopback.
    """

    def __init__(self, user: str, password: str, hosts: Collection[str] = ()) -> None:
        if not password:
            raise ValueError("CLICKHOUSE_PASSWORD is empty: this server answers nobody without a password")
        self._user = user.encode()
        self._password = password.encode()
        self._hosts = {host.lower() for host in hosts}

    def check_door(self, request: Request) -> None:
        """See that the request comes from a program, and to this server.

        A page that a browser on this machine shows reaches 127.0.0.1 as well, also under a name of its own.
        A browser always says where a request comes from.

        Raises:
            ClickHouseError: It comes from a page, or calls the server by another name.
        """
        said = request.headers.getlist("host")
        address = (request.scope.get("server") or ("",))[0]
        if len(said) != 1 or not is_ours(said[0], address, self._hosts):
            raise refused(f"The Host {said[0][:100] if said else ''!r} is not a name of this server")
        for header in request.headers:
            if header in ("origin", "referer") or header.startswith("sec-fetch-"):
                raise refused(f"Web pages are not answered (the request has the header {header})")

    def check_account(self, request: Request) -> None:
        """See that the request has the account's name and password.

        Raises:
            ClickHouseError: It has others, or none.
        """
        user, password = self._given(request)
        # Both are compared, whichever is wrong.
        right = secrets.compare_digest(user.encode(errors="replace"), self._user)
        if not secrets.compare_digest(password.encode(errors="replace"), self._password) or not right:
            raise ClickHouseError(
                f"Code: 516. DB::Exception: {user[:100]}: Authentication failed: password is incorrect, "
                "or there is no user with such name. (AUTHENTICATION_FAILED)"
            )

    @staticmethod
    def _given(request: Request) -> tuple[str, str]:
        user = request.headers.get("x-clickhouse-user", "")
        password = request.headers.get("x-clickhouse-key", "")
        scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic":
            try:
                user, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError):
                user, password = "", ""
        return request.query_params.get("user") or user or "default", (
            request.query_params.get("password") or password
        )
