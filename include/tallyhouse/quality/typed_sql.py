"""Raw to typed in DuckDB's SQL: the same values, and the same refusals, as `spark_jobs.typed` on Spark."""

from __future__ import annotations

from tallyhouse.contracts import Column, Kind, TableContract

# The forms in which the wire carries values: a cast takes more than that, and rounds what does not fit.
_DATE = r"\A\d{4}-\d{2}-\d{2}\z"
# Numbers cross as text out of files only.
WHOLE = r"\A-?\d+\z"
NUMBER = r"\A-?\d+(\.\d+)?([eE][+-]?\d+)?\z"
# A cast takes 24:00:00 for the next midnight.
_TIMESTAMP = r"\A\d{4}-\d{2}-\d{2} ([01]\d|2[0-3]):\d{2}:\d{2}(\.\d{1,6})?\z"


def typed_select(contract: TableContract, wire: dict[str, str], source: str) -> str:
    """The statement that types a raw batch.

    Args:
        contract: The table.
        wire: The wire type of each raw column, as its manifest has it.
        source: What is selected from.

    Returns:
        A SELECT of the contract's columns; of a value that its type cannot hold there is what its policy
        says: by `error` NULL, but text as it was.
    """
    values = ", ".join(
        f"{_value(column, wire[column.name])} AS {quoted(column.name)}" for column in contract.columns
    )
    return f"SELECT {values} FROM {source}"


def sql_type(column: Column) -> str:
    """A column's type in DuckDB; times are UTC, without a zone."""
    kind = column.type.kind
    if kind.is_text or column.type.is_wide:
        return "VARCHAR"
    if kind is Kind.BINARY:
        return "BLOB"
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
    wire, value = quoted(column.name), _typed(column, wire_type)
    if not column.replaces:
        return value
    bad = f"{wire} IS NOT NULL AND ({value}) IS NULL"
    if column.type.kind.is_text:
        # As `spark_jobs.typed.is_bad` has it.
        bad = f"contains({wire}, chr(0))"
        if column.type.length is not None:
            bad += f" OR length({wire}) > {column.type.length}"
    sentinel = column.on_bad_value.sentinel
    instead = "NULL" if sentinel is None else f"CAST({literal(sentinel)} AS {sql_type(column)})"
    return f"CASE WHEN {bad} THEN {instead} ELSE {value} END"


def _typed(column: Column, wire_type: str) -> str:
    wire = quoted(column.name)
    kind = column.type.kind
    if kind.is_text or kind is Kind.BINARY:
        return wire
    cast = wire if column.type.is_wide else f"TRY_CAST({wire} AS {sql_type(column)})"
    if kind is Kind.BOOLEAN:
        return f"CASE WHEN TRY_CAST({wire} AS INTEGER) IN (0, 1) THEN {cast} END"
    form = {
        Kind.DATE: _DATE,
        Kind.TIMESTAMP: _TIMESTAMP,
        Kind.DECIMAL: column.type.decimal_form if kind is Kind.DECIMAL else None,
        Kind.DOUBLE: NUMBER,
        **dict.fromkeys((Kind.SMALLINT, Kind.INTEGER, Kind.BIGINT), WHOLE),
    }.get(kind)
    if form is None or wire_type != "string":
        return cast
    has_form = f"regexp_matches({wire}, {literal(form)})"
    if kind in (Kind.DATE, Kind.TIMESTAMP):
        has_form += f" AND NOT starts_with({wire}, '0000')"
    return f"CASE WHEN {has_form} THEN {cast} END"
