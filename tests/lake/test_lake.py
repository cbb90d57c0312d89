import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tallyhouse.contracts import load_source
from tallyhouse.errors import TallyhouseError
from tallyhouse.lake import Lake, Manifest, Part, check_parts, commit, find_manifests, sweep

TABLE = load_source("orders").table("orders")


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake.local(str(tmp_path))


def manifest(attempt: int, rows: int = 0) -> Manifest:
    return Manifest(
        run_id="r1",
        source=TABLE.source,
        table=TABLE.name,
        attempt=attempt,
        contract_version=TABLE.version,
        columns=({"name": "id", "type": "string"},),
        snapshot_at=datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
        watermark_from=None,
        watermark_to=datetime(2026, 1, 2, 3, 3, 5, 678901, tzinfo=UTC),
        source_rows=rows,
        rows=rows,
        digest=None,
        control_totals={"total": "1.50"},
        parts=(Part("raw/x.parquet", rows, 3, "ff"),) if rows else (),
    )


def test_a_batch_without_a_manifest_does_not_exist(lake: Lake) -> None:
    with lake.create("raw/orders/orders/run=r1/attempt=1/part-00000.parquet") as sink:
        sink.write(b"half of a batch")
    assert find_manifests(lake, "r1", [TABLE]) == []


def test_the_newest_committed_attempt_counts(lake: Lake) -> None:
    for attempt in (1, 2, 10):
        commit(lake, manifest(attempt, rows=attempt))
    with lake.create("raw/orders/orders/run=r1/attempt=11/part-00000.parquet") as sink:
        sink.write(b"died before its commit")
    assert find_manifests(lake, "r1", [TABLE]) == [manifest(10, rows=10)]


def test_a_manifest_survives_the_lake(lake: Lake) -> None:
    commit(lake, manifest(1, rows=5))
    assert Manifest.from_json(lake.read_json(manifest(1).key)) == manifest(1, rows=5)


def test_an_object_reports_its_size_and_checksum(lake: Lake, tmp_path: Path) -> None:
    with lake.create("a/b.parquet") as sink:
        pq.write_table(pa.table({"a": [1, 2, 3]}), sink)
    content = (tmp_path / "a" / "b.parquet").read_bytes()
    assert sink.size == len(content)
    assert sink.sha256 == hashlib.sha256(content).hexdigest()
    assert lake.row_count("a/b.parquet") == 3
    assert [batch.to_pylist() for batch in lake.read_batches(["a/b.parquet"], batch_rows=2)] == [
        [{"a": 1}, {"a": 2}],
        [{"a": 3}],
    ]


def test_an_empty_prefix_holds_nothing(lake: Lake) -> None:
    assert lake.keys("nothing/here") == []


def test_a_lake_that_is_not_there_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(TallyhouseError, match=r"bucket .* is not there\. Create it"):
        Lake.local(str(tmp_path / "gone")).check()


def test_a_server_that_is_down_is_a_passing_trouble() -> None:
    lake = Lake.s3("lake", endpoint="http://127.0.0.1:9", access_key="a", secret_key="b")
    with pytest.raises(TallyhouseError, match=r"the lake does not answer") as caught:
        lake.check()
    assert caught.value.transient
    assert "\n" not in str(caught.value)


def batch(lake: Lake, attempt: int, content: bytes) -> Manifest:
    key = f"raw/orders/orders/run=r1/attempt={attempt}/part-00000.parquet"
    with lake.create(key) as sink:
        sink.write(content)
    return replace(manifest(attempt), parts=(Part(key, 1, sink.size, sink.sha256),))


def test_a_part_that_is_missing_or_damaged_is_named(lake: Lake, tmp_path: Path) -> None:
    whole = batch(lake, 1, b"as it was written")
    check_parts(lake, whole, contents=True)
    part = tmp_path / whole.parts[0].key
    part.write_bytes(b"as it was not there")
    with pytest.raises(TallyhouseError, match=r"orders\.orders: .*part-00000.parquet has 19 bytes, 17 were"):
        check_parts(lake, whole)
    part.write_bytes(b"as it was WRITTEN")
    check_parts(lake, whole)
    with pytest.raises(TallyhouseError, match=r"is damaged: .*Clear the extraction of that source") as caught:
        check_parts(lake, whole, contents=True)
    assert not caught.value.transient
    part.unlink()
    with pytest.raises(TallyhouseError, match=r"part-00000.parquet is missing"):
        check_parts(lake, whole)


def test_what_a_try_left_without_a_commit_is_swept_by_the_next_one_that_commits(lake: Lake) -> None:
    commit(lake, batch(lake, 1, b"committed: another table failed after it"))
    batch(lake, 2, b"died")
    last = batch(lake, 3, b"whole")
    commit(lake, last)
    batch(lake, 4, b"a later one that is still being written")
    assert sweep(lake, last) == 1
    left = {key.split("/")[4] for key in lake.keys("raw/orders/orders/run=r1") if key.endswith(".parquet")}
    assert left == {"attempt=1", "attempt=3", "attempt=4"}
