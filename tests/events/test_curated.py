"""Runs of events on real MinIO, PostgreSQL and Spark, judged by readers that share no code with the writer.

The oracle reads the raw objects with Python's own json, and the table by the JSON of Delta's log.
"""

import json
import os
import secrets
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import boto3
import psycopg
import pyarrow.parquet as pq
import pytest
import requests

from tallyhouse.contracts import load_pipeline
from tallyhouse.errors import TallyhouseError
from tallyhouse.events import publish as publishing
from tallyhouse.events.table import EventStore
from tallyhouse.events.take import take
from tallyhouse.lake import Lake
from tallyhouse.ledger import Line
from tallyhouse.runs import close_run, open_run
from tallyhouse.settings import Settings

pytestmark = pytest.mark.integration

REPOSITORY = Path(__file__).resolve().parents[2]
DAY = datetime(2026, 1, 2, 10, tzinfo=UTC)
Row = tuple[str, str, str, str]  # id, type, day, payload


class Events:
    """A bucket of its own with raw objects, and what should become of them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.bucket = f"events-{secrets.token_hex(4)}"
        self.client = boto3.client(
            "s3",
            endpoint_url=settings.minio_url,
            aws_access_key_id=settings.minio_root_user,
            aws_secret_access_key=settings.minio_root_password,
            region_name="us-east-1",
        )
        self.client.create_bucket(Bucket=self.bucket)
        access = {
            "endpoint": settings.minio_url,
            "access_key": settings.minio_root_user,
            "secret_key": settings.minio_root_password,
        }
        self.store = EventStore.s3(self.bucket, **access)
        self.lake = Lake.s3(settings.lake_bucket, **access)
        self.pipeline = load_pipeline("events")
        self.expected: dict[str, Row] = {}
        self.aside: list[tuple[str, bytes]] = []
        self.superseded = 0
        self.dag_id = f"test-{self.bucket}"

    def put(self, name: str, *documents: dict[str, Any] | bytes) -> None:
        """Writes an object, one document per line, and notes what should become of it."""
        lines = []
        for document in documents:
            line = document if isinstance(document, bytes) else text_of(document)
            lines.append(line)
            if isinstance(document, bytes):
                self.aside.append((f"raw/{name}", line))
            elif document["id"] in self.expected:
                self.superseded += 1
            else:
                day = datetime.fromisoformat(document["received_at"]).astimezone(UTC).date().isoformat()
                payload = line.split(b'"payload":', 1)[1].rsplit(b',"received_at"', 1)[0].decode()
                kind = document["event_type"] or "unknown"
                self.expected[document["id"]] = (document["id"], kind, day, payload)
        self.client.put_object(Bucket=self.bucket, Key=f"raw/{name}", Body=b"\n".join(lines))

    def connect(self) -> psycopg.Connection[Any]:
        s = self.settings
        return psycopg.connect(
            host=s.postgres_host,
            port=s.postgres_port,
            dbname=s.dwh_db,
            user=s.dwh_user,
            password=s.dwh_password,
        )

    def environment(self) -> dict[str, str]:
        """What the operator gives the Spark job."""
        s = self.settings
        access = {
            "ENDPOINT": s.minio_url,
            "ACCESS_KEY": s.minio_root_user,
            "SECRET_KEY": s.minio_root_password,
        }
        return {
            **{f"LAKE_{name}": value for name, value in access.items()},
            **{f"EVENTS_{name}": value for name, value in access.items()},
            "LAKE_BUCKET": s.lake_bucket,
            "EVENTS_BUCKET": self.bucket,
        }

    # -- a run, task by task -------------------------------------------------------------------

    def begin(self) -> str:
        with self.connect() as connection:
            run_id = open_run(
                connection,
                "events",
                tables=["events"],
                dag_id=self.dag_id,
                dag_run_id="manual",
                logical_date=None,
                full_refresh=False,
            )
            state = publishing.recover(connection, self.store, self.pipeline, run_id)
        (contract,) = self.pipeline.tables
        take(self.store, state, self.lake, contract, run_id=run_id, attempt=1)
        return run_id

    def curate(self, run_id: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "spark_jobs.curate", "--pipeline", "events", "--run-id", run_id],
            cwd=REPOSITORY,
            env=os.environ | self.environment() | {"PYTHONPATH": f"{REPOSITORY}/include:{REPOSITORY}"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]

    def publish(self, run_id: str) -> list[Line]:
        return publishing.publish(self.connect, self.store, self.lake, self.pipeline, run_id)

    def run(self) -> list[Line]:
        run_id = self.begin()
        self.curate(run_id)
        return self.publish(run_id)

    # -- what there is, by Delta's log -------------------------------------------------------

    def keys(self, prefix: str) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return sorted(found["Key"] for page in pages for found in page.get("Contents", []))

    def curated(self) -> dict[str, list[dict[str, Any]]]:
        """Rows by file, of the files that a reader of the table sees."""
        keys: set[str] = set()
        for version in self.keys("curated/_delta_log/"):
            if version.endswith(".json"):
                body = self.client.get_object(Bucket=self.bucket, Key=version)["Body"].read()
                actions = [json.loads(line) for line in body.splitlines()]
                keys -= {unquote(action["remove"]["path"]) for action in actions if "remove" in action}
                keys |= {unquote(action["add"]["path"]) for action in actions if "add" in action}
        return {f"curated/{key}": self.rows(f"curated/{key}") for key in sorted(keys)}

    def rows(self, key: str) -> list[dict[str, Any]]:
        with self.store.lake.filesystem.open_input_file(f"{self.bucket}/{key}") as file:
            return pq.ParquetFile(file).read().to_pylist()

    def assert_every_event_is_there_once(self) -> None:
        found = []
        for key, rows in self.curated().items():
            _, kind, day, _ = key.split("/")
            kind, day = unquote(kind.removeprefix("event_type=")), day.removeprefix("day=")
            for row in rows:
                found.append((row["id"], kind, day, row["payload"]))
                assert dict(row["fields"]).keys() == json.loads(row["payload"]).keys()
                assert row["received_at"].date().isoformat() == day
        assert Counter(found) == Counter(self.expected.values())
        aside = [row for key in self.keys("quarantine/") for row in self.rows(key)]
        assert Counter((row["object_key"], row["text"]) for row in aside) == Counter(self.aside)
        assert all(row["reason"] for row in aside)


def text_of(document: dict[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def event(number: int, kind: str | None = "order", at: datetime = DAY, **payload: Any) -> dict[str, Any]:
    return {
        "id": f"e{number}",
        "event_type": kind,
        "payload": {"number": number} | payload,
        "received_at": (at + timedelta(seconds=number)).isoformat(),
    }


@pytest.fixture(scope="module")
def events(settings: Settings) -> Iterator[Events]:
    found = Events(settings)
    yield found
    with found.connect() as connection:
        runs = [row[0] for row in connection.execute("SELECT run_id FROM etl.run WHERE pipeline = 'events'")]
        connection.execute("DELETE FROM etl.ledger WHERE run_id = ANY(%s)", (runs,))
        connection.execute("DELETE FROM etl.run WHERE run_id = ANY(%s)", (runs,))


def by_measure(lines: list[Line]) -> dict[tuple[str, str], Line]:
    return {(line.hop.value, line.measure): line for line in lines}


def test_a_first_run_brings_every_event_and_quarantines_the_rest(events: Events) -> None:
    orders = [event(number, text="Ірина 🥞", price=1.10, nested={"deep": [1, 2]}) for number in range(20)]
    for order in orders:
        events.put(f"{order['id']}.json", order)
    events.put("batch-1.json", *(event(number, kind="click") for number in range(20, 120)))
    events.put("batch-2.json", orders[3], event(120, kind="click"), b"{broken", b'{"id": "no time"}')
    events.put("odd.json", event(121, kind="a/b:c=d %é[1]*", big=10**40), event(122, kind=None), b"\xff")
    lines = by_measure(events.run())
    assert all(line.closed for line in lines.values())
    assert lines["source=raw", "objects"].left == 23
    assert lines["raw=curated", "rows"].parts == {
        "curated": len(events.expected),
        "superseded": 1,
        "quarantined": 3,
    }
    events.assert_every_event_is_there_once()
    assert len(events.curated()) == 4, "one file for each partition"
    with events.connect() as connection:
        status = connection.execute(
            "SELECT status, shown_at IS NOT NULL FROM etl.run_state WHERE dag_id = %s", (events.dag_id,)
        ).fetchall()
    assert status == [("published", True)]


def test_a_run_with_nothing_new_changes_nothing(events: Events) -> None:
    before = {key: events.client.head_object(Bucket=events.bucket, Key=key) for key in events.keys("")}
    lines = by_measure(events.run())
    assert lines["source=raw", "objects"].left == 0
    assert lines["raw=curated", "rows"].left == 0
    after = {key: events.client.head_object(Bucket=events.bucket, Key=key) for key in events.keys("")}
    assert {key: found["ETag"] for key, found in after.items()} == {
        key: found["ETag"] for key, found in before.items()
    }
    assert {k: v["LastModified"] for k, v in after.items()} == {
        k: v["LastModified"] for k, v in before.items()
    }


def test_the_next_run_takes_what_is_new_with_fields_that_nobody_had(events: Events) -> None:
    # One that came late for a day that is there, one of the next day, and one that is curated already.
    events.put("e200.json", event(200, colour="blue"))
    events.put("e201.json", event(201, at=DAY + timedelta(days=1), number_too=1))
    events.put("batch-3.json", event(5), event(120, kind="click"), event(202, kind="click", tags=["new"]))
    lines = by_measure(events.run())
    assert lines["source=raw", "objects"].left == 3
    assert lines["raw=curated", "rows"].parts == {"curated": 3, "superseded": 2, "quarantined": 0}
    events.assert_every_event_is_there_once()
    files = events.curated()
    assert len(files) == 4 + 3, "one more file for each partition that is touched"
    blue = [row for rows in files.values() for row in rows if row["id"] == "e200"]
    assert dict(blue[0]["fields"])["colour"] == "blue"


class Death(Exception):
    """Stands in for SIGKILL at a place."""


def dies(monkeypatch: pytest.MonkeyPatch, target: object, name: str) -> Callable[[], None]:
    def die(*_: Any, **__: Any) -> None:
        raise Death

    monkeypatch.setattr(target, name, die)
    return monkeypatch.undo


def test_a_run_that_loses_or_dies_before_its_commit_is_invisible_and_taken_again(
    events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = events.curated()
    events.put("e300.json", event(300))
    run_id = events.begin()
    events.curate(run_id)
    state = events.store.state()
    undo = dies(monkeypatch, EventStore, "commit")
    with pytest.raises(Death):
        events.publish(run_id)
    undo()
    assert events.curated() == before, "its files are in their places, and nobody's"
    # Somebody who does not ask the warehouse's fence, as after it was restored from a backup.
    events.store.commit(state, "somebody", [])
    with pytest.raises(TallyhouseError, match="which is at"):
        events.publish(run_id)
    with pytest.raises(TallyhouseError, match="another run has committed version"):
        events.store.commit(state, "somebody else", [])
    assert events.curated() == before

    run_id = events.begin()
    events.curate(run_id)
    undo = dies(monkeypatch, EventStore, "settle")
    with pytest.raises(Death):
        events.publish(run_id)
    undo()
    lines = by_measure(events.publish(run_id))  # the task is tried again after its commit
    assert lines["source=raw", "objects"].left == 1
    assert all(line.closed for line in lines.values())
    events.assert_every_event_is_there_once()
    assert not events.keys("curated/_staging/")


def test_a_run_that_dies_after_its_commit_is_finished_by_the_next(
    events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    events.put("e400.json", event(400), b"{no event")
    run_id = events.begin()
    events.curate(run_id)
    undo = dies(monkeypatch, EventStore, "settle")
    with pytest.raises(Death):
        events.publish(run_id)
    undo()
    with events.connect() as connection:
        close_run(
            connection, run_id, TallyhouseError("died", where=run_id, remedy="Start a new run").failure(None)
        )
    undo = dies(monkeypatch, EventStore, "drop")  # the next one dies too, after it has put the lines in place
    with pytest.raises(Death):
        events.begin()
    undo()
    events.assert_every_event_is_there_once()
    events.begin()
    with events.connect() as connection:
        found = connection.execute(
            "SELECT r.status, count(*) FROM etl.run AS r JOIN etl.ledger AS l USING (run_id) "
            "WHERE run_id = %s AND l.closed GROUP BY 1",
            (run_id,),
        ).fetchone()
    assert found == ("published", 5)
    events.assert_every_event_is_there_once()
    assert not events.keys("curated/_staging/")


def test_a_warehouse_restored_from_a_backup_learns_of_its_runs(events: Events) -> None:
    runs = events.store.runs(events.store.state())
    assert len(runs) == 4
    with events.connect() as connection:
        connection.execute("DELETE FROM etl.ledger WHERE run_id = ANY(%s)", (runs[-2:],))
        connection.execute("DELETE FROM etl.run WHERE run_id = ANY(%s)", (runs[-2:],))
    events.begin()
    with events.connect() as connection:
        found = connection.execute(
            "SELECT count(DISTINCT run_id) FILTER (WHERE status = 'published'), bool_and(closed) "
            "FROM etl.run JOIN etl.ledger USING (run_id) WHERE run_id = ANY(%s)",
            (runs,),
        ).fetchone()
    assert found == (len(runs), True)


def test_clickhouse_reads_the_table_as_the_guide_says(events: Events) -> None:
    s = events.settings
    curated = f"{s.minio_url}/{events.bucket}/curated"
    secret = s.minio_root_password.replace("'", "''")
    answer = requests.post(
        f"http://{s.clickhouse_host}:{s.clickhouse_http_port}/",
        data="SELECT event_type, toString(day), count(), countIf(fields['colour'] = 'blue') "
        f"FROM deltaLake('{curated}', '{s.minio_root_user}', '{secret}') GROUP BY 1, 2 "
        "FORMAT JSONCompact",
        auth=(s.clickhouse_user, s.clickhouse_password),
        timeout=60,
    )
    assert answer.ok, answer.text
    expected = Counter((kind, day) for _, kind, day, _ in events.expected.values())
    found = answer.json()["data"]
    assert {(kind, day): int(count) for kind, day, count, _ in found} == expected
    assert sum(int(blue) for *_, blue in found) == 1
