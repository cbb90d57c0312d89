"""The SQL of an extraction, per dialect: how each column crosses the wire, the window, the totals.

Values travel as the source has them. Where a driver would change or refuse a value (a DECIMAL's
scale, a zero date), the SELECT list turns it into text: decimals in plain digits, dates as
`YYYY-MM-DD`, times in UTC as `YYYY-MM-DD HH:MM:SS.ffffff`, booleans as 0 and 1. What has no such form
(`infinity`, a year before Christ) travels in the source's own words, and meets its contract's policy.
What a text looks like depends on settings of the session, so they are ours: see `SESSION`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tallyhouse.contracts import Column, ColumnType, Kind, TableContract
from tallyhouse.contracts.model import Made
from tallyhouse.extract.digest import row_digest, total

LOCK_SECONDS = 60
"""How long a statement waits for a table that somebody has locked; then the try has failed."""
SESSION = {
    "mysql": (
        # Each server, account and client may have defaults of its own.
        "SET NAMES utf8mb4",
        # Among others: CHAR without padding, and quotes that mean what they mean here.
        "SET SESSION sql_mode = ''",
        "SET SESSION time_zone = '+00:00'",
        "SET SESSION sql_select_limit = 18446744073709551615",
        # How long the server waits while the lake takes its time.
        "SET SESSION net_write_timeout = 600",
        f"SET SESSION lock_wait_timeout = {LOCK_SECONDS}",
    ),
    "postgres": (
        "SET client_encoding = 'UTF8'",
        "SET TimeZone = 'UTC'",
        "SET DateStyle = 'ISO, YMD'",
        "SET IntervalStyle = 'postgres'",
        "SET extra_float_digits = 1",
        "SET lc_monetary = 'C'",
        "SET bytea_output = 'hex'",
        "SET xmlbinary = 'base64'",
        # Tables are named with their schema; nothing else is found but the server's own functions.
        "SET search_path = pg_catalog",
        f"SET lock_timeout = '{LOCK_SECONDS}s'",
    ),
}
"""What is said first on every connection that reads a table; see `pin`."""
_AS_TEXT = (Kind.DECIMAL, Kind.DATE, Kind.TIMESTAMP, Kind.JSON)
_MYSQL_AS_TEXT = ("time", "uuid", "inet4", "inet6")
_GEOMETRIES = (
    *("geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon"),
    *("geometrycollection", "geomcollection", "vector"),
)


@dataclass(frozen=True)
class Statement:
    """The pieces of one table's extraction.

    Attributes:
        columns: SELECT expressions, each with its column's name, for `FROM <table> AS w`.
        table: The quoted table, in PostgreSQL with its schema.
        condition: The window, for WHERE or ON; TRUE when the whole table is taken.
        totals: SQL of the count, of the digest and of each control total, each as text; the digest is NULL
            where the contract's proof is the count alone.
    """

    columns: tuple[str, ...]
    table: str
    condition: str
    totals: tuple[str, ...]


def pin(cursor: Any, dialect: str) -> None:
    """Puts our settings in the place of the server's, the account's and the client's.

    Args:
        cursor: Of an open DB-API connection; in PostgreSQL a rollback takes them back.
        dialect: `mysql` or `postgres`.
    """
    for setting in SESSION[dialect]:
        cursor.execute(setting)


def build(
    dialect: str,
    contract: TableContract,
    watermark: datetime | None,
    keys: Collection[int] | None = None,
) -> Statement:
    """The statement that takes a table's window.

    Args:
        dialect: `mysql` or `postgres`.
        contract: The table; its identifiers were validated when it was loaded.
        watermark: Rows whose cursor is at or after it are taken; None for all.
        keys: Numbers of the keys of rows that are taken as well, whatever their cursor says; without a
            cursor these alone are.
    """
    condition = "TRUE"
    if watermark is not None and contract.cursor is not None:
        condition = f"{plain(dialect, contract, contract.cursor)} >= {literal(dialect, watermark)}"
    elif keys is not None:
        condition = "FALSE"
    if keys and condition != "TRUE":
        condition = f"({condition} OR {key_number(dialect, contract)} IN ({', '.join(map(str, keys))}))"
    as_text = "CHAR" if dialect == "mysql" else "text"
    totals = [f"CAST(COUNT(*) AS {as_text})"]
    totals.append(total(dialect, row_number(dialect, contract)) if contract.proof == "digest" else "NULL")
    totals += [
        f"CAST(COALESCE(SUM({plain(dialect, contract, name)}), 0) AS {as_text})"
        for name in contract.control_totals
    ]
    schema = [] if dialect == "mysql" else [contract.schema]
    return Statement(
        columns=tuple(
            f"{carried(dialect, contract, column)} AS {quoted(dialect, column.name)}"
            for column in contract.columns
        ),
        table=".".join(quoted(dialect, name) for name in (*schema, contract.in_source)),
        condition=condition,
        totals=tuple(totals),
    )


def literal(dialect: str, at: datetime) -> str:
    """A time as a literal that is compared with a cursor."""
    zone = "" if dialect == "mysql" else "+00"
    return f"'{at.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}{zone}'"


def quoted(dialect: str, name: str) -> str:
    """A name of a source, whatever is in it, in that source's SQL."""
    quote = "`" if dialect == "mysql" else '"'
    return f"{quote}{name.replace(quote, quote * 2)}{quote}"


