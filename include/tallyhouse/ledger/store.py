"""The ledger's table, `etl.ledger`."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from decimal import Decimal
from typing import Any

import psycopg

from tallyhouse.ledger.line import Hop, Line


def write(
    connection: psycopg.Connection[Any],
    run_id: str,
    pipeline: str,
    lines: Iterable[Line],
    hops: Collection[str] = (),
) -> None:
    """Adds lines, in the caller's transaction; lines of the same table, hop and measure are replaced.

    Args:
        connection: To the warehouse.
        run_id: The run.
        pipeline: Its pipeline.
        lines: The lines.
        hops: Those of which these are all lines: an earlier try may have compared more, or other things.
    """
    lines = list(lines)
    connection.execute("DELETE FROM etl.ledger WHERE run_id = %s AND hop = ANY(%s)", (run_id, [*hops]))
    with connection.cursor() as cursor:
        cursor.executemany(
            "DELETE FROM etl.ledger WHERE run_id = %s AND table_name = %s AND hop = %s AND measure = %s",
            [(run_id, line.table, line.hop, line.measure) for line in lines],
        )
        cursor.executemany(
            "INSERT INTO etl.ledger "
            "(run_id, pipeline, table_name, hop, measure, left_value, right_value, parts, keys) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
            [
                (
                    run_id,
                    pipeline,
                    line.table,
                    line.hop,
                    line.measure,
                    line.left,
                    line.right,
                    json.dumps({name: str(value) for name, value in line.parts.items()})
                    if line.parts
                    else None,
                    list(line.keys),
                )
                for line in lines
            ],
        )


def write_unless_published(connection: psycopg.Connection[Any], run_id: str, lines: Iterable[Line]) -> None:
    """Adds lines of a run in a transaction of its own; a published run keeps those that it has.

    The extraction of such a run may be started again, and takes what nobody publishes.
    """
    with connection.transaction():
        row = connection.execute(
            "SELECT pipeline FROM etl.run WHERE run_id = %s AND status <> 'published' FOR UPDATE", (run_id,)
        ).fetchone()
        if row is not None:
            write(connection, run_id, row[0], lines)


def read(connection: psycopg.Connection[Any], run_id: str) -> list[Line]:
    """The lines of a run, in the order in which they were written."""
    rows = connection.execute(
        "SELECT table_name, hop, measure, left_value, right_value, parts, keys FROM etl.ledger "
        "WHERE run_id = %s ORDER BY id",
        (run_id,),
    ).fetchall()
    return [
        Line(
            table=table,
            hop=Hop(hop) if hop in Hop else hop,
            measure=measure,
            left=left,
            right=right,
            parts={name: Decimal(value) for name, value in (parts or {}).items()},
            keys=tuple(keys),
        )
        for table, hop, measure, left, right, parts, keys in rows
    ]
