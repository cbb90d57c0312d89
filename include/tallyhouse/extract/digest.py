"""The digest of rows: the same number in every engine, whatever the order of the rows.

The exact sum of the first 60 bits of SHA-256 over each row's canonical text. In that text what anybody may
type is `<bytes>:<text>`, in UTF-8; what has a fixed alphabet (numbers, times, hexadecimal) is `<text>|`; NULL
is `N` in either place. So no two rows share a text. A text of more than 1 KB stands there by its own SHA-256.
Values are formatted once: building the text costs more than hashing it.

Floating point is left out: engines print the same number differently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from tallyhouse.contracts import ColumnType, Kind

LONG = 1024
"""Bytes from which on a text stands in the row's text by its own SHA-256."""
_FIXED = (
    *(Kind.BOOLEAN, Kind.SMALLINT, Kind.INTEGER, Kind.BIGINT),
    *(Kind.DECIMAL, Kind.DATE, Kind.TIMESTAMP),
)
_BYTES = "binary"
_LEFT_OUT = (Kind.DOUBLE,)
_BYTES_A_CHARACTER = 4


@dataclass(frozen=True)
class Engine:
    """How one engine says it.

    Attributes:
        fixed: Of an expression: its text, or `N`.
        free: Of an expression, and whether it may be long: its length and its text, or `N`.
        bytes: Of an expression: its bytes in hexadecimal, or, of long ones, their number and SHA-256; or `N`.
        join: Of texts: one after the other.
        number: Of a row's text: the first 60 bits of its SHA-256 as a whole number.
        total: Of an expression: its exact sum as text, 0 over no rows.
    """

    fixed: Callable[[str], str]
    free: Callable[[str, bool], str]
    bytes: Callable[[str], str]
    join: Callable[[Sequence[str]], str]
    number: Callable[[str], str]
    total: Callable[[str], str]


def _mysql_free(value: str, may_be_long: bool) -> str:
    text = f"CONVERT({value} USING utf8mb4)"
    shown = f"IF(LENGTH({text}) > {LONG}, SHA2({text}, 256), {text})" if may_be_long else text
    return f"IFNULL(CONCAT(LENGTH({text}), ':', {shown}), 'N')"


def _postgres_free(value: str, may_be_long: bool) -> str:
    # Whatever the database's encoding is.
    text = f"convert_to({value}, 'UTF8')"
    shown = value
    if may_be_long:
        shown = f"CASE WHEN octet_length({text}) > {LONG} THEN encode(sha256({text}), 'hex') ELSE {value} END"
    return f"coalesce(octet_length({text})::text || ':' || {shown}, 'N')"


def _postgres_join(texts: Sequence[str]) -> str:
    # One call is quicker than a chain of ||, and takes a hundred arguments at most.
    calls = [f"concat({', '.join(texts[start : start + 90])})" for start in range(0, len(texts), 90)]
    return " || ".join(calls)


def _duckdb_free(value: str, may_be_long: bool) -> str:
    shown = (
        f"CASE WHEN strlen({value}) > {LONG} THEN sha256({value}) ELSE {value} END" if may_be_long else value
    )
    return f"coalesce(strlen({value})::VARCHAR || ':' || {shown}, 'N')"


def _duckdb_join(texts: Sequence[str]) -> str:
    return " || ".join(texts)


def _clickhouse_free(value: str, may_be_long: bool) -> str:
    shown = (
        f"if(length({value}) > {LONG}, lower(hex(SHA256(ifNull({value}, '')))), {value})"
        if may_be_long
        else value
    )
    return f"ifNull(concat(toString(length({value})), ':', {shown}), 'N')"


