"""De-duplication, and the numbers that the ledger takes from it."""

import re
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from spark_jobs.accepted import accept, newest, prepared
from spark_jobs.typed import BadValuesError
from tallyhouse.contracts import Column, ColumnType, TableContract

CONTRACT = TableContract(
    source="s",
    name="t",
    columns=(
        Column("a", ColumnType.parse("int"), False),
        Column("b", ColumnType.parse("varchar(4)"), False),
        Column("amount", ColumnType.parse("decimal(14,2)"), True),
        Column("n", ColumnType.parse("int"), True),
        Column("at", ColumnType.parse("datetime"), True),
    ),
    key=("a", "b"),
    cursor="at",
    pii=(),
    control_totals=("amount", "n"),
)
SNAPSHOT = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
TYPED = "a int, b string, amount decimal(14,2), n int, at timestamp"
rows_of_few_keys = st.lists(
    st.tuples(
        st.integers(0, 9),
        st.sampled_from("xy"),
        st.decimals(-1000, 1000, places=2) | st.none(),
        st.integers(-5, 5) | st.none(),
        st.sampled_from([datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2, 3)]) | st.none(),
    ),
    min_size=1,
    max_size=80,
)


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=rows_of_few_keys, shuffle=st.randoms(use_true_random=False))
def test_the_newest_of_each_key_whatever_the_order(spark: SparkSession, rows: list, shuffle) -> None:
    once = newest(spark.createDataFrame(rows, TYPED), CONTRACT).collect()
    shuffle.shuffle(rows)
    again = newest(spark.createDataFrame(rows, TYPED), CONTRACT).collect()
    assert sorted(map(str, once)) == sorted(map(str, again))
    greatest: dict = {}
    for a, b, *_, at in rows:
        best = greatest.get((a, b))
        greatest[a, b] = at if best is None else max(best, at or best)
    found = {(row.a, row.b): row.at and row.at.astimezone(UTC) for row in once}
    assert found == greatest
    assert len(once) == len(greatest)


def wire(path: Path, rows: list[tuple]) -> str:
    types = (pa.int32(), pa.string(), pa.string(), pa.int32(), pa.string())
    columns = [pa.array(column, type_) for column, type_ in zip(zip(*rows, strict=True), types, strict=True)]
    pq.write_table(pa.table(columns, names=list(CONTRACT.column_names)), path / "raw.parquet")
    return (path / "raw.parquet").as_uri()


def test_accept_counts_both_sides(spark: SparkSession, tmp_path: Path) -> None:
    raw = spark.read.parquet(
        wire(
            tmp_path,
            [
                (1, "x", "10.10", 1, "2026-01-01 00:00:00.000000"),
                (1, "x", "20.20", 2, "2026-01-01 00:00:00.000001"),
                (2, "x", "-0.01", None, "2026-01-01 00:00:00.000000"),
                (2, "y", None, 5, None),
            ],
        )
    )
    target = tmp_path / "accepted"
    report = accept(raw, CONTRACT, run_id="run-1", snapshot_at=SNAPSHOT, target=target.as_uri())
    assert (report.raw, report.accepted, report.superseded, report.bad) == (4, 3, 1, {})
    assert report.control_totals == {
        "amount": {"raw": "30.29", "accepted": "20.19", "superseded": "10.10"},
        "n": {"raw": "8", "accepted": "7", "superseded": "1"},
    }
    # What is written, read by another engine.
    assert sorted(path.suffix for path in target.iterdir() if path.name[0] not in "._") == [".parquet"]
    written = pq.read_table(target)
    assert written.column_names == [*CONTRACT.column_names, "_snapshot", "_run"]
    assert written.schema.field("amount").type == pa.decimal128(14, 2)
    assert written.schema.field("at").type == pa.timestamp("us", "UTC")
    kept = {(row["a"], row["b"]): row for row in written.to_pylist()}
    assert kept[1, "x"]["amount"] == Decimal("20.20")
    assert kept[1, "x"]["at"] == datetime(2026, 1, 1, 0, 0, 0, 1, UTC)
    assert {(row["_snapshot"], row["_run"]) for row in kept.values()} == {(SNAPSHOT, "run-1")}


def test_accept_ranks_nothing_where_no_key_stands_twice(
    spark: SparkSession, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = [
        (1, "x", "10.10", 1, "2026-01-01 00:00:00.000000"),
        (2, "x", "-0.01", None, "2026-01-01 00:00:00.000000"),
        (2, "y", None, 5, None),
    ]
    raw = spark.read.parquet(wire(tmp_path, rows))
    found = []
    for unique in (False, True):
        target = tmp_path / f"accepted-{unique}"
        report = accept(
            raw, CONTRACT, run_id="run-1", snapshot_at=SNAPSHOT, target=target.as_uri(), unique=unique
        )
        found.append((report, sorted(map(str, pq.read_table(target).to_pylist()))))
    assert found[0] == found[1]
    capfd.readouterr()
    prepared(raw, CONTRACT, unique=True).explain()
    assert not re.search("Sort|Window|Exchange", capfd.readouterr().out)
    prepared(raw, CONTRACT, unique=False).explain()
    assert re.search("Sort|Window|Exchange", capfd.readouterr().out)


def test_accept_replaces_what_an_earlier_try_left(spark: SparkSession, tmp_path: Path) -> None:
    raw = spark.read.parquet(wire(tmp_path, [(1, "x", "1.00", 1, "2026-01-01 00:00:00")]))
    target = tmp_path / "accepted"
    for _ in range(2):
        accept(raw, CONTRACT, run_id="run-1", snapshot_at=SNAPSHOT, target=target.as_uri())
    assert pq.read_table(target).num_rows == 1


def test_accept_refuses_a_bad_value(spark: SparkSession, tmp_path: Path) -> None:
    raw = spark.read.parquet(wire(tmp_path, [(1, "x", "1.005", 1, "2026-01-01 00:00:00")]))
    with pytest.raises(BadValuesError, match="1 in amount"):
        accept(raw, CONTRACT, run_id="r", snapshot_at=SNAPSHOT, target=(tmp_path / "accepted").as_uri())
