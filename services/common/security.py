"""Who may do what: API keys, tokens of an OIDC issuer, roles, environments, and the audit log.

    python -m services.common.security new-key --name monitor --role writer

prints a key, once, and the entry for the file of keys, which holds only its hash. Two keys of one name may
be valid at once, so a key is rotated by adding the new one, moving the client, and removing the old one;
the file is read again when it changes.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import hashlib
import hmac
import ipaddress
import logging
import os
import secrets
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from urllib.error import URLError
from urllib.request import Request as UrlRequest
from urllib.request import urlopen

import jwt
import orjson
from fastapi import Request, Security
from fastapi.concurrency import run_in_threadpool
from fastapi.security import APIKeyHeader, HTTPBearer
from fastapi.security.http import HTTPAuthorizationCredentials
from pydantic import BaseModel, ConfigDict, ValidationError

from services.common.limits import RateLimit
from services.common.observe import REQUEST_ID
from services.common.problems import Problem
from services.common.settings import ServiceSettings

audit_log = logging.getLogger("audit")
log = logging.getLogger(__name__)

READ, WRITE, LINEAGE, METRICS = "runs:read", "runs:write", "lineage:write", "metrics:read"
EVENTS = "events:write"
ROLES: Mapping[str, frozenset[str]] = {
    "reader": frozenset({READ}),
    "writer": frozenset({READ, WRITE, LINEAGE, EVENTS}),
    "monitor": frozenset({METRICS}),
    "admin": frozenset({READ, WRITE, LINEAGE, METRICS, EVENTS}),
}
_KEY_PREFIX = "th_"
_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"]


@dataclass(frozen=True)
class Principal:
    """Who is asking.

    Attributes:
        name: For logs.
        scopes: What they may do.
        environments: The environments whose runs they may see and add; None for all.
    """

    name: str
    scopes: frozenset[str]
    environments: tuple[str, ...] | None = None

    def may_use(self, environment: str | None) -> bool:
        """Whether a run of this environment is theirs to see or add."""
        return self.environments is None or environment in self.environments


ANYBODY = Principal("anonymous", ROLES["admin"])


class KeyEntry(BaseModel):
    """A key in the file: its hash, whose it is, what it allows, until when."""

    model_config = ConfigDict(extra="forbid")

    id: str
    sha256: str
    name: str
    role: str | None = None
    scopes: list[str] = []
    environments: list[str] | None = None
    not_after: datetime | None = None

    def principal(self) -> Principal:
        """Who has this key."""
        scopes = ROLES.get(self.role or "", frozenset()) | frozenset(self.scopes)
        environments = None if self.environments is None else tuple(self.environments)
        return Principal(self.name, scopes, environments)


def new_key(name: str, role: str) -> tuple[str, KeyEntry]:
    """A new key and its entry."""
    key_id, secret = secrets.token_hex(4), secrets.token_urlsafe(32)
    key = f"{_KEY_PREFIX}{key_id}_{secret}"
    return key, KeyEntry(id=key_id, sha256=_hash(key), name=name, role=role)


def digest(content: bytes) -> str:
    """SHA-256, in hex."""
    return hashlib.sha256(content).hexdigest()


def _hash(key: str) -> str:
    # A key is 256 random bits: there is nothing to guess, so no slow hash is needed.
    return digest(key.encode())


class KeyFile:
    """The keys of a file, read again when it changes.

    Args:
        path: A JSON array of entries.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._entries: dict[str, KeyEntry] = {}

    def find(self, key: str) -> Principal | None:
        """Whose key it is, if it is valid now."""
        self._refresh()
        parts = key.split("_", 2)
        entry = self._entries.get(parts[1]) if len(parts) == 3 else None
        if entry is None or not hmac.compare_digest(entry.sha256, _hash(key)):
            return None
        if entry.not_after is not None and entry.not_after <= datetime.now(entry.not_after.tzinfo or UTC):
            return None
        return entry.principal()

    def _refresh(self) -> None:
        try:
            status = self._path.stat()
            stamp = (status.st_mtime_ns, status.st_ino)
            if stamp != self._stamp:
                entries = [KeyEntry.model_validate(item) for item in orjson.loads(self._path.read_bytes())]
                self._entries, self._stamp = {entry.id: entry for entry in entries}, stamp
        except (OSError, ValueError, ValidationError, TypeError) as error:
            # The keys read last stay valid: a slip in the file must not lock everybody out.
            log.error("%s: cannot be read, the keys read last are kept: %s", self._path, error)


