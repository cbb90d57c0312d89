"""Whether the stores hold what the source holds, by plain queries. It imports nothing of the product."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

SOURCE = (
    "SELECT id, name, fluffiness_level, syrup_type, is_buttery, magical_factor, created_at, taste_notes "
    "FROM {}pancakes{}"
)
FACT = (
    "SELECT pancake_id, fluffiness_level, magical_factor, created_at, taste_notes "
    "FROM dwh.fact_pancake_rating"
)
OF_SOURCE = (0, 2, 5, 6, 7)
"""Where the fact's columns are in the source's rows."""
DIMENSION = "SELECT pancake_id, name, syrup_type, is_buttery FROM dwh.dim_pancake WHERE pancake_id <> -1"
OF_DIMENSION = (0, 1, 3, 4)
MART = "SELECT syrup_type, is_buttery, sum(pancakes), sum(total_fluffiness) FROM dwh.mart_pancake_quality {}"

Ask = Callable[[str], list[tuple[Any, ...]]]


def differences(source: Ask, warehouse: Ask, clickhouse: Ask) -> list[str]:
    """What differs, in words; nothing where every row of the source is in each store, once."""
    rows = source(SOURCE.format("", ""))
    found = _compare("ods", rows, warehouse(SOURCE.format("ods.", " WHERE _deleted_at IS NULL")))
    for name, ask in (("PostgreSQL", warehouse), ("ClickHouse", clickhouse)):
        found += _compare(f"the fact in {name}", _columns(rows, OF_SOURCE), ask(FACT))
        found += _compare(f"the dimension in {name}", _columns(rows, OF_DIMENSION), ask(DIMENSION))
    totals: dict[tuple[str, bool], list[int]] = {}
    for row in rows:
        total = totals.setdefault((row[3], row[4]), [0, 0])
        total[0] += 1
        total[1] += row[2]
    expected = [(*group, *total) for group, total in totals.items()]
    return found + _compare("the mart", expected, clickhouse(MART.format("GROUP BY 1, 2")))


def _columns(rows: list[tuple[Any, ...]], which: tuple[int, ...]) -> list[tuple[Any, ...]]:
    return [tuple(row[number] for number in which) for row in rows]


def _compare(what: str, expected: list[tuple[Any, ...]], found: list[tuple[Any, ...]]) -> list[str]:
    left, right = Counter(map(_plain, expected)), Counter(map(_plain, found))
    missing, more = left - right, right - left
    return [f"{what} lacks {row}" for row in missing.elements()] + [
        f"{what} has {row} too much" for row in more.elements()
    ]


def _plain(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(map(_value, row))


def _value(value: Any) -> Any:
    if isinstance(value, datetime):
        # MySQL's carry no zone; its sessions are in UTC.
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    return value.rstrip() if isinstance(value, str) else value


def techmarket_differences(sources: Iterable[Ask], warehouse: Ask, clickhouse: Ask) -> list[str]:
    """What differs of TechMarket: each table of each source in `ods`, each model in ClickHouse; in words."""
    found = []
    of_ods = _columns_of(warehouse, "ods")
    for source in sources:
        for table, columns in _columns_of(source, None).items():
            if table not in of_ods:
                continue
            names = [name for name in of_ods[table] if not name.startswith("_")]
            assert set(names) <= set(columns), table
            rows = source(f"SELECT {', '.join(f'`{name}`' for name in names)} FROM `{table}`")
            quoted = ", ".join(f'"{name}"' for name in names)
            taken = warehouse(f'SELECT {quoted} FROM ods."{table}" WHERE _deleted_at IS NULL')
            found += _compare(f"ods.{table}", rows, taken)
    for model, names in _columns_of(warehouse, "dwh").items():
        if model != "dim_date":
            quoted = ", ".join(f'"{name}"' for name in names)
            here, there = (ask(f"SELECT {quoted} FROM dwh.{model}") for ask in (warehouse, clickhouse))
            found += _compare(f"{model} in ClickHouse", here, there)
    return found


def _columns_of(ask: Ask, schema: str | None) -> dict[str, list[str]]:
    of = f"'{schema}'" if schema else "DATABASE()"
    found: dict[str, list[str]] = {}
    for table, column in ask(
        "SELECT table_name, column_name FROM information_schema.columns "
        f"WHERE table_schema = {of} ORDER BY ordinal_position"
    ):
        found.setdefault(str(table), []).append(str(column))
    return found
