"""Takes every value of a source through every store, and says what became of it there."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import duckdb
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
from clickhouse_connect.driver.client import Client
from psycopg import sql
from pyspark.sql import SparkSession

from spark_jobs.accepted import TableReport, accept, as_json
from spark_jobs.job_lake import JobLake
from spark_jobs.warehouse import Warehouse
from tallyhouse.contracts import Column, ColumnType, Kind, Policy, TableContract
from tallyhouse.extract.stream import SourceStream
from tallyhouse.extract.to_raw import write_batch
from tallyhouse.lake import Lake, Manifest
from tallyhouse.ledger import Line
from tallyhouse.models.definition import ModelColumn
from tallyhouse.models.drift import _create
from tallyhouse.models.postgres import ods_table
from tallyhouse.publish import staging
from tallyhouse.publish.limits import Capacity
from tallyhouse.publish.postgres import _apply_table
from tallyhouse.publish.targets.clickhouse import Target
from tallyhouse.publish.targets.clickhouse.tables import type_of
from tallyhouse.quality.check import open_batch
from tallyhouse.quality.metrics_sql import BATCH
from tests.torture.cases import POLICY, Case, Type

RUN = "torture"
STORES = ("raw", "gate", "accepted", "ods", "ods by JDBC", "ClickHouse")
EXACT, BY_POLICY, KEPT, REFUSED = "=", "policy", "kept", "refused"
Values = list[dict[str, Any]]
"""Rows by key, each with its columns' values as a store's own driver has them."""


@dataclass(frozen=True)
class Finding:
    """What became of one value: by store `=`, `policy`, `kept`, `refused`, or what it was changed to."""

    engine: str
    type: Type
    case: Case
    stores: Mapping[str, str]

    @property
    def silent(self) -> dict[str, str]:
        """The stores that changed the value and said nothing."""
        return {
            store: said
            for store, said in self.stores.items()
            if said not in (EXACT, BY_POLICY, KEPT, REFUSED)
        }


class Source:
    """One table that has a column for each type of a source, and a row for each value's number."""

    def __init__(self, engine: str, types: Sequence[Type]) -> None:
        self.engine = engine
        self.types = tuple(types)
        self.names = tuple(f"c{number:02d}" for number in range(len(types)))
        self.rows = max(len(type_.cases) for type_ in types)
        dialect = "postgres" if engine == "postgres" else "mysql"
        self.contract = TableContract(
            source="torture",
            name=f"torture_{engine}",
            columns=(
                Column("id", ColumnType.parse("int"), False),
                *(
                    Column(name, ColumnType.parse(type_.contract, dialect), True, Policy("null"))
                    for name, type_ in zip(self.names, types, strict=True)
                ),
            ),
            key=("id",),
            cursor=None,
            pii=(),
            control_totals=(),
        )

    def statements(self) -> Iterable[str]:
        """SQL that makes and fills the table."""
        table = self.contract.name
        columns = ", ".join(f"{name} {type_.ddl}" for name, type_ in zip(self.names, self.types, strict=True))
        yield f"CREATE TABLE {table} (id int PRIMARY KEY, {columns})"
        for row in range(self.rows):
            literals = [type_.cases[row].sql if row < len(type_.cases) else "NULL" for type_ in self.types]
            yield f"INSERT INTO {table} VALUES ({row}, {', '.join(literals)})"

    def cases(self) -> Iterable[tuple[str, Type, int, Case]]:
        """Every value: its column, its type, its row."""
        for name, type_ in zip(self.names, self.types, strict=True):
            for row, case in enumerate(type_.cases):
                yield name, type_, row, case


@dataclass(frozen=True)
class Stores:
    """What a source's values are taken through."""

    lake: Lake
    folder: str
    shared: Lake
    spark: SparkSession
    connect: Callable[[], psycopg.Connection[Any]]
    warehouse: Warehouse
    clickhouse: Client
    s3: Callable[[str], str]


