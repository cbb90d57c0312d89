"""Column types: how a DBML type is spelled in each engine that a row passes through."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

_DBML_TYPE = re.compile(r"(?P<base>[a-z ]+?)\s*(?:\((?P<args>[\d,\s]+)\))?(?:\s+default\b.*)?", re.IGNORECASE)


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
    TEXT = "text"
    JSON = "json"
    DATE = "date"
    TIMESTAMP = "timestamp"  # always UTC, to the microsecond

    @property
    def is_numeric(self) -> bool:
        """Whether values can be summed, as control totals are."""
        return self in (Kind.SMALLINT, Kind.INTEGER, Kind.BIGINT, Kind.DECIMAL)


_KINDS = {
    "boolean": Kind.BOOLEAN,
    "bool": Kind.BOOLEAN,
    "smallint": Kind.SMALLINT,
    "int": Kind.INTEGER,
    "integer": Kind.INTEGER,
    "bigint": Kind.BIGINT,
    "decimal": Kind.DECIMAL,
    "numeric": Kind.DECIMAL,
    "double": Kind.DOUBLE,
    "double precision": Kind.DOUBLE,
    "char": Kind.CHAR,
    "varchar": Kind.VARCHAR,
    "text": Kind.TEXT,
    "json": Kind.JSON,
    "date": Kind.DATE,
    "datetime": Kind.TIMESTAMP,
    "timestamp": Kind.TIMESTAMP,
    "timestamptz": Kind.TIMESTAMP,
}


@dataclass(frozen=True)
class ColumnType:
    """A column's type.

    Attributes:
        kind: What the values are.
        length: Characters, of CHAR and VARCHAR.
        precision: Digits in all, of DECIMAL.
        scale: Digits after the point, of DECIMAL.
    """

    kind: Kind
    length: int | None = None
    precision: int | None = None
    scale: int | None = None

    @classmethod
    def parse(cls, dbml_type: str) -> ColumnType:
        """Reads a DBML column type, such as `decimal(12,2)`.

        DBML cannot say ON UPDATE, so technical columns carry a DEFAULT clause inside a quoted type;
        it is not part of the type and is left out.

        Raises:
            ValueError: The type is not one that every engine on a row's way can hold.
        """
        match = _DBML_TYPE.fullmatch(dbml_type.strip())
        kind = _KINDS.get(match["base"].lower()) if match else None
        if match is None or kind is None:
            raise ValueError(f"type {dbml_type!r} is not supported; use one of {', '.join(sorted(_KINDS))}")
        args = [int(arg) for arg in match["args"].split(",")] if match["args"] else []
        if kind is Kind.DECIMAL:
            if len(args) != 2:
                raise ValueError(f"type {dbml_type!r} needs an explicit precision and scale")
            return cls(kind, precision=args[0], scale=args[1])
        if kind in (Kind.CHAR, Kind.VARCHAR):
            if len(args) != 1:
                raise ValueError(f"type {dbml_type!r} needs an explicit length")
            return cls(kind, length=args[0])
        return cls(kind)

    @property
    def postgres(self) -> str:
        """The type in PostgreSQL. JSON stays the source's own text, so it is TEXT."""
        match self.kind:
            case Kind.DECIMAL:
                return f"numeric({self.precision},{self.scale})"
            case Kind.CHAR | Kind.VARCHAR:
                return f"{self.kind}({self.length})"
            case Kind.JSON:
                return "text"
            case Kind.DOUBLE:
                return "double precision"
            case Kind.TIMESTAMP:
                return "timestamp with time zone"
            case _:
                return str(self.kind)

    @property
    def spark(self) -> str:
        """The type in Spark SQL."""
        match self.kind:
            case Kind.DECIMAL:
                return f"decimal({self.precision},{self.scale})"
            case Kind.CHAR | Kind.VARCHAR | Kind.TEXT | Kind.JSON:
                return "string"
            case Kind.INTEGER:
                return "int"
            case _:
                return str(self.kind)
