"""Publishes what the warehouse shows into ClickHouse: staged aside, counted, swapped.

ClickHouse keeps the runs that it shows in its own table `etl_run`. Every published run of the subject
that is missing there is applied, oldest first, so a run that died between the two stores is finished
by the next one, and a ClickHouse that was emptied is filled again from the lake. Publishes of one
subject wait for one another.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import psycopg
from clickhouse_connect.driver.binding import format_str
from clickhouse_connect.driver.client import Client
from psycopg import sql

from tallyhouse.contracts import SubjectContract
from tallyhouse.errors import TallyhouseError
from tallyhouse.lake import Lake
from tallyhouse.ledger import ROWS, Hop, Line, check_closed, store
from tallyhouse.publish import sql as statements

log = logging.getLogger(__name__)

ORDINALS = ("line_number", "level")
"""Whole numbers that are no measures and do not end in `_key` or `_id`."""
NO_CURRENCY = "none"


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
    subject: SubjectContract,
    run_id: str,
) -> list[Line]:
    """Brings ClickHouse to what the warehouse shows, and proves it.

    Args:
        connect: Opens a connection to the warehouse.
        client: A client of ClickHouse, in the star schema's database.
        lake: Where the increments are.
        access: How ClickHouse reaches them.
        subject: What the run carries.
        run_id: The run whose ledger gets the lines.

    Returns:
        The lines of the hops from PostgreSQL to ClickHouse, and from its models to its marts.

    Raises:
        TallyhouseError: The run is not published, an increment is gone from the lake, or the ledger does
            not close.
    """
    with connect() as connection:
        _lock(connection, subject.name)
        shown = _shown_runs(client)
        published = _published_runs(connection, subject.name)
        if run_id not in published:
            raise TallyhouseError(
                "the warehouse does not show this run",
                where=f"subject {subject.name} in run {run_id}",
                remedy="Publish it into PostgreSQL first; clear that task",
            )
        for missing in (run for run in published if run not in shown):
            _apply(client, lake, access, subject, missing)
        for mart in subject.marts:
            _swap_in(
                client,
                mart,
                [statements.render(f"clickhouse/models/{mart}/build.sql", staging=f"{mart}__staging")],
            )
        lines = [line for model in subject.models for line in _compare(connection, client, model)]
        lines += [line for mart in subject.marts for line in _check_mart(client, mart)]
        with connection.transaction():
            store.write(connection, run_id, subject.name, lines)
        check_closed(lines, run_id)
        with connection.transaction():
            connection.execute(
                "UPDATE etl.run SET clickhouse_at = clock_timestamp() "
                "WHERE run_id = ANY(%s) AND clickhouse_at IS NULL",
                ([run for run in published if run in _shown_runs(client)],),
            )
    return lines


def _lock(connection: psycopg.Connection[Any], subject: str) -> None:
    """Waits until no other publish of the subject fills its staging tables; held until disconnected."""
    with connection.transaction():
        connection.execute(
            "SELECT pg_advisory_lock(hashtextextended(%s, 0))", (f"tallyhouse clickhouse {subject}",)
        )


def _shown_runs(client: Client) -> set[str]:
    return {row[0] for row in client.query("SELECT run_id FROM etl_run").result_rows}


def _published_runs(connection: psycopg.Connection[Any], subject: str) -> list[str]:
    with connection.transaction():
        rows = connection.execute(
            "SELECT run_id FROM etl.run WHERE subject = %s AND status = 'published' ORDER BY published_at",
            (subject,),
        ).fetchall()
    return [row[0] for row in rows]


def _apply(client: Client, lake: Lake, access: LakeAccess, subject: SubjectContract, run_id: str) -> None:
    for model in _increments(lake, subject, run_id):
        prefix = f"increment/{model}/run={run_id}"
        columns, key = _columns(client, model)
        names = ", ".join(f"`{column}`" for column in columns)
        # In the statement's text, quoted: bound parameters would carry the secret in the URL.
        url, account, secret = map(
            format_str,
            (f"{access.endpoint}/{lake.root}/{prefix}/*.parquet", access.access_key, access.secret_key),
        )
        increment = f"s3({url}, {account}, {secret}, 'Parquet')"
        staging = f"`{model}__staging`"
        _swap_in(
            client,
            model,
            [
                f"INSERT INTO {staging} ({names}) SELECT {names} FROM `{model}` "
                f"WHERE `{key}` NOT IN (SELECT `{key}` FROM {increment})",
                f"INSERT INTO {staging} ({names}) SELECT {names} FROM {increment}",
            ],
        )
    client.command(
        "INSERT INTO etl_run (run_id, subject, applied_at) VALUES "
        f"('{run_id}', '{subject.name}', now64(6, 'UTC'))"
    )
    log.info("run %s is in ClickHouse", run_id)


def _increments(lake: Lake, subject: SubjectContract, run_id: str) -> list[str]:
    """The models that a run changed; the lake must still hold every row that the transform reported."""
    where = f"subject {subject.name} in run {run_id}"
    remedy = (
        "Bring it back from a backup of the lake. Where there is none, insert the run into ClickHouse's "
        "etl_run by hand and start a run with full_refresh: it carries every row again"
    )
    key = f"report/{subject.name}/run={run_id}/transform.json"
    try:
        reported = lake.read_json(key)["models"]
    except FileNotFoundError as error:
        raise TallyhouseError(f"{key} is gone from the lake", where=where, remedy=remedy) from error
    for model in subject.models:
        keys = lake.keys(f"increment/{model}/run={run_id}")
        found = sum(lake.row_count(key) for key in keys if key.endswith(".parquet"))
        if found != reported[model]:
            raise TallyhouseError(
                f"the transform reported {reported[model]} rows, the lake holds {found} of them",
                where=f"{model} in run {run_id}",
                remedy=remedy,
            )
    return [model for model in subject.models if reported[model]]


def _columns(client: Client, table: str) -> tuple[list[str], str]:
    """Names of a model's columns; the first one is its primary key."""
    rows = client.query(
        "SELECT name FROM system.columns WHERE database = currentDatabase() AND table = {table:String} "
        "ORDER BY position",
        parameters={"table": table},
    ).result_rows
    if not rows:
        raise TallyhouseError(
            "ClickHouse has no such table",
            where=table,
            remedy="Run `python -m tallyhouse.migrate clickhouse`",
        )
    names = [row[0] for row in rows]
    return names, names[0]


