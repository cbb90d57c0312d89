"""The service over a real PostgreSQL: what it takes, what it refuses, and what it says of itself."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import orjson
import psycopg
import pytest

from services.common.security import new_key
from tests.services.event_servers import eventually


@pytest.fixture
def client(space):
    return space.ingest()[1]


def stored(space) -> list[tuple]:
    with psycopg.connect(space.settings.dsn) as connection:
        return connection.execute("SELECT id, event_type, object FROM ingest.event").fetchall()


def queued(space) -> list[tuple]:
    with psycopg.connect(space.settings.dsn) as connection:
        return connection.execute("SELECT seq, events, body FROM ingest.outbox ORDER BY seq").fetchall()


def test_an_event_is_stored_once_however_often_it_is_sent(client, space):
    first = client.post("/ingest", json={"payload": {"example": "hello"}})
    assert first.status_code == 200, first.text
    assert first.json()["duplicate"] is False
    for _ in range(3):
        assert client.post("/ingest", json={"payload": {"example": "hello"}}).json() == first.json() | {
            "duplicate": True
        }
    assert [str(row[0]) for row in stored(space)] == [first.json()["id"]]
    ((seq, events, body),) = queued(space)
    assert (seq, events) == (1, 1)
    assert orjson.loads(body)["payload"] == {"example": "hello"}


def test_an_idempotency_key_is_for_one_event(client, space):
    first = client.post("/ingest", json={"payload": {"a": 1}}, headers={"Idempotency-Key": "k"})
    again = client.post("/ingest", json={"payload": {"a": 1}, "idempotency_key": "k"})
    plain = client.post("/ingest", json={"payload": {"a": 1}})
    other = client.post("/ingest", json={"payload": {"a": 2}}, headers={"Idempotency-Key": "k"})
    assert again.json() == first.json() | {"duplicate": True}
    assert plain.json()["id"] != first.json()["id"]
    assert (other.status_code, other.json()["type"]) == (409, "urn:tallyhouse:problem:idempotency_conflict")
    contradiction = client.post(
        "/ingest", json={"payload": {}, "idempotency_key": "a"}, headers={"Idempotency-Key": "b"}
    )
    assert contradiction.status_code == 422
    assert len(stored(space)) == 2


def test_many_clients_at_once_with_the_same_events(space):
    """Two processes, eight clients each, the same fifty events: fifty are stored."""
    clients = [space.ingest()[1] for _ in range(2)]
    barrier = threading.Barrier(16)

    def post(number: int) -> list[dict]:
        barrier.wait()
        return [
            clients[number % 2].post("/ingest", json={"payload": {"n": n}}).json()
            for n in (range(50) if number % 4 < 2 else reversed(range(50)))
        ]

    with ThreadPoolExecutor(16) as pool:
        answers = [answer for found in pool.map(post, range(16)) for answer in found]
    assert len(answers) == 16 * 50
    assert sum(not answer["duplicate"] for answer in answers) == 50
    assert len({answer["id"] for answer in answers}) == len({a["received_at"] for a in answers}) == 50
    assert len(stored(space)) == 50
    assert [row[0] for row in queued(space)] == list(range(1, 51))


def test_a_bulk_is_one_object_of_what_is_new(client, space):
    client.post("/ingest", json={"payload": {"n": 0}})
    answer = client.post("/ingest/bulk", json=[{"payload": {"n": n}} for n in (0, 1, 2, 1)])
    assert answer.status_code == 200
    assert (answer.json()["accepted"], answer.json()["duplicates"]) == (2, 2)
    assert [event["duplicate"] for event in answer.json()["events"]] == [True, False, False, True]
    lines = queued(space)[1][2].split(b"\n")
    assert [orjson.loads(line)["payload"] for line in lines] == [{"n": 1}, {"n": 2}]
    again = client.post("/ingest/bulk", json=[{"payload": {"n": n}} for n in (0, 1, 2, 1)])
    assert (again.json()["accepted"], again.json()["duplicates"]) == (0, 4)
    assert len(queued(space)) == 2


def test_of_a_wrong_bulk_nothing_is_stored(client, space):
    answer = client.post("/ingest/bulk", json=[{"payload": {}}, {"payload": 1}])
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["where"] == "body.1.payload"
    client.post("/ingest", json={"payload": {"the": "only one"}})
    assert len(stored(space)) == 1


def test_a_bulk_with_a_key_that_is_taken(client, space):
    client.post("/ingest", json={"payload": {"a": 1}, "idempotency_key": "taken"})
    answer = client.post(
        "/ingest/bulk",
        json=[
            {"payload": {"a": 2}, "idempotency_key": "taken"},
            {"payload": {"a": 3}, "idempotency_key": "new"},
            {"payload": {"a": 4}, "idempotency_key": "new"},
        ],
    )
    assert answer.status_code == 409
    assert [error["where"] for error in answer.json()["errors"]] == [
        "body.0.idempotency_key",
        "body.2.idempotency_key",
    ]
    assert len(stored(space)) == 2


def test_lines_are_a_bulk_too(client):
    answer = client.post(
        "/ingest/bulk",
        content=b'{"payload":{"a":1}}\n{"payload":{"a":2}}\n',
        headers={"Content-Type": "application/x-ndjson"},
    )
    assert answer.json()["accepted"] == 2


def test_what_is_too_long_or_no_json_is_refused(space):
    client = space.ingest(
        INGEST_MAX_EVENT_BYTES="2000", INGEST_MAX_BODY_BYTES="5000", INGEST_MAX_BULK_EVENTS="3"
    )[1]
    long = {"payload": {"a": "x" * 3000}}
    assert client.post("/ingest", json=long).status_code == 413
    assert client.post("/ingest", json={"payload": {"a": "x" * 6000}}).status_code == 413
    assert client.post("/ingest/bulk", json=[{"payload": {}}] * 4).status_code == 413
    assert client.post("/ingest/bulk", json=[{"payload": {}}, long]).status_code == 413
    assert client.post("/ingest", content=b"a=1").status_code == 415
    assert (
        client.post("/ingest", content=b"{", headers={"Content-Type": "application/json"}).status_code == 400
    )
    assert client.get("/ingest").status_code == 405
    assert stored(space) == [] if _has_tables(space) else True


def _has_tables(space) -> bool:
    with psycopg.connect(space.settings.dsn) as connection:
        return connection.execute("SELECT to_regclass('ingest.event')").fetchone() != (None,)


def test_a_full_outbox_slows_clients_down(space):
    """Nobody carries: after a few events there is no room, and the client is told when to come again."""
    client = space.ingest(INGEST_MAX_OUTBOX_EVENTS="5")[1]
    assert client.post("/ingest/bulk", json=[{"payload": {"n": n}} for n in range(8)]).status_code == 200
    refused = eventually(
        lambda: (a := client.post("/ingest", json={"payload": {"late": 1}})).status_code == 429 and a, 10
    )
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.json()["type"] == "urn:tallyhouse:problem:busy"
    assert client.get("/ready").status_code == 503
    assert client.get("/health").status_code == 200
    space.relay()
    eventually(lambda: client.post("/ingest", json={"payload": {"late": 1}}).status_code == 200)


def test_without_identity_by_content_every_request_is_an_event(space):
    client = space.ingest(INGEST_IDENTITY="random")[1]
    ids = {client.post("/ingest", json={"payload": {"a": 1}}).json()["id"] for _ in range(3)}
    assert len(ids) == 3
    keyed = {
        client.post("/ingest", json={"payload": {"a": 1}}, headers={"Idempotency-Key": "k"}).json()["id"]
        for _ in range(3)
    }
    assert len(keyed) == 1


def test_schemas(client, space):
    assert client.get("/schemas").json() == {"page_view": [1]}
    good = {"event_type": "page_view", "payload": {"page": "/", "visitor": "v"}}
    assert client.post("/ingest", json=good).status_code == 200
    bad = client.post("/ingest", json=good | {"payload": {"page": "/"}})
    assert (bad.status_code, bad.json()["errors"][0]["where"]) == (422, "body.payload")
    assert orjson.loads(queued(space)[0][2])["schema_version"] == 1


def test_credentials_are_asked_for_when_they_have_to_be(space, tmp_path):
    keys = {role: new_key(role, role) for role in ("writer", "reader", "monitor")}
    file = tmp_path / "keys.json"
    file.write_bytes(orjson.dumps([entry.model_dump(mode="json") for _, entry in keys.values()]))
    client = space.ingest(INGEST_AUTH="on", INGEST_API_KEYS_FILE=str(file))[1]

    def status(role: str | None, method: str = "POST", path: str = "/ingest") -> int:
        headers = {"X-API-Key": keys[role][0]} if role else {}
        body = {"json": {"payload": {}}} if method == "POST" else {}
        return client.request(method, path, headers=headers, **body).status_code

    assert [status(role) for role in (None, "reader", "monitor", "writer")] == [401, 403, 403, 200]
    assert [status(role, "GET", "/metrics") for role in (None, "writer", "monitor")] == [401, 403, 200]
    assert status(None, "GET", "/health") == 200
    eventually(lambda: status(None, "GET", "/ready") == 200, 10)


def test_it_tells_of_itself_by_the_names_of_its_document(client, space):
    client.post("/ingest", json={"payload": {"a": 1}})
    client.post("/ingest", json={"payload": {"a": 1}})
    client.post("/ingest", json={"payload": 1})

    def told() -> dict[str, float]:
        lines = [line for line in client.get("/metrics").text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}

    eventually(lambda: told()["kafka_status"] == told()["postgres_status"] == 1, 20)
    found = told()
    assert found["clickhouse_status"] == 1
    assert found["minio_status"] == 1
    assert found['wotr_ingest_total{result="accepted"}'] == 1
    assert found['wotr_ingest_total{result="duplicate"}'] == 1
    assert found['fastapi_error_total{code="invalid",endpoint="/ingest"}'] == 1
    ok = 'fastapi_request_duration_seconds_count{endpoint="/ingest",method="POST",status="200"}'
    assert found[ok] == 2
    eventually(lambda: told()['ingest_outbox_events{destination="kafka"}'] == 1, 10)
    assert client.get("/health").json() == {"status": "healthy", "service": "ingest"}
    ready = client.get("/ready").json()
    assert ready["status"] == "ready"
    assert set(ready["dependencies"]) == {"postgres", "kafka", "minio", "clickhouse"}


def test_events_are_taken_while_kafka_and_the_lake_are_away(space):
    away = {"KAFKA_BOOTSTRAP": "127.0.0.1:1", "MINIO_ENDPOINT": "127.0.0.1:1", "CLICKHOUSE_PORT": "1"}
    client = space.ingest(**away)[1]
    assert client.post("/ingest", json={"payload": {"a": 1}}).status_code == 200
    eventually(lambda: set(client.get("/ready").json()["dependencies"].values()) > {"ok"}, 20)
    ready = client.get("/ready")
    assert ready.status_code == 200
    assert ready.json()["dependencies"]["postgres"] == "ok"


def test_while_the_database_is_away_nothing_is_acknowledged(space):
    client = space.ingest(POSTGRES_PORT="1", INGEST_COMMIT_SECONDS="1")[1]
    began = time.monotonic()
    answer = client.post("/ingest", json={"payload": {"a": 1}})
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert time.monotonic() - began < 10
    assert client.get("/ready").status_code == 503
