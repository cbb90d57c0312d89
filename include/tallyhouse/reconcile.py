"""Compares live sources with `ods`, and the star schema with ClickHouse, without a run and writing nothing.

    make reconcile [PIPELINE=techmarket] [TABLE=orders.orders] [SQL=1]
    python -m tallyhouse.reconcile [--pipeline NAME] [--table NAME] [--json | --sql]

Each side is counted and digested in buckets of keys, by its own engine, in one snapshot. Only of buckets that
differ are rows' digests fetched, in the order of their keys, and met side by side, so that memory does not
grow with the table. Each difference is explained, or its key is named.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import mysql.connector
import psycopg
from psycopg import sql

from tallyhouse.contracts import Column, PipelineContract, SourceContract, TableContract, load_pipeline
from tallyhouse.errors import TallyhouseError, first_line
from tallyhouse.extract.deletes import BUCKET_ROWS, MOST_BUCKETS
from tallyhouse.extract.digest import total
from tallyhouse.extract.keys import FETCH, Snapshot, ods_number, ods_row, ods_value
from tallyhouse.extract.statement import (
    SESSION,
    build,
    carried,
    in_full,
    key_number,
    literal,
    pin,
    row_as_ods,
    row_number,
)
from tallyhouse.lake import Lake
from tallyhouse.ledger import ROWS
from tallyhouse.models import definition
from tallyhouse.models.digest import count_and_digest, number
from tallyhouse.publish import target as targets
from tallyhouse.publish.postgres import check_model
from tallyhouse.publish.target import LakeAccess, Place
from tallyhouse.servers import MySqlServer, PostgresServer, warehouse
from tallyhouse.settings import ROOT, Settings, SettingsError, load_settings

SHOWN = 20
"""Keys of a table that are named."""
_ERRORS: tuple[type[Exception], ...] = (
    *(psycopg.Error, mysql.connector.Error, OSError),
    *targets.errors(),
)
_NEWER = "newer than the watermark"
_UNSEEN = "changed without its cursor; the next run compares it"
_CAME = "came since; the next run takes it"
_DELETED = "deleted since; the next run marks it"
_IGNORED = "deleted in the source, which the contract ignores"
_POLICY = "policy"
_BEHIND = "the target does not show the last run yet"


@dataclass
class Compared:
    """What a comparison of one table found.

    Attributes:
        table: Such as `orders.orders`, or a model.
        hop: Such as `source=ods`.
        left: Rows of the first store.
        right: Rows of the second one.
        seen: Deleted rows that `ods` has marked; no difference.
        explained: Rows that differ, by the reason.
        unexplained: Rows that differ, by how.
        keys: Some of those that nobody explained, each with how it differs.
    """

    table: str
    hop: str
    left: int = 0
    right: int = 0
    seen: int = 0
    explained: Counter[str] = field(default_factory=Counter)
    unexplained: Counter[str] = field(default_factory=Counter)
    keys: list[str] = field(default_factory=list)

    def broken(self, how: str, key: str | None = None, rows: int = 1) -> None:
        """Notes rows that differ and that nobody explained."""
        self.unexplained[how] += rows
        if key is not None and len(self.keys) < SHOWN:
            self.keys.append(f"{key}: {how}")

    def note(self, why: str | None, how: str, key: str) -> None:
        """Notes one row that differs, with its explanation or without one."""
        if why is None:
            self.broken(how, key)
        else:
            self.explained[why] += 1

    def __str__(self) -> str:
        parts = [f"{self.table} {self.hop}: {self.left} rows, {self.right} rows"]
        if self.seen:
            parts.append(f"{self.seen} deleted rows are marked")
        parts += [f"explained: {rows} {why}" for why, rows in self.explained.items()]
        parts += [f"UNEXPLAINED: {rows} {how}" for how, rows in self.unexplained.items()]
        if not self.explained and not self.unexplained:
            parts.append("equal")
        return "; ".join(parts) + "".join(f"\n    {key}" for key in self.keys)


def compare_source(
    source: Any, dialect: str, connection: psycopg.Connection[Any], contract: TableContract
) -> Compared:
    """Compares a table with `ods`; the warehouse's snapshot is older, so that a run between is no difference.

    Args:
        source: An open DB-API connection to the source.
        dialect: `mysql` or `postgres`.
        connection: To the warehouse, in a transaction that reads one snapshot.
        contract: The table.
    """
    found = Compared(contract.qualified_name, "source=ods")
    live, found.seen = _row(
        connection,
        sql.SQL("SELECT count(*) FILTER (WHERE _deleted_at IS NULL), count(_deleted_at) FROM ods.{}").format(
            sql.Identifier(contract.name)
        ),
    )
    buckets = max(1, min(MOST_BUCKETS, live // BUCKET_ROWS))
    snapshot = Snapshot(source, dialect, contract)
    try:
        there = _buckets(_fetch(snapshot, _bucketed(_source_rows(dialect, contract), buckets, "MOD(k, {})")))
        here = _buckets(connection.execute(_bucketed(_ods_rows(contract), buckets, "mod(k, {})").encode()))
        found.left, found.right = (sum(one[0] for one in side.values()) for side in (there, here))
        differing = sorted(b for b in there.keys() | here.keys() if there.get(b) != here.get(b))
        if differing and contract.has_key:
            _explain(snapshot, connection, contract, buckets, differing, found)
        elif differing:
            found.broken("rows differ, and without a key none can be named", rows=len(differing))
    finally:
        snapshot.close()
    return found


def _source_rows(dialect: str, contract: TableContract) -> str:
    # OFFSET and LIMIT: otherwise what has a name is computed again wherever it is named.
    once = "OFFSET 0" if dialect == "postgres" else "LIMIT 18446744073709551615"
    return (
        f"SELECT {key_number(dialect, contract)} AS k, {row_as_ods(dialect, contract)} AS d "
        f"FROM {build(dialect, contract, None).table} AS w {once}"
    )


def _ods_rows(contract: TableContract) -> str:
    return (
        f"SELECT {ods_number(contract)} AS k, {ods_row(contract)} AS d "
        f'FROM ods."{contract.name}" AS o WHERE o._deleted_at IS NULL OFFSET 0'
    )


def _bucketed(rows: str, buckets: int, bucket: str) -> str:
    return f"SELECT {bucket.format(buckets)} AS b, COUNT(*), SUM(k), SUM(d) FROM ({rows}) AS x GROUP BY 1"


def _buckets(rows: Iterable[tuple[Any, ...]]) -> dict[int, tuple[int, int, int]]:
    return {int(b): (int(count), int(keys), int(digests)) for b, count, keys, digests in rows}


def _fetch(snapshot: Snapshot, query: str) -> list[tuple[Any, ...]]:
    snapshot.cursor.execute(query)
    rows: list[tuple[Any, ...]] = snapshot.cursor.fetchall()
    return rows


def _explain(
    snapshot: Snapshot,
    connection: psycopg.Connection[Any],
    contract: TableContract,
    buckets: int,
    differing: list[int],
    found: Compared,
) -> None:
    """Meets the rows of buckets that differ, key by key."""
    dialect = snapshot.dialect
    wanted = ", ".join(map(str, differing))
    mark = connection.execute(
        "SELECT watermark FROM etl.watermark WHERE source = %s AND table_name = %s",
        (contract.source, contract.name),
    ).fetchone()
    newer = "0"
    if contract.cursor and mark:
        at = literal(dialect, mark[0])
        newer = f"CASE WHEN {snapshot.name(contract.cursor)} >= {at} THEN 1 ELSE 0 END"
    replacing = [column for column in contract.replacing if column.made is None]
    others = [column for column in contract.source_columns if not column.replaces]
    # Fixed places: key, row, row as taken, whether newer, row without what a policy replaces.
    source_columns = [
        *(snapshot.number, row_as_ods(dialect, contract), row_number(dialect, contract), newer),
        row_as_ods(dialect, contract, others),
        *(carried(dialect, contract, contract.column(name)) for name in contract.key),
        *(in_full(dialect, contract, column) for column in replacing),
    ]
    there = snapshot.stream(
        ", ".join(source_columns), f"MOD({snapshot.number}, {buckets}) IN ({wanted}) ORDER BY 1"
    )
    remembered = _row(
        connection, sql.SQL("SELECT to_regclass({})").format(sql.Literal(f"digest.{contract.name}"))
    )[0]
    was = f'digest."{contract.name}"' if remembered else "(SELECT 0::bigint AS k, 0::bigint AS d LIMIT 0)"
    ods_columns = [
        *(f"{ods_number(contract)} AS k", f"{ods_row(contract)} AS d"),
        f"{ods_row(contract, others)} AS other",
        *(f"{ods_value(contract.column(n))} AS key_{i}" for i, n in enumerate(contract.key)),
        *(f"{_held(column)} AS held_{i}" for i, column in enumerate(replacing)),
    ]
    names = [f"o.key_{i}" for i, _ in enumerate(contract.key)] + [
        f"o.held_{i}" for i, _ in enumerate(replacing)
    ]
    query = (
        f"SELECT coalesce(o.k, r.k) AS k, o.d, r.d, o.other, {', '.join(names)} "
        f"FROM (SELECT {', '.join(ods_columns)} "
        f'FROM ods."{contract.name}" AS o WHERE o._deleted_at IS NULL) AS o '
        f"FULL JOIN {was} AS r ON r.k = o.k "
        f"WHERE mod(coalesce(o.k, r.k), {buckets}) IN ({wanted}) ORDER BY 1"
    )
    missing = {
        int(key)
        for (key,) in connection.execute(
            "SELECT k FROM etl.missing_key WHERE source = %s AND table_name = %s",
            (contract.source, contract.name),
        ).fetchall()
    }
    for k, its, ours in _side_by_side(there, _stream(connection, query)):
        was_taken = ours[0][2] if ours else None
        held = [row for row in ours if row[1] is not None]
        if len(its) == len(held) == 1 and int(its[0][1]) == held[0][1]:
            continue
        key = _named(contract, its[0][5:] if its else held[0][4:] if held else (), k)
        if len(held) > 1:
            found.broken(f"{len(held)} times in ods", key, len(held) - 1)
        elif len(its) > 1:
            found.broken(f"{len(its)} times in the source", key, len(its) - 1)
        elif its:
            why = _why_other(contract, replacing, its[0], held, was_taken, is_known=bool(remembered))
            found.note(why, "differs in ods" if held else "missing in ods", key)
        elif held:
            why = _DELETED if was_taken is not None or k in missing else None
            why = _IGNORED if contract.deletes == "ignore" else why
            found.note(why, "not in the source, and never taken from it", key)


def _why_other(
    contract: TableContract,
    replacing: list[Column],
    its: tuple[Any, ...],
    held: list[tuple[Any, ...]],
    was_taken: int | None,
    *,
    is_known: bool,
) -> str | None:
    """Why a row of the source is another one in `ods`, or is not there; None where nothing explains it."""
    if int(its[3]):
        return _NEWER
    if held and _by_policy(contract, replacing, its, held[0]):
        return _POLICY
    if was_taken is None:
        # With a cursor, a row that is older than the watermark should have been taken.
        return _CAME if is_known and not held and contract.cursor is None else None
    return _UNSEEN if held and int(its[2]) != was_taken else None


def _held(column: Column) -> str:
    """What `ods` has in a column with a policy: its value, or [] for what the policy puts there."""
    sentinel = column.on_bad_value.sentinel
    put = "NULL" if sentinel is None else "'" + sentinel.replace("'", "''") + "'"
    value = f"to_jsonb(({ods_value(column)})::text)"
    is_put = f'o."{column.name}" IS NOT DISTINCT FROM {put}::{column.type.postgres}'
    return f"CASE WHEN {is_put} THEN '[]' ELSE {value} END"


def _by_policy(
    contract: TableContract, replacing: list[Column], its: tuple[Any, ...], held: tuple[Any, ...]
) -> bool:
    """Whether a row is the source's, but for values that its columns cannot hold and what stands for them."""
    first = len(contract.key)
    if not replacing or int(its[4]) != held[3]:
        return False
    for column, value, ours in zip(replacing, its[5 + first :], held[4 + first :], strict=True):
        if value is not None and not column.type.holds(str(value)):
            if ours != []:
                return False
        elif ours != (value if value is None else str(value)) and ours != []:
            return False
    return True


