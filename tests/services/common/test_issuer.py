"""Tokens while the issuer does not answer, and claims that do not have the form they should."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from pydantic import ValidationError

from services.common.issuer import IssuerAwayError, IssuerKeys
from services.common.problems import Problem
from services.common.security import Principal, TokenVerifier
from services.common.settings import ServiceSettings


class Issuer:
    """An OIDC issuer on this machine, which can be told to fail."""

    def __init__(self) -> None:
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.kid, self.asked, self.away = "1", 0, False
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked += 1
                body: dict = {"issuer": issuer.url, "jwks_uri": f"{issuer.url}/keys"}
                if self.path == "/keys":
                    public = jwt.algorithms.RSAAlgorithm.to_jwk(issuer.key.public_key(), as_dict=True)
                    body = {"keys": [public | {"kid": issuer.kid, "use": "sig", "alg": "RS256"}]}
                self.send_response(503 if issuer.away else 200)
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def token(self, **claims: object) -> str:
        standard = {
            "iss": self.url,
            "sub": "ann",
            "aud": "x",
            "exp": datetime.now(UTC) + timedelta(minutes=5),
        }
        return jwt.encode(standard | claims, self.key, algorithm="RS256", headers={"kid": self.kid})


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    issuer = Issuer()
    yield issuer
    issuer.server.shutdown()


@pytest.fixture
def hanging() -> Iterator[str]:
    """An address that takes connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(100)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


async def status_of(verifier: TokenVerifier, token: str) -> int:
    try:
        await verifier.verify(token)
    except Problem as problem:
        return problem.status
    return 200


def test_sixty_tokens_at_once_wait_a_moment_and_no_thread(hanging: str, issuer: Issuer):
    verifier, before = TokenVerifier(hanging, "x", "roles"), threading.active_count()

    async def ask() -> tuple[list[int], int]:
        tasks = [asyncio.create_task(status_of(verifier, issuer.token())) for _ in range(60)]
        await asyncio.sleep(0.5)
        return await asyncio.gather(*tasks), threading.active_count()

    began = time.monotonic()
    statuses, threads = asyncio.run(ask())
    assert set(statuses) == {503}
    assert time.monotonic() - began < 4
    assert threads <= before + 1, "one thread asks the issuer, whoever waits"


def test_a_failure_is_remembered(issuer: Issuer):
    now = 0.0
    keys = IssuerKeys(issuer.url, clock=lambda: now)
    issuer.away = True
    with pytest.raises(IssuerAwayError):
        asyncio.run(keys.find("1"))
    issuer.away, asked = False, issuer.asked
    now = 4
    with pytest.raises(IssuerAwayError):
        asyncio.run(keys.find("1"))
    assert issuer.asked == asked
    now = 6
    assert asyncio.run(keys.find("1")) is not None


def test_keys_are_fetched_again_aside_and_hold_while_the_issuer_is_away(issuer: Issuer):
    now = 0.0
    keys = IssuerKeys(issuer.url, clock=lambda: now)
    assert asyncio.run(keys.find("1")) is not None
    issuer.away = True
    for now in (301.0, 3000.0):  # noqa: B007 - the clock reads it
        assert asyncio.run(keys.find("1")) is not None
    time.sleep(0.3)
    now = 3700
    with pytest.raises(IssuerAwayError):
        asyncio.run(keys.find("1"))


def test_a_new_key_is_found_and_unknown_ones_ask_seldom(issuer: Issuer):
    now = 0.0
    keys = IssuerKeys(issuer.url, clock=lambda: now)
    assert asyncio.run(keys.find("1")) is not None
    issuer.kid = "2"
    now, asked = 10, issuer.asked
    assert asyncio.run(keys.find("2")) is not None
    for number in range(20):
        assert asyncio.run(keys.find(f"junk {number}")) is None
    assert issuer.asked == asked + 2


@pytest.mark.parametrize(
    "claims",
    [
        *({"environments": value} for value in ("dev", {"dev": True}, 1, None, True, ["dev", 1], [["dev"]])),
        *({"roles": value} for value in ({"reader": 1}, 1, None, ["reader", 1], [{}])),
        *({"scope": value} for value in (["runs:read"], {"runs:read": 1}, 1, None)),
        *({"sub": value} for value in ("", 1, ["ann"], None)),
        *({"aud": value} for value in ("y", 1, None, {"x": 1}, [])),
        *({"exp": value} for value in ("soon", None, [], {})),
    ],
    ids=str,
)
def test_a_malformed_claim_is_no_access(issuer: Issuer, claims: dict):
    verifier = TokenVerifier(issuer.url, "x", "roles")
    token = issuer.token(**({"scope": "runs:read", "roles": ["reader"]} | claims))
    assert asyncio.run(status_of(verifier, token)) == 401


def test_a_claim_of_roles_that_does_not_stand_in_objects_is_no_access(issuer: Issuer):
    verifier = TokenVerifier(issuer.url, "x", "realm.roles")
    assert asyncio.run(status_of(verifier, issuer.token(realm="admin"))) == 401
    assert asyncio.run(status_of(verifier, issuer.token())) == 200


@pytest.mark.parametrize(
    "token", ["", "x", "a.b.c", "e30.e30.", "e30.e30.e30", "W10.W10.W10", "." * 1000, "bnVsbA.e30.e30"]
)
def test_what_is_no_token_asks_nobody(token: str):
    verifier = TokenVerifier("http://127.0.0.1:1", "x", "roles")
    assert asyncio.run(status_of(verifier, token)) == 401


def test_environments_limit_and_without_them_there_is_no_limit(issuer: Issuer):
    verifier = TokenVerifier(issuer.url, "x", "roles")
    assert asyncio.run(verifier.verify(issuer.token(environments=["dev"]))).environments == ("dev",)
    assert asyncio.run(verifier.verify(issuer.token(environments=[]))).environments == ()
    assert asyncio.run(verifier.verify(issuer.token())).environments is None


def test_a_token_and_a_key_of_one_name_are_two_principals():
    key, token = Principal("ann", frozenset()), Principal("ann", frozenset(), kind="token")
    assert key.identity != token.identity
    assert key.owned("k") != token.owned("k")
    assert key.owned("k") == Principal("ann", frozenset({"x"})).owned("k")


def test_an_issuer_without_an_audience_is_refused_at_the_start():
    for audience in (None, ""):
        with pytest.raises(ValidationError, match="JWT_AUDIENCE"):
            ServiceSettings(jwt_issuer="https://issuer.example", jwt_audience=audience)
    with pytest.raises(ValidationError, match="http"):
        ServiceSettings(jwt_issuer="file:///etc", jwt_audience="x")
