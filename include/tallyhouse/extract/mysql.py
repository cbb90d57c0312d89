"""Streams a table's window out of MySQL or MariaDB in one consistent snapshot.

ConnectorX reads the rows into Arrow without Python objects in between. It runs the statements of
`pre_execution_query` on the connection that it then reads from, so one snapshot is opened, counted
and streamed. The count travels in the stream, beside the rows: a constant row is left-joined with the
rows, so that an empty window still brings its count.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import chain
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc

from tallyhouse.contracts import TableContract
from tallyhouse.errors import first_line
from tallyhouse.extract.statement import SESSION, Statement, build
from tallyhouse.extract.stream import SnapshotStatement, SourceStream

_SAID = "_said"
_PRESENT = "_present"


def dsn(*, host: str, port: int, user: str, password: str, database: str) -> str:
    """A ConnectorX address; user and password may hold any character."""
    return f"mysql://{quote(user, safe='')}:{quote(password, safe='')}@{host}:{port}/{database}"


def open_stream(
    address: str, contract: TableContract, watermark: datetime | None, *, batch_rows: int = 50_000
) -> SourceStream:
    """Opens a snapshot, counts the window in it and starts to stream its rows.

    Args:
        address: From `dsn`.
        contract: The table.
        watermark: Rows whose cursor is at or after it are taken; None for all.
        batch_rows: Rows of a batch.

    Raises:
        RuntimeError: The server refused, or a value broke the driver; the message is the driver's.
    """
    statement = build("mysql", contract, watermark)
    batches = _read(address, _prologue(statement), _query(statement, contract), batch_rows)
    first = next(batches)
    at, rows, digest, *totals = json.loads(first.column(_SAID)[0].as_py())
    return SourceStream(
        statement=SnapshotStatement(
            snapshot_at=datetime.fromisoformat(at).replace(tzinfo=UTC),
            rows=int(rows),
            digest=digest,
            control_totals=dict(zip(contract.control_totals, totals, strict=True)),
        ),
        batches=(_rows_only(batch) for batch in chain([first], batches)),
    )


def _prologue(statement: Statement) -> list[str]:
    return [
        *SESSION["mysql"],
        "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
        # First of all: whatever commits after this instant may be missing from the snapshot.
        "SET @at = CAST(UTC_TIMESTAMP(6) AS CHAR)",
        "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
        f"SELECT JSON_ARRAY(@at, {', '.join(statement.totals)}) INTO @said FROM {statement.table} AS w "
        f"WHERE {statement.condition}",
    ]


def _query(statement: Statement, contract: TableContract) -> str:
    # The key's first column is never NULL in a row, so it tells a row from the empty window.
    columns = ", ".join(
        (
            *statement.columns,
            f"w.`{contract.key[0]}` IS NOT NULL AS {_PRESENT}",
            f"CAST(@said AS CHAR) AS {_SAID}",
        )
    )
    rows = f"(SELECT 1 AS one) AS h LEFT JOIN {statement.table} AS w ON {statement.condition}"
    return f"SELECT {columns} FROM {rows}"


def _read(address: str, prologue: list[str], query: str, batch_rows: int) -> Iterator[pa.RecordBatch]:
    import connectorx  # noqa: PLC0415 - its threads must start after the task's process was forked

    try:
        reader: Any = connectorx.read_sql(
            address, query, return_type="arrow_stream", batch_size=batch_rows, pre_execution_query=prologue
        )
        yield from reader
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        # A Rust panic reaches Python as a BaseException; nobody should have to read one.
        raise RuntimeError(first_line(error).replace(address, "the source")) from error


def _rows_only(batch: pa.RecordBatch) -> pa.RecordBatch:
    rows = batch.filter(pc.equal(batch.column(_PRESENT), 1))
    return rows.drop_columns([_PRESENT, _SAID])
