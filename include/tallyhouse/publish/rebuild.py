"""Builds the warehouse again in a database of its own, and compares it with what is shown.

From raw alone; where raw was swept, from the checkpoint that holds what came of it, and raw since.

Every published run of a pipeline is published once more, oldest first: its raw batches are taken up by a run
of the other database, under an id of its own, and go the whole way. What comes out has to be what the
warehouse shows, row by row, but for the columns that say which run a row came with. Where it is not, and
that is asked for, `publish.take_over` brings the rows that differ into the warehouse, by one transaction.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from psycopg import sql

from tallyhouse.contracts import PipelineContract
from tallyhouse.errors import TallyhouseError
from tallyhouse.extract.to_raw import write_parts
from tallyhouse.lake import MANIFEST, Lake, Manifest, Part, commit, find_manifests
from tallyhouse.lake.checkpoint import Checkpoint, digest_of, folder, read, read_back
from tallyhouse.ledger import ROWS, Line, check_closed
from tallyhouse.migrate import fill_empty
from tallyhouse.models import definition
from tallyhouse.models.digest import count_and_digest
from tallyhouse.publish.postgres import check_model, merge_model
from tallyhouse.publish.staging import copy_in, create, drop, table_schema
from tallyhouse.runs import mark_published, newest_published, open_run, staging_suffix
from tallyhouse.servers import PostgresServer

log = logging.getLogger(__name__)

HOP = "warehouse=rebuilt"
DAG_ID = "rebuild_warehouse"
SCHEMAS = ("etl", "ods", "staging", "dwh", "digest")
OF_THE_RUN = ("_snapshot", "_run")
"""Columns that say which run a row came with."""


@dataclass(frozen=True)
class Published:
    """A published run and what it took.

    Attributes:
        run_id: Its id in the warehouse.
        tables: Names of the tables that it promised to take.
        batches: Their raw batches.
    """

    run_id: str
    tables: tuple[str, ...]
    batches: tuple[Manifest, ...]


def published(
    connection: psycopg.Connection[Any], lake: Lake, pipeline: PipelineContract
) -> tuple[Checkpoint | None, list[Published]]:
    """What the warehouse can be made of: published runs, oldest first, each with its raw.

    Returns:
        The newest checkpoint and the runs that were published after it; None and all runs where all raw is
        there.

    Raises:
        TallyhouseError: No run was published, or raw is gone that no checkpoint holds.
    """
    with connection.transaction():
        rows = connection.execute(
            "SELECT run_id, tables FROM etl.run WHERE pipeline = %s AND status = 'published' "
            "ORDER BY published_at",
            (pipeline.name,),
        ).fetchall()
    found = [Published(run, tuple(names), tuple(_batches(lake, pipeline, run))) for run, names in rows]
    if not found:
        raise TallyhouseError("no run was published", remedy="Run the pipeline first")
    whole = [set(one.tables) <= {batch.table for batch in one.batches} for one in found]
    if all(whole):
        return None, found
    committed = {key for key in lake.keys(f"checkpoint/{pipeline.name}") if key.endswith(f"/{MANIFEST}")}
    for number in reversed(range(len(found))):
        run_id = found[number].run_id
        if f"{folder(pipeline.name, run_id)}/{MANIFEST}" in committed and all(whole[number + 1 :]):
            return read(lake, pipeline.name, run_id), found[number + 1 :]
    gone = found[max(number for number, there in enumerate(whole) if not there)]
    raise TallyhouseError(
        f"raw of run {gone.run_id} is not in the lake, and no checkpoint holds it",
        remedy="Look for it in a backup of the lake; without it the warehouse cannot be made again",
    )


def open_again(
    connection: psycopg.Connection[Any], pipeline: PipelineContract, tables: Iterable[str], run_id: str
) -> str:
    """Opens a run of the other database that stands for a published one; it has an id of its own."""
    return open_run(
        connection,
        pipeline.name,
        tables=tables,
        dag_id=DAG_ID,
        dag_run_id=run_id,
        logical_date=None,
        full_refresh=False,
    )


def restore(connection: psycopg.Connection[Any], address: str, lake: Lake, held: Checkpoint) -> None:
    """Puts a checkpoint into the other database.

    Args:
        connection: To the other database, which is empty.
        address: Its libpq URI, for COPY.
        lake: Where the checkpoint is.
        held: The checkpoint.

    Raises:
        TallyhouseError: The checkpoint is not what was written, or has columns that the database lacks.
    """
    for name, table in held.tables.items():
        if read_back(lake, table.parts) != (table.rows, table.digest):
            raise TallyhouseError(
                f"{held.place} does not hold what was written",
                remedy="See who changes objects below checkpoint/; look for it in a backup of the lake",
                table=name,
            )
        _fill(connection, address, lake, name, [part.key for part in table.parts])


def accept_live(lake: Lake, pipeline: PipelineContract, held: Checkpoint, run_id: str) -> dict[str, int]:
    """Writes every row of a checkpoint's `ods` that is not deleted as accepted by a run.

    Returns:
        How many, by table.
    """
    rows = {}
    for contract in pipeline.tables:
        keys = [part.key for part in held.tables[f"ods.{contract.name}"].parts]
        place = f"accepted/{contract.source}/{contract.name}/run={run_id}"
        rows[contract.name] = sum(part.rows for part in _live(lake, keys, place))
    return rows


def _fill(connection: psycopg.Connection[Any], address: str, lake: Lake, name: str, keys: list[str]) -> None:
    schema, _, table = name.partition(".")
    with connection.transaction():
        # The member that stands for the unknown is in the checkpoint, too.
        connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(schema, table)))
        columns = table_schema(connection, schema, table)
    if not keys:
        return
    with lake.filesystem.open_input_file(lake.path(keys[0])) as file:
        if more := sorted(set(pq.read_schema(file).names) - set(columns.names)):
            raise TallyhouseError(
                f"the checkpoint has columns that no migration makes: {', '.join(more)}",
                remedy="Write them into the contract and a migration, and start it again",
                table=name,
            )
    copy_in(address, table, columns, lake.read_batches(keys), into=schema)


def _live(lake: Lake, keys: list[str], place: str) -> list[Part]:
    """Writes the rows of a table that are not deleted."""
    if not keys:
        return []
    with lake.filesystem.open_input_file(lake.path(keys[0])) as file:
        schema = pq.read_schema(file)
    live = (batch.filter(pc.is_null(batch.column("_deleted_at"))) for batch in lake.read_batches(keys))
    return list(write_parts(live, lake, place, schema))


def merge_all(
    connection: psycopg.Connection[Any], address: str, lake: Lake, pipeline: PipelineContract, run_id: str
) -> None:
    """Brings the models that were built of a checkpoint into the other database, and checks them.

    Raises:
        TallyhouseError: A model is not what its checks on `ods` say.
    """
    token, staged = staging_suffix(run_id), {}
    for model in pipeline.models:
        parts = [key for key in lake.keys(f"increment/{model}/run={run_id}") if key.endswith(".parquet")]
        if parts:
            staged[model] = f"dwh_{model}_{token}"
            with connection.transaction():
                create(connection, staged[model], "dwh", model)
                columns = table_schema(connection, "staging", staged[model])
            copy_in(address, staged[model], columns, lake.read_batches(parts))
    with connection.transaction():
        lines = []
        for model in pipeline.models:
            lines += merge_model(connection, model, staged.get(model), {})
            lines += check_model(connection, model)
        check_closed(lines, run_id)
        drop(connection, staged.values())
        mark_published(connection, run_id, ())


def _batches(lake: Lake, pipeline: PipelineContract, run_id: str) -> list[Manifest]:
    return find_manifests(lake, run_id, pipeline.tables)


def empty(server: PostgresServer) -> None:
    """Makes the other database an empty warehouse: whatever it held of an earlier rebuild goes.

    Raises:
        TallyhouseError: It holds runs that no rebuild opened, so it is no database for one; or a migration
            failed.
    """
    with server.connect(autocommit=True) as connection:
        row = connection.execute("SELECT to_regclass('etl.run') IS NOT NULL").fetchone()
        theirs = sql.SQL("SELECT run_id FROM etl.run WHERE dag_id <> {} LIMIT 1").format(sql.Literal(DAG_ID))
        if row == (True,) and (found := connection.execute(theirs).fetchone()):
            raise TallyhouseError(
                f"the database {connection.info.dbname} is a warehouse: it has the run {found[0]}",
                remedy="Let the connection pg_rebuild lead to a database of its own; what that holds goes",
            )
        for schema in SCHEMAS:
            connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(schema)))
    fill_empty(server)


@contextmanager
def taken_up(
    connection: psycopg.Connection[Any], lake: Lake, pipeline: PipelineContract, run: Published
) -> Iterator[str]:
    """Opens a run in the other database whose manifests name the raw parts of a published one.

    What it writes into the lake, manifests too, goes with the block.

    Yields:
        Its id.
    """
    run_id = open_again(connection, pipeline, run.tables, run.run_id)
    try:
        for batch in run.batches:
            commit(lake, replace(batch, run_id=run_id, attempt=1))
        yield run_id
    finally:
        clear(lake, pipeline, run_id)


def clear(lake: Lake, pipeline: PipelineContract, run_id: str) -> None:
    """Removes what a run of the other database left in the lake; its raw parts are those of another run."""
    for key in list(_keys_of(lake, pipeline, run_id)):
        lake.filesystem.delete_file(lake.path(key))


def _keys_of(lake: Lake, pipeline: PipelineContract, run_id: str) -> Iterator[str]:
    for table in pipeline.tables:
        for layer in ("raw", "accepted"):
            yield from lake.keys(f"{layer}/{table.source}/{table.name}/run={run_id}")
    for model in pipeline.models:
        for layer in ("increment", "removed"):
            yield from lake.keys(f"{layer}/{model}/run={run_id}")
    yield from lake.keys(f"report/{pipeline.name}/run={run_id}")


def compare(
    live: psycopg.Connection[Any], rebuilt: psycopg.Connection[Any], pipeline: PipelineContract, last: str
) -> list[Line]:
    """Rows and digest of every table of `ods` and every model, in either database.

    Args:
        live: To the warehouse.
        rebuilt: To the other database.
        pipeline: Whose tables.
        last: The last run that was published again.

    Raises:
        TallyhouseError: The warehouse shows a later run by now.
    """
    with live.transaction(), rebuilt.transaction():
        live.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        check_last(live, pipeline.name, last)
        lines = []
        for schema, name in (
            *(("ods", table.name) for table in pipeline.tables),
            *(("dwh", model) for model in pipeline.models),
        ):
            left, right = (_count_and_digest(one, schema, name) for one in (live, rebuilt))
            for measure, here, there in zip((ROWS, "digest"), left, right, strict=True):
                lines.append(Line(f"{schema}.{name}", HOP, measure, Decimal(here), Decimal(there)))
    return lines


def check_last(live: psycopg.Connection[Any], pipeline: str, last: str) -> None:
    """Makes sure that no run was published since.

    Raises:
        TallyhouseError: The warehouse shows a later one.
    """
    if (now := newest_published(live, pipeline)) != last:
        raise TallyhouseError(
            f"the warehouse was at run {last} and shows {now} now",
            remedy="Start it again when no run of the pipeline is open",
        )


def _count_and_digest(connection: psycopg.Connection[Any], schema: str, name: str) -> tuple[str, str]:
    if schema == "dwh":
        said = count_and_digest("postgres", definition(name))
    else:
        columns = table_schema(connection, schema, name)
        kept = pa.schema([field for field in columns if field.name not in OF_THE_RUN])
        # In one order: a column that was added later stands last in one database alone.
        kept = pa.schema(sorted(kept, key=lambda field: field.name))
        said = f"count(*)::text, {digest_of('postgres', kept)}"
    row = connection.execute(
        sql.SQL("SELECT {} FROM {}").format(sql.SQL(said), sql.Identifier(schema, name))
    ).fetchone()
    assert row is not None  # noqa: S101 - an aggregate without GROUP BY has one row
    return row[0], row[1]


def check_same(lines: list[Line]) -> None:
    """Makes sure that the rebuilt warehouse is the one that is shown.

    Raises:
        TallyhouseError: A table differs; the message names the first one.
    """
    if broken := [line for line in lines if not line.closed]:
        first = broken[0]
        raise TallyhouseError(
            f"what raw gives is not what the warehouse shows: {len({line.table for line in broken})} tables "
            f"differ, the first in its {first.measure} ({first.left} shown, {first.right} rebuilt)",
            remedy="Nothing was changed; look at the table in both databases. Somebody may have changed rows "
            "by hand, or the code or contract gives other values by now. With `take_over` the warehouse "
            "becomes what was rebuilt",
            table=first.table,
            rule=HOP,
            sample=[f"{line.table} {line.measure}: {line.left} against {line.right}" for line in broken],
        )
