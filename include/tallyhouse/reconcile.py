"""Compares live sources with `ods`, and the star schema with the targets, without a run and writing nothing.

    make reconcile [PIPELINE=techmarket] [TABLE=orders.orders] [SQL=1]
    python -m tallyhouse.reconcile [--pipeline NAME] [--table NAME] [--json | --sql]

Each side is counted and digested in buckets of keys, by its own engine, in one snapshot. Only of buckets that
differ are rows' digests fetched, in the order of their keys, and met side by side (`publish.differing`), so
that memory does not grow with the table. Each difference is explained, or its key is named.

What a run took of a source's row is what the warehouse remembers of it, or what raw holds.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import batched, islice
from typing import Any

import mysql.connector
import psycopg
from psycopg import sql

from tallyhouse.contracts import Column, PipelineContract, SourceContract, TableContract, load_pipeline
from tallyhouse.errors import TallyhouseError, first_line
from tallyhouse.extract.digest import total
from tallyhouse.extract.keys import FETCH, Snapshot, ods_number, ods_row, ods_value
from tallyhouse.extract.raw_digest import raw_row_digests_ordered
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
from tallyhouse.lake import Lake, find_manifests
from tallyhouse.ledger import ROWS, mart_in, shown_in
from tallyhouse.models import definition
from tallyhouse.models.digest import count_and_digest
from tallyhouse.models.load import own_key
from tallyhouse.publish import target as targets
from tallyhouse.publish.differing import (
    SHOWN,
    Buckets,
    Difference,
    bucket_count,
    bucketed,
    compare_buckets,
    compare_target,
    differences,
    side_by_side,
    stream,
    unlike_ods,
)
from tallyhouse.publish.follow import check_mart
from tallyhouse.publish.postgres import check_model
from tallyhouse.publish.target import LakeAccess, Place, Target
from tallyhouse.servers import MySqlServer, PostgresServer, warehouse
from tallyhouse.settings import ROOT, Settings, SettingsError, load_settings

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
_BEHIND = "of a run that the target does not show yet"


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
    source: Any, dialect: str, connection: psycopg.Connection[Any], lake: Lake, contract: TableContract
) -> Compared:
    """Compares a table with `ods`; the warehouse's snapshot is older, so that a run between is no difference.

    Args:
        source: An open DB-API connection to the source.
        dialect: `mysql` or `postgres`.
        connection: To the warehouse, in a transaction that reads one snapshot.
        lake: Where raw is.
        contract: The table.
    """
    found = Compared(contract.qualified_name, "source=ods")
    live, found.seen = _row(
        connection,
        sql.SQL("SELECT count(*) FILTER (WHERE _deleted_at IS NULL), count(_deleted_at) FROM ods.{}").format(
            sql.Identifier(contract.name)
        ),
    )
    count = bucket_count(live)
    snapshot = Snapshot(source, dialect, contract)
    try:
        snapshot.cursor.execute(bucketed(_source_rows(dialect, contract), count))
        there = snapshot.cursor.fetchall()
        here = connection.execute(bucketed(_ods_rows(contract), count).encode()).fetchall()
        buckets = compare_buckets(count, there, here)
        found.left, found.right = buckets.left, buckets.right
        if buckets.differing and contract.has_key:
            _explain(snapshot, connection, lake, contract, buckets, found)
        elif buckets.differing:
            found.broken("rows differ, and without a key none can be named", rows=len(buckets.differing))
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


def _explain(
    snapshot: Snapshot,
    connection: psycopg.Connection[Any],
    lake: Lake,
    contract: TableContract,
    buckets: Buckets,
    found: Compared,
) -> None:
    """Meets the rows of buckets that differ, key by key."""
    dialect = snapshot.dialect
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
    there = snapshot.stream(", ".join(source_columns), f"{buckets.those(snapshot.number)} ORDER BY 1")
    ods_columns = [
        *(f"{ods_number(contract)} AS k", f"{ods_row(contract)} AS d"),
        f"{ods_row(contract, others)} AS other",
        *(f"{ods_value(contract.column(n))} AS key_{i}" for i, n in enumerate(contract.key)),
        *(f"{_held(column)} AS held_{i}" for i, column in enumerate(replacing)),
    ]
    held_rows = stream(
        connection,
        f'SELECT {", ".join(ods_columns)} FROM ods."{contract.name}" AS o '
        f"WHERE o._deleted_at IS NULL AND {buckets.those(ods_number(contract))} ORDER BY 1",
    )
    missing = {
        int(key)
        for (key,) in connection.execute(
            "SELECT k FROM etl.missing_key WHERE source = %s AND table_name = %s",
            (contract.source, contract.name),
        ).fetchall()
    }
    taken = _taken(connection, lake, contract, buckets)
    for k, (its, held, was) in side_by_side(there, held_rows, taken or ()):
        was_taken = int(was[0][1]) if was else None
        if len(its) == len(held) == 1 and int(its[0][1]) == held[0][1]:
            continue
        key = _named(contract, its[0][5:] if its else held[0][3:] if held else (), k)
        if len(held) > 1:
            found.broken(f"{len(held)} times in ods", key, len(held) - 1)
        elif len(its) > 1:
            found.broken(f"{len(its)} times in the source", key, len(its) - 1)
        elif its:
            why = _why_other(contract, replacing, its[0], held, was_taken, is_known=taken is not None)
            found.note(why, "differs in ods" if held else "missing in ods", key)
        elif held:
            why = _DELETED if was_taken is not None or k in missing else None
            why = _IGNORED if contract.deletes == "ignore" else why
            found.note(why, "not in the source, and never taken from it", key)


def _why_other(
    contract: TableContract,
    replacing: list[Column],
    its: Sequence[Any],
    held: Sequence[Sequence[Any]],
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
    contract: TableContract, replacing: list[Column], its: Sequence[Any], held: Sequence[Any]
) -> bool:
    """Whether a row is the source's, but for values that its columns cannot hold and what stands for them."""
    first = len(contract.key)
    if not replacing or int(its[4]) != held[2]:
        return False
    for column, value, ours in zip(replacing, its[5 + first :], held[3 + first :], strict=True):
        if value is not None and not column.type.holds(str(value)):
            if ours != []:
                return False
        elif ours != (value if value is None else str(value)) and ours != []:
            return False
    return True


