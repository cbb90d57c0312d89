"""A run of events dies before and after each thing it writes; the next one makes every event be there once.

Real MinIO and PostgreSQL. What Spark does with a batch is done here in a few lines of Python, so that many
deaths take seconds; `test_curated.py` has Spark itself.
"""

from collections.abc import Iterator
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tallyhouse.errors import TallyhouseError
from tallyhouse.events.table import SCHEMA, EventStore, staging_of
from tallyhouse.lake import Lake, find_manifests
from tallyhouse.runs import close_run
from tallyhouse.settings import Settings
from tests.events.test_curated import Death, Events, event

pytestmark = pytest.mark.integration


class PlainEvents(Events):
    """Curates without Spark: the same files, the same report."""

    def curate(self, run_id: str) -> None:
        (contract,) = self.pipeline.tables
        (manifest,) = find_manifests(self.lake, run_id, [contract])
        state, files = self.store.state(), self.store.lake.filesystem
        known = {row["id"] for file in state.files for row in self.rows(file.key)}
        accepted: dict[tuple[str, str], list[dict[str, Any]]] = {}
        counts = {"raw": manifest.rows, "curated": 0, "superseded": 0, "quarantined": 0}
        aside = []
        for part in manifest.parts:
            with self.lake.filesystem.open_input_file(self.lake.path(part.key)) as source:
                lines = pq.read_table(source).to_pylist()
            for line in lines:
                if line["problem"]:
                    aside.append({"object_key": line["object_key"], "text": line["text"], "reason": "bad"})
                    continue
                if line["id"] in known:
                    counts["superseded"] += 1
                    continue
                known.add(line["id"])
                counts["curated"] += 1
                day = line["received_at"][:10]
                moment = pa.scalar(line["received_at"]).cast(pa.timestamp("us")).as_py()
                accepted.setdefault((line["event_type"], day), []).append(
                    {"id": line["id"], "payload": line["payload"], "received_at": moment, "_run": run_id}
                    | {"fields": [("number", "1")], "_object": line["object_key"], "_line": line["line"]}
                )
        counts["quarantined"] = len(aside)
        staging = f"{self.bucket}/{staging_of(run_id)}"
        self.store.drop(staging_of(run_id))
        inside = pa.schema([field for field in SCHEMA if field.name not in ("event_type", "day")])
        for (kind, day), rows in accepted.items():
            key = f"{staging}/files/event_type={kind}/day={day}/part-00000.parquet"
            pq.write_table(pa.Table.from_pylist(rows, inside), key, filesystem=files)
        if aside:
            pq.write_table(
                pa.Table.from_pylist(aside), f"{staging}/quarantine/part-00000.parquet", filesystem=files
            )
        moved = {name: str(counts[name]) for name in ("curated", "superseded")}
        report = {
            "base_version": state.version,
            "counts": counts,
            "digests": moved | {"raw": str(counts["curated"] + counts["superseded"])},
        }
        self.lake.write_json(f"report/events/run={run_id}/curate.json", report)


@pytest.fixture(scope="module")
def events(settings: Settings) -> Iterator[PlainEvents]:
    found = PlainEvents(settings)
    yield found
    with found.connect() as connection:
        runs = [row[0] for row in connection.execute("SELECT run_id FROM etl.run WHERE pipeline = 'events'")]
        connection.execute("DELETE FROM etl.ledger WHERE run_id = ANY(%s)", (runs,))
        connection.execute("DELETE FROM etl.run WHERE run_id = ANY(%s)", (runs,))


def dies_at(patch: pytest.MonkeyPatch, owner: type, name: str, number: int, *, after: bool) -> None:
    """The process dies before or after the call of that number."""
    real, calls = getattr(owner, name), iter(range(1000))

    def acting(*arguments: Any, **more: Any) -> Any:
        if next(calls) != number:
            return real(*arguments, **more)
        if after:
            real(*arguments, **more)
        raise Death

    patch.setattr(owner, name, acting)


def published(events: PlainEvents) -> list[tuple[str, bool]]:
    with events.connect() as connection:
        return connection.execute(
            "SELECT r.run_id, bool_and(l.closed) FROM etl.run AS r JOIN etl.ledger AS l USING (run_id)"
            " WHERE r.pipeline = 'events' AND r.status = 'published' GROUP BY 1"
        ).fetchall()


PLACES = [
    *((EventStore, "copy", 0), (EventStore, "copy", 1), (EventStore, "copy", 2)),
    *((Lake, "write_json", 0), (EventStore, "commit", 0), (EventStore, "settle", 0), (EventStore, "drop", 0)),
    (psycopg.Connection, "execute", 4),
]


@pytest.mark.parametrize("again", [False, True], ids=["next run", "task again"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("place", PLACES, ids=lambda place: f"{place[1]}-{place[2]}")
def test_a_death_anywhere_loses_nothing_and_doubles_nothing(
    events: PlainEvents,
    place: tuple[type, str, int],
    after: bool,
    again: bool,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    number = 1000 + 10 * request.node.callspec.indices["place"] * 4 + 20 * after + 10 * again
    events.put(f"{number}.json", event(number), event(number + 1, kind="click"), b"{no event")
    run_id = events.begin()
    events.curate(run_id)
    with monkeypatch.context() as patch:
        dies_at(patch, *place, after=after)
        with pytest.raises(Death):
            events.publish(run_id)
    if again:
        assert all(line.closed for line in events.publish(run_id))
    else:
        with events.connect() as connection:
            error = TallyhouseError("died", remedy="Start a new run").failure(None)
            close_run(connection, run_id, error)
    events.put(f"{number}-next.json", event(number + 2), event(number))
    lines = events.run()
    assert all(line.closed for line in lines)
    events.assert_every_event_is_there_once()
    assert not events.keys("curated/_staging/")
    state = events.store.state()
    runs = published(events)
    assert all(closed for _, closed in runs)
    assert sorted(run for run, _ in runs if state.knows(run)) == events.store.runs(state)


def test_a_run_that_is_published_again_is_left_as_it_is(events: PlainEvents) -> None:
    events.put("again.json", event(1))
    run_id = events.begin()
    events.curate(run_id)
    lines = events.publish(run_id)
    version = events.store.state().version
    assert events.publish(run_id) == lines
    assert events.store.state().version == version


def test_a_warehouse_that_lost_its_runs_learns_of_all_of_them(events: PlainEvents) -> None:
    runs = events.store.runs(events.store.state())
    with events.connect() as connection:
        connection.execute("DELETE FROM etl.ledger WHERE run_id = ANY(%s)", (runs,))
        connection.execute("DELETE FROM etl.run WHERE run_id = ANY(%s)", (runs,))
    events.begin()
    assert {run for run, _ in published(events)} >= set(runs)
