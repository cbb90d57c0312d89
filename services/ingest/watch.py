"""Asks, every few seconds, whether what the events pass through is well, and how much waits in the outbox."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from urllib.request import urlopen

import psycopg
from confluent_kafka.admin import AdminClient
from prometheus_client import CollectorRegistry, Gauge

from services.common.kafka import client_settings
from services.ingest.lake import open_lake, probe
from services.ingest.settings import Settings

log = logging.getLogger(__name__)

_SECONDS, _PATIENCE = 5.0, 3.0
_DEPTH = """
    SELECT carrier.name, accepted.events - carrier.events,
        coalesce(extract(epoch FROM clock_timestamp() - (
            SELECT queued_at FROM ingest.outbox WHERE seq = carrier.seq + 1)), 0)
    FROM ingest.progress AS accepted CROSS JOIN ingest.progress AS carrier
    WHERE accepted.name = 'accepted' AND carrier.name <> 'accepted'
"""
DEPENDENCIES = ("postgres", "kafka", "minio", "clickhouse")


class Watch:
    """What is known of the dependencies and of the outbox, for /ready, /metrics and back-pressure.

    Args:
        settings: Where they are.
        registry: Where the metrics go.
    """

    def __init__(self, settings: Settings, registry: CollectorRegistry) -> None:
        self._settings = settings
        self.wrong: dict[str, str] = dict.fromkeys(DEPENDENCIES, "not asked yet")
        self.depth: dict[str, int] = {}
        self._status = {
            name: Gauge(f"{name}_status", f"1 while {name} answers.", registry=registry)
            for name in DEPENDENCIES
        }
        self._depth = Gauge(
            "ingest_outbox_events",
            "Events that are taken in and not yet carried on.",
            ["destination"],
            registry=registry,
        )
        self._age = Gauge(
            "ingest_outbox_oldest_seconds",
            "For how long the oldest of them has waited.",
            ["destination"],
            registry=registry,
        )
        self._admin: AdminClient | None = None
        self._lake = open_lake(settings)
        self._connection: psycopg.AsyncConnection | None = None

    def deepest(self) -> int:
        """Events that the slower carrier has before it."""
        return max(self.depth.values(), default=0)

    async def run(self) -> None:
        """Ask until cancelled: the outbox each second, everything every few."""
        questions: dict[str, Callable[[], Awaitable[None]]] = {
            "kafka": lambda: asyncio.to_thread(self._ask_kafka),
            "minio": lambda: probe(self._lake),
            "clickhouse": lambda: asyncio.to_thread(self._ask_clickhouse),
        }
        turn = 0
        try:
            while True:
                await self._ask("postgres", self._ask_postgres)
                if turn % _SECONDS == 0:
                    await asyncio.gather(*(self._ask(name, ask) for name, ask in questions.items()))
                turn += 1
                await asyncio.sleep(1)
        finally:
            if self._connection is not None:
                await self._connection.close()

    async def _ask(self, name: str, question: Callable[[], Awaitable[None]]) -> None:
        try:
            await asyncio.wait_for(question(), _PATIENCE)
        except Exception as error:
            said = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            if name not in self.wrong:
                log.warning("%s does not answer: %s", name, said)
            self.wrong[name] = said
        else:
            if name in self.wrong and self.wrong.pop(name) != "not asked yet":
                log.info("%s answers again", name)
        self._status[name].set(name not in self.wrong)

    async def _ask_postgres(self) -> None:
        if self._connection is None or self._connection.closed:
            self._connection = await psycopg.AsyncConnection.connect(self._settings.dsn, autocommit=True)
        try:
            rows = await (await self._connection.execute(_DEPTH)).fetchall()
        except BaseException:
            connection, self._connection = self._connection, None
            await connection.close()
            raise
        for name, events, age in rows:
            self.depth[name] = events
            self._depth.labels(name).set(events)
            self._age.labels(name).set(float(age))

    def _ask_kafka(self) -> None:
        if self._admin is None:
            self._admin = AdminClient(client_settings(self._settings.kafka_bootstrap) | {"log_level": 0})
        self._admin.list_topics(timeout=_PATIENCE - 0.5)

    def _ask_clickhouse(self) -> None:
        url = f"{self._settings.clickhouse_url}/ping"
        with urlopen(url, timeout=_PATIENCE - 0.5) as answer:  # noqa: S310 - http, as it is put together
            answer.read(100)
