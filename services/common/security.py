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
import logging
import os
import secrets
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import jwt
import orjson
from fastapi import FastAPI, Request, Security
from fastapi.security import APIKeyHeader, HTTPBearer
from fastapi.security.http import HTTPAuthorizationCredentials
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from services.common.front import is_loopback
from services.common.issuer import IssuerAwayError, IssuerKeys
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
        kind: What said who they are: a key, a token, or nothing.
    """

    name: str
    scopes: frozenset[str]
    environments: tuple[str, ...] | None = None
    kind: Literal["key", "token", "nobody"] = "key"

    @property
    def identity(self) -> str:
        """The name that no other principal has, whatever issuer or file of keys gave it."""
        return f"token\0{self.name}" if self.kind == "token" else self.name

    def owned(self, key: str) -> str:
        """A key of this principal's, such as an idempotency key, as one that no other principal can hold."""
        return digest(f"{self.identity}\0{key}".encode())

    def may_use(self, environment: str | None) -> bool:
        """Whether a run of this environment is theirs to see or add."""
        return self.environments is None or environment in self.environments


ANYBODY = Principal("anonymous", ROLES["admin"], kind="nobody")


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

    @field_validator("name")
    @classmethod
    def _of_nobody_else(cls, name: str) -> str:
        if name == ANYBODY.name or "\0" in name:
            raise ValueError(f"a key cannot have the name {name!r}")
        return name

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


class ClaimError(ValueError):
    """A claim of a token has another form than it should."""


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
        issuer: The issuer's URL.
        audience: The audience that tokens have to be for.
        roles_claim: The claim that lists roles, with dots into nested objects.
    """

    def __init__(self, issuer: str, audience: str, roles_claim: str) -> None:
        self._issuer, self._audience, self._roles_claim = issuer, audience, roles_claim
        self._keys = IssuerKeys(issuer)

    async def verify(self, token: str) -> Principal:
        """Whose token it is.

        Raises:
            Problem: 401 when it is not valid, 503 when the issuer cannot be asked for its keys.
        """
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") not in _ALGORITHMS:
                raise jwt.InvalidAlgorithmError("its algorithm is not one of those taken")
            key = await self._keys.find(header.get("kid"))
            if key is None:
                raise jwt.InvalidKeyError("the issuer has no such key")
            claims = jwt.decode(
                token,
                key,
                algorithms=_ALGORITHMS,
                audience=self._audience,
                issuer=self._issuer,
                leeway=30,
                options={"require": ["exp", "iss", "sub", "aud"]},
            )
            return self._principal(claims)
        except IssuerAwayError as error:
            raise Problem(
                503, f"{error}: try again", code="issuer_unavailable", headers={"Retry-After": "5"}
            ) from error
        except (jwt.PyJWTError, ClaimError) as error:
            raise _unauthorised(f"the token is not valid: {error}") from error

    def _principal(self, claims: Mapping[str, Any]) -> Principal:
        """Who has these claims.

        Raises:
            ClaimError: A claim that grants or limits has another form than it should: no access is safer
                than the wrong one.
        """
        *path, last = self._roles_claim.split(".")
        place: Any = claims
        for part in path:
            place = place.get(part, {})
            if not isinstance(place, dict):
                raise ClaimError(f"its claim {self._roles_claim} does not stand in objects")
        found = place.get(last, [])
        roles = _texts([found] if isinstance(found, str) else found, self._roles_claim)
        scope = claims.get("scope", "")
        if not isinstance(scope, str):
            raise ClaimError("its claim scope is not a text")
        scopes = frozenset(scope.split()).union(*(ROLES.get(role, frozenset()) for role in roles))
        environments = (
            tuple(_texts(claims["environments"], "environments")) if "environments" in claims else None
        )
        subject = claims["sub"]
        if not isinstance(subject, str) or not subject:
            raise ClaimError("its claim sub is not a text")
        return Principal(subject, scopes, environments, kind="token")


def _texts(value: object, claim: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ClaimError(f"its claim {claim} is not a list of texts")
    return value


def _unauthorised(detail: str, *, browser: bool = False) -> Problem:
    challenge = 'Basic realm="tallyhouse"' if browser else 'Bearer realm="tallyhouse"'
    return Problem(401, detail, headers={"WWW-Authenticate": challenge})


_API_KEY = APIKeyHeader(name="X-API-Key", auto_error=False)
_BEARER = HTTPBearer(auto_error=False)


class AccessControl:
    """Decides for each request who is asking and whether they may.

    Credentials are an API key in `X-API-Key`, a token in `Authorization: Bearer`, an API key in its place
    (all that OpenLineage's clients can send), or, for a browser's own prompt, an API key as the password of
    `Authorization: Basic`.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self._auth = settings.auth
        self._keys = KeyFile(settings.api_keys_file) if settings.api_keys_file else None
        self._tokens = (
            TokenVerifier(settings.jwt_issuer, settings.jwt_audience, settings.jwt_roles_claim)
            if settings.jwt_issuer and settings.jwt_audience
            else None
        )
        self._rate = RateLimit(settings.rate_per_second, settings.rate_burst)
        self._behind_proxies = bool(settings.trusted_proxies)
        self._audit_file = settings.audit_file
        self._audit_lock = threading.Lock()

    def require(self, scope: str, *, browser: bool = False) -> Admission:
        """A dependency of routes that only who has `scope` may use."""
        return Admission(self, scope, browser=browser)

    async def admit(self, request: Request, scope: str, *, browser: bool) -> Principal:
        """Who is asking.

        Raises:
            Problem: 401 when it is not known who, 403 when they may not, 429 when they ask too often.
        """
        client = self._client(request)
        if not self._asks(request):
            principal = ANYBODY
            self._rate.take(client)
        else:
            try:
                principal = await self._identify(request, browser=browser)
            except Problem:
                self._rate.take(f"refused {client}")
                raise
            self._rate.take(f"principal {principal.identity}")
        request.state.principal = principal.name
        if scope not in principal.scopes:
            raise Problem(403, f"{principal.name} may not do this: it needs the scope {scope}")
        return principal

    def _client(self, request: Request) -> str:
        """The address that a rate is counted for.

        A server that was not told `--no-proxy-headers` takes it out of X-Forwarded-For, and says so by the
        port 0. Unless proxies are configured, whoever writes that header would choose whom to be.
        """
        if request.client is None or (request.client.port == 0 and not self._behind_proxies):
            return "unknown"
        return request.client.host

    def _asks(self, request: Request) -> bool:
        """Whether this request needs credentials.

        In the mode `auto` it does unless it came to a loopback address by a loopback name: the name keeps
        out pages of the internet whose own name was made to point here.
        """
        if self._auth != "auto":
            return self._auth == "on"
        server = (request.scope.get("server") or ("",))[0]
        return not (is_loopback(server) and is_loopback(request.url.hostname or ""))

    async def _identify(self, request: Request, *, browser: bool) -> Principal:
        api_key: str | None = await _API_KEY(request)
        bearer: HTTPAuthorizationCredentials | None = await _BEARER(request)
        key = api_key or _basic_password(request.headers.get("authorization", ""))
        if key is None and bearer is not None and bearer.credentials.startswith(_KEY_PREFIX):
            key = bearer.credentials
        if key is not None and self._keys is not None:
            principal = self._keys.find(key)
            if principal is not None:
                return principal
            raise _unauthorised("the API key is not valid: ask for a new one", browser=browser)
        if bearer is not None and self._tokens is not None:
            return await self._tokens.verify(bearer.credentials)
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


class Admission:
    """A dependency that lets in who has a scope; a `StrictRoute` asks it before it reads a body.

    Args:
        access: Who decides.
        scope: What they need.
        browser: Whether a browser is to prompt for a key.
    """

    def __init__(self, access: AccessControl, scope: str, *, browser: bool) -> None:
        self._access, self._scope, self._browser = access, scope, browser

    async def __call__(
        self,
        request: Request,
        _: Annotated[str | None, Security(_API_KEY)] = None,
        __: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)] = None,
    ) -> Principal:
        """See FastAPI; the credentials are parameters so that its document names them."""
        return await self.admit(request)

    async def admit(self, request: Request) -> Principal:
        """Who is asking, found out once for each request.

        Raises:
            Problem: see `AccessControl.admit`.
        """
        admitted: dict[str, Principal] = request.scope.setdefault("state", {}).setdefault("admitted", {})
        if self._scope not in admitted:
            admitted[self._scope] = await self._access.admit(request, self._scope, browser=self._browser)
        return admitted[self._scope]