ENGINES = {
    "mysql": Engine(
        fixed=lambda value: f"IFNULL({value}, 'N')",
        free=_mysql_free,
        bytes=lambda value: (
            f"IFNULL(IF(LENGTH({value}) > {LONG}, CONCAT(LENGTH({value}), ':', SHA2({value}, 256)), "
            f"LOWER(HEX({value}))), 'N')"
        ),
        join=lambda texts: f"CONCAT({', '.join(texts)})",
        # Without the CAST the sum would be a DOUBLE.
        number=lambda text: f"CAST(CONV(LEFT(SHA2({text}, 256), 15), 16, 10) AS UNSIGNED)",
        total=lambda number: f"CAST(COALESCE(SUM({number}), 0) AS CHAR)",
    ),
    "postgres": Engine(
        fixed=lambda value: f"coalesce(({value})::text, 'N')",
        free=_postgres_free,
        bytes=lambda value: (
            f"coalesce(CASE WHEN octet_length({value}) > {LONG} THEN octet_length({value})::text || ':' || "
            f"encode(sha256({value}), 'hex') ELSE encode({value}, 'hex') END, 'N')"
        ),
        join=_postgres_join,
        number=lambda text: (
            f"('x' || left(encode(sha256(convert_to({text}, 'UTF8')), 'hex'), 15))::bit(60)::bigint"
        ),
        total=lambda number: f"CAST(coalesce(sum({number}), 0) AS text)",
    ),
    "duckdb": Engine(
        fixed=lambda value: f"coalesce(({value})::VARCHAR, 'N')",
        free=_duckdb_free,
        bytes=lambda value: (
            f"coalesce(CASE WHEN octet_length({value}) > {LONG} THEN octet_length({value})::VARCHAR "
            f"|| ':' || sha256({value}) ELSE lower(hex({value})) END, 'N')"
        ),
        join=_duckdb_join,
        number=lambda text: f"('0x' || left(sha256({text}), 15))::BIGINT",
        total=lambda number: f"coalesce(sum({number}), 0)::VARCHAR",
    ),
    "clickhouse": Engine(
        fixed=lambda value: f"ifNull(toString({value}), 'N')",
        free=_clickhouse_free,
        bytes=lambda value: (
            f"ifNull(if(length({value}) > {LONG}, concat(toString(length({value})), ':', "
            f"lower(hex(SHA256(ifNull({value}, ''))))), lower(hex({value}))), 'N')"
        ),
        join=lambda texts: f"concat({', '.join(texts)})" if len(texts) > 1 else texts[0],
        # A sum of UInt64 wraps around.
        number=lambda text: (
            f"toUInt128(bitShiftRight(reinterpretAsUInt64(reverse(substring(SHA256({text}), 1, 8))), 4))"
        ),
        total=lambda number: f"toString(sum({number}))",
    ),
}


def is_fixed(kind: Kind) -> bool:
    """Whether the texts of a kind have a fixed alphabet, so that they need no length."""
    return kind in _FIXED


def is_digested(kind: Kind) -> bool:
    """Whether values of a kind are part of the digest."""
    return kind not in _LEFT_OUT


def row_digest(engine: str, values: Iterable[tuple[ColumnType, str]]) -> str:
    """The digest of one row, as SQL: a whole number below 2^60, never NULL.

    Args:
        engine: `mysql`, `postgres`, `duckdb` or `clickhouse`.
        values: Of each column its type, and the SQL of its value in canonical form, as the wire carries it.
    """
    dialect = ENGINES[engine]
    texts: list[str] = []
    for type_, value in values:
        if type_.kind in _FIXED:
            texts += [dialect.fixed(value), "'|'"]
        elif type_.kind == _BYTES:
            texts += [dialect.bytes(value), "'|'"]
        elif is_digested(type_.kind):
            short = type_.length is not None and type_.length * _BYTES_A_CHARACTER <= LONG
            texts.append(dialect.free(value, not short))
    return dialect.number(dialect.join(texts or ["''"]))


def total(engine: str, number: str) -> str:
    """The digest of all rows, as SQL: the exact sum of their own ones, as text."""
    return ENGINES[engine].total(number)
