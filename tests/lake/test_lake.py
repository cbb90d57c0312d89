import hashlib
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tallyhouse.contracts import load_source
from tallyhouse.errors import TallyhouseError
from tallyhouse.lake import Lake, Manifest, Part, commit, find_manifests

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