def _side_by_side(
    left: Iterable[tuple[Any, ...]], right: Iterable[tuple[Any, ...]]
) -> Iterator[tuple[int, list[tuple[Any, ...]], list[tuple[Any, ...]]]]:
    """Rows of either side by their first column, by which both are in order."""
    sides = [iter(groupby(rows, key=lambda row: int(row[0]))) for rows in (left, right)]

    def following(side: Iterator[tuple[int, Iterator[tuple[Any, ...]]]]) -> Any:
        one = next(side, None)
        return (one[0], list(one[1])) if one else None

    heads = [following(side) for side in sides]
    while any(heads):
        k = min(head[0] for head in heads if head)
        rows = [head[1] if head and head[0] == k else [] for head in heads]
        yield k, rows[0], rows[1]
        heads = [
            following(side) if head and head[0] == k else head
            for side, head in zip(sides, heads, strict=True)
        ]


def _stream(connection: psycopg.Connection[Any], query: str) -> Iterator[tuple[Any, ...]]:
    with connection.cursor("rows") as cursor:
        cursor.execute(query.encode())
        while rows := cursor.fetchmany(FETCH):
            yield from rows


def _named(contract: TableContract, values: tuple[Any, ...], k: int) -> str:
    """A key for people; of personal data its number."""
    if not values or set(contract.key) & set(contract.pii):
        return f"key number {k}"
    return " ".join(
        f"{name}={value}" for name, value in zip(contract.key, values[: len(contract.key)], strict=True)
    )


