"""Streams a table's window out of MySQL or MariaDB in one consistent snapshot.

ConnectorX reads the rows into Arrow without Python objects in between. It runs the statements of
`pre_execution_query` on the connection that it then reads from, so one snapshot is opened, counted
and streamed. The count travels in the stream, in a row before the table's, so an empty window brings it too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain
from time import monotonic
from typing import Any

import mysql.connector
import pyarrow as pa

from tallyhouse.contracts import Kind, TableContract
from tallyhouse.errors import TallyhouseError, first_line
from tallyhouse.extract.backlog import Backlog
from tallyhouse.extract.give_way import mark
from tallyhouse.extract.memory import return_freed_memory
from tallyhouse.extract.statement import SESSION, Statement, build, pin, plain
from tallyhouse.extract.stream import SnapshotStatement, SourceQuery, SourceStream, wire_schema
from tallyhouse.servers import MySqlServer

_SAID = "_said"
BATCH_ROWS, BATCH_BYTES = 25_000, 2 << 20
"""What a batch holds at most, as far as the source can tell beforehand."""
_READ = (
    # Where each of them keeps it; a comment to the other one.
    "(SELECT SUM(variable_value) FROM /*M! information_schema */ /*!50708 performance_schema */"
    ".session_status WHERE variable_name LIKE 'Handler_read%')"
)
"""Rows that the session has read so far, in SQL."""
_LONG = 1000
"""Characters from which on a column's longest value is looked up."""


def open_stream(
    server: MySqlServer,
    contract: TableContract,
    watermark: datetime | None,
    keys: Collection[int] | None = None,
    *,
    batch_rows: int = BATCH_ROWS,
) -> SourceStream:
    """Opens a snapshot, counts the window in it and starts to stream its rows.

    Args:
        server: Where the table is.
        contract: The table.
        watermark: Rows whose cursor is at or after it are taken; None for all.
        keys: Numbers of the keys of rows that are taken as well, see `statement.build`.
        batch_rows: Rows of a batch at most; fewer where rows are long.

    Raises:
        RuntimeError: The server refused, or a value broke the driver; the message is the driver's.
    """
    return_freed_memory()
    statement = build("mysql", contract, watermark, keys)
    try:
        server = server.settled()
        batch_rows = min(batch_rows, _rows_that_fit(server, contract, statement))
    except mysql.connector.Error as error:
        raise RuntimeError(first_line(error)) from error
    query = _query(statement)
    began = monotonic()
    address = server.connectorx
    if address is None:
        schema = wire_schema(contract).append(pa.field(_SAID, pa.string()))
        batches = _read_slowly(server, _prologue(statement), query, schema, batch_rows)
    else:
        batches = _read(address, _prologue(statement), query, batch_rows)
    first = next(batches)
    said = first.column(_SAID)[0].as_py()
    if said is None:
        raise RuntimeError("the source's count did not come before its rows")
    (at, rows, digest, *totals), microseconds, read = json.loads(said)
    counted = SourceQuery("count", microseconds / 1e6, read)
    queries = [counted]

    def all_rows() -> Iterator[pa.RecordBatch]:
        for batch in chain([first.slice(1)], batches):
            yield batch.drop_columns([_SAID])
        # It has read the same rows as the count.
        queries.append(replace(counted, what="rows", seconds=monotonic() - began - counted.seconds))

    return SourceStream(
        statement=SnapshotStatement(
            snapshot_at=datetime.fromisoformat(at).replace(tzinfo=UTC),
            rows=int(rows),
            digest=digest,
            control_totals=dict(zip(contract.control_totals, totals, strict=True)),
        ),
        batches=all_rows(),
        queries=queries,
    )