def _taken(
    connection: psycopg.Connection[Any], lake: Lake, contract: TableContract, buckets: Buckets
) -> Iterator[Sequence[Any]] | None:
    """Key and digest of each row that was taken, of buckets that differ, in the order of keys.

    Returns:
        As the warehouse remembers them; else as raw has them; None where neither knows of all rows.
    """
    there = sql.SQL("SELECT to_regclass({})").format(sql.Literal(f"digest.{contract.name}"))
    if _row(connection, there)[0]:
        query = f'SELECT k, d FROM digest."{contract.name}" WHERE {buckets.those("k")} ORDER BY 1'
        return stream(connection, query)
    runs = connection.execute(
        "SELECT run_id FROM etl.run WHERE status = 'published' AND %s = ANY(tables) "
        "ORDER BY published_at DESC",
        (contract.name,),
    ).fetchall()
    # From the newest batch back to one of all rows; the newest of a row counts.
    keys: list[list[str]] = []
    for (run_id,) in runs:
        manifest = next(iter(find_manifests(lake, run_id, [contract])), None)
        if manifest is None:
            return None
        keys.append([part.key for part in manifest.parts])
        if manifest.full:
            return raw_row_digests_ordered(lake, keys, contract, buckets.those("k"))
    return None


def _named(contract: TableContract, values: Sequence[Any], k: int) -> str:
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
    if found.unexplained:
        found.keys = [str(one) for one in islice(unlike_ods(connection, model), SHOWN)]
    return found


