"""Extraction is tested on MariaDB 11.4 and on MySQL 9.7, whichever of them the stack's stores run on."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mysql.connector
import psycopg
import pytest

from tallyhouse.lake import Lake
from tallyhouse.migrate import migrate_warehouse
from tallyhouse.settings import Settings
from tests.conftest import scratch_database


@pytest.fixture(params=["mariadb", "mysql"])
def mysql_settings(request: pytest.FixtureRequest, settings: Settings) -> Settings:
    """The stack's orders server, or that of the other engine."""
    if request.param == settings.stores_engine:
        return settings
    other: Settings = request.getfixturevalue("other_engine")
    return other


@pytest.fixture
def nights(
    request: pytest.FixtureRequest,
    settings: Settings,
    postgres_scratch: str,
    tmp_path: Path,
    spark: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Any]:
    """Runs of one table from a server of the engine that is the parameter, to a warehouse of their own."""
    from tests.extract.nights import Nights, connections  # noqa: PLC0415 - imports Airflow

    migrate_warehouse(settings.model_copy(update={"dwh_db": postgres_scratch.rpartition("/")[2]}))
    lake = Lake.local(str(tmp_path))
    engine = getattr(request, "param", settings.stores_engine)
    if engine == "postgres":
        connections(monkeypatch, postgres_scratch, {})
        with psycopg.connect(postgres_scratch, autocommit=True) as source:
            yield Nights("postgres", source.cursor(), postgres_scratch, lake, monkeypatch)
        return
    store = settings if engine == settings.stores_engine else request.getfixturevalue("other_engine")
    with scratch_database(store) as scratch:
        reader = {
            "conn_type": "mysql",
            "host": store.mysql_orders_host,
            "port": store.mysql_orders_port,
            "schema": scratch.name,
            "login": store.etl_reader_user,
            "password": store.etl_reader_password,
            "extra": {"client": "mysql-connector-python"},
        }
        connections(monkeypatch, postgres_scratch, reader)
        yield Nights("mysql", scratch.cursor, postgres_scratch, lake, monkeypatch)


@pytest.fixture
def another(nights: Any, settings: Settings) -> Callable[[], Any]:
    """Opens a second connection of the source's owner."""
    if nights.engine == "postgres":
        return lambda: psycopg.connect(nights.warehouse, autocommit=True)
    nights.source.execute("SELECT DATABASE(), @@port")
    ((database, port),) = nights.source.fetchall()
    return lambda: mysql.connector.connect(
        host=settings.mysql_orders_host,
        port=port,
        user="root",
        password=settings.mysql_root_password,
        database=database,
        autocommit=True,
    )