def _swap_in(client: Client, table: str, inserts: list[str]) -> None:
    """Fills a table of the same shape aside, then exchanges the two; readers see one of them whole."""
    staging = f"`{table}__staging`"
    client.command(f"DROP TABLE IF EXISTS {staging} SYNC")
    client.command(f"CREATE TABLE {staging} AS `{table}`")
    for insert in inserts:
        # Facts are partitioned by month; a first night may bring any number of them.
        client.command(insert, settings={"max_partitions_per_insert_block": 0})
    client.command(f"EXCHANGE TABLES {staging} AND `{table}`")
    client.command(f"DROP TABLE {staging} SYNC")


def _compare(connection: psycopg.Connection[Any], client: Client, model: str) -> list[Line]:
    """Rows, and the sum of every measure, by currency where the model has one."""
    with connection.transaction():
        columns = connection.execute(
            "SELECT column_name, data_type FROM information_schema.columns "
            "WHERE table_schema = 'dwh' AND table_name = %s ORDER BY ordinal_position",
            (model,),
        ).fetchall()
        measures = [name for name, kind in columns if _is_measure(name, kind)]
        by_currency = any(name == "currency" for name, _ in columns)
        sums = [sql.SQL("coalesce(sum({}), 0)::text").format(sql.Identifier(name)) for name in measures]
        group = sql.SQL("coalesce(currency::text, {})").format(NO_CURRENCY) if by_currency else sql.SQL("''")
        left = connection.execute(
            sql.SQL("SELECT {} FROM dwh.{} GROUP BY 1").format(
                sql.SQL(", ").join([group, sql.SQL("count(*)::text"), *sums]), sql.Identifier(model)
            )
        ).fetchall()
    arrived = ", ".join(
        [
            f"ifNull(toString(currency), '{NO_CURRENCY}') AS grouped" if by_currency else "'' AS grouped",
            "toString(count())",
            *(f"toString(ifNull(sum(`{name}`), 0))" for name in measures),
        ]
    )
    right = client.query(f"SELECT {arrived} FROM `{model}` GROUP BY grouped").result_rows
    here, there = _totals(left, measures), _totals(right, measures)
    return [
        Line(model, Hop.POSTGRES_CLICKHOUSE, name, here.get(name, Decimal(0)), there.get(name, Decimal(0)))
        for name in dict.fromkeys([ROWS, *here, *there])
    ]


def _is_measure(column: str, kind: str) -> bool:
    if kind in ("smallint", "integer", "bigint"):
        return not column.endswith(("_key", "_id")) and column not in ORDINALS
    return kind == "numeric"


def _totals(groups: Iterable[Sequence[str]], measures: list[str]) -> dict[str, Decimal]:
    """What was counted and summed, by the measure's name in the ledger: `rows`, `sum(amount) UAH`."""
    totals = {ROWS: Decimal(0)}
    for currency, rows, *sums in groups:
        totals[ROWS] += Decimal(rows)
        for name, value in zip(measures, sums, strict=True):
            totals[f"sum({name}) {currency}".rstrip()] = Decimal(value)
    return totals


def _check_mart(client: Client, mart: str) -> list[Line]:
    rows = client.query(statements.render(f"clickhouse/models/{mart}/law.sql")).result_rows
    return [
        Line(mart, Hop.MODEL_MART, measure, Decimal(left), Decimal(right)) for measure, left, right in rows
    ]
