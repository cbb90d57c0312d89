"""Publishes what the warehouse shows into ClickHouse: staged, counted, swapped.

ClickHouse keeps the runs that it shows in its own table `etl_run`. Every published run of the pipeline
that is missing there is applied, oldest first, so a run that died between the two stores is finished
by the next one, and a ClickHouse that was emptied is filled again from the lake. Publishes of one
pipeline wait for one another.

A run that ClickHouse refuses, or whose increments are gone, is marked in `etl.run` and holds up no other.
Its increments may no longer be applied once those of a later run are, so what it changed is taken from
the warehouse: every model is copied as it stands there now.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import psycopg
import pyarrow as pa
from clickhouse_connect.driver.binding import format_str
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError
from psycopg import sql

from tallyhouse.contracts import PipelineContract
from tallyhouse.errors import TallyhouseError, first_line
from tallyhouse.extract.to_raw import write_parts
from tallyhouse.lake import Lake
from tallyhouse.ledger import ROWS, Hop, Line, check_closed, store
from tallyhouse.models import definition
from tallyhouse.models.clickhouse import totals
from tallyhouse.models.definition import Totals
from tallyhouse.models.postgres import NO_GROUP
from tallyhouse.publish import sql as statements
from tallyhouse.publish.limits import check_fits, limits_of, outside
from tallyhouse.publish.staging import table_schema
from tallyhouse.runs import record_failure

log = logging.getLogger(__name__)

COPY_ROWS = 20_000
TASK = "publish.clickhouse"
"""The task that this is the work of, in every DAG."""


@dataclass(frozen=True)
class LakeAccess:
    """How ClickHouse itself reaches the lake.

    Attributes:
        endpoint: With its scheme, such as `http://127.0.0.1:9000`.
        access_key: The account.
        secret_key: Its secret.
    """

    endpoint: str
    access_key: str
    secret_key: str = field(repr=False)


def publish(
    connect: Callable[[], psycopg.Connection[Any]],
    client: Client,
    lake: Lake,
    access: LakeAccess,
    pipeline: PipelineContract,
    run_id: str,
    *,
    whole: bool = False,
) -> list[Line]:
    """Brings ClickHouse to what the warehouse shows, and proves it.

    Args:
        connect: Opens a connection to the warehouse.
        client: A client of ClickHouse, in the star schema's database.
        lake: Where the increments are.
        access: How ClickHouse reaches them.
        pipeline: What the run carries.
        run_id: The run whose ledger gets the lines.
        whole: Copy every model from the warehouse, whatever ClickHouse shows.

    Returns:
        The lines of the hops from PostgreSQL to ClickHouse, and from its models to its marts.

    Raises:
        TallyhouseError: The run is not published, the warehouse holds what ClickHouse cannot, or the ledger
            does not close.
    """
    with connect() as connection:
        _lock(connection, pipeline.name)
        published = _published_runs(connection, pipeline.name)
        if run_id not in published:
            raise TallyhouseError(
                "the warehouse does not show this run",
                remedy="Publish it into PostgreSQL first; clear that task",
            )
        shown = _shown_runs(client)
        # Of two runs, the older one's increments would put its rows in the place of newer ones.
        last = max((number for number, run in enumerate(published) if run in shown), default=-1)
        left = [run for run in published[: last + 1] if run not in shown]
        for missing in published[last + 1 :]:
            if (refusal := _apply(client, lake, access, pipeline, missing)) is not None:
                left.append(missing)
                log.error("%s", refusal)
                record_failure(connection, missing, refusal.failure(TASK))
        not_copied = None
        if left or whole:
            not_copied = _copy(connection, client, lake, access, pipeline, run_id, left)
        for mart in pipeline.marts:
            _swap_in(
                client,
                mart,
                [statements.render(f"clickhouse/models/{mart}/build.sql", staging=f"{mart}__staging")],
            )
        lines = [line for model in pipeline.models for line in _compare(connection, client, model)]
        lines += [line for mart in pipeline.marts for line in check_mart(client, mart)]
        with connection.transaction():
            store.write(connection, run_id, pipeline.name, lines)
        if not_copied is not None:
            raise not_copied
        if left or whole:
            # Says which rows and why, where the ledger would only say how many.
            with connection.transaction():
                for model in pipeline.models:
                    check_fits(connection, "dwh", model, model=model)
        check_closed(lines, run_id)
        with connection.transaction():
            connection.execute(
                "UPDATE etl.run SET clickhouse_at = clock_timestamp(), failure = NULL, message = NULL "
                "WHERE run_id = ANY(%s) AND clickhouse_at IS NULL",
                ([run for run in published if run in _shown_runs(client)],),
            )
    return lines


def _lock(connection: psycopg.Connection[Any], pipeline: str) -> None:
    """Waits until no other publish of the pipeline fills its staging tables; held until disconnected."""
    with connection.transaction():
        connection.execute(
            "SELECT pg_advisory_lock(hashtextextended(%s, 0))", (f"tallyhouse clickhouse {pipeline}",)
        )


def _shown_runs(client: Client) -> set[str]:
    return {row[0] for row in client.query("SELECT run_id FROM etl_run").result_rows}


def _published_runs(connection: psycopg.Connection[Any], pipeline: str) -> list[str]:
    with connection.transaction():
        rows = connection.execute(
            "SELECT run_id FROM etl.run WHERE pipeline = %s AND status = 'published' ORDER BY published_at",
            (pipeline,),
        ).fetchall()
    return [row[0] for row in rows]


def _apply(
    client: Client, lake: Lake, access: LakeAccess, pipeline: PipelineContract, run_id: str
) -> TallyhouseError | None:
    """Applies a run's increments.

    Returns:
        Why the run could not be applied; None when it was.
    """
    try:
        for model in _increments(lake, pipeline, run_id):
            (key,) = definition(model).key
            names = _names(model)
            increment = _parquet(lake, access, f"increment/{model}/run={run_id}")
            staging = f"`{model}__staging`"
            with _refusals(model, run_id):
                _swap_in(
                    client,
                    model,
                    [
                        f"INSERT INTO {staging} ({names}) SELECT {names} FROM `{model}` "
                        f"WHERE `{key}` NOT IN (SELECT `{key}` FROM {increment})",
                        f"INSERT INTO {staging} ({names}) SELECT {names} FROM {increment}",
                    ],
                )
    except TallyhouseError as error:
        error.add_context(f"pipeline {pipeline.name}", run_id)
        return error
    _mark_shown(client, pipeline, [run_id])
    log.info("run %s is in ClickHouse", run_id)
    return None


@contextmanager
def _refusals(model: str, run_id: str) -> Iterator[None]:
    try:
        yield
    except OperationalError:
        raise  # the server went away
    except DatabaseError as error:
        raise TallyhouseError(
            f"ClickHouse refused its rows ({first_line(error)})",
            remedy="Fix what it names; the next run then copies the models from the warehouse, and so "
            f"does `make repair RUN={run_id}`",
            table=model,
            rule="ClickHouse takes the rows",
        ) from error


def _copy(
    connection: psycopg.Connection[Any],
    client: Client,
    lake: Lake,
    access: LakeAccess,
    pipeline: PipelineContract,
    run_id: str,
    left: list[str],
) -> TallyhouseError | None:
    """Copies every model as the warehouse has it, but for rows that ClickHouse cannot hold.

    Those are missing in the ledger then, by number, until the source is fixed.

    Returns:
        What ClickHouse said of the first model that it refused; that one stays as it was.
    """
    refusal = None
    for model in pipeline.models:
        prefix = f"repair/{model}/run={run_id}"
        for key in lake.keys(prefix):
            lake.filesystem.delete_file(lake.path(key))
        with connection.transaction():
            schema = table_schema(connection, "dwh", model)
            parts = list(write_parts(_rows(connection, model, schema), lake, prefix, schema))
        names = _names(model)
        insert = (
            f"INSERT INTO `{model}__staging` ({names}) SELECT {names} FROM {_parquet(lake, access, prefix)}"
        )
        try:
            with _refusals(model, run_id):
                _swap_in(client, model, [insert] if parts else [])
        except TallyhouseError as error:
            error.add_context(f"pipeline {pipeline.name}", run_id)
            log.error("%s", error)
            refusal = refusal or error
            continue
        finally:
            for part in parts:
                lake.filesystem.delete_file(lake.path(part.key))
        log.info("%s: %s rows copied from the warehouse", model, sum(part.rows for part in parts))
    if refusal is None:
        _mark_shown(client, pipeline, left)
    return refusal


def _rows(connection: psycopg.Connection[Any], model: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    limits = limits_of(connection, "dwh", model)
    # CHAR(n) comes padded; as text it does not.
    names = sql.SQL(", ").join(
        sql.SQL("t.{}::text" if pa.types.is_string(field.type) else "t.{}").format(sql.Identifier(field.name))
        for field in schema
    )
    with connection.cursor(name=f"copy_{model}") as cursor:
        cursor.execute(
            sql.SQL("SELECT {} FROM dwh.{} AS t WHERE NOT {}").format(
                names, sql.Identifier(model), outside(limits)
            )
        )
        while rows := cursor.fetchmany(COPY_ROWS):
            columns = zip(*rows, strict=True)
            arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _names(model: str) -> str:
    return ", ".join(f"`{column}`" for column in definition(model).columns)


def _parquet(lake: Lake, access: LakeAccess, prefix: str) -> str:
    """The table function that reads the Parquet objects below a prefix."""
    # In the statement's text, quoted: bound parameters would carry the secret in the URL.
    url, account, secret = map(
        format_str,
        (f"{access.endpoint}/{lake.root}/{prefix}/*.parquet", access.access_key, access.secret_key),
    )
    return f"s3({url}, {account}, {secret}, 'Parquet')"


def _mark_shown(client: Client, pipeline: PipelineContract, runs: Iterable[str]) -> None:
    for run_id in runs:
        client.command(
            "INSERT INTO etl_run (run_id, pipeline, applied_at) VALUES "
            f"({format_str(run_id)}, {format_str(pipeline.name)}, now64(6, 'UTC'))"
        )


def _increments(lake: Lake, pipeline: PipelineContract, run_id: str) -> list[str]:
    """The models that a run changed; the lake must still hold every row that the transform reported."""
    remedy = "Nothing is lost: the models are copied from the warehouse instead"
    key = f"report/{pipeline.name}/run={run_id}/transform.json"
    try:
        reported = lake.read_json(key)["models"]
    except FileNotFoundError as error:
        raise TallyhouseError(f"{key} is gone from the lake", remedy=remedy) from error
    for model in pipeline.models:
        keys = lake.keys(f"increment/{model}/run={run_id}")
        found = sum(lake.row_count(key) for key in keys if key.endswith(".parquet"))
        if found != reported[model]:
            raise TallyhouseError(
                f"the transform reported {reported[model]} rows, the lake holds {found} of them",
                remedy=remedy,
                table=model,
            )
    return [model for model in pipeline.models if reported[model]]


def _swap_in(client: Client, table: str, inserts: list[str]) -> None:
    """Fills a table of the same shape aside, then exchanges the two; readers see one of them whole."""
    staging = f"`{table}__staging`"
    client.command(f"DROP TABLE IF EXISTS {staging} SYNC")
    client.command(f"CREATE TABLE {staging} AS `{table}`")
    for insert in inserts:
        # Facts are partitioned by month; a first run may bring any number of them.
        client.command(insert, settings={"max_partitions_per_insert_block": 0})
    client.command(f"EXCHANGE TABLES {staging} AND `{table}`")
    client.command(f"DROP TABLE {staging} SYNC")


def _compare(connection: psycopg.Connection[Any], client: Client, model: str) -> list[Line]:
    """Rows, and the sum of every measure, by currency where the definition says so."""
    measures = definition(model).measures
    names = list(measures.sum) if measures else []
    by = measures.by if measures else None
    sums = [sql.SQL("coalesce(sum({}), 0)::text").format(sql.Identifier(name)) for name in names]
    group: sql.Composable = sql.SQL("''")
    if by:
        group = sql.SQL("coalesce({}::text, {})").format(sql.Identifier(by), NO_GROUP)
    with connection.transaction():
        left = connection.execute(
            sql.SQL("SELECT {} FROM dwh.{} GROUP BY 1").format(
                sql.SQL(", ").join([group, sql.SQL("count(*)::text"), *sums]), sql.Identifier(model)
            )
        ).fetchall()
    arrived = ", ".join(
        [
            f"ifNull(toString(`{by}`), '{NO_GROUP}') AS grouped" if by else "'' AS grouped",
            "toString(count())",
            *(f"toString(ifNull(sum(`{name}`), 0))" for name in names),
        ]
    )
    right = client.query(f"SELECT {arrived} FROM `{model}` GROUP BY grouped").result_rows
    here, there = _totals(left, names), _totals(right, names)
    return [
        Line(model, Hop.POSTGRES_CLICKHOUSE, name, here.get(name, Decimal(0)), there.get(name, Decimal(0)))
        for name in dict.fromkeys([ROWS, *here, *there])
    ]


def _totals(groups: Iterable[Sequence[str]], measures: list[str]) -> dict[str, Decimal]:
    """What was counted and summed, by the measure's name in the ledger: `rows`, `sum(amount) UAH`."""
    totals = {ROWS: Decimal(0)}
    for group, rows, *sums in groups:
        totals[ROWS] += Decimal(rows)
        for name, value in zip(measures, sums, strict=True):
            totals[f"sum({name}) {group}".rstrip()] = Decimal(value)
    return totals


def check_mart(client: Client, mart: str) -> list[Line]:
    """The sums of a mart against those of the model that it adds up, as its definition says."""
    defined = definition(mart)
    if defined.totals is None:
        return []
    here, there = (_mart_totals(defined.totals, client.query(query).result_rows) for query in totals(defined))
    return [
        Line(mart, Hop.MODEL_MART, name, here.get(name, Decimal(0)), there.get(name, Decimal(0)))
        for name in dict.fromkeys([*here, *there])
    ]


def _mart_totals(said: Totals, rows: Iterable[Sequence[str]]) -> dict[str, Decimal]:
    """By the measure's name in the ledger: `rows`, `revenue UAH`."""
    found: dict[str, Decimal] = {ROWS: Decimal(0)} if said.rows else {}
    for row in rows:
        values = [Decimal(value) for value in row[len(said.by) :]]
        if said.rows:
            found[ROWS] += values.pop(0)
        group = " ".join(row[: len(said.by)])
        found |= {f"{name} {group}".rstrip(): value for name, value in zip(said.sums, values, strict=True)}
    return found
