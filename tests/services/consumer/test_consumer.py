"""The consumer on a real broker and a real ClickHouse."""

import json
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from os import environ
from uuid import UUID, uuid4

from confluent_kafka import Consumer, Producer, TopicPartition
from prometheus_client.parser import text_string_to_metric_families

from services.common.kafka import ensure_topics
from tests.services.event_servers import Space, eventually

START = datetime(2026, 11, 21, tzinfo=UTC)


def document(number: int, **more: object) -> bytes:
    made = {
        "id": str(UUID(int=number)),
        "event_type": "test",
        "payload": {"n": number},
        "received_at": (START + timedelta(milliseconds=number)).isoformat(),
    }
    return json.dumps(made | more).encode()


def produce(space: Space, *values: bytes | None) -> None:
    topic = space.environment["KAFKA_TOPIC"]
    ensure_topics(space.servers.bootstrap, {topic: 4})
    producer = Producer({"bootstrap.servers": space.servers.bootstrap})
    for value in values:
        producer.produce(topic, value, str(uuid4()))
    assert producer.flush(30) == 0


def counted(space: Space) -> tuple[int, int]:
    """Rows seen and rows stored."""
    return (
        space.clickhouse.query("SELECT count() FROM ingested_data").result_rows[0][0],
        space.clickhouse.query("SELECT count() FROM ingested_events").result_rows[0][0],
    )


def metric(client, name: str) -> list[tuple[dict[str, str], float]]:
    families = text_string_to_metric_families(client.get("/metrics").text)
    return [(s.labels, s.value) for family in families for s in family.samples if s.name == name]


def committed(space: Space) -> int:
    consumer = Consumer(
        {"bootstrap.servers": space.servers.bootstrap, "group.id": space.environment["KAFKA_GROUP"]}
    )
    places = [TopicPartition(space.environment["KAFKA_TOPIC"], number) for number in range(4)]
    found = sum(max(place.offset, 0) for place in consumer.committed(places, timeout=10))
    consumer.close()
    return found


def test_messages_become_rows_and_their_offsets_are_committed(space: Space):
    produce(space, *(document(number) for number in range(1000)))
    process, client = space.consumer()
    eventually(lambda: counted(space) == (1000, 1000))
    eventually(lambda: committed(space) == 1000)
    assert sorted(json.loads(row[3])["n"] for row in space.rows()) == list(range(1000))
    log = [json.loads(line) for line in process.log.read_text().splitlines()]
    ids = {found for line in log for found in line.get("ids", [])}
    assert ids == {str(UUID(int=number)) for number in range(1000)}
    assert metric(client, "consumer_messages_total") == [
        ({"result": "inserted"}, 1000),
        ({"result": "dead"}, 0),
    ]
    eventually(lambda: [value for _, value in metric(client, "consumer_lag_messages")] == [0] * 4)
    assert client.get("/ready").json() == {"status": "ready"}


def test_a_message_that_comes_again_is_not_seen_again(space: Space):
    produce(space, *(document(number) for number in range(100)))
    space.consumer()
    eventually(lambda: counted(space)[0] == 100)
    produce(space, *(document(number) for number in range(50, 150)))
    eventually(lambda: committed(space) == 200)
    assert counted(space)[0] == 150
    assert len({row[0] for row in space.rows()}) == 150
    space.clickhouse.command("OPTIMIZE TABLE ingested_events FINAL")
    assert counted(space) == (150, 150)


def test_poison_goes_to_the_dead_letters_and_the_rest_goes_on(space: Space):
    produce(space, document(1), b"{", document(2), None, document(3, payload=1), document(4))
    _, client = space.consumer()
    eventually(lambda: counted(space)[0] == 3)
    eventually(lambda: committed(space) == 6)
    assert metric(client, "consumer_messages_total") == [({"result": "inserted"}, 3), ({"result": "dead"}, 3)]

    def tool(*arguments: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", "services.consumer.dead_letters", *arguments],
            env=dict(environ) | space.environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    letters = [json.loads(line) for line in tool("list").splitlines()]
    assert sorted(str(letter["value"]) for letter in letters) == sorted(
        ["{", "None", document(3, payload=1).decode()]
    )
    assert {letter["reason"] for letter in letters} >= {
        "the message is empty",
        "the payload is no JSON object",
    }
    assert all(letter["from"].startswith(space.environment["KAFKA_TOPIC"]) for letter in letters)
    # Put back they are still no events, and come again; those put back are not listed twice.
    assert tool("retry") == "3 put back\n"
    eventually(lambda: len(tool("list").splitlines()) == 3)
    assert len(tool("list", "--all").splitlines()) == 6
    assert counted(space)[0] == 3


def test_several_consumers_share_the_partitions_as_they_come_and_go(space: Space):
    ensure_topics(space.servers.bootstrap, {space.environment["KAFKA_TOPIC"]: 4})
    first, client = space.consumer()
    eventually(lambda: len(metric(client, "consumer_lag_messages")) == 4 or produce(space, document(0)))
    sent = 1
    consumers = [first]

    def send(number: int) -> None:
        nonlocal sent
        produce(space, *(document(n) for n in range(sent, sent + number)))
        sent += number

    send(500)
    second, other = space.consumer()
    consumers.append(second)
    send(500)
    eventually(
        lambda: [len(metric(c, "consumer_lag_messages")) for c in (client, other)] == [2, 2] or send(20)
    )
    send(500)
    first.kill()
    send(500)
    eventually(lambda: len({row[0] for row in space.rows()}) == sent)
    eventually(lambda: len(metric(other, "consumer_lag_messages")) == 4)
    assert counted(space)[0] == sent


def test_while_clickhouse_is_away_nothing_is_committed(space: Space):
    produce(space, *(document(number) for number in range(10)))
    _, client = space.consumer()
    eventually(lambda: committed(space) == 10)
    space.servers.clickhouse.kill()
    try:
        produce(space, *(document(number) for number in range(10, 20)))
        eventually(lambda: client.get("/ready").status_code == 503)
        time.sleep(1)
        assert committed(space) == 10
    finally:
        space.servers.clickhouse.start()
    eventually(lambda: committed(space) == 20)
    assert counted(space)[0] == 20
    assert client.get("/ready").status_code == 200


def test_it_ends_when_clickhouse_stays_away(space: Space):
    """Whoever started it starts it again; its messages are not lost."""
    process = space.consumer(CLICKHOUSE_PORT="1", CONSUMER_PATIENCE_SECONDS="2")[0]
    eventually(lambda: process.process is not None and process.process.poll() not in (None, 0))
