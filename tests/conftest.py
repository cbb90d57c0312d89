"""Fixtures of the integration tests: the real servers of the running stack, and scratch databases on them."""

import secrets
from collections.abc import Iterator

import mysql.connector
import psycopg
import pytest
from psycopg import sql

from tallyhouse.settings import Settings, load_settings


@pytest.fixture(scope="session")
def settings() -> Settings:
    return load_settings()


@pytest.fixture
def mysql_scratch(settings: Settings) -> Iterator["MySqlScratch"]:
    """An empty database of its own on the orders server, gone after the test."""
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

    def create(self, schema: str) -> None:
        """Runs a generated schema of `sql/oltp/`."""
        for statement in schema.split(";\n"):
            if statement.strip():
                self.cursor.execute(statement)


@pytest.fixture
def postgres_scratch(settings: Settings) -> Iterator[str]:
    """The URI of an empty PostgreSQL database of the warehouse's owner, gone after the test."""
    name = f"scratch_{secrets.token_hex(4)}"
    server = f"{settings.postgres_host}:{settings.postgres_port}"
    admin = f"postgresql://{settings.postgres_user}:{settings.postgres_password}@{server}/postgres"
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} OWNER {}").format(
                sql.Identifier(name), sql.Identifier(settings.dwh_user)
            )
        )
        try:
            yield f"postgresql://{settings.dwh_user}:{settings.dwh_password}@{server}/{name}"
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