class TokenVerifier:
    """Verifies tokens by the keys that an OIDC issuer publishes.

    Args:
        issuer: The issuer's URL, under which `/.well-known/openid-configuration` is found.
        audience: The audience that tokens have to be for.
        roles_claim: The claim that lists roles, with dots into nested objects.
    """

    def __init__(self, issuer: str, audience: str | None, roles_claim: str) -> None:
        self._issuer, self._audience, self._roles_claim = issuer, audience, roles_claim
        self._lock = threading.Lock()
        self._keys: jwt.PyJWKClient | None = None

    def verify(self, token: str) -> Principal:
        """Whose token it is.

        Raises:
            Problem: 401 when it is not valid, 503 when the issuer cannot be asked for its keys.
        """
        try:
            key = self._client().get_signing_key_from_jwt(token)
            claims = jwt.decode(
                token,
                key,
                algorithms=_ALGORITHMS,
                audience=self._audience,
                issuer=self._issuer,
                leeway=30,
                options={"require": ["exp", "iss", "sub"], "verify_aud": self._audience is not None},
            )
        except jwt.PyJWKClientConnectionError as error:
            raise _no_issuer(self._issuer) from error
        except jwt.PyJWTError as error:
            raise _unauthorised(f"the token is not valid: {error}") from error
        return self._principal(claims)

    def _client(self) -> jwt.PyJWKClient:
        with self._lock:
            if self._keys is None:
                url = self._issuer.rstrip("/") + "/.well-known/openid-configuration"
                if not url.startswith(("https://", "http://")):
                    raise _no_issuer(self._issuer)
                try:
                    with urlopen(UrlRequest(url), timeout=5) as answer:  # noqa: S310 - checked just above
                        document = orjson.loads(answer.read(1_000_000))
                    if document["issuer"].rstrip("/") != self._issuer.rstrip("/"):
                        raise ValueError("it names another issuer")
                    self._keys = jwt.PyJWKClient(document["jwks_uri"], cache_keys=True, timeout=5)
                except (URLError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                    raise _no_issuer(self._issuer) from error
            return self._keys

    def _principal(self, claims: Mapping[str, Any]) -> Principal:
        value: Any = claims
        for part in self._roles_claim.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        roles = [value] if isinstance(value, str) else value if isinstance(value, list) else []
        scopes = frozenset(str(claims.get("scope", "")).split())
        for role in roles:
            scopes |= ROLES.get(str(role), frozenset())
        environments = claims.get("environments")
        allowed = tuple(map(str, environments)) if isinstance(environments, list) else None
        return Principal(str(claims["sub"]), scopes, allowed)


def _no_issuer(issuer: str) -> Problem:
    return Problem(
        503,
        f"the issuer {issuer} cannot be asked for its keys: try again",
        code="issuer_unavailable",
        headers={"Retry-After": "5"},
    )


def _unauthorised(detail: str, *, browser: bool = False) -> Problem:
    challenge = 'Basic realm="tallyhouse"' if browser else 'Bearer realm="tallyhouse"'
    return Problem(401, detail, headers={"WWW-Authenticate": challenge})


_API_KEY = APIKeyHeader(name="X-API-Key", auto_error=False)
_BEARER = HTTPBearer(auto_error=False)


class Gate:
    """Decides for each request who is asking and whether they may.

    Credentials are an API key in `X-API-Key`, a token in `Authorization: Bearer`, an API key in its place
    (all that OpenLineage's clients can send), or, for a browser's own prompt, an API key as the password of
    `Authorization: Basic`.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self._auth = settings.auth
        self._keys = KeyFile(settings.api_keys_file) if settings.api_keys_file else None
        issuer = settings.jwt_issuer
        self._tokens = (
            TokenVerifier(issuer, settings.jwt_audience, settings.jwt_roles_claim) if issuer else None
        )
        self._rate = RateLimit(settings.rate_per_second, settings.rate_burst)
        self._audit_file = settings.audit_file
        self._audit_lock = threading.Lock()

    def require(self, scope: str, *, browser: bool = False) -> Callable[..., Awaitable[Principal]]:
        """A dependency of routes that only who has `scope` may use."""

        async def allowed(
            request: Request,
            api_key: Annotated[str | None, Security(_API_KEY)] = None,
            bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)] = None,
        ) -> Principal:
            client = request.client.host if request.client else "unknown"
            if not self._asks(request):
                principal = ANYBODY
                self._rate.take(client)
            else:
                try:
                    # In a thread: an issuer may have to be asked for its keys.
                    principal = await run_in_threadpool(
                        self._identify, request, api_key, bearer, browser=browser
                    )
                except Problem:
                    self._rate.take(f"refused {client}")
                    raise
                self._rate.take(f"principal {principal.name}")
            request.state.principal = principal.name
            if scope not in principal.scopes:
                raise Problem(403, f"{principal.name} may not do this: it needs the scope {scope}")
            return principal

        return allowed

    def _asks(self, request: Request) -> bool:
        """Whether this request needs credentials.

        In the mode `auto` it does unless it came to a loopback address by a loopback name: the name keeps
        out pages of the internet whose own name was made to point here.
        """
        if self._auth != "auto":
            return self._auth == "on"
        server = (request.scope.get("server") or ("",))[0]
        return not (_loopback(server) and _loopback(request.url.hostname or ""))

    def _identify(
        self,
        request: Request,
        api_key: str | None,
        bearer: HTTPAuthorizationCredentials | None,
        *,
        browser: bool,
    ) -> Principal:
        key = api_key or _basic_password(request.headers.get("authorization", ""))
        if key is None and bearer is not None and bearer.credentials.startswith(_KEY_PREFIX):
            key = bearer.credentials
        if key is not None and self._keys is not None:
            principal = self._keys.find(key)
            if principal is not None:
                return principal
            raise _unauthorised("the API key is not valid: ask for a new one", browser=browser)
        if bearer is not None and self._tokens is not None:
            return self._tokens.verify(bearer.credentials)
        raise _unauthorised("credentials are needed: send X-API-Key or a Bearer token", browser=browser)

    def audit(self, principal: Principal, action: str, what: list[dict[str, Any]]) -> None:
        """Write down what somebody changed: to the log, and to the file when there is one."""
        moment = datetime.now(UTC).isoformat(timespec="milliseconds")
        entry = {"action": action, "principal": principal.name, "items": what}
        audit_log.info("%s by %s", action, principal.name, extra=entry)
        if self._audit_file is not None:
            line = orjson.dumps({"timestamp": moment, "request_id": REQUEST_ID.get(), **entry}) + b"\n"
            with self._audit_lock:
                self._audit_file.parent.mkdir(parents=True, exist_ok=True)
                descriptor = os.open(self._audit_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
                try:
                    os.write(descriptor, line)
                finally:
                    os.close(descriptor)


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _basic_password(header: str) -> str | None:
    kind, _, value = header.partition(" ")
    if kind.lower() != "basic":
        return None
    try:
        _, colon, password = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return password if colon else None


def name_credentials(document: dict[str, Any], settings: ServiceSettings) -> None:
    """Leave in an OpenAPI document only the kinds of credentials that this installation takes."""
    taken = {"APIKeyHeader": settings.api_keys_file, "HTTPBearer": settings.jwt_issuer}
    schemes = document["components"].get("securitySchemes", {})
    for name in [name for name in schemes if not taken.get(name)]:
        del schemes[name]
    for path in document["paths"].values():
        for operation in path.values():
            if "security" in operation:
                operation["security"] = [
                    item for item in operation["security"] if all(name in schemes for name in item)
                ]


def main(arguments: list[str] | None = None) -> int:
    """Print a new key and its entry."""
    parser = argparse.ArgumentParser(prog="python -m services.common.security", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("new-key", help="make an API key")
    command.add_argument("--name", required=True, help="whose key it is")
    command.add_argument("--role", choices=sorted(ROLES), default="reader")
    options = parser.parse_args(arguments)
    key, entry = new_key(options.name, options.role)
    sys.stdout.write(f"key, shown only now: {key}\nentry for the file of keys:\n")
    sys.stdout.write(entry.model_dump_json(indent=2, exclude_defaults=True) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
