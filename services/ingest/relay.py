"""The relay: brings what the outbox holds to Kafka and to the lake, each at its own pace.

    python -m services.ingest.relay

Each carrier remembers in PostgreSQL how far it has come, after Kafka or the lake has said that it has the
data. If it dies in between it carries some of it again: an object is written over with the same bytes, and a
message that is there twice is seen once in ClickHouse. Of several relays one works and the others wait.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple
from uuid import UUID

import psycopg
from confluent_kafka import KafkaError, Message, Producer
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from services.common.kafka import client_settings, ensure_topics
from services.common.observe import configure_logging
from services.common.probe import serve
from services.ingest.events import id_of
from services.ingest.lake import ensure_bucket, open_lake, write
from services.ingest.outbox import migrate
from services.ingest.settings import Settings

log = logging.getLogger(__name__)

_LOCKS = {"kafka": 7_214_102, "raw": 7_214_103}
_FETCH = """
    SELECT seq, object, events, body FROM (
        SELECT *, sum(octet_length(body)) OVER (ORDER BY seq) - octet_length(body) AS before FROM (
            SELECT * FROM ingest.outbox WHERE seq > %s ORDER BY seq LIMIT %s
        ) AS next
    ) AS counted WHERE before < %s ORDER BY seq
"""
_OUTLOOK = """
    SELECT accepted.seq, accepted.events - carrier.events
    FROM ingest.progress AS accepted CROSS JOIN ingest.progress AS carrier
    WHERE accepted.name = 'accepted' AND carrier.name = %s
"""
_PROGRESS = "UPDATE ingest.progress SET seq = %s, events = events + %s WHERE name = %s"
_SWEEP = """
    DELETE FROM ingest.outbox
    WHERE seq <= (SELECT min(seq) FROM ingest.progress WHERE name <> 'accepted')
"""


class Row(NamedTuple):
    """A row of the outbox."""

    seq: int
    object: UUID
    events: int
    body: bytes


class Outlook(NamedTuple):
    """What there is to carry, beyond the rows at hand.

    Attributes:
        accepted: The newest number of the outbox.
        waiting: Events that this carrier has not carried.
    """

    accepted: int
    waiting: int


class DeliveryError(Exception):
    """Kafka did not take everything."""


class KafkaCarrier:
    """Publishes documents, one a message, its id as the key.

    Args:
        settings: Where.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._producer: Producer | None = None
        self._failed: KafkaError | None = None

    async def prepare(self) -> None:
        """Make the topic if it is not there."""
        topics = {self._settings.kafka_topic: self._settings.kafka_partitions}
        await asyncio.to_thread(ensure_topics, self._settings.kafka_bootstrap, topics)

    async def deliver(self, rows: Sequence[Row], _: Outlook) -> None:
        """Publish rows and wait until the broker has them."""
        await asyncio.to_thread(self._deliver, rows)

    def _deliver(self, rows: Sequence[Row]) -> None:
        if self._producer is None:
            self._producer = Producer(
                client_settings(self._settings.kafka_bootstrap)
                | {
                    "enable.idempotence": True,  # and with it acks=all
                    "compression.type": "lz4",
                    "linger.ms": 5,
                    "message.timeout.ms": 10_000,
                    "queue.buffering.max.kbytes": 64 * 1024,
                },
                logger=log,
            )
        producer, self._failed = self._producer, None
        for row in rows:
            for body in row.body.split(b"\n"):
                while True:
                    try:
                        producer.produce(
                            self._settings.kafka_topic, body, id_of(body), on_delivery=self._delivered
                        )
                        break
                    except BufferError:
                        producer.poll(0.1)
            producer.poll(0)
        left = producer.flush(15)
        if left or self._failed is not None:
            # A new one starts a new sequence: nothing that this one still holds comes late.
            producer.purge()
            producer.flush(1)
            self._producer = None
            raise DeliveryError(str(self._failed or f"{left} messages were not taken in time"))

    def _delivered(self, error: KafkaError | None, _: Message) -> None:
        if error is not None:
            self._failed = error


class Pace:
    """How much of the time objects are written.

    While more comes in than the lake can take, it falls behind anyway, and with the lake on the same machine
    to write all the time would take the processor from those who wait for an answer. Then every writer
    rests after each object, and what waits in the outbox follows when less comes in. When the outbox is
    nearly full, all of the time is used again: those who send are about to be slowed down in any case.

    Args:
        writers: How many write at once.
        rest: Seconds of rest for a second of writing, while there is to be any.
        most_waiting: Events in the outbox at which there is none.
    """

    def __init__(self, *, writers: int, rest: float, most_waiting: int) -> None:
        self._writers, self._rest, self._most_waiting = writers, rest, most_waiting
        self._seconds = 0.0
        self._before: tuple[float, int] | None = None
        self.rest = 0.0

    def wrote(self, seconds: float) -> None:
        """Take note of how long an object took."""
        weight = 0.02 if self._seconds else 1  # a moving mean of some fifty objects
        self._seconds += weight * (seconds - self._seconds)

    def look(self, now: float, outlook: Outlook) -> None:
        """Judge from what has come in since the last look; `now` in seconds of any clock that runs evenly."""
        if self._before is not None and now > self._before[0]:
            since, accepted = self._before
            coming = (outlook.accepted - accepted) / (now - since)
            too_much = coming * self._seconds > self._writers
            self.rest = self._rest if too_much and outlook.waiting < self._most_waiting else 0.0
        self._before = now, outlook.accepted