def run(source: Source, open_stream: Callable[[TableContract], SourceStream], stores: Stores) -> Travel:
    """Takes the table through all stores.

    Args:
        source: Whose table is filled.
        open_stream: The product's extraction.
        stores: Where to.
    """
    contract = source.contract
    manifest = write_batch(
        open_stream(contract), stores.lake, contract, run_id=RUN, attempt=1, watermark=None
    )
    raw = JobLake(stores.lake, f"file://{stores.folder}").read_batch(stores.spark, manifest)
    report = accept(
        raw,
        contract,
        run_id=RUN,
        snapshot_at=manifest.snapshot_at,
        target=f"file://{stores.folder}/accepted/{contract.name}",
    )
    found: dict[str, Values] = {
        "raw": _arrow(stores.lake, [part.key for part in manifest.parts]),
        "gate": _gate(stores.lake, manifest, contract),
        "accepted": _parquet(stores.lake, f"accepted/{contract.name}"),
    }
    lines = _into_ods(stores, contract, manifest, report)
    with stores.connect() as connection:
        found["ods"] = _from_ods(connection, contract)
        refused = _refused(connection, contract)
    query = f"SELECT * FROM ods.{contract.name}"
    again = stores.warehouse.typed(stores.spark, contract, query)
    again.write.mode("overwrite").parquet(f"file://{stores.folder}/again/{contract.name}")
    found["ods by JDBC"] = _parquet(stores.lake, f"again/{contract.name}")
    found["ClickHouse"] = _clickhouse(stores, contract, refused)
    return Travel(source, found, refused, report, lines)


@dataclass(frozen=True)
class Travel:
    """What was found in each store after a source's table went through all of them."""

    source: Source
    found: Mapping[str, Values]
    refused: set[tuple[int, str]]
    report: TableReport
    lines: list[Line]

    def findings(self) -> list[Finding]:
        """What became of each value."""
        contract = self.source.contract
        findings = []
        for name, type_, row, case in self.source.cases():
            kind = contract.column(name).type.kind
            said = {}
            for store in STORES:
                value = self.found[store][row][name]
                if store == "ClickHouse" and (row, name) in self.refused:
                    said[store] = REFUSED
                elif case.expected is POLICY:
                    # Raw keeps the source's own words; all others show what the policy says.
                    right, shown = (value is not None, KEPT) if store == "raw" else (value is None, BY_POLICY)
                    said[store] = shown if right else f"{value!r}"[:60]
                else:
                    same = _same(kind, value, case.expected)
                    said[store] = EXACT if same else f"{value!r}"[:60]
            findings.append(Finding(self.source.engine, type_, case, said))
        return findings

    def counted(self) -> dict[str, int]:
        """By column: how many values the report says were replaced."""
        return {name: count["replaced_accepted"] for name, count in self.report.values.items()}

    def to_be_counted(self) -> dict[str, int]:
        """By column: how many of its values no store can hold."""
        return {
            name: sum(case.expected is POLICY for case in type_.cases)
            for name, type_ in zip(self.source.names, self.source.types, strict=True)
        }


def _same(kind: Kind, value: Any, expected: Any) -> bool:
    read: Mapping[Kind, Callable[[Any], Any]] = {
        Kind.BOOLEAN: lambda one: str(one).lower() in ("true", "1"),
        Kind.SMALLINT: int,
        Kind.INTEGER: int,
        Kind.BIGINT: int,
        Kind.DECIMAL: lambda one: Decimal(str(one)),
        Kind.DOUBLE: lambda one: _bits(float(one)),
        Kind.DATE: str,
        Kind.TIMESTAMP: _moment,
        Kind.BINARY: bytes,
    }
    plain = read.get(kind, lambda one: one)
    return value is not None and bool(plain(value) == plain(expected))


def _bits(value: float) -> bytes:
    return b"nan" if value != value else struct.pack(">d", value)  # noqa: PLR0124 - what NaN is


def _moment(value: Any) -> str:
    if isinstance(value, datetime):
        return value.replace(tzinfo=None).isoformat(" ", "microseconds")
    text, _, fraction = str(value).removesuffix("+00").partition(".")
    return f"{text}.{fraction:0<6}"


def _arrow(lake: Lake, keys: list[str]) -> Values:
    rows = [row for batch in lake.read_batches(keys) for row in batch.to_pylist()]
    return sorted(rows, key=lambda row: row["id"])


def _parquet(lake: Lake, prefix: str) -> Values:
    return _arrow(lake, [key for key in lake.keys(prefix) if key.endswith(".parquet")])


