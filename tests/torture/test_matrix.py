"""No store changes a value without a word: every type, every nasty value, every store."""

import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import mysql.connector
import psycopg
import pytest
from clickhouse_connect.driver.binding import format_str
from clickhouse_connect.driver.client import Client
from pyspark.sql import SparkSession

from spark_jobs.warehouse import Warehouse
from tallyhouse.extract import mysql as mysql_source
from tallyhouse.extract import postgres as postgres_source
from tallyhouse.lake import Lake
from tallyhouse.servers import MySqlServer, PostgresServer
from tallyhouse.settings import Settings
from tests.torture import cases, page
from tests.torture.matrix import BY_POLICY, Finding, Source, Stores, Travel, run

pytestmark = pytest.mark.integration
ENGINES = ("mariadb", "mysql", "postgres")
seen: dict[str, list[Finding]] = {}


@pytest.fixture
def stores(
    settings: Settings, spark: SparkSession, postgres_scratch: str, clickhouse: Client, tmp_path: Path
) -> Iterator[Stores]:
    shared = Lake.s3(
        settings.lake_bucket,
        endpoint=settings.minio_url,
        access_key=settings.minio_root_user,
        secret_key=settings.minio_root_password,
        region=settings.lake_region,
    )

    def s3(key: str) -> str:
        url = format_str(f"{settings.minio_url}/{shared.root}/{key}")
        login = ", ".join(map(format_str, (settings.minio_root_user, settings.minio_root_password)))
        return f"s3({url}, {login}, 'Parquet')"

    yield Stores(
        Lake.local(str(tmp_path)),
        str(tmp_path),
        shared,
        spark,
        lambda: psycopg.connect(postgres_scratch),
        Warehouse(PostgresServer.parse(postgres_scratch)),
        clickhouse,
        s3,
    )
    for key in shared.keys("torture"):
        shared.filesystem.delete_file(shared.path(key))


@pytest.fixture(params=ENGINES)
def travel(request: pytest.FixtureRequest, settings: Settings, stores: Stores) -> Iterator[Travel]:
    """What became of all values of a source."""
    source = Source(request.param, cases.of(request.param))
    if request.param == "postgres":
        database = f"torture_{secrets.token_hex(4)}"
        server = f"{settings.postgres_host}:{settings.postgres_port}"
        root = f"postgresql://{settings.postgres_user}:{quote(settings.postgres_password)}@{server}"
        with psycopg.connect(f"{root}/postgres", autocommit=True) as admin:
            admin.execute(f"CREATE DATABASE {database}")  # type: ignore[call-overload]
            try:
                with psycopg.connect(f"{root}/{database}") as connection:
                    for statement in (*cases.PREPARATION, *source.statements()):
                        connection.execute(statement)  # type: ignore[call-overload]
                yield run(
                    source,
                    lambda contract: postgres_source.open_stream(f"{root}/{database}", contract, None),
                    stores,
                )
            finally:
                admin.execute(f"DROP DATABASE {database} WITH (FORCE)")  # type: ignore[call-overload]
        return
    if request.param != settings.stores_engine:
        settings = request.getfixturevalue("other_engine")
    database = f"scratch_{secrets.token_hex(4)}"
    login = {
        "host": settings.mysql_orders_host,
        "port": settings.mysql_orders_port,
        "user": "root",
        "password": settings.mysql_root_password,
    }
    with mysql.connector.connect(**login, autocommit=True) as connection:
        cursor = connection.cursor()
        cursor.execute(f"CREATE DATABASE {database} CHARACTER SET utf8mb4")
        try:
            cursor.execute(f"USE {database}")
            cursor.execute("SET SESSION sql_mode = ''")
            cursor.execute("SET SESSION time_zone = '+00:00'")
            for statement in source.statements():
                cursor.execute(statement)
            address = MySqlServer(**login, database=database)
            yield run(source, lambda contract: mysql_source.open_stream(address, contract, None), stores)
        finally:
            cursor.execute(f"DROP DATABASE {database}")


def test_no_value_changes_without_a_word(travel: Travel) -> None:
    findings = travel.findings()
    seen[travel.source.engine] = findings
    silent = [
        f"{finding.engine} {finding.type.ddl} {finding.case.name[:40]!r}: {finding.silent}"
        for finding in findings
        if finding.silent
    ]
    assert not silent, "\n".join(silent)
    # Each value that no store holds was counted, and nothing else was.
    assert travel.counted() == travel.to_be_counted()
    lines = {line.measure: line for line in travel.lines}
    for name, count in travel.to_be_counted().items():
        line = lines[f"values({name})"]
        assert line.closed
        assert line.parts["by null"] == count
    assert sum(BY_POLICY in finding.stores.values() for finding in findings) == sum(travel.counted().values())


def test_the_page_says_what_was_seen() -> None:
    text = page.render(finding for engine in ENGINES for finding in seen[engine])
    if os.environ.get("TORTURE"):
        page.PAGE.write_text(text)
        print(text)
    assert page.PAGE.read_text() == text, "what becomes of a value has changed; write it anew: make torture"
