"""A migrated warehouse that each test finds fresh."""

import secrets
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tallyhouse.migrate import migrate_warehouse
from tallyhouse.settings import Settings
from tests.warehouse.schema import tables

Insert = Callable[..., None]


def administrator(settings: Settings, database: str = "postgres") -> psycopg.Connection[Any]:
    return psycopg.connect(
        host=settings.postgres_host,
        port=settings.postgres_port,
        user=settings.postgres_user,
        password=settings.postgres_password,
        dbname=database,
        autocommit=True,
    )


def owner(settings: Settings) -> psycopg.Connection[Any]:
    return psycopg.connect(
        host=settings.postgres_host,
        port=settings.postgres_port,
        user=settings.dwh_user,
        password=settings.dwh_password,
        dbname=settings.dwh_db,
        autocommit=True,
    )


@pytest.fixture(scope="session")
def make_database(settings: Settings) -> Iterator[Callable[[], Settings]]:
    """Makes a database that is dropped when the session ends; returns the settings that lead to it."""
    made = []

    def make() -> Settings:
        name = f"warehouse_test_{secrets.token_hex(4)}"
        with administrator(settings) as connection:
            connection.execute(
                sql.SQL("CREATE DATABASE {} OWNER {}").format(*map(sql.Identifier, (name, settings.dwh_user)))
            )
        made.append(name)
        return settings.model_copy(update={"dwh_db": name})

    yield make
    with administrator(settings) as connection:
        for name in made:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def empty(make_database: Callable[[], Settings]) -> Settings:
    """Leads to a database without any schema."""
    return make_database()


@pytest.fixture(scope="session")
def migrated(make_database: Callable[[], Settings]) -> Settings:
    """Leads to a migrated database in which nothing is ever committed."""
    settings = make_database()
    migrate_warehouse(settings)
    return settings


@pytest.fixture
def warehouse(migrated: Settings) -> Iterator[psycopg.Connection[Any]]:
    """A connection of the owner's to a migrated warehouse; what the test does is rolled back."""
    with owner(migrated) as connection, connection.transaction(force_rollback=True):
        yield connection


@pytest.fixture
def insert(warehouse: psycopg.Connection[Any]) -> Insert:
    """Inserts rows into a table of the warehouse; columns that the test does not name get fillers."""

    def insert_rows(table: str, rows: list[dict[str, Any]], into: str | None = None) -> None:
        described = tables()[table]
        names = [column.name for column in described.columns]
        with warehouse.cursor() as cursor:
            cursor.executemany(
                sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
                    sql.Identifier(*(into or table).split(".")),
                    sql.SQL(", ").join(map(sql.Identifier, names)),
                    sql.SQL(", ").join(sql.Placeholder() * len(names)),
                ),
                [list(described.row(row).values()) for row in rows],
            )

    return insert_rows
