"""Connections to the stores, with each service's own account."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import mysql.connector
import psycopg
from mysql.connector.abstracts import MySQLConnectionAbstract
from mysql.connector.errors import Error as MySQLError

from tallyhouse.errors import TallyhouseError
from tallyhouse.settings import Settings

START_REMEDY = "Start the stack (make start) and see make status"


@dataclass(frozen=True)
class Store:
    """One service's database.

    Attributes:
        name: of the service.
        tables: parents before children.
    """

    name: str
    tables: tuple[str, ...]


STORES = (
    Store("catalog", ("categories", "products", "product_prices", "inventory")),
    Store("orders", ("customers", "addresses", "orders", "order_items")),
    Store("auth", ("roles", "users", "sessions")),
    Store("payments", ("payment_methods", "payments", "refunds")),
)
"""The four MySQL stores in the order they are filled."""

PANCAKES = Store("pancake", ("pancakes",))


def place(settings: Settings, store: str) -> str:
    """Database and address, for messages."""
    if store == PANCAKES.name:
        return f"{settings.pancake_db} at {settings.pancake_db_host}:{settings.pancake_db_port}"
    values = settings.environment()
    key = f"MYSQL_{store.upper()}"
    return f"{values[f'{key}_DB']} at {values[f'{key}_HOST']}:{values[f'{key}_PORT']}"


@contextmanager
def mysql_store(
    settings: Settings, store: str, *, administrator: bool = False
) -> Iterator[MySQLConnectionAbstract]:
    """A session on one of the four stores, in UTC and strict mode; closed at the end.

    Args:
        settings: where the stores are.
        store: name of the service.
        administrator: enter as the server's root, not as the service.

    Raises:
        TallyhouseError: the server cannot be reached, refuses the account, or an SQL statement failed.
    """
    values = settings.environment()
    key = f"MYSQL_{store.upper()}"
    where = place(settings, store)
    login = values[f"{key}_USER"], values[f"{key}_PASSWORD"]
    if administrator:
        login = "root", values["MYSQL_ROOT_PASSWORD"]
    try:
        connection = mysql.connector.connect(
            host=values[f"{key}_HOST"],
            port=int(values[f"{key}_PORT"]),
            user=login[0],
            password=login[1],
            database=values[f"{key}_DB"],
            charset="utf8mb4",
            collation="utf8mb4_unicode_520_ci",
            time_zone="+00:00",
            # Strict, so that nothing is cut or coerced in silence; and with backslash escapes.
            sql_mode="STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,NO_ENGINE_SUBSTITUTION",
            connection_timeout=10,
            autocommit=False,
            use_pure=True,
        )
    except MySQLError as error:
        raise TallyhouseError(_said(error), where=where, remedy=START_REMEDY) from error
    try:
        yield connection  # type: ignore[misc]  # not a pooled one
    except MySQLError as error:
        remedy = (
            "Is the server up (make status), are its tables those of sql/oltp (else make clean, make start)?"
        )
        raise TallyhouseError(_said(error), where=where, remedy=remedy) from error
    finally:
        # After a lost connection even closing fails, and would hide why.
        with suppress(MySQLError):
            connection.close()


@contextmanager
def alone(settings: Settings) -> Iterator[None]:
    """Holds the only right to write generated rows; the server takes it back when the process dies.

    Raises:
        TallyhouseError: another ``data`` or ``day`` is at work.
    """
    with mysql_store(settings, "orders") as connection, connection.cursor() as cursor:
        # A lock's name is one of the whole server, which may hold a test's scratch database as well.
        cursor.execute("SELECT GET_LOCK(CONCAT('techmarket.', DATABASE()), 0)")
        ((held,),) = cursor.fetchall()
        if held != 1:
            raise TallyhouseError(
                "another make data or make day is writing",
                where=place(settings, "orders"),
                remedy="Wait until it has finished",
            )
        yield


@contextmanager
def pancake_store(settings: Settings) -> Iterator[psycopg.Connection]:
    """A session on the pancake shop, in UTC, committed at the end unless an error is raised.

    Raises:
        TallyhouseError: the server cannot be reached, refuses the account, or an SQL statement failed.
    """
    where = place(settings, PANCAKES.name)
    try:
        with psycopg.connect(
            host=settings.pancake_db_host,
            port=settings.pancake_db_port,
            user=settings.pancake_user,
            password=settings.pancake_password,
            dbname=settings.pancake_db,
            connect_timeout=10,
            options="-c TimeZone=UTC",
        ) as connection:
            yield connection
    except psycopg.Error as error:
        raise TallyhouseError(_said(error), where=where, remedy=START_REMEDY) from error


def _said(error: Exception) -> str:
    """A driver's message in one line."""
    return " ".join(str(error).split())