def _gate(lake: Lake, manifest: Manifest, contract: TableContract) -> Values:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        open_batch(connection, lake, manifest, contract)
        cursor = connection.execute(f"SELECT * FROM {BATCH} ORDER BY id")
        names = [column[0] for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def _into_ods(stores: Stores, contract: TableContract, manifest: Manifest, report: TableReport) -> list[Line]:
    name = f"ods_{contract.name}_0"
    with stores.connect() as connection:
        for statement in ("CREATE SCHEMA IF NOT EXISTS ods", "CREATE SCHEMA IF NOT EXISTS staging"):
            connection.execute(statement)
        for text in _create(ods_table(contract)):
            connection.execute(text.encode())
        connection.execute(
            sql.SQL("CREATE TABLE staging.{} (LIKE ods.{})").format(
                sql.Identifier(name), sql.Identifier(contract.name)
            )
        )
        schema = staging.table_schema(connection, "staging", name)
    keys = [key for key in stores.lake.keys(f"accepted/{contract.name}") if key.endswith(".parquet")]
    staging.copy_in(stores.warehouse.address, name, schema, stores.lake.read_batches(keys))
    said = {"tables": {contract.qualified_name: as_json(report)}}
    with stores.connect() as connection:
        return _apply_table(connection, stores.lake, contract, manifest, said, name)


def _from_ods(connection: psycopg.Connection[Any], contract: TableContract) -> Values:
    """What PostgreSQL itself prints; bytes as they are."""
    connection.execute("SET TimeZone = 'UTC'")
    columns = ", ".join(
        f'"{column.name}"' if column.type.kind in (Kind.BINARY, Kind.DOUBLE) else f'"{column.name}"::text'
        for column in contract.columns
    )
    rows = connection.execute(f"SELECT {columns} FROM ods.{contract.name} AS t ORDER BY t.id").fetchall()  # type: ignore[call-overload]
    return [dict(zip(contract.column_names, row, strict=True)) for row in rows]


def _refused(connection: psycopg.Connection[Any], contract: TableContract) -> set[tuple[int, str]]:
    """Row and column of the values that the product holds back because ClickHouse could not hold them."""
    found = set()
    for limit in Capacity.of(Target).limits_of(connection, "ods", contract.name):
        rows = connection.execute(
            sql.SQL("SELECT t.id FROM ods.{} AS t WHERE {}").format(
                sql.Identifier(contract.name), limit.broken()
            )
        ).fetchall()
        found |= {(int(row), limit.column) for (row,) in rows}
    return found


def _clickhouse(stores: Stores, contract: TableContract, refused: set[tuple[int, str]]) -> Values:
    """The accepted rows, as ClickHouse reads them from the lake; without what is held back."""
    (batch,) = (
        pa.Table.from_batches(list(stores.lake.read_batches(_keys(stores.lake, f"accepted/{contract.name}"))))
        .combine_chunks()
        .to_batches()
    )
    table = pa.Table.from_batches([batch])
    ids = table.column("id").to_pylist()
    for name in contract.column_names:
        if any((row, name) in refused for row in ids):
            keep = pa.array([(row, name) not in refused for row in ids])
            at = table.schema.get_field_index(name)
            kept = pa.compute.if_else(
                keep, table.column(name), pa.scalar(None, table.schema.field(name).type)
            )
            table = table.set_column(at, table.schema.field(name), kept)
    key = f"torture/{contract.name}.parquet"
    with stores.shared.create(key) as sink:
        pq.write_table(table, sink)
    columns = {
        column.name: type_of(ModelColumn(type=column.type.postgres, nullable=column.nullable))
        for column in contract.columns
    }
    spelled = ", ".join(f"`{name}` {type_}" for name, type_ in columns.items())
    names = ", ".join(f"`{name}`" for name in columns)
    stores.clickhouse.command(f"CREATE OR REPLACE TABLE {contract.name} ({spelled}) ORDER BY id")
    stores.clickhouse.command(f"INSERT INTO {contract.name} ({names}) SELECT {names} FROM {stores.s3(key)}")
    shown = ", ".join(
        f"hex(`{column.name}`)" if column.type.kind is Kind.BINARY else f"toString(`{column.name}`)"
        for column in contract.columns
    )
    rows = stores.clickhouse.query(f"SELECT {shown} FROM {contract.name} ORDER BY id").result_rows
    stores.clickhouse.command(f"DROP TABLE {contract.name} SYNC")
    binary = {column.name for column in contract.columns if column.type.kind is Kind.BINARY}
    return [
        {
            name: bytes.fromhex(value) if name in binary and value is not None else value
            for name, value in zip(contract.column_names, row, strict=True)
        }
        for row in rows
    ]


def _keys(lake: Lake, prefix: str) -> list[str]:
    return [key for key in lake.keys(prefix) if key.endswith(".parquet")]
