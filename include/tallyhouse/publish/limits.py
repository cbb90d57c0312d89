"""What targets can hold of what PostgreSQL can: looked at before anything is published.

Whole numbers and decimals mostly have the same range, since their types are held to be the same
(`tests/warehouse/test_schema.py`); times and days may end sooner.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from tallyhouse.errors import SAMPLES, TallyhouseError
from tallyhouse.publish.target import Target


@dataclass(frozen=True)
class Limit:
    """A column's range in a target."""

    column: str
    kind: str
    least: str
    greatest: str

    def broken(self) -> sql.Composed:
        """Whether a row's value is outside; NULL is not, and NaN is."""
        return sql.SQL("(t.{0} < {1} OR t.{0} > {2})").format(
            sql.Identifier(self.column), sql.Literal(self.least), sql.Literal(self.greatest)
        )


@dataclass(frozen=True)
class Capacity:
    """What a target holds; see `Target`."""

    title: str
    ranges: Mapping[str, tuple[str, str, str]]
    decimals: int

    @classmethod
    def of(cls, target: Target | type[Target]) -> Capacity:
        """That of a target."""
        return cls(target.title, target.ranges, target.decimals)

    def limits_of(self, connection: psycopg.Connection[Any], schema: str, table: str) -> list[Limit]:
        """The ranges of a table's columns, by their types.

        Raises:
            TallyhouseError: A decimal has more digits than any type of the target.
        """
        rows = connection.execute(
            "SELECT column_name, data_type, numeric_precision, numeric_scale FROM information_schema.columns "
            "WHERE table_schema = %s AND table_name = %s ORDER BY ordinal_position",
            (schema, table),
        ).fetchall()
        limits = []
        for column, kind, precision, scale in rows:
            if kind in self.ranges:
                least, greatest, name = self.ranges[kind]
                limits.append(Limit(column, name, least, greatest))
            elif kind == "numeric":
                if precision is None or precision > self.decimals:
                    raise TallyhouseError(
                        f"{column} is a numeric of {precision or 'any'} digits; {self.title} holds "
                        f"{self.decimals}",
                        remedy=f"Give it a precision of at most {self.decimals} digits by a migration",
                        table=table,
                    )
                most = f"{10 ** (precision - scale) - 1}" + (f".{'9' * scale}" if scale else "")
                limits.append(Limit(column, f"Decimal({precision}, {scale})", f"-{most}", most))
        return limits

    @staticmethod
    def outside(limits: list[Limit]) -> sql.Composable:
        """A condition on `t`: whether any value of a row is one that the target cannot hold."""
        if not limits:
            return sql.SQL("FALSE")
        return sql.SQL("coalesce({}, FALSE)").format(sql.SQL(" OR ").join(limit.broken() for limit in limits))


def _primary_key(connection: psycopg.Connection[Any], model: str) -> str:
    """The column of a model's primary key; each has one."""
    rows = connection.execute(
        "SELECT a.attname FROM pg_index AS i JOIN pg_attribute AS a ON a.attrelid = i.indrelid "
        "AND a.attnum = ANY(i.indkey) WHERE i.indisprimary "
        "AND i.indrelid = format('dwh.%%I', %s::text)::regclass",
        (model,),
    ).fetchall()
    return str(rows[0][0])


def check_fits(
    connection: psycopg.Connection[Any], schema: str, table: str, capacity: Capacity, *, model: str
) -> None:
    """Makes sure that a target can hold every row of a table.

    Args:
        connection: To the warehouse.
        schema: The table's.
        table: A model, or its increment in `staging`.
        capacity: What the target holds.
        model: The model, for messages.

    Raises:
        TallyhouseError: It holds a value outside of its column's range; the message names the first column.
    """
    limits = capacity.limits_of(connection, schema, table)
    name, key = sql.Identifier(schema, table), _primary_key(connection, model)
    if not connection.execute(
        sql.SQL("SELECT EXISTS (SELECT 1 FROM {} AS t WHERE {})").format(name, capacity.outside(limits))
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
                f"{limit.column} has {rows[0][2]} values that {capacity.title} cannot hold, such as "
                f"{rows[0][1]} ({key} {rows[0][0]}); {limit.kind} is from {limit.least} to {limit.greatest}",
                remedy="Fix the source and run again; a suite's bound on the column finds it earlier",
                table=model,
                rule=f"{limit.column} fits {capacity.title}'s {limit.kind}",
                count=rows[0][2],
                sample=[f"{key} {found}: {value}" for found, value, _ in rows],
            )
