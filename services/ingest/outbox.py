"""The outbox in PostgreSQL: a batch of events from many requests is one transaction, one flush to disk.

A request is answered when the transaction that holds its events is committed. From then on the relay brings
them to Kafka and to the lake, whatever dies in between.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import psycopg
from prometheus_client import CollectorRegistry, Histogram
from sqlalchemy.exc import DBAPIError
from tenacity import AsyncRetrying, retry_if_exception_type, stop_before_delay, wait_exponential

from services.common.resilience import UnavailableError
from services.ingest.events import Event
from services.ingest.migrate import migrations

log = logging.getLogger(__name__)

_ACCEPT = """
    SELECT known, known_content, known_at
    FROM ingest.accept(%b::uuid[], %b::text[], %b::integer[], %b::uuid[], %b::uuid[], %b::uuid[],
        %b::timestamptz[], %b::bytea[])
"""
_AWAY = (psycopg.OperationalError, psycopg.InterfaceError, OSError)
_MOST_EVENTS, _MOST_BYTES = 10_000, 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Known:
    """An event that was here before: what it was, and when it came."""

    content: UUID
    received_at: datetime


class OutboxFullError(Exception):
    """Too many events wait."""


class OutboxDownError(UnavailableError):
    """The database does not answer: it is not known whether it has the events."""


class _Waiting:
    """Events of one request that wait for their commit."""

    __slots__ = ("answer", "events", "size")

    def __init__(self, events: Sequence[Event]) -> None:
        self.events = events
        self.size = sum(len(event.body) for event in events)
        self.answer: asyncio.Future[dict[UUID, Known]] = asyncio.get_running_loop().create_future()


async def migrate(dsn: str) -> None:
    """Make the schema, or bring it up to date; one process at a time.

    Raises:
        psycopg.Error: The database does not answer, or refuses.
    """
    try:
        await asyncio.to_thread(migrations(dsn).upgrade)
    except DBAPIError as error:
        raise (error.orig or error) from error


class Outbox:
    """Commits what requests bring, together.

    Args:
        dsn: The database.
        linger: Seconds that the first request of a commit waits for others.
        patience: Seconds for which a commit is tried again when the database does not answer.
        most_waiting: Events in memory above which more are refused.
        registry: Where the metrics go.
    """

    def __init__(
        self, dsn: str, *, linger: float, patience: float, most_waiting: int, registry: CollectorRegistry
    ) -> None:
        self._dsn, self._linger, self._patience, self._most = dsn, linger, patience, most_waiting
        self._queue: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        self._connection: psycopg.AsyncConnection | None = None
        self.waiting = 0
        self._seconds = Histogram(
            "ingest_commit_seconds",
            "Time to commit a batch of events.",
            registry=registry,
            buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5),
        )

    async def add(self, events: Sequence[Event]) -> dict[UUID, Known]:
        """Take events in for good.

        Args:
            events: The events of one request, no id twice.

        Returns:
            Those that were here before, by id.

        Raises:
            OutboxFullError: Too many wait already.
            OutboxDownError: The database does not answer.
        """
        if self.waiting + len(events) > self._most and self.waiting:
            raise OutboxFullError
        item = _Waiting(events)
        self._queue.append(item)
        self.waiting += len(events)
        self._arrived.set()
        # A client that goes away does not take its events with it: they may be in a batch already.
        return await asyncio.shield(item.answer)

    async def run(self) -> None:
        """Commit batches until cancelled."""
        try:
            await self._connected()  # makes the schema; if the database is away, the first commit does
        except (psycopg.Error, OSError) as error:
            log.warning("PostgreSQL does not answer yet: %s", str(error).splitlines()[0])
        while True:
            await self._arrived.wait()
            if self._linger:
                await asyncio.sleep(self._linger)
            batch = self._take()
            try:
                with self._seconds.time():
                    known = await self._commit(batch)
            except asyncio.CancelledError:
                self._refuse(batch, "the service is stopping")
                raise
            except Exception as error:
                log.exception("a batch of events could not be committed")
                self._refuse(batch, f"the outbox failed: {type(error).__name__}")
            else:
                self._answer(batch, known)

    def _take(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        events = size = 0
        while self._queue and (
            not batch
            or (
                events + len(self._queue[0].events) <= _MOST_EVENTS
                and size + self._queue[0].size <= _MOST_BYTES
            )
        ):
            item = self._queue.popleft()
            batch.append(item)
            events += len(item.events)
            size += item.size
        if not self._queue:
            self._arrived.clear()
        return batch

    @staticmethod
    def _firsts(batch: list[_Waiting]) -> dict[UUID, tuple[Event, _Waiting]]:
        """The first of each id in a batch, and the request that brought it."""
        firsts: dict[UUID, tuple[Event, _Waiting]] = {}
        for item in batch:
            for event in item.events:
                firsts.setdefault(event.id, (event, item))
        return firsts

    def _answer(self, batch: list[_Waiting], known: dict[UUID, Known]) -> None:
        firsts = self._firsts(batch)
        for item in batch:
            found: dict[UUID, Known] = {}
            for event in item.events:
                first, bringer = firsts[event.id]
                if event.id in known:
                    found[event.id] = known[event.id]
                elif bringer is not item:  # it came in the same moment with another request
                    found[event.id] = Known(first.content, first.received_at)
            self._done(item)
            if not item.answer.done():
                item.answer.set_result(found)

    def _refuse(self, batch: list[_Waiting], why: str) -> None:
        for item in batch:
            self._done(item)
            if not item.answer.done():
                item.answer.set_exception(OutboxDownError(why))

    def _done(self, item: _Waiting) -> None:
        self.waiting -= len(item.events)

    async def _commit(self, batch: list[_Waiting]) -> dict[UUID, Known]:
        """Commit a batch, again after a lost connection: an event that the lost commit did store is found.

        Then it is found as known with the time that this process gave it, and is no duplicate.
        """
        events = [event for event, _ in self._firsts(batch).values()]
        columns = [
            [event.id for event in events],
            [event.event_type for event in events],
            [event.schema_version for event in events],
            [event.content for event in events],
            [event.digest for event in events],
            [event.object for event in events],
            [event.received_at for event in events],
            [event.body for event in events],
        ]
        again = AsyncRetrying(
            stop=stop_before_delay(self._patience),
            wait=wait_exponential(multiplier=0.05, max=1),
            retry=retry_if_exception_type(_AWAY),
            reraise=True,
        )
        try:
            rows: list[tuple[UUID, UUID, datetime]] = await again(self._accept, columns)
        except _AWAY as error:
            raise OutboxDownError(
                f"PostgreSQL does not answer: {str(error).splitlines()[0] if str(error) else error!r}"
            ) from error
        mine = {event.id: event.received_at for event in events}
        return {key: Known(content, at) for key, content, at in rows if mine[key] != at}

    async def _accept(self, columns: Sequence[Sequence[object]]) -> list[tuple[UUID, UUID, datetime]]:
        try:
            connection = await self._connected()
            cursor = await connection.execute(_ACCEPT, columns)
            return await cursor.fetchall()
        except _AWAY:
            await self._drop()
            raise

    async def _connected(self) -> psycopg.AsyncConnection:
        if self._connection is None or self._connection.closed:
            connection = await psycopg.AsyncConnection.connect(
                self._dsn, autocommit=True, prepare_threshold=0
            )
            try:
                await migrate(self._dsn)
            except BaseException:
                await connection.close()
                raise
            self._connection = connection
        return self._connection

    async def _drop(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.close()

    async def close(self) -> None:
        """Answer what still waits and close the connection."""
        self._refuse(list(self._queue), "the service is stopping")
        self._queue.clear()
        await self._drop()
