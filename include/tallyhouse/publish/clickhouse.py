"""Publishes what the warehouse shows into ClickHouse: staged aside, counted, swapped.

ClickHouse keeps the runs that it shows in its own table `etl_run`. Every published run of the subject
that is missing there is applied, oldest first, so a run that died between the two stores is finished
by the next one, and a ClickHouse that was emptied is filled again from the lake.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import psycopg
from clickhouse_connect.driver.client import Client
from psycopg import sql

from tallyhouse.contracts import SubjectContract
from tallyhouse.errors import TallyhouseError
from tallyhouse.lake import Lake
from tallyhouse.ledger import ROWS, Hop, Line, check_closed, store
from tallyhouse.publish import sql as statements

log = logging.getLogger(__name__)


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
        The lines of the hop from PostgreSQL to ClickHouse.

    Raises:
        TallyhouseError: The run is not published, or the two stores differ.
    """
    with connect() as connection:
        shown = {row[0] for row in client.query("SELECT run_id FROM etl_run").result_rows}
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
        with connection.transaction():
            store.write(connection, run_id, subject.name, lines)
        check_closed(lines, run_id)
        with connection.transaction():
            connection.execute(
                "UPDATE etl.run SET clickhouse_at = clock_timestamp() "
                "WHERE subject = %s AND status = 'published' AND clickhouse_at IS NULL",
                (subject.name,),
            )
    return lines


def _published_runs(connection: psycopg.Connection[Any], subject: str) -> list[str]:
    with connection.transaction():
        rows = connection.execute(
            "SELECT run_id FROM etl.run WHERE subject = %s AND status = 'published' ORDER BY published_at",
            (subject,),
        ).fetchall()
    return [row[0] for row in rows]


def _apply(client: Client, lake: Lake, access: LakeAccess, subject: SubjectContract, run_id: str) -> None:
    for model in subject.models:
        prefix = f"increment/{model}/run={run_id}"
        if not any(key.endswith(".parquet") for key in lake.keys(prefix)):
            continue
        columns, key = _columns(client, model)
        names = ", ".join(f"`{column}`" for column in columns)
        increment = (
            f"s3('{access.endpoint}/{lake.root}/{prefix}/*.parquet', "
            f"'{access.access_key}', '{access.secret_key}', 'Parquet')"
        )
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
    with connection.transaction():
        exact = connection.execute(
            "SELECT column_name FROM information_schema.columns "
            "WHERE table_schema = 'dwh' AND table_name = %s AND data_type = 'numeric' "
            "ORDER BY ordinal_position",
            (model,),
        ).fetchall()
        columns = [row[0] for row in exact]
        sums = [sql.SQL("coalesce(sum({}), 0)::text").format(sql.Identifier(name)) for name in columns]
        left = connection.execute(
            sql.SQL("SELECT {} FROM dwh.{}").format(
                sql.SQL(", ").join([sql.SQL("count(*)::text"), *sums]), sql.Identifier(model)
            )
        ).fetchone()
    arrived = ", ".join(["toString(count())", *(f"toString(ifNull(sum(`{name}`), 0))" for name in columns)])
    right = client.query(f"SELECT {arrived} FROM `{model}`").result_rows[0]
    measures = (ROWS, *(f"sum({name})" for name in columns))
    return [
        Line(model, Hop.POSTGRES_CLICKHOUSE, measure, Decimal(here), Decimal(there))
        for measure, here, there in zip(measures, left or (), right, strict=True)
    ]
