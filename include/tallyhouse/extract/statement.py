"""The SQL of an extraction, per dialect: how each column crosses the wire, the window, the totals.

Values travel as the source has them. Where a driver would change or refuse a value (a DECIMAL's
scale, a zero date), the SELECT list turns it into text: decimals in plain digits, dates as
`YYYY-MM-DD`, times in UTC as `YYYY-MM-DD HH:MM:SS.ffffff`, booleans as 0 and 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from tallyhouse.contracts import Column, Kind, TableContract
from tallyhouse.extract.digest import row_digest, total

AS_TEXT = (Kind.DECIMAL, Kind.DATE, Kind.TIMESTAMP, Kind.JSON)


@dataclass(frozen=True)
class Statement:
    """The pieces of one table's extraction.

    Attributes:
        columns: SELECT expressions, each with its column's name, for `FROM <table> AS w`.
        table: The quoted table.
        condition: The window, for WHERE or ON; TRUE when the whole table is taken.
        totals: SQL of the count, of the digest and of each control total, each as text; the digest is NULL
            where the contract's proof is the count alone.
    """

    columns: tuple[str, ...]
    table: str
    condition: str
    totals: tuple[str, ...]


def build(dialect: str, contract: TableContract, watermark: datetime | None) -> Statement:
    """The statement that takes a table's window.

    Args:
        dialect: `mysql` or `postgres`.
        contract: The table; its identifiers were validated when it was loaded.
        watermark: Rows whose cursor is at or after it are taken; None for all.
    """
    quote = "`" if dialect == "mysql" else '"'

    def name(identifier: str) -> str:
        return f"{quote}{identifier}{quote}"

    condition = "TRUE"
    if watermark is not None and contract.cursor is not None:
        literal = watermark.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
        zone = "" if dialect == "mysql" else "+00"
        condition = f"w.{name(contract.cursor)} >= '{literal}{zone}'"
    as_text = "CHAR" if dialect == "mysql" else "text"
    totals = [f"CAST(COUNT(*) AS {as_text})"]
    totals.append(_digest(dialect, contract, name) if contract.proof == "digest" else "NULL")
    totals += [f"CAST(COALESCE(SUM(w.{name(total)}), 0) AS {as_text})" for total in contract.control_totals]
    return Statement(
        columns=tuple(
            f"{_wire(dialect, f'w.{name(column.name)}', column)} AS {name(column.name)}"
            for column in contract.columns
        ),
        table=name(contract.name),
        condition=condition,
        totals=tuple(totals),
    )


def _digest(dialect: str, contract: TableContract, name: Callable[[str], str]) -> str:
    values = [(column.type, _wire(dialect, f"w.{name(column.name)}", column)) for column in contract.columns]
    return total(dialect, row_digest(dialect, values))


def _wire(dialect: str, value: str, column: Column) -> str:
    kind = column.type.kind
    if dialect == "mysql":
        return f"CAST({value} AS CHAR)" if kind in AS_TEXT else value
    if kind is Kind.TIMESTAMP:
        return f"to_char({value} AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')"
    if kind is Kind.BOOLEAN:
        return f"CAST({value} AS integer)"
    return f"CAST({value} AS text)" if kind in (*AS_TEXT, Kind.CHAR, Kind.VARCHAR) else value
