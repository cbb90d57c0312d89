"""Kafka to ClickHouse: `python -m services.consumer.consumer`.

A batch of messages is inserted, then its offsets are committed. If the consumer dies in between, the batch
is read and inserted again, and the view `ingested_data` still shows each event once. A message that is no
event goes to the dead-letter topic, with the reason, before its offset is committed.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from types import FrameType

from clickhouse_connect.driver.exceptions import ClickHouseError
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_before_delay,
    wait_exponential,
)

from services.common.kafka import client_settings, ensure_topics
from services.common.observe import configure_logging
from services.common.probe import serve
from services.consumer.documents import PoisonError, Row, read
from services.consumer.settings import Settings
from services.consumer.sink import Sink

log = logging.getLogger(__name__)

_NO_ANSWER = (ClickHouseError, OSError, KafkaException)


class Worker:
    """One consumer of the group.

    Args:
        settings: Where everything is.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._sink = Sink(settings)
        self.wrong: dict[str, str] = {}
        self._stopping = False
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._messages = Counter(
            "consumer_messages", "Messages by what became of them.", ["result"], registry=self.registry
        )
        for result in ("inserted", "dead"):
            self._messages.labels(result)
        self._batches = Histogram(
            "consumer_batch_seconds",
            "Time to insert a batch.",
            registry=self.registry,
            buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
        )
        self._freshness = Histogram(
            "consumer_freshness_seconds",
            "From taking an event in to its row in ClickHouse; for each batch that of its oldest.",
            registry=self.registry,
            buckets=(0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300),
        )
        self._lag = Gauge(
            "consumer_lag_messages",
            "Messages of a partition that are not in ClickHouse yet.",
            ["partition"],
            registry=self.registry,
        )
        self._failures = Counter(
            "consumer_failures", "Tries that failed, by what did.", ["what"], registry=self.registry
        )
        self._producer = Producer(
            client_settings(settings.kafka_bootstrap) | {"enable.idempotence": True, "linger.ms": 5},
            logger=log,
        )
        self._consumer = Consumer(
            client_settings(settings.kafka_bootstrap)
            | {
                "group.id": settings.kafka_group,
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "partition.assignment.strategy": "cooperative-sticky",
                "session.timeout.ms": 10_000,
                "heartbeat.interval.ms": 2_000,
                "max.poll.interval.ms": 300_000,
                "fetch.wait.max.ms": 100,
                # Bounds what waits in memory, whatever the backlog.
                "queued.max.messages.kbytes": 32 * 1024,
            },
            logger=log,
        )

    def stop(self, *_: int | FrameType | None) -> None:
        """End after the batch in hand."""
        self._stopping = True

    def run(self) -> None:
        """Consume until told to stop.

        Raises:
            ClickHouseError: It was away for longer than the settings' patience; whoever started this
                process starts it again, and nothing is lost.
        """
        settings = self._settings
        self._patiently("clickhouse", self._sink.prepare)
        self._patiently(
            "kafka",
            lambda: ensure_topics(
                settings.kafka_bootstrap, {settings.kafka_topic: settings.kafka_partitions, settings.dead: 1}
            ),
        )
        self._consumer.subscribe([settings.kafka_topic], on_assign=self._on_assign, on_revoke=self._on_revoke)
        try:
            while not self._stopping:
                messages = self._consumer.consume(settings.batch, settings.linger_ms / 1000)
                self._process(messages)
                self._measure_lag()
        finally:
            self._consumer.close()
            self._sink.close()
            log.info("stopped")

    def _process(self, messages: Sequence[Message]) -> None:
        rows: list[Row] = []
        upto: dict[int, int] = {}
        dead = 0
        for message in messages:
            error = message.error()
            if error is not None:
                self._note(error)
                continue
            partition, offset = message.partition(), message.offset()
            assert partition is not None and offset is not None  # noqa: S101 - a message without an error has them
            upto[partition] = offset + 1
            try:
                rows.append(read(message.value()))
            except PoisonError as error:
                self._bury(message, str(error))
                dead += 1
        if not upto:
            return
        if rows:
            began = time.monotonic()
            self._patiently("clickhouse", lambda: self._sink.insert(rows))
            self._batches.observe(time.monotonic() - began)
            oldest = min(row.created_at for row in rows)
            self._freshness.observe((datetime.now(UTC) - oldest).total_seconds())
            log.info("inserted %d events", len(rows), extra={"ids": [str(row.id) for row in rows]})
        if dead and self._producer.flush(30):
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))  # their offsets must not be committed
        self._messages.labels("inserted").inc(len(rows))
        self._messages.labels("dead").inc(dead)
        self._commit(upto)

    def _commit(self, upto: dict[int, int]) -> None:
        offsets = [TopicPartition(self._settings.kafka_topic, p, offset) for p, offset in upto.items()]
        try:
            self._consumer.commit(offsets=offsets, asynchronous=False)
            self.wrong.pop("kafka", None)
        except KafkaException as error:
            # The partitions are another's by now, or the broker is away: the batch comes again, to
            # whomever, and is not seen twice.
            self._failed("kafka", error)

    def _bury(self, message: Message, reason: str) -> None:
        """Put a message that is no event into the dead-letter topic."""
        where = f"{message.topic()}/{message.partition()}/{message.offset()}"
        log.error("%s: is no event, and goes to %s: %s", where, self._settings.dead, reason)
        self._producer.produce(
            self._settings.dead,
            message.value(),
            message.key(),
            headers={"reason": reason[:1000], "from": where},
        )

    def _patiently(self, what: str, work: Callable[[], object]) -> None:
        """Do work, again with longer and longer waits while it does not answer."""
        impatient = stop_before_delay(self._settings.patience_seconds)

        def note(tried: RetryCallState) -> None:
            if tried.outcome is not None and (error := tried.outcome.exception()):
                self._failed(what, error)

        Retrying(
            stop=lambda tried: self._stopping or impatient(tried),
            wait=wait_exponential(multiplier=0.1, max=2),
            retry=retry_if_exception_type(_NO_ANSWER),
            after=note,
            reraise=True,
        )(work)
        self.wrong.pop(what, None)

    def _failed(self, what: str, error: BaseException) -> None:
        said = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        if self.wrong.get(what) != said:
            log.warning("%s: %s", what, said)
        self.wrong[what] = said
        self._failures.labels(what).inc()

    def _note(self, error: KafkaError) -> None:
        if error.code() != KafkaError._PARTITION_EOF:
            self._failed("kafka", KafkaException(error))

    def _measure_lag(self) -> None:
        for place in self._consumer.position(self._consumer.assignment()):
            try:
                _, high = self._consumer.get_watermark_offsets(place, cached=True)
            except KafkaException:
                continue
            if high >= 0 and place.offset >= 0:
                self._lag.labels(str(place.partition)).set(max(high - place.offset, 0))

    def _on_assign(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        if partitions:
            log.info("partitions assigned: %s", [place.partition for place in partitions])

    def _on_revoke(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        # Nothing is in hand here: a batch is committed before the next call to Kafka.
        log.info("partitions revoked: %s", [place.partition for place in partitions])
        for place in partitions:
            self._lag.remove(str(place.partition))


def main() -> None:
    """Run a consumer until it is told to stop."""
    settings = Settings()
    configure_logging(settings.log_level)
    worker = Worker(settings)
    serve(
        settings.host,
        settings.port,
        service="consumer",
        registry=worker.registry,
        ready=lambda: worker.wrong,
        hosts=settings.allowed_hosts,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, worker.stop)
    worker.run()


if __name__ == "__main__":
    main()
