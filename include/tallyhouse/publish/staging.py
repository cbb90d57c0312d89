"""Loads Parquet of the lake into PostgreSQL by binary COPY, into tables made beforehand."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import psycopg
import pyarrow as pa
from psycopg import sql

from tallyhouse.contracts.types import SPARK_DIGITS
from tallyhouse.runs import STAGING_SUFFIX

READ_ROWS = 20_000
_ALL = sql.SQL("true")
_TYPES = {
    "smallint": pa.int16(),
    "integer": pa.int32(),
    "bigint": pa.int64(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "double precision": pa.float64(),
    "timestamp with time zone": pa.timestamp("us", tz="UTC"),
    "text": pa.string(),
    "bytea": pa.binary(),
}
_NUMERIC = re.compile(r"numeric\((\d+),(\d+)\)")


def table_schema(connection: psycopg.Connection[Any], schema: str, table: str) -> pa.Schema:
    """The Arrow schema whose binary form PostgreSQL takes for a table's columns.

    Raises:
        ValueError: There is no such table, or it has a column of a type that is not supported.
    """
    rows = connection.execute(
        "SELECT a.attname, format_type(a.atttypid, a.atttypmod) FROM pg_attribute AS a "
        "JOIN pg_class AS c ON c.oid = a.attrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace "
        "WHERE n.nspname = %s AND c.relname = %s AND a.attnum > 0 AND NOT a.attisdropped "
        "AND a.attgenerated = '' ORDER BY a.attnum",
        (schema, table),
    ).fetchall()
    if not rows:
        raise ValueError(f"there is no table {schema}.{table}; run `python -m tallyhouse.migrate`")
    return pa.schema(
        [pa.field(name, _arrow_type(f"{schema}.{table}.{name}", spelled)) for name, spelled in rows]
    )


def _arrow_type(where: str, spelled: str) -> pa.DataType:
    if match := _NUMERIC.fullmatch(spelled):
        precision, scale = int(match[1]), int(match[2])
        # Wide ones come as text and are typed here, exactly or not at all.
        return (pa.decimal128 if precision <= SPARK_DIGITS else pa.decimal256)(precision, scale)
    if spelled.startswith(("character", "char", "varchar")):
        return pa.string()
    if spelled not in _TYPES:
        raise ValueError(
            f"{where}: type {spelled} cannot be loaded; use one of {', '.join(_TYPES)}, numeric(p,s)"
        )
    return _TYPES[spelled]


def read_rows(
    connection: psycopg.Connection[Any],
    schema: str,
    table: str,
    columns: pa.Schema,
    where: sql.Composable = _ALL,
) -> Iterator[pa.RecordBatch]:
    """Rows of a table, in bounded batches; to be read within one transaction.

    Args:
        connection: To the warehouse, in a transaction.
        schema: Such as `dwh`.
        table: Its name.
        columns: Which, and as what; see `table_schema`.
        where: Which rows; the table is `t`.
    """
    # CHAR(n) comes padded; as text it does not.
    names = sql.SQL(", ").join(
        sql.SQL("t.{}::text" if pa.types.is_string(field.type) else "t.{}").format(sql.Identifier(field.name))
        for field in columns
    )
    with connection.cursor(name=f"read_{table}") as cursor:
        cursor.execute(
            sql.SQL("SELECT {} FROM {} AS t WHERE {}").format(names, sql.Identifier(schema, table), where)
        )
        while rows := cursor.fetchmany(READ_ROWS):
            values = zip(*rows, strict=True)
            arrays = [pa.array(value, field.type) for value, field in zip(values, columns, strict=True)]
            yield pa.RecordBatch.from_arrays(arrays, schema=columns)


def create(connection: psycopg.Connection[Any], name: str, like_schema: str, like_table: str) -> None:
    """Makes an empty staging table with another one's columns.

    What killed publishes of the same table left behind goes: only the newest run may publish.
    """
    _sweep(connection, f"{like_schema}_{like_table}")
    connection.execute(
        sql.SQL("CREATE UNLOGGED TABLE staging.{} (LIKE {}.{} INCLUDING DEFAULTS)").format(
            sql.Identifier(name), sql.Identifier(like_schema), sql.Identifier(like_table)
        )
    )


def create_digests(connection: psycopg.Connection[Any], name: str, table: str) -> None:
    """Makes an empty staging table for the digests of a source table's rows, as `create` does."""
    _sweep(connection, f"digest_{table}")
    connection.execute(
        sql.SQL("CREATE UNLOGGED TABLE staging.{} (k bigint NOT NULL, d bigint NOT NULL)").format(
            sql.Identifier(name)
        )
    )


def _sweep(connection: psycopg.Connection[Any], prefix: str) -> None:
    left = connection.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'staging'::regnamespace AND relkind = 'r' "
        "AND relname ~ %s",
        (f"\\A{prefix}_{STAGING_SUFFIX}\\Z",),
    ).fetchall()
    drop(connection, (row[0] for row in left))


def copy_in(
    address: str, name: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch], *, into: str = "staging"
) -> None:
    """Streams batches into a staging table; columns are found by name.

    Args:
        address: A libpq URI.
        name: The staging table.
        schema: What its columns take, from `table_schema`; columns that the batches lack are left to
            their defaults.
        batches: The rows.
        into: The table's schema, where it is no staging table.
    """
    from adbc_driver_postgresql import dbapi  # noqa: PLC0415 - loads a library that only this path needs

    stream = iter(batches)
    first = next(stream, None)
    if first is None:
        return
    fields = pa.schema([field for field in schema if field.name in first.schema.names])

    def cast() -> Iterator[pa.RecordBatch]:
        yield first.select(fields.names).cast(fields)
        for batch in stream:
            yield batch.select(fields.names).cast(fields)

    with dbapi.connect(address) as connection, connection.cursor() as cursor:
        cursor.adbc_ingest(
            name, pa.RecordBatchReader.from_batches(fields, cast()), mode="append", db_schema_name=into
        )
        connection.commit()


def drop(connection: psycopg.Connection[Any], names: Iterable[str]) -> None:
    """Removes staging tables."""
    for name in names:
        connection.execute(sql.SQL("DROP TABLE IF EXISTS staging.{}").format(sql.Identifier(name)))
