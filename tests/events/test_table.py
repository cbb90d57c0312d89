"""The curated table on a real S3 server: what commits, what is left by deaths, what an older version left."""

import json
import secrets

import chdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from tallyhouse.errors import TallyhouseError
from tallyhouse.events.table import MOST_SMALL, SCHEMA, EventStore, File, objects_of, partition_of, staging_of
from tallyhouse.settings import Settings

pytestmark = pytest.mark.integration

DAY = "2026-01-02"
TYPES = [
    "order",
    "a b",
    "50%",
    "a/b",
    "x=y",
    "Ірина",
    "q?",
    "h#1",
    "semi;colon",
    "plus+",
    "co:lon",
    "'\"[1]*",
]


@pytest.fixture
def store(settings: Settings) -> EventStore:
    bucket = f"table-{secrets.token_hex(4)}"
    store = EventStore.s3(
        bucket,
        endpoint=settings.minio_url,
        access_key=settings.minio_root_user,
        secret_key=settings.minio_root_password,
    )
    store.client.create_bucket(Bucket=bucket)
    return store


def escaped(event_type: str) -> str:
    """As Spark writes it in a path."""
    return "".join(f"%{ord(c):02X}" if c in "\"#%'*/:=?\\{[]^" else c for c in event_type)


def put(store: EventStore, key: str, rows: int, run_id: str = "r") -> File:
    """A file of the table, in its place; its partition is in its path alone."""
    fields = [f for f in SCHEMA if f.name not in ("event_type", "day")]
    moment = pa.scalar(1_767_348_000_123_456, pa.timestamp("us", "UTC"))
    values = {
        "id": [f"{key}-{number}" for number in range(rows)],
        "received_at": [moment.as_py()] * rows,
        "payload": ['{"price":1.10}'] * rows,
        "fields": [[("price", "1.10")]] * rows,
        "_object": ["o"] * rows,
        "_line": [1] * rows,
        "_run": [run_id] * rows,
    }
    pq.write_table(
        pa.table(values, pa.schema(fields)), store.lake.path(key), filesystem=store.lake.filesystem
    )
    size = store.lake.filesystem.get_file_info(store.lake.path(key)).size
    return File(key, rows, size, *partition_of(key))


def file(store: EventStore, name: str, rows: int = 1, event_type: str = "order") -> File:
    return put(store, f"curated/event_type={escaped(event_type)}/day={DAY}/{name}.parquet", rows)


def rows(store: EventStore) -> int:
    return DeltaTable(store.uri, storage_options=store.options).to_pyarrow_table().num_rows


def test_before_the_first_commit_there_is_nothing(store: EventStore) -> None:
    state = store.state()
    assert (state.version, state.files, state.knows("r")) == (-1, (), False)
    assert store.runs(state) == []


def test_of_two_that_began_from_the_same_version_one_commits(store: EventStore) -> None:
    for number in range(2):  # the first makes the table, and the next one adds to it
        state = store.state()
        first, second = file(store, f"{number}-a"), file(store, f"{number}-b")
        store.commit(state, f"a{number}", [first])
        with pytest.raises(TallyhouseError, match="another run has committed version"):
            store.commit(state, f"b{number}", [second])
        now = store.state()
        assert now.version == state.version + 1
        assert (now.knows(f"a{number}"), now.knows(f"b{number}")) == (True, False)
        assert {one.key for one in now.files} == {one.key for one in (*state.files, first)}
    assert rows(store) == 2


def test_a_commit_without_a_file_counts_as_well(store: EventStore) -> None:
    """A run whose lines are all quarantined has taken its objects all the same."""
    for run_id in ("first", "second"):
        store.commit(store.state(), run_id, [])
        pq.write_table(
            pa.table({"key": [f"raw/{run_id}.json"]}),
            store.lake.path(objects_of(run_id)),
            filesystem=store.lake.filesystem,
        )
    pq.write_table(
        pa.table({"key": ["raw/never.json"]}),
        store.lake.path(objects_of("died")),
        filesystem=store.lake.filesystem,
    )
    assert [*store.taken(store.state())] == [["raw/first.json"], ["raw/second.json"]]


