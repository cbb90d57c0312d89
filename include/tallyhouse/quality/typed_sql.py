"""Raw to typed in DuckDB's SQL: the same values, and the same refusals, as `spark_jobs.typed` on Spark."""

from __future__ import annotations

from tallyhouse.contracts import Column, Kind, TableContract

_TEXT = (Kind.CHAR, Kind.VARCHAR, Kind.TEXT, Kind.JSON)
# The forms in which the wire carries values: a cast takes more than that, and rounds what does not fit.
_DATE = r"\A\d{4}-\d{2}-\d{2}\z"
# A cast takes 24:00:00 for the next midnight.
_TIMESTAMP = r"\A\d{4}-\d{2}-\d{2} ([01]\d|2[0-3]):\d{2}:\d{2}(\.\d{1,6})?\z"


def typed_select(contract: TableContract, wire: dict[str, str], source: str) -> str:
    """The statement that types a raw batch.

    Args:
        contract: The table.
        wire: The wire type of each raw column, as its manifest has it.
        source: What is selected from.

    Returns:
        A SELECT of the contract's columns; a value that its type cannot hold is NULL, text is as it was.
    """
    values = ", ".join(
        f"{_value(column, wire[column.name])} AS {quoted(column.name)}" for column in contract.columns
    )
    return f"SELECT {values} FROM {source}"


def sql_type(column: Column) -> str:
    """A column's type in DuckDB; times are UTC, without a zone."""
    kind = column.type.kind
    if kind in _TEXT:
        return "VARCHAR"
    if kind is Kind.DECIMAL:
        return f"DECIMAL({column.type.precision},{column.type.scale})"
    return str(kind).upper()


def quoted(identifier: str) -> str:
    """An identifier in SQL."""
    return '"' + identifier.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text in SQL."""
    return "'" + text.replace("'", "''") + "'"


def _value(column: Column, wire_type: str) -> str:
    wire = quoted(column.name)
    kind = column.type.kind
    if kind in _TEXT:
        return wire
    cast = f"TRY_CAST({wire} AS {sql_type(column)})"
    if kind is Kind.BOOLEAN:
        return f"CASE WHEN TRY_CAST({wire} AS INTEGER) IN (0, 1) THEN {cast} END"
    form = {
        Kind.DATE: _DATE,
        Kind.TIMESTAMP: _TIMESTAMP,
        Kind.DECIMAL: rf"\A-?\d+(\.\d{{0,{column.type.scale}}}0*)?\z",
    }.get(kind)
    if form is None or wire_type != "string":
        return cast
    has_form = f"regexp_matches({wire}, {literal(form)})"
    if kind is not Kind.DECIMAL:
        has_form += f" AND NOT starts_with({wire}, '0000')"
    return f"CASE WHEN {has_form} THEN {cast} END"
