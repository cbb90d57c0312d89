"""TechMarket's runs by Airflow itself, under which Airflow's scheduler or a source dies: on demand.

The stack of the tests with its own stores; the oracle of `tests/proof/oracle.py`.
"""

from __future__ import annotations

import os
import re
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import clickhouse_connect
import mysql.connector
import psycopg
import pytest
from clickhouse_connect.driver.client import Client

from scripts.stack.context import Stack
from scripts.stack.demo import tool
from tallyhouse.settings import Settings
from tests.proof import page
from tests.proof.oracle import Ask, techmarket_differences
from tests.proof.readers import Readers
from tests.proof.servers import Servers

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.environ.get("PROOF") != "1", reason="on demand, minutes for each: make proof"),
]

ONLY = re.compile(os.environ.get("PROOF_ONLY", ""))
TASKS = ("extract.orders", "check", "transform", "publish.warehouse", "publish.clickhouse")
KILLED = {"airflow-scheduler": "Airflow's scheduler is killed", "mysql-orders": "MariaDB is killed"}


class Payments(Readers):
    """What is paid, in each store."""

    postgres = (
        "SELECT (SELECT count(*) FROM ods.payments WHERE _deleted_at IS NULL), "
        "(SELECT count(*) FROM dwh.fact_payment)"
    )
    clickhouse = (
        "SELECT (SELECT count() FROM dwh.fact_payment), "
        "(SELECT sum(attempts) FROM dwh.mart_payment_conversion)"
    )


class Shop:
    """The stack's sources and stores."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def source(self, name: str) -> Ask:
        s = self.settings
        host, port, database = (getattr(s, f"mysql_{name}_{what}") for what in ("host", "port", "db"))

        def ask(query: str) -> list[tuple[Any, ...]]:
            with (
                closing(
                    mysql.connector.connect(
                        host=host,
                        port=port,
                        user="root",
                        password=s.mysql_root_password,
                        database=database,
                        time_zone="+00:00",
                    )
                ) as connection,
                closing(connection.cursor()) as cursor,
            ):
                cursor.execute(query)
                return [tuple(row) for row in cursor.fetchall()]

        return ask

    def connect(self) -> psycopg.Connection[Any]:
        s = self.settings
        account = f"{s.postgres_user}:{quote(s.postgres_password, safe='')}"
        return psycopg.connect(
            f"postgresql://{account}@{s.postgres_host}:{s.postgres_port}/{s.dwh_db}", autocommit=True
        )

    def warehouse(self, query: str) -> list[tuple[Any, ...]]:
        with self.connect() as connection:
            return connection.execute(query.encode()).fetchall()

    def client(self) -> Client:
        s = self.settings
        return clickhouse_connect.get_client(
            host=s.clickhouse_host,
            port=s.clickhouse_http_port,
            username=s.clickhouse_user,
            password=s.clickhouse_password,
            compress=False,
            tz_mode="aware",
        )

    def clickhouse(self, query: str) -> list[tuple[Any, ...]]:
        with self.client() as client:
            return [tuple(row) for row in client.query(query).result_rows]

    def differences(self) -> list[str]:
        sources = map(self.source, ("auth", "catalog", "orders", "payments"))
        return techmarket_differences(sources, self.warehouse, self.clickhouse)


def test_a_run_of_airflow_under_which_a_process_is_killed_ends_right(
    settings: Settings, tmp_path: Path
) -> None:
    shop, stack = Shop(settings), Stack()
    servers = Servers("", tmp_path, lambda: pytest.fail("ClickHouse is the stack's"))
    chosen = [
        (task, process)
        for process, death in KILLED.items()
        for task in TASKS
        if ONLY.search(f"{death} {task}")
    ]
    if chosen:
        assert servers.airflow_run("techmarket_nightly", killed_in=None) == "success"
        assert shop.differences() == []
    said = []
    for task, process in chosen:
        ((earlier,),) = shop.warehouse("SELECT count(*) FROM dwh.fact_payment")
        tool(stack, "techmarket", "day")
        ((now,),) = shop.source("payments")("SELECT count(*) FROM payments")
        with Payments(shop.connect, shop.client, {earlier, now}) as readers:
            ended = servers.airflow_run("techmarket_nightly", killed_in=task, killed=process)
        result = "; ".join(shop.differences()[:3]) or ("ok" if ended == "success" else f"the run is {ended}")
        said.append(
            {
                "boundary": f"TechMarket, by Airflow: the task {task}",
                "death": f"{KILLED[process]}, then Airflow itself goes on",
                "reached": True,
                "readers_saw": readers.said,
                "result": result,
            }
        )
        print(f"{datetime.now():%H:%M:%S} {KILLED[process]} in {task}: {result}", flush=True)
        page.keep(said[-1:])
    assert page.wrong(said) == []
