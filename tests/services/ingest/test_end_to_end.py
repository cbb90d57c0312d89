"""The whole way on real servers, and what is left of it when they are killed."""

import hashlib
import threading
import time
from collections.abc import Callable

import httpx
import orjson
import pytest

from tests.services.event_servers import Space, eventually


class Load(threading.Thread):
    """Sends events one after the other, each again until it is acknowledged, as a careful client does."""

    def __init__(self, urls: Callable[[], str], number: int) -> None:
        super().__init__(daemon=True)
        self._url, self._number = urls, number
        self._ending = threading.Event()
        self.acknowledged: dict[str, bytes] = {}
        self.wrong: list[str] = []

    def run(self) -> None:
        count = 0
        with httpx.Client(timeout=15) as client:
            while not self._ending.is_set():
                count += 1
                payload = orjson.dumps({"client": self._number, "n": count, "pad": "x" * 300})
                self._send(client, payload)

    def _send(self, client: httpx.Client, payload: bytes) -> None:
        while True:
            try:
                answer = client.post(
                    f"{self._url()}/ingest",
                    content=b'{"payload":%s}' % payload,
                    headers={"Content-Type": "application/json"},
                )
            except httpx.HTTPError:
                time.sleep(0.2)
                continue
            if answer.status_code == 200:
                self.acknowledged[answer.json()["id"]] = payload
                return
            if answer.status_code not in (429, 503):
                self.wrong.append(answer.text)
                return
            time.sleep(0.2)

    def end(self) -> None:
        self._ending.set()


def digest(payloads: list[bytes]) -> int:
    return sum(int(hashlib.md5(payload, usedforsecurity=False).hexdigest()[:15], 16) for payload in payloads)


def test_an_event_and_a_bulk_arrive_everywhere_once(space: Space):
    client = space.ingest()[1]
    space.relay()
    space.consumer()
    single = client.post("/ingest", json={"payload": {"example": "hello", "wide": "ї"}}).json()
    client.post("/ingest", json={"payload": {"example": "hello", "wide": "ї"}})
    bulk = client.post(
        "/ingest/bulk",
        json=[{"payload": {"n": n}, "event_type": "many"} for n in range(100)] + [{"payload": {"n": 5}}],
    ).json()
    space.agree(102)
    objects = space.objects()
    document = objects.pop(f"raw/{single['id']}.json")
    assert orjson.loads(document) == {
        "id": single["id"],
        "event_type": "event",
        "payload": {"example": "hello", "wide": "ї"},
        "received_at": single["received_at"].replace("+00:00", "Z"),
    }
    (lines,) = objects.values()
    assert [orjson.loads(line)["id"] for line in lines.split(b"\n")] == [e["id"] for e in bulk["events"]]
    rows = {row[0]: row for row in space.rows()}
    assert rows.keys() == {single["id"]} | {event["id"] for event in bulk["events"]}
    assert rows[single["id"]][3] == '{"example":"hello","wide":"ї"}'
    assert sum(row[1] == "many" for row in rows.values()) == 100


def test_from_the_request_to_the_query_in_two_seconds(space: Space):
    """The p95 of a hundred events under a light load, each asked for until it is seen."""
    client = space.ingest()[1]
    space.relay()
    space.consumer()
    client.post("/ingest", json={"payload": {"warm": "up"}})
    space.agree(1)
    clickhouse, took = space.clickhouse, []
    for number in range(100):
        began = time.monotonic()
        found = client.post("/ingest", json={"payload": {"n": number}}).json()["id"]
        eventually(lambda: clickhouse.query(f"SELECT 1 FROM ingested_data WHERE id = '{found}'").result_rows)  # noqa: B023
        took.append(time.monotonic() - began)
    assert sorted(took)[94] < 2, sorted(took)


@pytest.mark.parametrize(
    "victim", ["ingest", "relay", "consumer", "kafka", "minio", "postgres", "clickhouse"]
)
def test_whoever_is_killed_every_acknowledged_event_is_there_once(space: Space, victim: str):
    servers = space.servers
    ingest, client = space.ingest(INGEST_COMMIT_SECONDS="2")
    processes = {"ingest": ingest, "relay": space.relay(), "consumer": space.consumer()[0]}
    processes |= {"kafka": servers.kafka, "minio": servers.minio, "clickhouse": servers.clickhouse}
    loads = [Load(lambda: str(client.base_url), number) for number in range(4)]
    for load in loads:
        load.start()
    eventually(lambda: all(len(load.acknowledged) > 10 for load in loads))
    for _ in range(2):
        if victim == "postgres":
            servers.postgres.kill()
        else:
            processes[victim].kill()
        time.sleep(1)
        if victim == "postgres":
            servers.postgres.start()
        else:
            processes[victim].start()
        before = [len(load.acknowledged) for load in loads]
        eventually(lambda: all(len(x.acknowledged) > b + 10 for x, b in zip(loads, before, strict=True)))  # noqa: B023
    for load in loads:
        load.end()
    for load in loads:
        load.join(60)
        assert not load.wrong
    acknowledged = {key: payload for load in loads for key, payload in load.acknowledged.items()}
    space.agree(len(acknowledged))
    rows = space.rows()
    assert len(rows) == len(acknowledged)
    assert {row[0] for row in rows} == acknowledged.keys()
    assert digest([row[3].encode() for row in rows]) == digest(list(acknowledged.values()))


def test_of_two_relays_one_works_and_the_other_takes_over(space: Space):
    client = space.ingest()[1]
    first, _ = space.relay(), space.relay()
    space.consumer()
    client.post("/ingest/bulk", json=[{"payload": {"n": n}} for n in range(50)])
    space.agree(50)
    first.kill()
    client.post("/ingest/bulk", json=[{"payload": {"n": n}} for n in range(50, 100)])
    space.agree(100)
