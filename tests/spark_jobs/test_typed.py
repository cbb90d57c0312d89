"""What the wire's text becomes, and what is refused."""

from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import duckdb
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from spark_jobs.typed import BAD, BadValuesError, refuse_bad_values, replaced, typed
from tallyhouse.contracts import Column, ColumnType, Policy, TableContract
from tallyhouse.errors import TallyhouseError
from tallyhouse.quality.typed_sql import typed_select

# Type, wire type, what the wire carries, what it becomes; REFUSED where the type cannot hold it.
REFUSED = object()
VALUES: list[tuple[str, str, Any, Any]] = [
    ("boolean", "tinyint", 1, True),
    ("boolean", "tinyint", 0, False),
    ("boolean", "tinyint", 2, REFUSED),
    ("smallint", "smallint", -32768, -32768),
    ("smallint", "bigint", 32768, REFUSED),
    ("int", "int", 7, 7),
    ("bigint", "string", "9223372036854775807", 9223372036854775807),
    ("bigint", "string", "9223372036854775808", REFUSED),
    ("double", "double", 0.1, 0.1),
    ("decimal(12,2)", "string", "-1234567890.12", Decimal("-1234567890.12")),
    ("decimal(12,2)", "string", "5", Decimal("5.00")),
    ("decimal(12,2)", "string", "5.10000", Decimal("5.10")),
    ("decimal(12,2)", "string", "5.005", REFUSED),  # a cast would round it
    ("decimal(12,2)", "string", "12345678901.00", REFUSED),
    ("decimal(12,2)", "string", "1e3", REFUSED),
    ("decimal(12,2)", "string", "", REFUSED),
    ("decimal(50,10)", "string", "1" * 40 + ".0000000001", "1" * 40 + ".0000000001"),  # longer than Spark's
    ("decimal(50,10)", "string", "1" * 41, REFUSED),
    ("decimal(50,10)", "string", "NaN", REFUSED),
    ("date", "string", "2024-02-29", date(2024, 2, 29)),
    ("date", "string", "2023-02-29", REFUSED),
    ("date", "string", "0000-00-00", REFUSED),
    ("date", "string", "2026-00-15", REFUSED),
    ("date", "string", "2026", REFUSED),  # a cast would take it for January
    ("datetime(6)", "string", "2026-03-29 02:30:00.000001", datetime(2026, 3, 29, 2, 30, 0, 1, UTC)),
    ("datetime(6)", "string", "2026-03-29 02:30:00", datetime(2026, 3, 29, 2, 30, tzinfo=UTC)),
    ("datetime(6)", "string", "0000-00-00 00:00:00.000000", REFUSED),
    ("datetime(6)", "string", "2026-01-01 24:00:00", REFUSED),
    ("datetime(6)", "string", "2026-01-01 00:00:00.1234567", REFUSED),
    ("datetime(6)", "string", "2026-01-01T00:00:00+02:00", REFUSED),
    ("char(2)", "string", "UA", "UA"),
    ("char(2)", "string", "UAH", REFUSED),
    ("varchar(2)", "string", "🥞🥞", "🥞🥞"),
    ("text", "string", "", ""),
    ("text", "string", "a\0b", REFUSED),
    ("json", "string", '{"a": 1}', '{"a": 1}'),
]


def contract(type_: str, pii: tuple[str, ...] = ()) -> TableContract:
    return TableContract(
        source="s",
        name="t",
        columns=(
            Column("id", ColumnType.parse("int"), False),
            Column("v", ColumnType.parse(type_ if type_ != "datetime(6)" else "datetime"), True),
        ),
        key=("id",),
        cursor=None,
        pii=pii,
        control_totals=(),
    )


def test_values(spark: SparkSession) -> None:
    rows = []
    for type_, wire, value, _ in VALUES:
        raw = spark.range(1).select(F.col("id").cast("int"), F.lit(value).cast(wire).alias("v"))
        rows.append(typed(raw, contract(type_)).select(F.col("v").cast("string"), BAD))
    got = rows[0]
    for one in rows[1:]:
        got = got.unionAll(one)
    for (type_, _, value, expected), row in zip(VALUES, got.collect(), strict=True):
        assert row[BAD] is (expected is REFUSED), (type_, value)
        if expected is not REFUSED:
            assert row["v"] == as_text(expected), (type_, value)


def as_text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S.%f}".rstrip("0").rstrip(".")
    return str(value)


def test_a_policy_puts_something_in_the_place_of_a_bad_value(spark: SparkSession) -> None:
    raw = spark.sql("SELECT * FROM VALUES (1, '0000-00-00'), (2, '2026-01-01'), (3, NULL) AS t(id, v)")
    for policy, expected in (("null", None), ({"sentinel": "1900-01-01"}, date(1900, 1, 1))):
        table = contract("date")
        column = replace(table.column("v"), on_bad_value=Policy.parse(policy))
        table = replace(table, columns=(table.columns[0], column))
        found = typed(raw, table).orderBy("id").collect()
        assert [row["v"] for row in found] == [expected, date(2026, 1, 1), None]
        assert [row[BAD] for row in found] == [False, False, False]
        assert [row[replaced("v")] for row in found] == [True, False, False]
        wire = {"id": "int32", "v": "string"}
        with duckdb.connect() as database:
            database.execute(
                "CREATE TABLE raw AS SELECT * FROM (VALUES (1, '0000-00-00'), (2, '2026-01-01'))"
            )
            database.execute("ALTER TABLE raw RENAME col0 TO id")
            database.execute("ALTER TABLE raw RENAME col1 TO v")
            seen = database.execute(typed_select(table, wire, "raw ORDER BY id")).fetchall()
        assert seen == [(1, expected), (2, date(2026, 1, 1))]


def test_null_is_never_bad(spark: SparkSession) -> None:
    for type_ in ("boolean", "decimal(12,2)", "date", "datetime(6)", "text", "char(2)"):
        raw = spark.sql("SELECT 1 AS id, CAST(NULL AS STRING) AS v")
        row = typed(raw, contract(type_)).first()
        assert row is not None
        assert (row["v"], row[BAD]) == (None, False)


def test_the_error_names_table_column_count_sample_and_remedy(spark: SparkSession) -> None:
    raw = spark.sql(
        "SELECT * FROM VALUES (2, '0000-00-00'), (1, '0000-00-00'), (3, '2026-01-01') AS t(id, v)"
    )
    with pytest.raises(BadValuesError) as raised:
        refuse_bad_values(raw, contract("date"), "run-1")
    assert raised.value.counts == {"v": 2}
    message = str(raised.value)
    assert "s.t in run run-1" in message
    assert "2 in v (such as '0000-00-00' of key 1)" in message
    assert "Fix them in the source" in message
    assert raised.value.failure("transform")["sample"] == ["v: '0000-00-00' of key 1"]
    assert "\n" not in message


def test_the_error_does_not_show_personal_data(spark: SparkSession) -> None:
    raw = spark.sql("SELECT 1 AS id, 'secret-date' AS v")
    with pytest.raises(BadValuesError, match="such as personal data of key 1"):
        refuse_bad_values(raw, contract("date", pii=("v",)), "run-1")


def test_a_missing_column_is_named(spark: SparkSession) -> None:
    with pytest.raises(TallyhouseError, match=r"s\.t.*no column v"):
        typed(spark.sql("SELECT 1 AS id"), contract("date"))
