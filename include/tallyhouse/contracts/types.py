"""Column types: how a DBML type is spelled in each engine that a row passes through."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date, datetime
from enum import StrEnum

_DBML_TYPE = re.compile(
    r"(?P<base>[a-z][a-z0-9_ ]*?)\s*(?:\((?P<args>[^()]*)\))?"
    r"(?P<more>(?:\s+(?:unsigned|signed|zerofill|varying|with(?:out)? time zone))*)"
    r"(?P<array>(?:\[\d*\])*)(?:\s+default\b.*)?",
    re.IGNORECASE,
)
_INTEGER = re.compile(r"-?\d+", re.ASCII)
SPARK_DIGITS = 38
"""Digits of the longest decimal of Spark, DuckDB and Arrow's decimal128; longer ones travel as text."""


class Kind(StrEnum):
    """What a value is, independent of the engine that holds it."""

    BOOLEAN = "boolean"
    SMALLINT = "smallint"
    INTEGER = "integer"
    BIGINT = "bigint"
    DECIMAL = "decimal"
    DOUBLE = "double"
    CHAR = "char"
    VARCHAR = "varchar"
    TEXT = "text"  # also what no other engine has a type for: in the source's own words
    JSON = "json"
    BINARY = "binary"
    DATE = "date"
    TIMESTAMP = "timestamp"  # always UTC, to the microsecond

    @property
    def is_numeric(self) -> bool:
        """Whether values can be summed, as control totals are."""
        return self in (Kind.SMALLINT, Kind.INTEGER, Kind.BIGINT, Kind.DECIMAL)

    @property
    def is_text(self) -> bool:
        """Whether values are text in every engine."""
        return self in (Kind.CHAR, Kind.VARCHAR, Kind.TEXT, Kind.JSON)


_TEXTS = (
    *("text", "tinytext", "mediumtext", "longtext", "citext", "enum", "set"),
    # A MySQL TIME may be negative and longer than a day; PostgreSQL's other types have a text of their own.
    *("time", "timetz", "interval", "uuid", "inet", "inet4", "inet6", "cidr", "macaddr", "macaddr8", "xml"),
    *("money", "hstore", "ltree", "tsvector", "tsquery", "name", "jsonpath"),
    *("int4range", "int8range", "numrange", "daterange", "tsrange", "tstzrange", "int4multirange"),
    *("int8multirange", "nummultirange", "datemultirange", "tsmultirange", "tstzmultirange"),
)
_BINARIES = (
    *("binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob", "bytea", "vector"),
    # As MySQL keeps them: four bytes of SRID, then WKB.
    *("geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon"),
    *("geometrycollection", "geomcollection"),
)
_KINDS = {
    "boolean": Kind.BOOLEAN,
    "bool": Kind.BOOLEAN,
    "tinyint": Kind.SMALLINT,
    "smallint": Kind.SMALLINT,
    "int2": Kind.SMALLINT,
    "year": Kind.SMALLINT,
    "mediumint": Kind.INTEGER,
    "int": Kind.INTEGER,
    "integer": Kind.INTEGER,
    "int4": Kind.INTEGER,
    "bigint": Kind.BIGINT,
    "int8": Kind.BIGINT,
    "bit": Kind.BIGINT,
    "decimal": Kind.DECIMAL,
    "numeric": Kind.DECIMAL,
    "float": Kind.DOUBLE,
    "float4": Kind.DOUBLE,
    "float8": Kind.DOUBLE,
    "real": Kind.DOUBLE,
    "double": Kind.DOUBLE,
    "double precision": Kind.DOUBLE,
    "char": Kind.CHAR,
    "character": Kind.CHAR,
    "bpchar": Kind.CHAR,
    "varchar": Kind.VARCHAR,
    "character varying": Kind.VARCHAR,
    "json": Kind.JSON,
    "jsonb": Kind.JSON,
    "date": Kind.DATE,
    "datetime": Kind.TIMESTAMP,
    "timestamp": Kind.TIMESTAMP,
    "timestamptz": Kind.TIMESTAMP,
    **dict.fromkeys(_TEXTS, Kind.TEXT),
    **dict.fromkeys(_BINARIES, Kind.BINARY),
}
# What means something else in PostgreSQL: its own text, as it prints it.
_POSTGRES = dict.fromkeys(
    ("bit", "bit varying", "varbit", "point", "line", "lseg", "box", "path", "polygon", "circle"), Kind.TEXT
)
_POSTGRES_NAMES = {
    Kind.JSON: "text",
    Kind.BINARY: "bytea",
    Kind.DOUBLE: "double precision",
    Kind.TIMESTAMP: "timestamp with time zone",
}
_BITS = {Kind.SMALLINT: 15, Kind.INTEGER: 31, Kind.BIGINT: 63}
_NOTHING = re.compile(r"(?!)")
_PARSED: dict[Kind, tuple[re.Pattern[str], Callable[[str], object]]] = {
    Kind.BOOLEAN: (re.compile("[01]"), int),
    Kind.DOUBLE: (re.compile(r"\S+"), float),
    Kind.DATE: (re.compile(r"\d{4}-\d\d-\d\d", re.ASCII), date.fromisoformat),
    Kind.TIMESTAMP: (
        re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{1,6})?", re.ASCII),
        datetime.fromisoformat,
    ),
}
_UNSIGNED = {Kind.SMALLINT: Kind.INTEGER, Kind.INTEGER: Kind.BIGINT}


