"""What a table holds: counted by its server in one pass, and a sample of its first rows."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from tallyhouse.contracts import Kind
from tallyhouse.extract.statement import pin, quoted
from tallyhouse.source.catalogue import CatalogueColumn, CatalogueTable

SAMPLE_ROWS = 2_000
SAMPLE_CHARACTERS = 200
_TIMES = (Kind.DATE, Kind.TIMESTAMP)
_COLUMNS_AT_ONCE = 60


@dataclass(frozen=True)
class ColumnProfile:
    """What a column holds.

    Attributes:
        filled: Rows in which it is not NULL.
        least: Its least value: a number, or a time as text; None where that was not asked.
        greatest: Its greatest value.
        bad: Values that no store downstream can hold: `0000-00-00`, infinity, a NUL character.
        sample: Some of its values as text, those that are not NULL.
    """

    filled: int = 0
    least: Decimal | str | None = None
    greatest: Decimal | str | None = None
    bad: int = 0
    sample: tuple[str, ...] = ()


@dataclass(frozen=True)
class TableProfile:
    """What a table holds.

    Attributes:
        rows: How many rows.
        columns: By the source's name.
        sampled: How many rows the samples are of.
    """

    rows: int
    columns: dict[str, ColumnProfile]
    sampled: int


def take(connection: Any, engine: str, table: CatalogueTable) -> TableProfile:
    """Profiles a table.

    Args:
        connection: An open DB-API connection to the source.
        engine: `mysql` or `postgres`.
        table: The table.
    """
    with closing(connection.cursor()) as cursor:
        pin(cursor, engine)
        place = ".".join(quoted(engine, part) for part in (table.schema, table.name) if part)
        counted: dict[str, ColumnProfile] = {}
        rows = 0
        for start in range(0, len(table.columns), _COLUMNS_AT_ONCE):
            some = table.columns[start : start + _COLUMNS_AT_ONCE]
            asked = [expression for column in some for expression in _measures(engine, column)]
            cursor.execute(f"SELECT COUNT(*), {', '.join(asked)} FROM {place} AS w")
            ((found_rows, *values),) = cursor.fetchall()
            rows = int(found_rows)
            for number, column in enumerate(some):
                counted[column.name] = _counted(column, values[number * 4 : number * 4 + 4])
        texts = [_short(engine, column) for column in table.columns]
        cursor.execute(f"SELECT {', '.join(texts)} FROM {place} AS w LIMIT {SAMPLE_ROWS}")
        sampled = cursor.fetchall()
        connection.rollback()
    columns = {
        column.name: ColumnProfile(
            **{**vars(counted[column.name]), "sample": tuple(str(v) for v in values if v is not None)}
        )
        for column, values in zip(
            table.columns, zip(*sampled, strict=True) if sampled else [()] * len(table.columns), strict=True
        )
    }
    return TableProfile(rows, columns, len(sampled))


def _measures(engine: str, column: CatalogueColumn) -> tuple[str, str, str, str]:
    """SQL: rows in which it is filled, its least and greatest value, and how many values are bad."""
    value = f"w.{quoted(engine, column.name)}"
    kind = column.type.kind
    as_text = "CHAR" if engine == "mysql" else "text"
    least = greatest = f"CAST(NULL AS {as_text})"
    bad = "0"
    if kind.is_numeric or kind in _TIMES:
        number = f"{value} + 0" if engine == "mysql" and column.type.native in ("bit", "year") else value
        least, greatest = (f"CAST({what}({number}) AS {as_text})" for what in ("MIN", "MAX"))
    if kind in _TIMES and engine == "mysql":
        bad = f"SUM({value} = 0 OR MONTH({value}) = 0 OR DAYOFMONTH({value}) = 0)"
    elif kind in _TIMES:
        bad = f"COUNT(*) FILTER (WHERE {value} < '0001-01-01' OR {value} >= '10000-01-01')"
    elif kind.is_text and engine == "mysql" and column.type.native not in ("enum", "set", "json"):
        bad = f"SUM(LOCATE(CHAR(0), {value}) > 0)"
    elif column.type.kind is Kind.DECIMAL and engine == "postgres":
        bad = f"COUNT(*) FILTER (WHERE {value} = 'NaN')"
    return f"COUNT({value})", least, greatest, bad


def _counted(column: CatalogueColumn, values: list[Any]) -> ColumnProfile:
    filled, least, greatest, bad = values
    if column.type.kind.is_numeric:
        least, greatest = (None if one is None else Decimal(str(one)) for one in (least, greatest))
    return ColumnProfile(int(filled), least, greatest, int(bad or 0))


def _short(engine: str, column: CatalogueColumn) -> str:
    """A column in a sample: the beginning of its text; nothing of what is no text."""
    value = f"w.{quoted(engine, column.name)}"
    if column.type.kind is Kind.BINARY:
        return "NULL"
    as_text = f"CAST({value} AS {'CHAR' if engine == 'mysql' else 'text'})"
    return f"LEFT({as_text}, {SAMPLE_CHARACTERS})"