class RawCarrier:
    """Writes objects, some at once, at its `Pace`.

    Args:
        settings: Where.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lake = open_lake(settings)
        self._slots = asyncio.Semaphore(settings.relay_puts)
        self._pace = Pace(
            writers=settings.relay_puts,
            rest=settings.relay_rest,
            most_waiting=settings.max_outbox_events * 3 // 4,
        )

    async def prepare(self) -> None:
        """Make the bucket if it is not there."""
        await ensure_bucket(self._lake, self._settings)

    async def deliver(self, rows: Sequence[Row], outlook: Outlook) -> None:
        """Write the objects of rows, and wait until the lake has them."""
        self._pace.look(time.monotonic(), outlook)
        # All to their end, and then the first that failed: nothing is left in the air for the next try.
        results = await asyncio.gather(*map(self._write, rows), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _write(self, row: Row) -> None:
        async with self._slots:
            began = time.monotonic()
            await write(self._lake, row.object, row.body)
            took = time.monotonic() - began
            self._pace.wrote(took)
            if self._pace.rest:
                await asyncio.sleep(took * self._pace.rest)


class Relay:
    """Both carriers, and who clears up behind them.

    Args:
        settings: Where everything is.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.wrong: dict[str, str] = {}
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []
        self._carried = Counter(
            "ingest_relay_events",
            "Events that were carried, again after a failure.",
            ["destination"],
            registry=self.registry,
        )
        self._failures = Counter(
            "ingest_relay_failures",
            "Batches that could not be carried and are tried again.",
            ["destination"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "ingest_relay_batch_seconds",
            "Time to carry a batch.",
            ["destination"],
            registry=self.registry,
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
        )
        self._active = Gauge(
            "ingest_relay_active",
            "1 where this process is the one that carries.",
            ["destination"],
            registry=self.registry,
        )
        for name in _LOCKS:
            self._carried.labels(name)
            self._failures.labels(name)
            self._active.labels(name)

    async def run(self) -> None:
        """Carry until told to stop."""
        kafka, raw = KafkaCarrier(self._settings), RawCarrier(self._settings)
        self._tasks = [
            asyncio.create_task(self._persist("kafka", kafka.prepare, kafka.deliver)),
            asyncio.create_task(self._persist("raw", raw.prepare, raw.deliver)),
        ]
        # If one ends by anything else than being told to, so does the process, to be started again.
        await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if not self._stopping:
            raise RuntimeError("a carrier ended")

    def stop(self) -> None:
        """End; what is in the air comes again."""
        self._stopping = True
        for task in self._tasks:
            task.cancel()

    async def _persist(
        self,
        name: str,
        prepare: Callable[[], Awaitable[None]],
        deliver: Callable[[Sequence[Row], Outlook], Awaitable[None]],
    ) -> None:
        """Carry, and begin again with longer and longer waits when something does not answer."""
        wait = 0.1
        while True:
            began = time.monotonic()
            try:
                await prepare()
                await self._carry(name, deliver)
            except Exception as error:
                if self._stopping:  # a query that is told to stop may answer with an error of its own
                    return
                said = f"{type(error).__name__}: {error}".splitlines()[0][:300]
                log.warning("%s: cannot carry on, trying again: %s", name, said)
                self.wrong[name] = said
                self._failures.labels(name).inc()
            finally:
                self._active.labels(name).set(0)
            wait = 0.1 if time.monotonic() - began > 30 else min(wait * 2, 5)
            await asyncio.sleep(wait)

    async def _carry(self, name: str, deliver: Callable[[Sequence[Row], Outlook], Awaitable[None]]) -> None:
        settings = self._settings
        async with await psycopg.AsyncConnection.connect(
            settings.dsn, autocommit=True, prepare_threshold=0
        ) as connection:
            await migrate(settings.dsn)
            # Held by this connection, on which progress is written as well: whoever lost it writes none.
            await connection.execute("SELECT pg_advisory_lock(%s)", [_LOCKS[name]])
            self._active.labels(name).set(1)
            cursor = await connection.execute("SELECT seq FROM ingest.progress WHERE name = %s", [name])
            row = await cursor.fetchone()
            assert row is not None  # noqa: S101 - the schema has put it there
            seq, swept = row[0], time.monotonic()
            while True:
                cursor = await connection.execute(
                    _FETCH, [seq, settings.relay_batch, settings.relay_batch_bytes], binary=True
                )
                rows = [Row(*found) for found in await cursor.fetchall()]
                if rows:
                    cursor = await connection.execute(_OUTLOOK, [name])
                    ((accepted, waiting),) = await cursor.fetchall()
                    with self._seconds.labels(name).time():
                        await deliver(rows, Outlook(accepted, waiting))
                    seq, events = rows[-1].seq, sum(found.events for found in rows)
                    await connection.execute(_PROGRESS, [seq, events, name])
                    self._carried.labels(name).inc(events)
                self.wrong.pop(name, None)
                if name == "raw" and time.monotonic() - swept > 1:
                    await connection.execute(_SWEEP)
                    swept = time.monotonic()
                if len(rows) < settings.relay_batch:
                    await asyncio.sleep(settings.relay_idle_ms / 1000)


async def _main(settings: Settings) -> None:
    relay = Relay(settings)
    serve(
        settings.relay_host,
        settings.relay_port,
        service="ingest-relay",
        registry=relay.registry,
        ready=lambda: relay.wrong,
        hosts=settings.allowed_hosts,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, relay.stop)
    await relay.run()
    log.info("stopped")


def main() -> None:
    """Run the relay until it is told to stop."""
    settings = Settings()
    configure_logging(settings.log_level)
    asyncio.run(_main(settings))


if __name__ == "__main__":
    main()
