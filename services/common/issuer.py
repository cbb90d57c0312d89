"""The keys that an OIDC issuer publishes, fetched aside: no request waits for it longer than a moment."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any
from urllib.request import Request, urlopen

import jwt
import orjson

log = logging.getLogger(__name__)

_TIMEOUT = 5.0
_MOST_BYTES = 1_000_000


class IssuerAwayError(Exception):
    """The issuer's keys are not known."""


class IssuerKeys:
    """The issuer's keys: kept for a while, fetched again in a thread of their own, one fetch at a time.

    Args:
        issuer: Its URL, under which `/.well-known/openid-configuration` is found.
        patience: Seconds that a request may wait for a fetch under way.
        fresh: Seconds after which keys are fetched again, while those that are there still hold.
        stale: Seconds after which they no longer hold.
        pause: Seconds between two fetches: a failed one is remembered for so long.
        clock: A monotonic clock in seconds.
    """

    def __init__(
        self,
        issuer: str,
        *,
        patience: float = 2,
        fresh: float = 300,
        stale: float = 3600,
        pause: float = 5,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._issuer = issuer.rstrip("/")
        self._patience, self._fresh, self._stale, self._pause = patience, fresh, stale, pause
        self._clock = clock
        self._lock = threading.Lock()
        self._fetch: Future[None] | None = None
        self._tried_at = self._fetched_at = float("-inf")
        self._keys: Mapping[str | None, jwt.PyJWK] = {}

    async def find(self, key_id: str | None) -> jwt.PyJWK | None:
        """The key of this id; None when the issuer has no such key.

        Raises:
            IssuerAwayError: The issuer did not answer, now or a moment ago.
        """
        key = self._known().get(key_id)
        if key is not None:
            if self._clock() - self._fetched_at > self._fresh:
                self._ask()
            return key
        # An unknown key may be a new one.
        if (fetch := self._ask()) is not None:
            await asyncio.wait([asyncio.wrap_future(fetch)], timeout=self._patience)
        known = self._known()
        if not known:
            raise IssuerAwayError(f"the issuer {self._issuer} cannot be asked for its keys")
        return known.get(key_id)

    def _known(self) -> Mapping[str | None, jwt.PyJWK]:
        return self._keys if self._clock() - self._fetched_at <= self._stale else {}

    def _ask(self) -> Future[None] | None:
        """The fetch under way, begun now unless the last one was a moment ago."""
        with self._lock:
            if self._fetch is None and self._clock() - self._tried_at >= self._pause:
                self._fetch = Future()
                threading.Thread(target=self._run, args=(self._fetch,), name="issuer", daemon=True).start()
            return self._fetch

    def _run(self, done: Future[None]) -> None:
        try:
            keys = self._load()
        except Exception as error:  # whatever an issuer answers, the next fetch may find it well
            log.warning("the issuer %s cannot be asked for its keys: %s", self._issuer, error)
        else:
            self._keys, self._fetched_at = keys, self._clock()
        with self._lock:
            self._fetch, self._tried_at = None, self._clock()
        done.set_result(None)

    def _load(self) -> Mapping[str | None, jwt.PyJWK]:
        document = _get(f"{self._issuer}/.well-known/openid-configuration")
        if document["issuer"].rstrip("/") != self._issuer:
            raise ValueError("its discovery document names another issuer")
        found = jwt.PyJWKSet.from_dict(_get(document["jwks_uri"])).keys
        return {key.key_id: key for key in found if key.public_key_use in (None, "sig")}


def _get(url: str) -> dict[str, Any]:
    if not url.startswith(("https://", "http://")):
        raise ValueError(f"{url} is not an address of http or https")
    deadline = time.monotonic() + 2 * _TIMEOUT
    content = bytearray()
    with urlopen(Request(url), timeout=_TIMEOUT) as answer:  # noqa: S310 - checked just above
        while part := answer.read1(64 * 1024):
            content += part
            if len(content) > _MOST_BYTES or time.monotonic() > deadline:
                raise ValueError(f"{url} answers with too much, or too slowly")
    document = orjson.loads(content)
    if not isinstance(document, dict):
        raise ValueError(f"{url} answers with something else than an object")
    return document