def plain(dialect: str, contract: TableContract, name: str) -> str:
    """A column as the source has it, in SQL `FROM <table> AS w`.

    Args:
        dialect: `mysql` or `postgres`.
        contract: The table.
        name: The contract's name of one of its columns; of one that is made, that which it is made of.
    """
    return f"w.{quoted(dialect, contract.column(name).in_source)}"


def carried(dialect: str, contract: TableContract, column: Column) -> str:
    """A column of a contract as it crosses the wire, in SQL `FROM <table> AS w`."""
    if column.made is Made.ROW:
        return row_number(dialect, contract)
    if column.made is Made.COPY:
        return f"ROW_NUMBER() OVER (PARTITION BY {row_number(dialect, contract)})"
    here = plain(dialect, contract, column.name)
    if column.made is Made.COLLATED:
        return _mysql_collated(here) if dialect == "mysql" else _postgres_collated(here)
    return wire(dialect, here, column)


def row_number(dialect: str, contract: TableContract) -> str:
    """The digest of a row of `<table> AS w` as it crosses the wire, in SQL."""
    return row_digest(
        dialect, [(column.type, carried(dialect, contract, column)) for column in contract.source_columns]
    )


def row_as_ods(dialect: str, contract: TableContract, columns: Collection[Column] | None = None) -> str:
    """The digest of a row of `<table> AS w` as `ods` has it: times in full; compare with `keys.ods_row`.

    Args:
        dialect: `mysql` or `postgres`.
        contract: The table.
        columns: Those of its columns that count; None for all that the source has.
    """
    chosen = contract.source_columns if columns is None else columns
    return row_digest(dialect, [(column.type, in_full(dialect, contract, column)) for column in chosen])


def _mysql_collated(value: str) -> str:
    """The same for two texts that their collation takes for equal, and for no others.

    Most collations, but not all, pass over spaces at the end.
    """
    trimmed = f"IF(CONCAT({value}, ' ') = {value}, TRIM(TRAILING ' ' FROM {value}), {value})"
    return f"SHA2(WEIGHT_STRING({trimmed}), 256)"


def _postgres_collated(value: str) -> str:
    """The same for two texts that `citext` takes for equal; it compares in lower case."""
    return f"encode(sha256(convert_to(lower(CAST({value} AS text)), 'UTF8')), 'hex')"


def key_number(dialect: str, contract: TableContract) -> str:
    """The digest of the key of a row of `<table> AS w`, in SQL; of times in full, as `ods` has them."""
    columns = [contract.column(name) for name in contract.key]
    return row_digest(dialect, [(column.type, in_full(dialect, contract, column)) for column in columns])


def in_full(dialect: str, contract: TableContract, column: Column) -> str:
    """A column as `carried` has it, but for a time of MySQL: always with six digits of a second."""
    if dialect == "mysql" and column.type.kind is Kind.TIMESTAMP:
        return f"DATE_FORMAT({plain(dialect, contract, column.name)}, '%Y-%m-%d %H:%i:%s.%f')"
    return carried(dialect, contract, column)


def wire(dialect: str, value: str, column: Column) -> str:
    """A column's value as it crosses the wire, in SQL."""
    return _mysql_wire(value, column.type) if dialect == "mysql" else _postgres_wire(value, column.type.kind)


def _mysql_wire(value: str, type_: ColumnType) -> str:
    if type_.native == "bit":
        value = f"CAST({value} AS UNSIGNED)"
    if type_.native == "year" or type_.native.endswith("zerofill"):
        value = f"{value} + 0"  # a number, not the text with zeros before it
    if type_.kind in _AS_TEXT or type_.native in _MYSQL_AS_TEXT:
        return f"CAST({value} AS CHAR)"
    if type_.kind is Kind.BOOLEAN:
        return f"CAST({value} AS SIGNED)"
    if type_.kind is Kind.DOUBLE:
        return f"CAST({value} AS DOUBLE)"  # as text, a FLOAT has six digits
    if type_.native in _GEOMETRIES:
        # The driver knows none of them; as bytes they are what the server keeps.
        return f"CAST({value} AS BINARY)"
    return value


def is_ordinary(time: str) -> str:
    """Whether a time of PostgreSQL has a year of four digits, in SQL."""
    return f"{time} >= '0001-01-01' AND {time} < '10000-01-01'"


def _postgres_wire(value: str, kind: Kind) -> str:
    if kind is Kind.TIMESTAMP:
        # The form of years of four digits; others, and infinity, in PostgreSQL's own words. A fraction is
        # filled up to six digits: to_char would cost twice as much.
        text = f"CAST({value} AS timestamp)::text"
        filled = f"{text} || substr('.000000', length({text}) - 18)"
        return f"CASE WHEN {is_ordinary(value)} THEN {filled} ELSE CAST({value} AS text) END"
    if kind is Kind.BOOLEAN:
        return f"CAST({value} AS integer)"
    return f"CAST({value} AS text)" if kind in _AS_TEXT or kind.is_text else value