def _prologue(statement: Statement) -> list[str]:
    return [
        *SESSION["mysql"],
        "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
        # First of all: whatever commits after this instant may be missing from the snapshot.
        "SET @at = CAST(UTC_TIMESTAMP(6) AS CHAR)",
        "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
        # Twice: asking for the counter counts too.
        *(f"SET @idle = {_READ}", f"SET @idle = @idle - {_READ}"),
        f"SET @read = {_READ}, @began = UTC_TIMESTAMP(6)",
        f"SELECT {mark()} JSON_ARRAY(@at, {', '.join(statement.totals)}) INTO @said "
        f"FROM {statement.table} AS w WHERE {statement.condition}",
        "SET @took = TIMESTAMPDIFF(MICROSECOND, @began, UTC_TIMESTAMP(6))",
        f"SET @read = {_READ} - @read + @idle",
        "SET @said = CONCAT('[', @said, ',', @took, ',', COALESCE(CAST(@read AS SIGNED), 'null'), ']')",
    ]


def _query(statement: Statement) -> str:
    columns, table = ", ".join(statement.columns), f"{statement.table} AS w"
    # The same expressions over a row that is none: of each column both parts have the same type.
    return (
        f"SELECT {mark()} {columns}, CAST(@said AS CHAR) AS {_SAID} "
        f"FROM (SELECT 1 AS one) AS h LEFT JOIN {table} ON FALSE "
        f"UNION ALL SELECT {columns}, NULL FROM {table} WHERE {statement.condition}"
    )


def _read(address: str, prologue: list[str], query: str, batch_rows: int) -> Iterator[pa.RecordBatch]:
    import connectorx  # noqa: PLC0415 - its threads must start after the task's process was forked

    try:
        reader: Any = connectorx.read_sql(
            address, query, return_type="arrow_stream", batch_size=batch_rows, pre_execution_query=prologue
        )
        yield from Backlog(reader)
    except (KeyboardInterrupt, SystemExit, GeneratorExit, TallyhouseError):
        raise
    except BaseException as error:
        # A Rust panic reaches Python as a BaseException; nobody should have to read one.
        raise RuntimeError(first_line(error).replace(address, "the source")) from error


def _read_slowly(
    server: MySqlServer, prologue: list[str], query: str, schema: pa.Schema, batch_rows: int
) -> Iterator[pa.RecordBatch]:
    """The same rows by MySQL's own driver: slower, but it knows every option of a connection."""
    try:
        # Raw: each value as the server spells it, with nothing of the driver's own types in between.
        with closing(server.connect(raw=True)) as connection, closing(connection.cursor(raw=True)) as cursor:
            for statement in prologue:
                cursor.execute(statement)
            cursor.execute(query)
            parse = [_PARSE[field.type] for field in schema]
            while rows := cursor.fetchmany(batch_rows):
                columns = zip(*rows, strict=True)
                yield pa.RecordBatch.from_arrays(
                    [
                        pa.array([None if one is None else read(one) for one in column], field.type)
                        for field, read, column in zip(schema, parse, columns, strict=True)
                    ],
                    schema=schema,
                )
    except mysql.connector.Error as error:
        raise RuntimeError(first_line(error)) from error


_PARSE: dict[pa.DataType, Callable[[bytes], Any]] = {
    **dict.fromkeys((pa.int8(), pa.int16(), pa.int32(), pa.int64()), int),
    pa.float64(): float,
    pa.string(): lambda value: bytes(value).decode(),
    pa.binary(): bytes,
}


def _rows_that_fit(server: MySqlServer, contract: TableContract, statement: Statement) -> int:
    """Rows of a batch, were all as long as the longest; the driver counts rows, not bytes."""
    long = [
        plain("mysql", contract, column.name)
        for column in contract.source_columns
        if (column.type.kind.is_text or column.type.kind is Kind.BINARY)
        and (column.type.length is None or column.type.length > _LONG)
    ]
    if not long:
        return BATCH_ROWS
    with closing(server.connect()) as connection, closing(connection.cursor()) as cursor:
        pin(cursor, "mysql")
        lengths = " + ".join(f"COALESCE(MAX(LENGTH({name})), 0)" for name in long)
        cursor.execute(f"SELECT {lengths} FROM {statement.table} AS w WHERE {statement.condition}")
        ((longest,),) = cursor.fetchall()
    return max(1, BATCH_BYTES // (int(longest or 0) + 1))
