"""What a database says of its tables, in words that fit every engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tallyhouse.contracts import ColumnType


@dataclass(frozen=True)
class CatalogueColumn:
    """A column as the database declares it.

    Attributes:
        name: In the source.
        declared: Its type as the DBML will have it.
        type: The same, read.
        nullable: Whether it may be NULL.
        counts_up: Whether the server numbers the rows by it.
        stamped: Whether the server writes its clock into it whenever a row is inserted or changed.
        values: Of an enum: what it may be.
        folds: Whether its collation takes texts for equal that differ, as `SPRING` and `spring`.
        computed: Whether the server computes it from other columns.
        comment: What its owner says of it.
    """

    name: str
    declared: str
    type: ColumnType
    nullable: bool
    counts_up: bool = False
    stamped: bool = False
    values: tuple[str, ...] = ()
    folds: bool = False
    computed: bool = False
    comment: str = ""


@dataclass(frozen=True)
class UniqueIndex:
    """Columns that no two rows have alike.

    Attributes:
        name: The index's.
        columns: In its order.
        primary: Whether it is the primary key.
    """

    name: str
    columns: tuple[str, ...]
    primary: bool


@dataclass(frozen=True)
class CatalogueTable:
    """A table or a view.

    Attributes:
        schema: Its schema in PostgreSQL; empty in MySQL.
        name: In the source.
        kind: `table`, `view` or `materialized view`.
        columns: In their order.
        unique: Its unique indexes, none of them partial or of expressions.
        indexed: Columns with which an index begins.
        refers_to: Names of the tables that its foreign keys name.
        comment: What its owner says of it.
    """

    schema: str
    name: str
    kind: str
    columns: tuple[CatalogueColumn, ...]
    unique: tuple[UniqueIndex, ...] = ()
    indexed: frozenset[str] = frozenset()
    refers_to: frozenset[str] = frozenset()
    comment: str = ""

    @property
    def qualified_name(self) -> str:
        """As people write it, such as `public.parcels`, or `parcels` in MySQL."""
        return f"{self.schema}.{self.name}" if self.schema else self.name

    def column(self, name: str) -> CatalogueColumn:
        """The column of that name."""
        return next(column for column in self.columns if column.name == name)


@dataclass(frozen=True)
class Catalogue:
    """A database.

    Attributes:
        engine: `mysql` or `postgres`.
        version: What the server says that it is.
        database: Its name.
        tables: In no order.
        replica: Whether the server only repeats what another one commits.
        clock_off: Seconds by which the server's wall clock differs from UTC.
        left_out: Columns that no account or type lets us read, with the reason.
    """

    engine: str
    version: str
    database: str
    tables: tuple[CatalogueTable, ...]
    replica: bool = False
    clock_off: int = 0
    left_out: dict[str, str] = field(default_factory=dict)


def children_first(tables: Sequence[CatalogueTable]) -> list[CatalogueTable]:
    """Tables in the order in which they are extracted: what refers to another one comes before it.

    Where they refer to each other in a circle, the names decide.
    """
    waiting = sorted(tables, key=lambda table: table.qualified_name)
    ordered: list[CatalogueTable] = []
    while waiting:
        named = {name for table in waiting for name in table.refers_to - {table.name}}
        free = [table for table in waiting if table.name not in named] or waiting[:1]
        ordered += free
        waiting = [table for table in waiting if table not in free]
    return ordered