@dataclass(frozen=True)
class ColumnType:
    """A column's type.

    Attributes:
        kind: What the values are.
        length: Characters, of CHAR and VARCHAR.
        precision: Digits in all, of DECIMAL.
        scale: Digits after the point, of DECIMAL.
        native: What the source calls it, in lower case and without arguments, such as `bit`.
    """

    kind: Kind
    length: int | None = None
    precision: int | None = None
    scale: int | None = None
    native: str = ""

    @classmethod
    def parse(cls, dbml_type: str, engine: str = "mysql") -> ColumnType:
        """Reads a DBML column type, such as `decimal(12,2)` or `int unsigned`.

        DBML cannot say ON UPDATE, so technical columns carry a DEFAULT clause inside a quoted type;
        it is not part of the type and is left out.

        Args:
            dbml_type: As the DBML spells it.
            engine: The source's, since some names mean different things in MySQL and PostgreSQL.

        Raises:
            ValueError: The type is not one that every engine on a row's way can hold.
        """
        match = _DBML_TYPE.fullmatch(dbml_type.strip())
        base = " ".join(match["base"].lower().split()) if match else ""
        if match and match["array"] and engine == "postgres":
            return cls(Kind.TEXT, native="array")
        more = match["more"].lower() if match else ""
        if "varying" in more:
            base += " varying"
        known = _KINDS | _POSTGRES if engine == "postgres" else _KINDS
        if match is None or base not in known or match["array"]:
            raise ValueError(
                f"type {dbml_type!r} is not supported; use one of {', '.join(sorted(known))}; "
                "an enum or a domain of the database's own can be written as text or as what it is made of"
            )
        kind = known[base]
        if kind is Kind.TEXT or kind is Kind.BINARY:
            return cls(kind, native=base)
        try:
            args = [int(arg) for arg in (match["args"] or "").split(",") if arg.strip()]
        except ValueError as error:
            raise ValueError(
                f"type {dbml_type!r}: {match['args']!r} is not a length or a precision"
            ) from error
        found = cls._of(dbml_type, kind, base, args, "unsigned" in more or "zerofill" in more, engine)
        return replace(found, native=f"{base} zerofill") if "zerofill" in more else found

    @classmethod
    def _of(
        cls, dbml_type: str, kind: Kind, base: str, args: list[int], unsigned: bool, engine: str
    ) -> ColumnType:
        if (kind is Kind.BIGINT and unsigned) or (base == "bit" and args == [64]):
            return cls(Kind.DECIMAL, precision=20, scale=0, native=base)
        if base == "tinyint" and args == [1] and not unsigned:
            return cls(Kind.BOOLEAN, native=base)  # MySQL's own BOOLEAN is that
        if unsigned and base not in ("tinyint", "mediumint"):
            kind = _UNSIGNED.get(kind, kind)
        if engine == "postgres" and kind in (Kind.DECIMAL, Kind.VARCHAR) and not args:
            # Any number of digits, on either side of the point: no other engine has that.
            return cls(Kind.TEXT, native=base)
        if kind is Kind.DECIMAL:
            if len(args) != 2:
                raise ValueError(f"type {dbml_type!r} needs an explicit precision and scale")
            return cls(kind, precision=args[0], scale=args[1], native=base)
        if kind in (Kind.CHAR, Kind.VARCHAR):
            if len(args) != 1:
                raise ValueError(f"type {dbml_type!r} needs an explicit length")
            return cls(kind, length=args[0], native=base)
        return cls(kind, native=base)

    @property
    def is_wide(self) -> bool:
        """Whether it is a DECIMAL of more digits than Spark has: exact text until PostgreSQL types it."""
        return self.kind is Kind.DECIMAL and (self.precision or 0) > SPARK_DIGITS

    def holds(self, text: str) -> bool:
        """Whether a value of this type can be what the wire carries as this text; binary has no text."""
        if self.kind.is_text:
            return "\0" not in text and len(text) <= (self.length or len(text))
        if bits := _BITS.get(self.kind):
            return bool(_INTEGER.fullmatch(text)) and -(2**bits) <= int(text) < 2**bits
        if self.kind is Kind.DECIMAL:
            return re.fullmatch(self.decimal_form.removesuffix(r"\z"), text) is not None
        form, parse = _PARSED.get(self.kind, (_NOTHING, float))
        return bool(form.fullmatch(text)) and _parses(parse, text)

    @property
    def decimal_form(self) -> str:
        """A regular expression, of Java and of RE2, that a DECIMAL's text matches if the type can hold it."""
        whole = (self.precision or 0) - (self.scale or 0)
        digits = rf"0*\d{{1,{whole}}}" if whole else "0+"
        return rf"\A-?{digits}(\.\d{{0,{self.scale}}}0*)?\z"

    @property
    def postgres(self) -> str:
        """The type in PostgreSQL. JSON stays the source's own text, so it is TEXT."""
        if self.kind is Kind.DECIMAL:
            return f"numeric({self.precision},{self.scale})"
        if self.length is not None:
            return f"{self.kind}({self.length})"
        return _POSTGRES_NAMES.get(self.kind, str(self.kind))

    @property
    def spark(self) -> str:
        """The type in Spark SQL."""
        if self.kind.is_text or self.is_wide:
            return "string"
        if self.kind is Kind.DECIMAL:
            return f"decimal({self.precision},{self.scale})"
        return "int" if self.kind is Kind.INTEGER else str(self.kind)


def _parses(parse: Callable[[str], object], text: str) -> bool:
    try:
        parse(text)
    except ValueError:
        return False
    return True
