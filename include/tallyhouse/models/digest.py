"""The digest of a model's or mart's rows: the same number in every store that shows it.

As that of source rows (`extract.digest`), over the values that a store holds: times and days as text,
decimals as whole numbers of their last digit, since ClickHouse writes no zeros at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tallyhouse.contracts import ColumnType, Kind
from tallyhouse.extract.digest import row_digest, total
from tallyhouse.models.definition import COUNTS, Definition, ModelColumn

_WIDE = {"clickhouse": "Nullable(Decimal(76, {}))", "duckdb": "DECIMAL(38, {})"}

TIMES: dict[str, Callable[[str], str]] = {
    "postgres": lambda value: f"to_char({value} AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')",
    "clickhouse": lambda value: value,
    "duckdb": lambda value: f"strftime({value} AT TIME ZONE 'UTC', '%Y-%m-%d %H:%M:%S.%f')",
}
"""By engine: the text of a time, of the SQL of its value."""


def count_and_digest(engine: str, model: Definition) -> str:
    """Two columns of SQL over a model's table: how many rows there are, and their digest, both as text.

    Args:
        engine: `postgres`, `clickhouse` or `duckdb`.
        model: The model. Floating point is left out.
    """
    count = "toString(count())" if engine == "clickhouse" else "CAST(count(*) AS text)"
    return f"{count}, {total(engine, number(engine, model))}"


def number(engine: str, model: Definition, columns: Iterable[str] | None = None) -> str:
    """The digest of one row of a model's table, as SQL; of some columns alone, such as its key's."""
    quote = "`" if engine == "clickhouse" else '"'
    types = {name: _type(model.columns[name]) for name in columns or model.columns}
    return row_digest(
        engine, [(type_, _value(engine, type_, f"{quote}{name}{quote}")) for name, type_ in types.items()]
    )


def _type(column: ModelColumn) -> ColumnType:
    # The counts of marts are whole numbers by a name that no source has.
    return ColumnType.parse("bigint") if column.type in COUNTS else column.column_type


def _value(engine: str, type_: ColumnType, value: str) -> str:
    match type_.kind:
        case Kind.TIMESTAMP:
            return TIMES[engine](value)
        case Kind.DECIMAL:
            power = 10 ** (type_.scale or 0)
            if engine == "postgres":
                return f"trunc({value} * {power}, 0)"
            wide = _WIDE[engine]
            return f"CAST(CAST({value} AS {wide.format(type_.scale)}) * {power} AS {wide.format(0)})"
        case (
            Kind.DATE | Kind.BOOLEAN | Kind.SMALLINT | Kind.INTEGER | Kind.BIGINT | Kind.DOUBLE | Kind.BINARY
        ):
            return value
        case _:
            # CHAR(n) is padded but as text; a dictionary's NULL is one only without the dictionary.
            return f"CAST({value} AS {'Nullable(String)' if engine == 'clickhouse' else 'text'})"