def test_every_type_is_read_back_as_it_is_named(store: EventStore, settings: Settings) -> None:
    files = [file(store, "0", event_type=event_type) for event_type in TYPES]
    store.commit(store.state(), "r", files)
    assert {one.key: one.event_type for one in store.state().files} == {
        one.key: one.event_type for one in files
    }
    found = DeltaTable(store.uri, storage_options=store.options).to_pyarrow_table()
    assert sorted(found["event_type"].to_pylist()) == sorted(TYPES)
    # Another implementation of the format.
    address = f"{settings.minio_url}/{store.lake.root}/curated"
    secret = settings.minio_root_password.replace("'", "''")
    answer = chdb.query(
        "SELECT groupArray(event_type), any(fields['price']), toString(any(received_at))"
        f" FROM deltaLake('{address}', '{settings.minio_root_user}', '{secret}')",
        "JSONCompact",
    )
    ((types, price, moment),) = json.loads(str(answer))["data"]
    assert (sorted(types), price) == (sorted(TYPES), "1.10")
    assert moment.startswith("2026-01-02 10:00:00.123456")


def test_small_files_are_put_together_without_changing_a_row(store: EventStore) -> None:
    for number in range(MOST_SMALL + 1):
        store.commit(store.state(), f"r{number}", [file(store, str(number), rows=2, event_type="a b%")])
    other = file(store, "other")
    store.commit(store.state(), "other", [other])
    before = DeltaTable(store.uri, storage_options=store.options).to_pyarrow_table().sort_by("id")
    after = store.tidy(store.state())
    assert len(after.files) == 2
    assert other in after.files
    assert {one.rows for one in after.files} == {1, 2 * (MOST_SMALL + 1)}
    assert all(after.knows(f"r{number}") for number in range(MOST_SMALL + 1))
    found = DeltaTable(store.uri, storage_options=store.options).to_pyarrow_table().sort_by("id")
    assert found.to_pylist() == before.to_pylist()
    assert store.tidy(after).version == after.version, "nothing is left to do"


def test_what_is_quarantined_is_put_in_its_place_as_often_as_a_death_asks(store: EventStore) -> None:
    staged = f"{staging_of('r')}/quarantine/part-00000.zstd.parquet"
    put(store, f"{staging_of('r')}/files/event_type=order/day={DAY}/part-00000.parquet", 1)
    store.lake.write_json(staged, {"stands": "for Parquet"})
    assert store.staged() == ["r"]
    store.copy(staged, "quarantine/r/part-00000.parquet")  # it died here
    store.settle("r")
    assert store.lake.keys("quarantine") == ["quarantine/r/part-00000.parquet"]
    assert store.staged() == []
    store.settle("r")
    assert store.lake.keys("quarantine") == ["quarantine/r/part-00000.parquet"]


def test_a_table_of_the_version_before_is_taken_over_where_it_is(store: EventStore) -> None:
    """Its log named files by key, one of them written again, and the last run died after its commit."""
    full = file(store, "part-00000", rows=3, event_type="a/b")
    tail = file(store, "part-00001", rows=5, event_type="a/b")
    aside = put(store, f"{staging_of('run-3')}/files/event_type=order/day={DAY}/part-00000.parquet", 2)
    key = f"curated/event_type=order/day={DAY}/part-00000.parquet"
    ledger = [
        {
            "table": "events.events",
            "hop": "raw=curated",
            "measure": "rows",
            "left": "1",
            "right": "1",
            "parts": {},
        }
    ]
    entries = [
        ("run-1", [(full, full.key, ""), (tail, tail.key, "")]),
        ("run-2", [(tail, tail.key, "")]),
        ("run-3", [(aside, key, aside.key)]),
    ]
    for version, (run_id, files) in enumerate(entries, 1):
        named = [
            {
                "key": to,
                "rows": one.rows,
                "bytes": one.bytes,
                "staged": staged or f"{staging_of(run_id)}/gone",
            }
            for one, to, staged in files
        ]
        store.lake.write_json(
            f"curated/_log/{version:020d}.json",
            {
                "version": version,
                "run_id": run_id,
                "files": named,
                "quarantine": [],
                "objects": objects_of(run_id),
                "ledger": ledger,
            },
        )
        pq.write_table(
            pa.table({"key": [f"raw/{run_id}.json"]}),
            store.lake.path(objects_of(run_id)),
            filesystem=store.lake.filesystem,
        )
    store.adopt()
    state = store.state()
    assert {(one.key, one.rows, one.event_type) for one in state.files} == {
        (full.key, 3, "a/b"),
        (tail.key, 5, "a/b"),
        (key, 2, "order"),
    }
    assert store.runs(state) == ["run-1", "run-2", "run-3"]
    assert [keys for (keys,) in store.taken(state)] == ["raw/run-1.json", "raw/run-2.json", "raw/run-3.json"]
    assert store.lake.read_json("curated/_runs/run-3/ledger.json") == ledger
    assert rows(store) == 10
    store.adopt()  # once
    assert store.state().version == state.version
