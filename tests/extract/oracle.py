"""A plain comparison of what a source has with what was taken of it, with nothing of the project."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import duckdb


def differences(cursor: Any, table: str, taken: dict[str, str]) -> dict[str, tuple[str | None, str | None]]:
    """Keys whose values differ: what the source has, and what was taken; either may be missing.

    Args:
        cursor: Of the source, in no transaction.
        table: With columns `id` and `v`.
        taken: Values by key.
    """
    cursor.execute(f"SELECT id, v FROM {table}")
    there = {str(key): str(value) for key, value in cursor.fetchall()}
    return {
        key: (there.get(key), taken.get(key))
        for key in there.keys() | taken.keys()
        if there.get(key) != taken.get(key)
    }


def row_differences(
    source: Any, warehouse: Any, table: str, columns: dict[str, str]
) -> list[tuple[Any, ...]]:
    """Rows that one side has and the other has not, as a third engine compares them.

    Args:
        source: A cursor of the source, in no transaction.
        warehouse: A cursor of the warehouse.
        table: Its name in both.
        columns: Names, and DuckDB's types.
    """
    with duckdb.connect() as engine:
        names = ", ".join(columns)
        places = ", ".join("?" * len(columns))
        for side, cursor, query in (
            ("there", source, f"SELECT {names} FROM {table}"),
            ("here", warehouse, f"SELECT {names} FROM ods.{table} WHERE _deleted_at IS NULL"),
        ):
            spelled = ", ".join(f"{name} {kind}" for name, kind in columns.items())
            engine.execute(f"CREATE TABLE {side} ({spelled})")
            cursor.execute(query)
            for row in cursor.fetchall():
                engine.execute(f"INSERT INTO {side} VALUES ({places})", [_plain(value) for value in row])
        return engine.execute(
            "SELECT 'source', * FROM (FROM there EXCEPT ALL FROM here) UNION ALL "
            "SELECT 'ods', * FROM (FROM here EXCEPT ALL FROM there)"
        ).fetchall()


def _plain(value: Any) -> Any:
    return (
        value.astimezone(UTC).replace(tzinfo=None) if isinstance(value, datetime) and value.tzinfo else value
    )