def _basic_password(header: str) -> str | None:
    kind, _, value = header.partition(" ")
    if kind.lower() != "basic":
        return None
    try:
        _, colon, password = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return password if colon else None


def describe(app: FastAPI, settings: ServiceSettings) -> None:
    """Let the OpenAPI document of `app` name the credentials that this installation takes, and no others."""
    generate = app.openapi

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = generate()
            name_credentials(made, settings)
            app.openapi_schema = made
        return app.openapi_schema

    # FastAPI's own way to change its document.
    app.openapi = document  # type: ignore[method-assign]


def name_credentials(document: dict[str, Any], settings: ServiceSettings) -> None:
    """Leave in an OpenAPI document only the kinds of credentials that this installation asks for."""
    asked = settings.auth != "off"
    taken = {
        "APIKeyHeader": asked and settings.api_keys_file is not None,
        "HTTPBearer": asked and settings.jwt_issuer is not None,
    }
    schemes = document.get("components", {}).get("securitySchemes", {})
    for name in [name for name in schemes if not taken.get(name)]:
        del schemes[name]
    if not schemes:
        document.get("components", {}).pop("securitySchemes", None)
    for path in document["paths"].values():
        for operation in path.values():
            kept = [item for item in operation.pop("security", []) if all(name in schemes for name in item)]
            if kept:
                operation["security"] = kept
            if not asked:
                for status in ("401", "403"):
                    operation["responses"].pop(status, None)


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