def compare_checks(connection: psycopg.Connection[Any], model: str) -> Compared:
    """A model's own checks on `ods`, over all its rows."""
    found = Compared(model, "ods=model")
    for line in check_model(connection, model):
        if line.measure == ROWS:
            found.left, found.right = int(line.left), int(line.right)
        if not line.closed:
            found.broken(f"{line.measure}: {line.left} != {line.right}")
    return found


def compare_clickhouse(
    connection: psycopg.Connection[Any], client: Any, model: str, behind: bool
) -> Compared:
    """Compares a model's table with ClickHouse's, and names rows of buckets that differ.

    Args:
        connection: To the warehouse.
        client: A client of ClickHouse.
        model: The model.
        behind: Whether ClickHouse lacks a published run, which then explains what differs.
    """
    found = Compared(model, "postgres=clickhouse")
    live, _ = _row(connection, sql.SQL("SELECT count(*), 0 FROM dwh.{}").format(sql.Identifier(model)))
    buckets = max(1, min(MOST_BUCKETS, live // BUCKET_ROWS))
    here = _buckets(
        connection.execute(_bucketed(_model_rows("postgres", model), buckets, "mod(k, {})").encode())
    )
    there = _buckets(client.query(_bucketed(_model_rows("clickhouse", model), buckets, "k % {}")).result_rows)
    found.left, found.right = (sum(one[0] for one in side.values()) for side in (here, there))
    differing = sorted(b for b in here.keys() | there.keys() if here.get(b) != there.get(b))
    if not differing:
        return found
    wanted = ", ".join(map(str, differing))
    left = _stream(
        connection,
        f"SELECT k, d, named FROM ({_model_rows('postgres', model)}) AS x "
        f"WHERE mod(k, {buckets}) IN ({wanted}) ORDER BY k",
    )
    query = (
        f"SELECT k, d, named FROM ({_model_rows('clickhouse', model)}) AS x "
        f"WHERE k % {buckets} IN ({wanted}) ORDER BY k"
    )
    with client.query_rows_stream(query) as right:
        for _, ours, its in _side_by_side(left, right):
            if [row[1] for row in ours] == [int(row[1]) for row in its]:
                continue
            if behind:
                found.explained[_BEHIND] += 1
                continue
            key = f"{definition(model).key[0]}={(ours or its)[0][2]}"
            if len(its) > 1:
                found.broken(f"{len(its)} times in ClickHouse", key, len(its) - 1)
            elif len(ours) > 1:
                found.broken(f"{len(ours)} times in PostgreSQL", key, len(ours) - 1)
            else:
                how = "differs" if ours and its else "missing in ClickHouse" if ours else "only in ClickHouse"
                found.broken(how, key)
    return found


def _model_rows(engine: str, model: str) -> str:
    defined = definition(model)
    (key,) = defined.key
    quote, text = ("`", "toString({})") if engine == "clickhouse" else ('"', "({})::text")
    named = text.format(f"{quote}{key}{quote}")
    return (
        f"SELECT {number(engine, defined, defined.key)} AS k, {number(engine, defined)} AS d, "
        f"{named} AS named "
        f"FROM dwh.{quote}{model}{quote}"
    )


def statements(pipeline: PipelineContract, table: str | None = None) -> Iterator[tuple[str, str, list[str]]]:
    """The plain SQL whose answers, a count and a digest, must be equal, table by table.

    Args:
        pipeline: Whose tables.
        table: One of them, as `orders.orders`, or a model; None for all.

    Yields:
        What is asked, the engine (`mysql`, `postgres`, `clickhouse`), and statements, the question last.
    """
    for source in pipeline.sources:
        for contract in source.tables if source.engine in ("mysql", "postgres") else ():
            if table in (None, contract.qualified_name):
                theirs = _source_rows(source.engine, contract)
                rows = f"SELECT COUNT(*), {total(source.engine, 'd')} FROM ({theirs}) AS x"
                yield f"source {contract.qualified_name}", source.engine, [*SESSION[source.engine], rows]
                ods = f"SELECT count(*), {total('postgres', 'd')} FROM ({_ods_rows(contract)}) AS x"
                yield f"ods.{contract.name}", "postgres", [*SESSION["postgres"], ods]
    for model in pipeline.models:
        if table in (None, model, f"dwh.{model}"):
            said = definition(model)
            yield (
                f"dwh.{model}",
                "postgres",
                [f'SELECT {count_and_digest("postgres", said)} FROM dwh."{model}"'],
            )
            if "clickhouse" in pipeline.targets:
                query = f"SELECT {count_and_digest('clickhouse', said)} FROM dwh.`{model}`"
                yield f"ClickHouse dwh.{model}", "clickhouse", [query]


def connect(settings: Settings, source: SourceContract) -> Any:
    """An open connection of the extraction account.

    Raises:
        TallyhouseError: The source does not answer.
    """
    place = Place.at(settings, source.conn_id)
    kind: type[MySqlServer | PostgresServer] = MySqlServer if source.engine == "mysql" else PostgresServer
    server = kind.of(
        host=place.host,
        port=place.port,
        user=place.user,
        password=place.password,
        database=place.database,
        extra=place.extra,
    )
    try:
        return server.connect()
    except (mysql.connector.Error, psycopg.Error) as error:
        raise TallyhouseError(
            f"source {source.name} does not answer ({first_line(error)})",
            remedy=f"Start it (`make status`), or put the connection {source.conn_id} right",
        ) from error


def reconcile(settings: Settings, pipeline: PipelineContract, table: str | None) -> Iterator[Compared]:
    """Compares all tables of a pipeline, or one of them, one after the other.

    Raises:
        TallyhouseError: A store does not answer, or there is no such table.
    """
    with warehouse(settings).connect() as connection:
        pin(connection.cursor(), "postgres")
        connection.commit()
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        for source in pipeline.sources:
            chosen = [one for one in source.tables if table in (None, one.qualified_name)]
            if not chosen or source.engine not in ("mysql", "postgres"):
                continue
            with closing(connect(settings, source)) as opened:
                for contract in chosen:
                    with connection.transaction():
                        yield compare_source(opened, source.engine, connection, contract)
        models = [model for model in pipeline.models if table in (None, model, f"dwh.{model}")]
        if not models:
            return
        for model in models:
            if definition(model).is_built:
                with connection.transaction():
                    yield compare_checks(connection, model)
        if "clickhouse" not in pipeline.targets:
            return
        access = LakeAccess(settings.minio_url, settings.minio_root_user, settings.minio_root_password)
        lake = Lake.s3(settings.lake_bucket, **vars(access))
        target: Any = targets.load("clickhouse")
        with (
            closing(target.open(Place.of(settings, "clickhouse"), lake, access)) as clickhouse,
            connection.transaction(),
        ):
            published = connection.execute(
                "SELECT run_id FROM etl.run WHERE pipeline = %s AND status = 'published'", (pipeline.name,)
            ).fetchall()
            behind = not {run for (run,) in published} <= clickhouse.shown_runs()
            for model in models:
                yield compare_clickhouse(connection, clickhouse.client, model, behind)


def _row(connection: psycopg.Connection[Any], query: sql.Composed) -> tuple[Any, ...]:
    (row,) = connection.execute(query).fetchall()
    return tuple(row)


def _pipelines(named: str | None, table: str | None) -> list[PipelineContract]:
    known = sorted(path.parent.name for path in (ROOT / "include" / "pipelines").glob("*/pipeline.yaml"))
    if named and named not in known:
        raise TallyhouseError(f"no pipeline is called {named}", remedy=f"There are {', '.join(known)}")
    found = [load_pipeline(name) for name in ([named] if named else known)]
    found = [one for one in found if table is None or next(statements(one, table), None)]
    if not found:
        raise TallyhouseError(
            f"no pipeline has a table {table} that a database holds",
            remedy="Name it as the ledger does: orders.orders, or a model such as fact_payment",
        )
    return found


def _print_sql(pipelines: Iterable[PipelineContract], table: str | None) -> None:
    for pipeline in pipelines:
        for what, engine, said in statements(pipeline, table):
            sys.stdout.write(f"-- {what} ({engine}): count and digest\n")
            sys.stdout.write("".join(f"{statement};\n" for statement in said) + "\n")


def main() -> int:
    """Compares live sources with ods and the star schema with ClickHouse, without a run; writes nothing.

    Returns:
        0 when all is equal or explained, 1 when something is not, 2 when it could not be compared.
    """
    parser = argparse.ArgumentParser(prog="python -m tallyhouse.reconcile", description=main.__doc__)
    parser.add_argument("--pipeline", help="one pipeline; without it, all")
    parser.add_argument("--table", help="one table, such as orders.orders, or a model; without it, all")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="print JSON lines")
    how.add_argument("--sql", action="store_true", help="print the SQL whose answers must be equal")
    arguments = parser.parse_args()
    rows = unexplained = 0
    try:
        pipelines = _pipelines(arguments.pipeline, arguments.table)
        if arguments.sql:
            _print_sql(pipelines, arguments.table)
            return 0
        settings = load_settings()
        for pipeline in pipelines:
            for found in reconcile(settings, pipeline, arguments.table):
                # Line by line: it is how far it has come.
                line = (
                    json.dumps({"pipeline": pipeline.name, **vars(found)}) if arguments.json else str(found)
                )
                sys.stdout.write(line + "\n")
                sys.stdout.flush()
                rows += found.left
                unexplained += found.unexplained.total()
    except (TallyhouseError, SettingsError) as error:
        sys.stderr.write(f"reconcile: {error}\n")
        return 2
    except _ERRORS as error:
        sys.stderr.write(f"reconcile: {first_line(error)}. Is the stack up? `make status`\n")
        return 2
    if not arguments.json:
        sys.stdout.write(f"reconciled: {rows} rows compared, {unexplained} unexplained\n")
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
