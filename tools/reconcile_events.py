"""Compares what PostgreSQL, Kafka, MinIO and ClickHouse hold of the events, by count and by digest.

    python -m tools.reconcile_events            # of the native stack, or of the one the environment names

The digest is the sum of the first 60 bits of MD5(id|MD5(document)) over the events, which each store
computes from what it holds itself: PostgreSQL from what it wrote down when it accepted the event, MinIO from
its ETags (and, for the objects of bulks, from their content), Kafka from its messages, ClickHouse by putting
the document together again from its columns. An event that is missing, there twice or changed by one byte
anywhere shows. Kafka keeps a week only, so older events are not looked for there (`--no-kafka`).
"""

import argparse
import hashlib
import os
import sys
import time
from dataclasses import dataclass
from uuid import uuid4

import clickhouse_connect
import obstore
import psycopg
from confluent_kafka import Consumer, TopicPartition

from scripts.stack.context import Stack
from scripts.stack.events import event_environment
from services.consumer.settings import Settings as ConsumerSettings
from services.ingest.lake import open_lake
from services.ingest.settings import Settings

_POSTGRES = """
    SELECT count(*), coalesce(sum(('x' || substr(md5(id || '|' || replace(digest::text, '-', '')), 1, 15))
        ::bit(60)::bigint), 0)
    FROM ingest.event
"""
_CLICKHOUSE = """
    SELECT count(), uniqExact(id), sum(toUInt128(reinterpretAsUInt64(reverse(unhex(concat('0', substring(
        lower(hex(MD5(concat(toString(id), '|', lower(hex(MD5(document))))))), 1, 15)))))))
    FROM (
        SELECT id, concat('{"id":"', toString(id), '","event_type":"', event_type, '","payload":', payload,
            ',"received_at":"', formatDateTime(created_at, '%Y-%m-%dT%H:%i:%S.%fZ'), '"',
            if(schema_version = 0, '', concat(',"schema_version":', toString(schema_version))), '}'
        ) AS document
        FROM ingested_data
    )
"""


@dataclass
class Held:
    """What a store holds.

    Attributes:
        store: Which one.
        events: How many different events.
        digest: Their digest.
        note: What else there is to say.
    """

    store: str
    events: int
    digest: int
    note: str = ""


def part(event_id: str, document_md5: str) -> int:
    """An event's part in the digest."""
    return int(hashlib.md5(f"{event_id}|{document_md5}".encode(), usedforsecurity=False).hexdigest()[:15], 16)


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def postgres(settings: Settings) -> tuple[Held, set[str]]:
    """What PostgreSQL accepted, and the objects of bulks."""
    with psycopg.connect(settings.dsn) as connection:
        count, digest = connection.execute(_POSTGRES).fetchone() or (0, 0)
        bulks = {
            str(row[0])
            for row in connection.execute("SELECT DISTINCT object FROM ingest.event WHERE object <> id")
        }
    return Held("postgres", count, int(digest)), bulks


def minio(settings: Settings, bulks: set[str]) -> Held:
    """What the bucket holds."""
    lake = open_lake(settings)
    events: dict[str, int] = {}
    objects = twice = 0
    for chunk in obstore.list(lake, "raw/", chunk_size=1000):
        for found in chunk:
            objects += 1
            name = found["path"].removeprefix("raw/").removesuffix(".json")
            if name in bulks:
                content = bytes(obstore.get(lake, found["path"]).bytes())
                parts = {
                    line[7:43].decode(): part(line[7:43].decode(), _md5(line))
                    for line in content.split(b"\n")
                }
            else:
                parts = {name: part(name, (found["e_tag"] or "").strip('"'))}
            twice += len(events.keys() & parts.keys())
            events |= parts
    return Held("minio", len(events), sum(events.values()), f"{objects} objects, {twice} events twice")


def kafka(settings: Settings) -> Held:
    """What the topic holds, each event once."""
    consumer = Consumer(
        {
            "bootstrap.servers": settings.kafka_bootstrap,
            "group.id": f"reconcile-{uuid4().hex}",
            "enable.auto.commit": False,
            "enable.partition.eof": False,
        }
    )
    topic = consumer.list_topics(settings.kafka_topic, timeout=10).topics[settings.kafka_topic]
    left: dict[int, int] = {}
    for partition in topic.partitions:
        low, high = consumer.get_watermark_offsets(
            TopicPartition(settings.kafka_topic, partition), timeout=10
        )
        if high > low:
            left[partition] = high
    consumer.assign([TopicPartition(settings.kafka_topic, partition, 0) for partition in left])
    events: dict[bytes, int] = {}
    messages = 0
    quiet_since = time.monotonic()
    while left and time.monotonic() - quiet_since < 30:
        for message in consumer.consume(10_000, 1):
            value, partition, offset = message.value(), message.partition(), message.offset()
            if message.error() is None and value is not None and partition is not None and offset is not None:
                quiet_since = time.monotonic()
                messages += 1
                key = value[7:43]
                if key not in events:
                    events[key] = part(key.decode(errors="replace"), _md5(value))
                if offset + 1 >= left.get(partition, 0):
                    left.pop(partition, None)
    consumer.close()
    note = f"{messages} messages" + (f", and some of {sorted(left)} unread" if left else "")
    return Held("kafka", len(events), sum(events.values()), note)


def clickhouse(settings: ConsumerSettings) -> Held:
    """What the view `ingested_data` shows."""
    with clickhouse_connect.get_client(
        host=settings.clickhouse_host,
        port=settings.clickhouse_port,
        username=settings.clickhouse_user,
        password=settings.clickhouse_password.get_secret_value(),
        database=settings.clickhouse_db,
        compress=False,
    ) as client:
        rows, ids, digest = client.query(_CLICKHOUSE).result_rows[0]
        stored = client.query("SELECT count() FROM ingested_events").result_rows[0][0]
    return Held("clickhouse", ids, int(digest), f"{rows} rows seen, {stored} rows stored")


def reconcile(
    settings: Settings, consumer: ConsumerSettings, *, with_kafka: bool = True
) -> tuple[list[Held], bool]:
    """What every store holds, and whether it is the same everywhere."""
    accepted, bulks = postgres(settings)
    held = [accepted, minio(settings, bulks), clickhouse(consumer)]
    if with_kafka:
        held.insert(1, kafka(settings))
    same = len({(store.events, store.digest) for store in held}) == 1
    return held, same and held[-1].note.startswith(f"{accepted.events} rows seen")


def main() -> int:
    """Print a line for each store.

    Returns:
        0 when they agree.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--no-kafka", action="store_true", help="leave Kafka out")
    options = parser.parse_args()
    if "POSTGRES_DB" not in os.environ:
        os.environ.update(event_environment(Stack()))
    held, same = reconcile(Settings(), ConsumerSettings(), with_kafka=not options.no_kafka)
    for store in held:
        sys.stdout.write(
            f"{store.store:<11}{store.events:>12,} events  digest {store.digest:<28} {store.note}\n"
        )
    sys.stdout.write("they agree\n" if same else "they do NOT agree\n")
    return 0 if same else 1


if __name__ == "__main__":
    raise SystemExit(main())
