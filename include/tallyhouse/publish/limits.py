"""What ClickHouse can hold of what PostgreSQL can: looked at before anything is published.

Whole numbers and decimals have the same range in both, since their types are held to be the same
(`tests/warehouse/test_schema.py`); times and days end sooner in ClickHouse.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from tallyhouse.errors import SAMPLES, TallyhouseError

RANGES = {
    "smallint": ("-32768", "32767", "Int16"),
    "integer": ("-2147483648", "2147483647", "Int32"),
    "bigint": ("-9223372036854775808", "9223372036854775807", "Int64"),
    "date": ("1900-01-01", "2299-12-31", "Date32"),
    "timestamp with time zone": ("1900-01-01 00:00:00+00", "2299-12-31 23:59:59.999999+00", "DateTime64(6)"),
}
"""By PostgreSQL's type: the least and the greatest value of the type that ClickHouse has for it."""
DECIMALS = 76
"""Digits of ClickHouse's longest Decimal."""


@dataclass(frozen=True)
class Limit:
    """A column's range in ClickHouse."""

    column: str
    kind: str
    least: str
    greatest: str

    def broken(self) -> sql.Composed:
        """Whether a row's value is outside; NULL is not, and NaN is."""
        return sql.SQL("(t.{0} < {1} OR t.{0} > {2})").format(
            sql.Identifier(self.column), sql.Literal(self.least), sql.Literal(self.greatest)
        )


def limits_of(connection: psycopg.Connection[Any], schema: str, table: str) -> list[Limit]:
    """The ranges of a table's columns, by their types.

    Raises:
        TallyhouseError: A decimal has more digits than any type of ClickHouse.
    """
    rows = connection.execute(
        "SELECT column_name, data_type, numeric_precision, numeric_scale FROM information_schema.columns "
        "WHERE table_schema = %s AND table_name = %s ORDER BY ordinal_position",
        (schema, table),
    ).fetchall()
    limits = []
    for column, kind, precision, scale in rows:
        if kind in RANGES:
            least, greatest, name = RANGES[kind]
            limits.append(Limit(column, name, least, greatest))
        elif kind == "numeric":
            if precision is None or precision > DECIMALS:
                raise TallyhouseError(
                    f"{column} is a numeric of {precision or 'any'} digits; ClickHouse holds {DECIMALS}",
                    remedy=f"Give it a precision of at most {DECIMALS} digits by a migration",
                    table=table,
                )
            most = f"{10 ** (precision - scale) - 1}" + (f".{'9' * scale}" if scale else "")
            limits.append(Limit(column, f"Decimal({precision}, {scale})", f"-{most}", most))
    return limits


def _primary_key(connection: psycopg.Connection[Any], model: str) -> str:
    """The column of a model's primary key; each has one."""
    rows = connection.execute(
        "SELECT a.attname FROM pg_index AS i JOIN pg_attribute AS a ON a.attrelid = i.indrelid "
        "AND a.attnum = ANY(i.indkey) WHERE i.indisprimary "
        "AND i.indrelid = format('dwh.%%I', %s::text)::regclass",
        (model,),
    ).fetchall()
    return str(rows[0][0])


def outside(limits: list[Limit]) -> sql.Composable:
    """A condition on `t`: whether any value of a row is one that ClickHouse cannot hold."""
    if not limits:
        return sql.SQL("FALSE")
    return sql.SQL("coalesce({}, FALSE)").format(sql.SQL(" OR ").join(limit.broken() for limit in limits))


def check_fits(connection: psycopg.Connection[Any], schema: str, table: str, *, model: str) -> None:
    """Makes sure that ClickHouse can hold every row of a table.

    Args:
        connection: To the warehouse.
        schema: The table's.
        table: A model, or its increment in `staging`.
        model: The model, for messages.

    Raises:
        TallyhouseError: It holds a value outside of its column's range; the message names the first column.
    """
    limits = limits_of(connection, schema, table)
    name, key = sql.Identifier(schema, table), _primary_key(connection, model)
    if not connection.execute(
        sql.SQL("SELECT EXISTS (SELECT 1 FROM {} AS t WHERE {})").format(name, outside(limits))
    ).fetchall()[0][0]:
        return
    for limit in limits:
        rows = connection.execute(
            sql.SQL(
                "SELECT t.{}::text, t.{}::text, count(*) OVER () FROM {} AS t WHERE {} ORDER BY 1 LIMIT {}"
            ).format(
                sql.Identifier(key), sql.Identifier(limit.column), name, limit.broken(), sql.Literal(SAMPLES)
            )
        ).fetchall()
        if rows:
            raise TallyhouseError(
                f"{limit.column} has {rows[0][2]} values that ClickHouse cannot hold, such as {rows[0][1]} "
                f"({key} {rows[0][0]}); {limit.kind} is from {limit.least} to {limit.greatest}",
                remedy="Fix the source and run again; a suite's bound on the column finds it earlier",
                table=model,
                rule=f"{limit.column} fits ClickHouse's {limit.kind}",
                count=rows[0][2],
                sample=[f"{key} {found}: {value}" for found, value, _ in rows],
            )
