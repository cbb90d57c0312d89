"""DuckDB and Spark judge alike: the same typed values, counts, samples and verdicts on the same raw."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from spark_jobs.check import check as check_on_spark
from spark_jobs.job_lake import JobLake
from spark_jobs.typed import BAD, typed
from tallyhouse.contracts import Column, ColumnType, TableContract
from tallyhouse.errors import TallyhouseError
from tallyhouse.lake import Lake, Manifest, Part, batch_prefix
from tallyhouse.quality.check import check as check_in_duckdb
from tallyhouse.quality.check import open_batch
from tallyhouse.quality.gate_duckdb import DuckBatch, DuckDbGate
from tallyhouse.quality.gate_spark import SparkGate
from tests.spark_jobs.raw_batches import SNAPSHOT, techmarket, write_pipeline
from tests.spark_jobs.test_typed import VALUES
from tests.spark_jobs.test_typed import contract as contract_of_one

WIRE = {"smallint": pa.int16(), "tinyint": pa.int8(), "int": pa.int32(), "bigint": pa.int64()}
WIRE |= {"double": pa.float64(), "string": pa.string()}

# Every kind of column, with values that pass, that break a rule, that are NULL and that no type can hold.
COLUMNS: dict[str, tuple[str, str, list[Any]]] = {
    "id": ("int", "int", [1, 2, 3, 4, 5, 6, 7, 8, 8]),
    "code": ("varchar(12)", "string", ["AB", "🥞🥞", "cd", None, "", "ß", "AB\n", "e\u0301", " AB"]),
    "same": ("varchar(8)", "string", ["x", "x", "y", None, None, "z", "Z", "ß", "ss"]),
    "flag": ("boolean", "tinyint", [0, 1, 2, None, 1, 1, 0, 0, 1]),
    "small": ("smallint", "smallint", [-32768, 32767, 0, None, 5, 6, 7, 8, 9]),
    "large": (
        "bigint",
        "bigint",
        [2**63 - 1, -(2**63), 0, None, 2**53, 2**53 + 1, 1, 2, 3],
    ),
    "ratio": ("double", "double", [0.1, -0.0, 1e308, None, 2.5, float("inf"), 1.0, 2.0, 3.0]),
    "price": (
        "decimal(12,2)",
        "string",
        ["9.99", "10.00", "10.01", None, "-0.01", "1.005", "1e3", "9999999999.99", "12345678901.00"],
    ),
    "huge": (
        "decimal(38,10)",
        "string",
        [
            *("9999999999999999999999999999.9999999999", "-9999999999999999999999999999.0000000001"),
            *("0.0000000001", None, "100.0000000001", "100", "99.9999999999", "5.", "0"),
        ],
    ),
    "day": (
        "date",
        "string",
        [
            *("2024-02-29", "2023-02-29", "0000-00-00", None, "2299-12-31", "1899-12-31", "9999-12-31"),
            *("2026", "2026-01-01\n"),
        ],
    ),
    "began": (
        "datetime",
        "string",
        [
            *("2026-03-29 02:30:00.000001", "2026-01-01 24:00:00", "0000-00-00 00:00:00", None),
            *("1899-12-31 23:59:59.999999", "2299-12-31 00:00:00", "2026-01-01 00:00:00.1234567"),
            *("2026-01-02 00:00:00", "2026-01-01T00:00:00"),
        ],
    ),
    "ended": (
        "datetime",
        "string",
        [
            *("2026-03-29 02:30:00.000000", "2026-01-01 00:00:00", None, None, "2026-01-01 00:00:00"),
            *("2299-12-31 00:00:00", "2026-01-01 00:00:00", "2026-01-01 23:59:59.9", "2026-01-01 00:00:00"),
        ],
    ),
}
ROWS = len(COLUMNS["id"][2])


def rule(type_: str, **kwargs: Any) -> dict[str, Any]:
    return {"type": type_, "kwargs": kwargs, "severity": "critical"}


VALUES_OF = "expect_column_values_to_"
PAIR = "expect_column_pair_values_a_to_be_greater_than_b"
RULES = [
    rule("expect_table_columns_to_match_ordered_list", column_list=list(COLUMNS)),
    rule("expect_table_columns_to_match_ordered_list", column_list=["id", "code"]),
    rule("expect_table_row_count_to_be_between", min_value=1, max_value=5),
    rule("expect_table_column_count_to_equal", value=len(COLUMNS)),
    rule("expect_table_columns_to_match_set", column_set=["id", "code"]),
    rule("expect_column_to_exist", column="nowhere"),
    *(rule(f"{VALUES_OF}not_be_null", column=name) for name in COLUMNS),
    rule(f"{VALUES_OF}be_null", column="same"),
    rule(f"{VALUES_OF}be_unique", column="id"),
    rule(f"{VALUES_OF}be_unique", column="same"),
    rule("expect_compound_columns_to_be_unique", column_list=["same", "flag"]),
    rule("expect_compound_columns_to_be_unique", column_list=["id", "began"]),
    rule(
        "expect_compound_columns_to_be_unique",
        column_list=["same", "flag"],
        ignore_row_if="any_value_is_missing",
    ),
    rule(f"{VALUES_OF}match_regex", column="code", regex=r"\A[A-Z]{2}\z"),
    rule(f"{VALUES_OF}match_regex", column="code", regex=r"\A\S*\z"),
    rule(f"{VALUES_OF}match_regex", column="code", regex=r"B"),
    rule(f"{VALUES_OF}match_regex", column="code", regex=r"\A..\z"),
    rule(f"{VALUES_OF}not_match_regex", column="code", regex=r"^[a-z]"),
    rule("expect_column_value_lengths_to_be_between", column="code", min_value=1, max_value=2),
    rule("expect_column_value_lengths_to_equal", column="code", value=2),
    rule(f"{VALUES_OF}be_in_set", column="same", value_set=["x", "ß"]),
    rule(f"{VALUES_OF}not_be_in_set", column="same", value_set=["x", "Z"]),
    rule(f"{VALUES_OF}be_in_set", column="small", value_set=[0, 5, 32767]),
    rule(f"{VALUES_OF}be_between", column="small", min_value=0),
    rule(f"{VALUES_OF}be_between", column="large", min_value=0, max_value=2**53),
    rule(f"{VALUES_OF}be_between", column="ratio", min_value=0.1, max_value=1e300, strict_min=True),
    rule(f"{VALUES_OF}be_between", column="price", min_value=0, max_value=10, strict_max=True),
    rule(f"{VALUES_OF}be_between", column="price", min_value=0, max_value=10, mostly=0.5),
    rule(f"{VALUES_OF}be_between", column="huge", min_value=0, max_value=100),
    rule(f"{VALUES_OF}be_between", column="day", min_value="1900-01-01", max_value="2299-12-31"),
    rule(
        f"{VALUES_OF}be_between",
        column="began",
        min_value="1900-01-01 00:00:00",
        max_value="2299-12-31 00:00:00",
        strict_max=True,
    ),
    rule(PAIR, column_A="ended", column_B="began", or_equal=True, ignore_row_if="either_value_is_missing"),
    rule(PAIR, column_A="ended", column_B="began", ignore_row_if="both_values_are_missing"),
    rule(PAIR, column_A="ended", column_B="began", or_equal=True, ignore_row_if="neither"),
    rule("expect_column_pair_values_to_be_equal", column_A="ended", column_B="began"),
    rule("expect_column_stdev_to_be_between", column="id", max_value=0.1),
    rule("expect_column_min_to_be_between", column="small", min_value=0),
    rule("expect_column_max_to_be_between", column="began", max_value="2000-01-01 00:00:00"),
    rule("expect_column_mean_to_be_between", column="id", min_value=10**6),
    rule("expect_column_sum_to_be_between", column="id", max_value=1),
    rule("expect_column_unique_value_count_to_be_between", column="same", max_value=1),
    rule(
        "unexpected_rows_expectation",
        description="price is small",
        unexpected_rows_query="SELECT id, price FROM {batch} WHERE price * id > 10.5 OR huge - 1 > 0",
    ),
    rule(
        "unexpected_rows_expectation",
        description="one holder",
        unexpected_rows_query="SELECT same FROM {batch} GROUP BY same HAVING COUNT(DISTINCT id) > 1",
    ),
]
CONTRACT = TableContract(
    source="s",
    name="t",
    columns=tuple(Column(name, ColumnType.parse(type_), True) for name, (type_, _, _) in COLUMNS.items()),
    key=("id",),
    cursor=None,
    pii=(),
    control_totals=(),
)


def write_raw(lake: Lake, contract: TableContract, columns: dict[str, tuple[str, list[Any]]]) -> Manifest:
    """Writes raw Parquet in two parts, by wire type and values."""
    table = pa.table({name: pa.array(values, WIRE[wire]) for name, (wire, values) in columns.items()})
    prefix = batch_prefix(contract.source, contract.name, "r", 1)
    parts = []
    for number, part in enumerate((table.slice(0, 4), table.slice(4))):
        key = f"{prefix}/part-{number:05d}.parquet"
        with lake.create(key) as sink:
            pq.write_table(part, sink, compression="zstd")
        parts.append(Part(key, part.num_rows, sink.size, sink.sha256))
    return Manifest(
        run_id="r",
        source=contract.source,
        table=contract.name,
        attempt=1,
        contract_version=contract.version,
        columns=tuple({"name": field.name, "type": str(field.type)} for field in table.schema),
        snapshot_at=SNAPSHOT,
        watermark_from=None,
        watermark_to=None,
        source_rows=table.num_rows,
        rows=table.num_rows,
        digest=None,
        control_totals={},
        parts=tuple(parts),
    )


@pytest.fixture
def job_lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JobLake:
    monkeypatch.setenv("LAKE_BASE", tmp_path.as_uri())
    return JobLake.from_environment()


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        yield connection


def comparable(one: dict[str, Any]) -> Any:
    """A result without what may differ: which rows are shown, and in which order, beyond the limit."""
    result = dict(one["result"])
    shown = result.pop("partial_unexpected_list", [])
    result.pop("partial_unexpected_counts", None)
    return (
        one["expectation_config"]["type"],
        {name: value for name, value in one["expectation_config"]["kwargs"].items() if name != "batch_id"},
        one["success"],
        {name: round(value, 9) if isinstance(value, float) else value for name, value in result.items()},
        Counter(map(str, shown)),
    )


def test_rules_of_every_kind(
    job_lake: JobLake,
    connection: duckdb.DuckDBPyConnection,
    spark: SparkSession,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    suite = {"name": CONTRACT.qualified_name, "expectations": RULES, "meta": {}}
    monkeypatch.setattr("tallyhouse.quality.gate.read_suite", lambda _: suite)
    raw = {name: (wire, values) for name, (_, wire, values) in COLUMNS.items()}
    manifest = write_raw(job_lake.lake, CONTRACT, raw)

    frame = typed(job_lake.read_batch(spark, manifest), CONTRACT).drop(BAD)
    on_spark = SparkGate("r").check(frame, CONTRACT, manifest.rows)
    open_batch(connection, job_lake.lake, manifest, CONTRACT)
    gate = DuckDbGate("r")
    in_duckdb = gate.check(DuckBatch(connection, manifest.rows), CONTRACT, manifest.rows)

    assert on_spark.details is not None
    assert in_duckdb.details is not None
    ours, theirs = in_duckdb.details["results"], on_spark.details["results"]
    assert len(ours) == len(theirs) == len(RULES)
    for mine, other in zip(ours, theirs, strict=True):
        assert comparable(mine) == comparable(other)
    broken = sum(not one["success"] for one in ours)
    assert broken > 30, "the rows above are there to break the rules"
    same = ("suite_name", "statistics", "success")
    assert {name: in_duckdb.details[name] for name in same} == {name: on_spark.details[name] for name in same}

    # What people and the message get of it.
    def told(failures: Any) -> list[Any]:
        return [(one.expectation, one.column, one.unexpected, one.sample is None) for one in failures]

    assert told(in_duckdb.failed) == told(on_spark.failed)
    assert gate.unique_keys == set(), "8 stands twice in id"


def test_typed_values(job_lake: JobLake, spark: SparkSession) -> None:
    for number, (type_, wire, value, _) in enumerate(VALUES):
        contract = contract_of_one(type_)
        raw = {"id": ("int", [1, 2]), "v": (wire, [value, None])}
        manifest = write_raw(Lake.local(f"{job_lake.lake.root}/{number}"), contract, raw)
        theirs = typed(
            spark.range(1).select(F.col("id").cast("int"), F.lit(value).cast(wire).alias("v")), contract
        ).first()
        with duckdb.connect() as connection:
            open_batch(connection, Lake.local(f"{job_lake.lake.root}/{number}"), manifest, contract)
            ours = connection.execute("SELECT v FROM batch WHERE id = 1").fetchone()
        assert theirs is not None
        assert ours is not None
        mine, other = ours[0], theirs["v"]
        assert str(mine) == str(other), (type_, wire, value)


def test_every_suite_says_the_same_of_a_bad_run(
    job_lake: JobLake, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = "techmarket-20260102T020000-0002"
    rows = techmarket(30)
    rows["refunds"] = []
    rows["orders"][0]["status"] = "lost"
    rows["orders"][1]["order_number"] = rows["orders"][2]["order_number"]
    rows["order_items"][0]["line_total"] += 1
    rows["customers"][0]["email"] = "nobody's address"
    rows["products"][0]["name"] = None
    rows["payments"][0]["settled_at"] = rows["payments"][0]["attempted_at"].replace(year=2000)
    rows["roles"].append(dict(rows["roles"][0]))
    write_pipeline(job_lake.lake, "techmarket", run_id, rows)
    found: list[tuple[str, dict[str, Any], list[str]]] = []
    known: set[str] = set()
    for check in (
        lambda: check_in_duckdb(job_lake.lake, "techmarket", run_id),
        lambda: check_on_spark("techmarket", run_id),
    ):
        with pytest.raises(TallyhouseError) as raised:
            check()
        report = job_lake.lake.read_json(f"report/techmarket/run={run_id}/quality.json")
        pages = {key for key in job_lake.lake.keys("data-docs") if "/validations/" in key} - known
        known |= pages
        # A page's path ends with the time and the batch.
        found.append((str(raised.value), report["suites"], sorted(key.split("/")[4:6] for key in pages)))
    assert found[0] == found[1]
