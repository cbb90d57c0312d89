"""Fills an empty table: its keys and indexes are made once over all rows, not row by row.

Random keys reach every page of an index, so that each row of a large first load would move pages in and out
of memory. Made afterwards, an index is sorted and written once.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql

log = logging.getLogger(__name__)

MANY_ROWS = 100_000
"""Rows from which it pays; fewer are in place within a second either way."""
LOCK_TIMEOUT = "2s"


@contextmanager
def indexes_afterwards(
    connection: psycopg.Connection[Any], schema: str, table: str, *, staged: str
) -> Iterator[bool]:
    """Within a transaction, takes an empty table's indexes away while the block fills it.

    For as long as the transaction lasts, a query of the table waits, which had nothing to read so far. Where
    a session holds the table for longer than `LOCK_TIMEOUT`, the indexes stay and the rows come in slower.

    Args:
        connection: In a transaction.
        schema: The table's.
        table: What is filled.
        staged: The table in `staging` whose rows come; it has been analyzed.

    Yields:
        Whether the table is without keys and indexes now: empty, many rows to come, and free to be locked.
    """
    name = sql.Identifier(schema, table)
    definitions = _taken_away(connection, name, staged) if _pays(connection, name, staged) else None
    if definitions is None:
        yield False
        return
    yield True
    # Sorted in memory as far as possible; the default of a small server would write runs to disk.
    connection.execute("SET LOCAL maintenance_work_mem = '256MB'")
    for definition in definitions:
        connection.execute(definition.encode())
    # The checks that follow in this transaction join it; the planner would take it for empty.
    connection.execute(sql.SQL("ANALYZE {}").format(name))


def _pays(connection: psycopg.Connection[Any], name: sql.Identifier, staged: str) -> bool:
    row = connection.execute(
        sql.SQL(
            "SELECT reltuples >= %s AND NOT EXISTS (SELECT 1 FROM {}) FROM pg_class "
            "WHERE oid = to_regclass(%s)"
        ).format(name),
        (MANY_ROWS, f'staging."{staged}"'),
    ).fetchone()
    return bool(row and row[0])


def _taken_away(connection: psycopg.Connection[Any], name: sql.Identifier, staged: str) -> list[str] | None:
    """Drops the table's keys and indexes.

    Returns:
        The statements that make them again, keys first; None where another session holds the table.
    """
    qualified = name.as_string(connection)
    keys = connection.execute(
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint "
        "WHERE conrelid = %s::regclass AND contype IN ('p', 'u') ORDER BY contype",
        (qualified,),
    ).fetchall()
    indexes = connection.execute(
        "SELECT i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid) FROM pg_index AS i "
        "WHERE i.indrelid = %s::regclass "
        "AND NOT EXISTS (SELECT 1 FROM pg_constraint AS c WHERE c.conindid = i.indexrelid)",
        (qualified,),
    ).fetchall()
    try:
        with connection.transaction():
            connection.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(sql.Literal(LOCK_TIMEOUT)))
            for key, _ in keys:
                connection.execute(
                    sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(name, sql.Identifier(key))
                )
            for index, _ in indexes:
                connection.execute(f"DROP INDEX {index}".encode())
            connection.execute("SET LOCAL lock_timeout = DEFAULT")
    except psycopg.errors.LockNotAvailable:
        log.info("%s is held by another session: %s comes in row by row", qualified, staged)
        return None
    return [
        *(f"ALTER TABLE {qualified} ADD CONSTRAINT {_quoted(key)} {definition}" for key, definition in keys),
        *(definition for _, definition in indexes),
    ]


def _quoted(identifier: str) -> str:
    return sql.Identifier(identifier).as_string()
