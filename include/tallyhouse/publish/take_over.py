"""Makes the warehouse what was rebuilt, by one transaction that touches the rows that differ.

Who reads it meanwhile sees it as it was, then as it is, and nobody waits. Targets follow by a repair.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from tallyhouse.contracts import PipelineContract
from tallyhouse.errors import TallyhouseError
from tallyhouse.models import definition
from tallyhouse.publish.rebuild import OF_THE_RUN, check_last
from tallyhouse.publish.staging import copy_in, create, drop, read_rows, table_schema
from tallyhouse.runs import lock_pipeline

# Somebody who added a row twice had to drop the key first; nothing says then which of the two is right.
_TWICE = """
    DELETE FROM {live} WHERE ctid IN (
        SELECT ctid FROM (SELECT ctid, row_number() OVER (PARTITION BY {key}) AS n FROM {live}) AS same
        WHERE n > 1
    )
"""
_GONE = "DELETE FROM {live} AS l WHERE NOT EXISTS (SELECT 1 FROM {staged} AS s WHERE {same})"
_CHANGED = """
    UPDATE {live} AS l SET ({columns}) = ROW({theirs}) FROM {staged} AS s
    WHERE {same} AND row({compared}) IS DISTINCT FROM row({others})
"""
_NEW = """
    INSERT INTO {live} ({columns}) SELECT {theirs} FROM {staged} AS s
    WHERE NOT EXISTS (SELECT 1 FROM {live} AS l WHERE {same})
"""
# A row says by which published run it came, not by the one that stood for it.
_RUNS = """
    UPDATE {staged} AS s SET _run = r.live FROM unnest(%s::text[], %s::text[]) AS r (rebuilt, live)
    WHERE s._run = r.rebuilt
"""


@dataclass(frozen=True)
class Taken:
    """What was changed of a table.

    Attributes:
        table: Such as `ods.orders`.
        removed: Rows that the rebuilt table does not have.
        changed: Rows that are other ones there.
        added: Rows that only it has.
    """

    table: str
    removed: int
    changed: int
    added: int

    def __str__(self) -> str:
        return f"{self.table}: {self.removed} rows removed, {self.changed} changed, {self.added} added"


@dataclass(frozen=True)
class _Table:
    schema: str
    name: str
    key: tuple[str, ...]

    @property
    def staged(self) -> str:
        return f"rebuilt_{self.schema}_{self.name}"


def take_over(
    live: psycopg.Connection[Any],
    rebuilt: psycopg.Connection[Any],
    address: str,
    pipeline: PipelineContract,
    last: str,
) -> list[Taken]:
    """Makes the warehouse what was rebuilt.

    Args:
        live: To the warehouse.
        rebuilt: To the other database.
        address: The warehouse's libpq URI, for COPY.
        pipeline: Whose tables.
        last: The run that both show.

    Returns:
        What was changed, table by table.

    Raises:
        TallyhouseError: The warehouse shows a later run by now, or one is open; nothing was changed.
    """
    tables = [
        *(_Table("ods", table.name, table.key) for table in pipeline.tables),
        *(_Table("dwh", model, definition(model).key) for model in pipeline.models),
    ]
    with rebuilt.transaction():
        runs = dict(rebuilt.execute("SELECT run_id, dag_run_id FROM etl.run").fetchall())
    try:
        for table in tables:
            _stage(live, rebuilt, address, table)
        with live.transaction():
            lock_pipeline(live, pipeline.name)
            check_last(live, pipeline.name, last)
            _check_none_open(live, pipeline.name)
            return [_take(live, table, runs) for table in tables]
    finally:
        with suppress(psycopg.OperationalError), live.transaction():
            drop(live, (table.staged for table in tables))


def _check_none_open(live: psycopg.Connection[Any], pipeline: str) -> None:
    found = live.execute(
        "SELECT run_id FROM etl.run WHERE pipeline = %s AND status = 'running'", (pipeline,)
    ).fetchone()
    if found:
        raise TallyhouseError(
            f"run {found[0]} is open, and what it brings was built on the warehouse as it is",
            remedy="Start it again when no run of the pipeline is open",
        )


def _stage(
    live: psycopg.Connection[Any], rebuilt: psycopg.Connection[Any], address: str, table: _Table
) -> None:
    with live.transaction():
        drop(live, [table.staged])
        create(live, table.staged, table.schema, table.name)
        columns = table_schema(live, "staging", table.staged)
    with rebuilt.transaction():
        copy_in(address, table.staged, columns, read_rows(rebuilt, table.schema, table.name, columns))
    with live.transaction():
        live.execute(sql.SQL("ANALYZE staging.{}").format(sql.Identifier(table.staged)))


def _take(live: psycopg.Connection[Any], table: _Table, runs: dict[str, str]) -> Taken:
    columns = [field.name for field in table_schema(live, table.schema, table.name)]
    compared = [column for column in columns if column not in OF_THE_RUN]

    def named(names: list[str], of: str | None = None) -> sql.Composed:
        return sql.SQL(", ").join(sql.Identifier(of, one) if of else sql.Identifier(one) for one in names)

    parts = {
        "live": sql.Identifier(table.schema, table.name),
        "staged": sql.Identifier("staging", table.staged),
        "key": named([*table.key]),
        "same": sql.SQL("({}) = ({})").format(named([*table.key], "l"), named([*table.key], "s")),
        "columns": named(columns),
        "theirs": named(columns, "s"),
        "compared": named(compared, "l"),
        "others": named(compared, "s"),
    }

    def change(statement: str, *values: Any) -> int:
        return live.execute(sql.SQL(statement).format(**parts), values or None).rowcount

    if table.schema == "ods":
        change(_RUNS, [*runs], [*runs.values()])
    removed = change(_TWICE) + change(_GONE)
    return Taken(f"{table.schema}.{table.name}", removed, change(_CHANGED), change(_NEW))