def compare_model(
    connection: psycopg.Connection[Any], lake: Lake, target: Target, name: str, model: str, owed: list[str]
) -> Compared:
    """Compares a model's table with a target's, and names rows of buckets that differ.

    Args:
        connection: To the warehouse, in a transaction.
        lake: Where increments are.
        target: The target.
        name: Its name, such as `clickhouse`.
        model: The model.
        owed: The published runs that it does not show; rows of their increments are explained.
    """
    found = Compared(model, shown_in(name))
    buckets = compare_target(connection, target, model)
    found.left, found.right = buckets.left, buckets.right
    for some in batched(differences(connection, target, model, buckets), FETCH):
        late = _changed(lake, model, owed, some)
        for one in some:
            if one.key in late:
                found.explained[_BEHIND] += one.rows
            else:
                found.broken(one.how, one.key, one.rows)
    return found


def _changed(lake: Lake, model: str, runs: Iterable[str], rows: Iterable[Difference]) -> set[str]:
    """The keys of those rows that these runs brought or removed."""
    defined = definition(model)
    found: set[str] = set()
    for run_id in runs:
        for layer, column in (("increment", defined.key[0]), ("removed", own_key(defined)[0])):
            parts = [key for key in lake.keys(f"{layer}/{model}/run={run_id}") if key.endswith(".parquet")]
            by_value = {(one.value if layer == "increment" else one.own): one.key for one in rows}
            for batch in lake.read_batches(parts, columns=[column]):
                values = map(str, batch.column(0).to_pylist())
                found |= {by_value[value] for value in values if value in by_value}
    return found


def compare_mart(target: Target, name: str, mart: str) -> Compared:
    """A mart's totals against those of the model that it adds up, in the target alone."""
    found = Compared(mart, mart_in(name))
    for line in check_mart(name, target, mart):
        if line.measure == ROWS:
            found.left, found.right = int(line.left), int(line.right)
        if not line.closed:
            found.broken(f"{line.measure}: {line.left} != {line.right}")
    return found


def statements(pipeline: PipelineContract, table: str | None = None) -> Iterator[tuple[str, str, list[str]]]:
    """The plain SQL whose answers, a count and a digest, must be equal, table by table.

    Args:
        pipeline: Whose tables.
        table: One of them, as `orders.orders`, or a model; None for all.

    Yields:
        What is asked, the engine (`mysql`, `postgres`, or a target's), and statements, the question last.
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
            for target in map(targets.load, pipeline.targets):
                name = f"dwh.`{model}`" if target.engine == "clickhouse" else f'dwh."{model}"'
                query = f"SELECT {count_and_digest(target.engine, said)} FROM {name}"
                yield f"{target.title} dwh.{model}", target.engine, [query]


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
    access = LakeAccess(settings.minio_url, settings.minio_root_user, settings.minio_root_password)
    lake = Lake.s3(settings.lake_bucket, **vars(access))
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
                        yield compare_source(opened, source.engine, connection, lake, contract)
        models, marts = (
            [name for name in names if table in (None, name, f"dwh.{name}")]
            for names in (pipeline.models, pipeline.marts)
        )
        for model in models:
            if definition(model).is_built:
                with connection.transaction():
                    yield compare_checks(connection, model)
        for name in pipeline.targets if models or marts else ():
            with (
                closing(targets.load(name).open(Place.of(settings, name), lake, access)) as target,
                connection.transaction(),
            ):
                published = connection.execute(
                    "SELECT run_id FROM etl.run WHERE pipeline = %s AND status = 'published'",
                    (pipeline.name,),
                ).fetchall()
                owed = [run for (run,) in published if run not in target.shown_runs()]
                for model in models:
                    yield compare_model(connection, lake, target, name, model, owed)
                for mart in marts:
                    yield compare_mart(target, name, mart)


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
