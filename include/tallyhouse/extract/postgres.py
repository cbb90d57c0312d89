"""Streams a table's window out of PostgreSQL in one consistent snapshot, by ADBC."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from time import monotonic
from typing import Any

import pyarrow as pa
from adbc_driver_manager import Error

from tallyhouse.contracts import Kind, TableContract
from tallyhouse.errors import first_line
from tallyhouse.extract.give_way import mark
from tallyhouse.extract.memory import return_freed_memory
from tallyhouse.extract.statement import build, is_ordinary, pin, plain, quoted
from tallyhouse.extract.stream import SnapshotStatement, SourceQuery, SourceStream

__all__ = ["Error", "open_stream"]

BATCH_BYTES = 4 << 20
"""What a batch holds, about; the driver's own size is four times that."""


def open_stream(
    address: str, contract: TableContract, watermark: datetime | None, keys: Collection[int] | None = None
) -> SourceStream:
    """Opens a snapshot, counts the window in it and starts to stream its rows.

    Args:
        address: A libpq URI.
        contract: The table.
        watermark: Rows whose cursor is at or after it are taken; None for all.
        keys: Numbers of the keys of rows that are taken as well, see `statement.build`.

    Raises:
        Error: The server refused.
    """
    from adbc_driver_postgresql import dbapi  # noqa: PLC0415 - loads a library that only this path needs

    return_freed_memory()
    statement = build("postgres", contract, watermark, keys)
    with ExitStack() as held:
        connection = held.enter_context(dbapi.connect(address))
        cursor = held.enter_context(connection.cursor())
        pin(cursor, "postgres")
        # In a transaction of its own, before the snapshot: whatever commits after this instant may be
        # missing from the snapshot.
        cursor.execute("SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')")
        (at,) = cursor.fetchone()
        connection.commit()
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        rows_of = f"FROM {statement.table} AS w WHERE {statement.condition}"
        times = [column.name for column in contract.source_columns if column.type.kind is Kind.TIMESTAMP]
        ordinary = [f"bool_and({is_ordinary(plain('postgres', contract, name))})" for name in times]
        count = f"SELECT {mark()} {', '.join((*statement.totals, *ordinary))} {rows_of}"
        queries: list[SourceQuery] = []
        with _asked("count", connection, count, statement.table, queries):
            cursor.execute(count)
            rows, digest, *found = cursor.fetchone()
        sums, are_ordinary = found[: len(contract.control_totals)], found[len(contract.control_totals) :]
        # Times that are all ordinary cross as what they are, and Arrow makes their text: the server needs a
        # microsecond for each.
        native = {name for name, ordinary in zip(times, are_ordinary, strict=True) if ordinary}
        columns = [
            f"CAST({plain('postgres', contract, column.name)} AS timestamp) "
            f"AS {quoted('postgres', column.name)}"
            if column.name in native
            else carried_as
            for column, carried_as in zip(contract.columns, statement.columns, strict=True)
        ]
        return SourceStream(
            statement=SnapshotStatement(
                snapshot_at=datetime.fromisoformat(at).replace(tzinfo=UTC),
                rows=int(rows),
                digest=digest,
                control_totals=dict(zip(contract.control_totals, sums, strict=True)),
            ),
            batches=_read(
                held.pop_all(),
                cursor,
                f"SELECT {mark()} {', '.join(columns)} {rows_of}",
                statement.table,
                queries,
            ),
            queries=queries,
        )


def _read(
    held: ExitStack, cursor: Any, query: str, table: str, queries: list[SourceQuery]
) -> Iterator[pa.RecordBatch]:
    with held, _asked("rows", cursor.connection, query, table, queries):
        cursor.adbc_statement.set_options(**{"adbc.postgresql.batch_size_hint_bytes": str(BATCH_BYTES)})
        cursor.execute(query)
        try:
            yield from cursor.fetch_record_batch()
        except OSError as error:  # what Arrow makes of the server's errors
            raise RuntimeError(first_line(error)) from error


@contextmanager
def _asked(what: str, connection: Any, query: str, table: str, queries: list[SourceQuery]) -> Iterator[None]:
    """Measures a query, which the block asks and reads to its end."""
    with connection.cursor() as aside:
        # Rows come by COPY otherwise, which has no EXPLAIN.
        aside.adbc_statement.set_options(**{"adbc.postgresql.use_copy": "false"})
        aside.execute(f"EXPLAIN {query}")
        alone = not any("Workers Planned" in line for (line,) in aside.fetchall())
        before, began = _rows_read(aside, table), monotonic()
        yield
        seconds, after = monotonic() - began, _rows_read(aside, table)
        read = None if before is None or after is None or not alone else after - before
        queries.append(SourceQuery(what, seconds, read))


def _rows_read(cursor: Any, table: str) -> int | None:
    """Rows of a table that this transaction has read so far; None of a view or a table of partitions."""
    cursor.execute(
        f"SELECT {mark()} s.seq_tup_read + coalesce(s.idx_tup_fetch, 0) FROM pg_stat_xact_all_tables AS s "
        "JOIN pg_class AS c ON c.oid = s.relid AND c.relkind <> 'p' "
        f"WHERE s.relid = to_regclass('{table.replace(chr(39), chr(39) * 2)}')"
    )
    found = cursor.fetchone()
    return int(found[0]) if found else None
