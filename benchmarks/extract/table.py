"""The table that is extracted and loaded: nine columns, among them UUIDs, money and four-byte characters."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

import psycopg

from scripts.stack import readiness
from scripts.stack.context import Stack
from tallyhouse.contracts import Column, ColumnType, TableContract

NAME = "bench_items"
STORE = "orders"

_TYPES = {
    "id": "char(36)",
    "order_id": "char(36)",
    "product_id": "char(36)",
    "quantity": "int",
    "unit_price": "decimal(12,2)",
    "total": "decimal(12,2)",
    "note": "varchar(120)",
    "created_at": "datetime(6)",
    "updated_at": "datetime(6)",
}
_POSTGRES = {"datetime(6)": "timestamptz", "int": "integer"}


def contract(engine: str, proof: str) -> TableContract:
    """The contract of the table in an engine, `mariadb`, `mysql` or `postgres`."""
    dialect = "postgres" if engine == "postgres" else "mysql"
    spelled = _POSTGRES if engine == "postgres" else {}
    found = TableContract(
        source="bench",
        name=NAME,
        columns=tuple(
            Column(name, ColumnType.parse(spelled.get(type_, type_), dialect), nullable=False)
            for name, type_ in _TYPES.items()
        ),
        key=("id",),
        cursor="updated_at",
        pii=(),
        control_totals=(),
        proof=proof,
    )
    found.validate()
    return found


def fill(stack: Stack, engine: str, rows: int) -> None:
    """Makes the table anew in an engine, with made-up rows; the account that extracts may read it."""
    if engine == "postgres":
        _fill_postgres(stack, rows)
    else:
        _fill_mysql(stack, rows)


def _columns(spell: Callable[[str], str]) -> str:
    return ", ".join(f"{name} {spell(type_)} NOT NULL" for name, type_ in _TYPES.items())


def _fill_mysql(stack: Stack, rows: int) -> None:
    digits = " UNION ALL ".join(f"SELECT {digit} AS d" for digit in range(10))
    numbers = " + ".join(f"n{place}.d * {10**place}" for place in range(7))
    joins = " CROSS JOIN ".join(f"({digits}) AS n{place}" for place in range(7))

    def uuid(salt: str) -> str:
        text = f"SHA2(CONCAT('{salt}', n), 256)"
        parts = ((1, 8), (9, 4), (13, 4), (17, 4), (21, 12))
        return f"CONCAT_WS('-', {', '.join(f'SUBSTR({text}, {at}, {size})' for at, size in parts)})"

    with (
        closing(readiness.mysql_connection(stack.environment, STORE)) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(f"DROP TABLE IF EXISTS {NAME}")
        cursor.execute(
            f"CREATE TABLE {NAME} ({_columns(str)}, PRIMARY KEY (id), "
            f"INDEX ix_{NAME}_updated_at (updated_at))"
        )
        for start in range(0, rows, 10_000_000):
            cursor.execute(
                f"INSERT INTO {NAME} SELECT {uuid('id')}, {uuid('order')}, {uuid('product')}, n % 9 + 1, "
                "(n % 100000) / 100, (n % 100000) * (n % 9 + 1) / 100, CONCAT('🥞 млинці, серія ', n), "
                "TIMESTAMPADD(MICROSECOND, n * 1009, '2026-01-02 03:04:05.000006'), "
                "TIMESTAMPADD(MICROSECOND, n * 2003, '2026-02-03 04:05:06.000007') "
                f"FROM (SELECT {start} + {numbers} AS n FROM {joins}) AS numbers WHERE n < {rows}"
            )
        cursor.execute(f"ANALYZE TABLE {NAME}")
        cursor.fetchall()


def _fill_postgres(stack: Stack, rows: int) -> None:
    settings = stack.settings
    with readiness.postgres_connection(settings, settings.pancake_db) as connection:
        connection.execute(f"DROP TABLE IF EXISTS {NAME}")
        create_in_postgres(connection, NAME)
        connection.execute(
            f"INSERT INTO {NAME} SELECT md5('id' || n)::uuid::text, md5('order' || n)::uuid::text, "
            "md5('product' || n)::uuid::text, n % 9 + 1, (n % 100000) / 100.0, "
            "(n % 100000) * (n % 9 + 1) / 100.0, '🥞 млинці, серія ' || n, "
            "timestamptz '2026-01-02 03:04:05.000006+00' + n::bigint * 1009 * interval '1 microsecond', "
            "timestamptz '2026-02-03 04:05:06.000007+00' + n::bigint * 2003 * interval '1 microsecond' "
            f"FROM generate_series(0, {rows} - 1) AS n"
        )
        connection.execute(f"CREATE INDEX ON {NAME} (updated_at)")
        connection.execute(f"GRANT SELECT ON {NAME} TO {settings.etl_reader_user}")
        connection.execute(f"VACUUM ANALYZE {NAME}")


def create_in_postgres(connection: psycopg.Connection, name: str, *, unlogged: bool = False) -> None:
    """Makes the table in PostgreSQL, empty; unlogged and without a key where rows are staged."""
    columns = _columns(lambda type_: _POSTGRES.get(type_, type_))
    key = "" if unlogged else ", PRIMARY KEY (id)"
    connection.execute(f"CREATE {'UNLOGGED ' if unlogged else ''}TABLE {name} ({columns}{key})")
