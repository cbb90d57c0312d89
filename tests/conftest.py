"""Fixtures of the integration tests: the stack's real servers, scratch databases, a ClickHouse apart."""

import logging
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import clickhouse_connect
import mysql.connector
import psycopg
import pytest
from clickhouse_connect.driver.client import Client
from psycopg import sql

from tallyhouse.migrate import migrate_target
from tallyhouse.servers import MySqlServer
from tallyhouse.settings import ROOT, Settings, load_settings
from tests.store_servers import other_engine

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

__all__ = ["other_engine"]  # a fixture, one for all tests

CLICKHOUSE_PASSWORD = "a scratch server's"


def pytest_configure() -> None:
    # It says goodbye when the interpreter ends, to a stream that pytest has closed by then.
    logging.getLogger("py4j").setLevel(logging.WARNING)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "spark" in getattr(item, "fixturenames", ()):
            item.add_marker("spark")


@pytest.fixture(scope="session")
def settings() -> Settings:
    return load_settings()


@pytest.fixture(scope="session")
def spark() -> Iterator["SparkSession"]:
    """One Spark session for all tests."""
    from spark_jobs.session import build_session  # noqa: PLC0415 - most tests need no Spark

    # createDataFrame of the tests may need a Python worker; jobs never do.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    session = build_session("tests")
    yield session
    session.stop()


@pytest.fixture
def mysql_settings(settings: Settings) -> Settings:
    """Settings whose orders server is the one that scratch databases are made on."""
    return settings


@pytest.fixture
def mysql_scratch(mysql_settings: Settings) -> Iterator["MySqlScratch"]:
    """An empty database of its own on the orders server, gone after the test."""
    with scratch_database(mysql_settings) as scratch:
        yield scratch


@contextmanager
def scratch_database(settings: Settings) -> Iterator["MySqlScratch"]:
    """An empty database on the orders server while the block runs."""
    name = f"scratch_{secrets.token_hex(4)}"
    with mysql.connector.connect(
        host=settings.mysql_orders_host,
        port=settings.mysql_orders_port,
        user="root",
        password=settings.mysql_root_password,
        autocommit=True,
    ) as connection:
        cursor = connection.cursor()
        cursor.execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        cursor.execute(f"USE {name}")
        cursor.execute(f"GRANT SELECT ON {name}.* TO '{settings.etl_reader_user}'@'%'")
        try:
            yield MySqlScratch(settings, name, cursor)
        finally:
            cursor.execute(f"REVOKE SELECT ON {name}.* FROM '{settings.etl_reader_user}'@'%'")
            cursor.execute(f"DROP DATABASE {name}")


class MySqlScratch:
    """A scratch database: its name, and a cursor of root that is in it."""

    def __init__(self, settings: Settings, name: str, cursor: "mysql.connector.cursor.MySQLCursor") -> None:
        self.settings = settings
        self.name = name
        self.cursor = cursor

    @property
    def server(self) -> MySqlServer:
        """How the extraction account enters it."""
        return MySqlServer(
            host=self.settings.mysql_orders_host,
            port=self.settings.mysql_orders_port,
            user=self.settings.etl_reader_user,
            password=self.settings.etl_reader_password,
            database=self.name,
        )

    def create(self, schema: str) -> None:
        """Runs a generated schema of `sql/oltp/`."""
        for statement in schema.split(";\n"):
            if statement.strip():
                self.cursor.execute(statement)


@pytest.fixture
def postgres_scratch(settings: Settings) -> Iterator[str]:
    """The URI of an empty PostgreSQL database of the warehouse's owner, gone after the test."""
    with scratch_postgres(settings) as address:
        yield address


@contextmanager
def scratch_postgres(settings: Settings) -> Iterator[str]:
    """An empty PostgreSQL database of the warehouse's owner while the block runs."""
    name = f"scratch_{secrets.token_hex(4)}"
    server = f"{settings.postgres_host}:{settings.postgres_port}"
    admin = f"postgresql://{settings.postgres_user}:{quote(settings.postgres_password)}@{server}/postgres"
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} OWNER {}").format(
                sql.Identifier(name), sql.Identifier(settings.dwh_user)
            )
        )
        try:
            yield f"postgresql://{settings.dwh_user}:{quote(settings.dwh_password)}@{server}/{name}"
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@contextmanager
def embedded_clickhouse(folder: Path, lake: str, port: int = 0) -> Iterator[int]:
    """The port of an embedded ClickHouse with a folder and a password of its own, while the block runs."""
    with closing(socket.socket()) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        port = listener.getsockname()[1]
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "services.embedded_clickhouse", "--path", str(folder / "data")),
            *("--port", str(port), "--lake", lake),
        ],
        cwd=ROOT,
        env=os.environ | {"CLICKHOUSE_PASSWORD": CLICKHOUSE_PASSWORD},  # the stack's is not for this one
        stdout=(folder / "log").open("ab"),
        stderr=subprocess.STDOUT,
    )
    try:
        for _ in range(120):
            with closing(socket.socket()) as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert server.poll() is None, Path(folder / "log").read_text()
            time.sleep(0.25)
        yield port
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture(scope="session")
def clickhouse_port(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of an embedded ClickHouse that reads the stack's lake."""
    with embedded_clickhouse(tmp_path_factory.mktemp("clickhouse"), settings.minio_url) as port:
        yield port


@pytest.fixture
def clickhouse_settings(settings: Settings, clickhouse_port: int) -> Settings:
    return settings.model_copy(
        update={
            "clickhouse_host": "127.0.0.1",
            "clickhouse_http_port": clickhouse_port,
            "clickhouse_user": "default",
            "clickhouse_password": CLICKHOUSE_PASSWORD,
        }
    )


@pytest.fixture
def clickhouse_server(clickhouse_settings: Settings) -> Iterator[Client]:
    """A client of a ClickHouse without a database `dwh`."""
    with clickhouse_connect.get_client(
        host="127.0.0.1",
        port=clickhouse_settings.clickhouse_http_port,
        username=clickhouse_settings.clickhouse_user,
        password=clickhouse_settings.clickhouse_password,
        compress=False,
        tz_mode="aware",
    ) as client:
        client.command("DROP DATABASE IF EXISTS dwh SYNC")
        yield client


@pytest.fixture
def clickhouse(clickhouse_server: Client, clickhouse_settings: Settings) -> Client:
    """A client of a migrated ClickHouse."""
    migrate_target(clickhouse_settings, "clickhouse")
    return clickhouse_server
