"""Table contracts: what a source promises of a table, and what we do with it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any

from tallyhouse.contracts.types import ColumnType, Kind

# Short enough for a staging table to carry a run beside it, within the 63 bytes of PostgreSQL.
IDENTIFIER = re.compile(r"[a-z][a-z0-9_]{0,38}")
LONGEST_NAME = 64
"""Characters of the longest name that a source may have; PostgreSQL's are shorter."""


class Made(StrEnum):
    """What a column is that the source does not have, but computes as it is read.

    `row` and `copy` tell the rows of a table without a key apart: a digest of the row, and its number among
    rows that are the same. `collated` is a key as its collation compares it: equal where the source says so.
    """

    ROW = "row"
    COPY = "copy"
    COLLATED = "collated"


@dataclass(frozen=True)
class Policy:
    """What becomes of a value that its column's type cannot hold.

    Attributes:
        name: `error` stops the run, `null` and `sentinel` put something in its place; the ledger counts it.
        sentinel: What is put in its place, as the wire would carry it.
    """

    name: str = "error"
    sentinel: str | None = None

    @classmethod
    def parse(cls, said: Any) -> Policy:
        """Reads `error`, `null` (YAML's own null too) or `{sentinel: <value>}`.

        Raises:
            ValueError: It is none of these.
        """
        if said in ("error", "null", None):
            return cls("null" if said is None else str(said))
        if isinstance(said, dict) and set(said) == {"sentinel"} and said["sentinel"] is not None:
            return cls("sentinel", str(said["sentinel"]))
        if said == "quarantine":
            raise ValueError("`quarantine` has no store yet; use error, null or {sentinel: <value>}")
        raise ValueError(f"on_bad_value {said!r} is not error, null or {{sentinel: <value>}}")


@dataclass(frozen=True)
class Column:
    """A column of a source table, as its DBML and its overlay have it.

    Attributes:
        name: In the lake and in `ods`.
        type: Its type.
        nullable: Whether `ods` may hold NULL: because the source may, or because its policy is `null`.
        on_bad_value: What becomes of a value that the type cannot hold.
        source_name: In the source, where it has another name there.
        made: What it is, where the source only computes it; `collated` is of the column `source_name`.
    """

    name: str
    type: ColumnType
    nullable: bool
    on_bad_value: Policy = Policy()
    source_name: str = ""
    made: Made | None = None

    @property
    def in_source(self) -> str:
        """What the source calls it."""
        return self.source_name or self.name

    @property
    def replaces(self) -> bool:
        """Whether something is put in the place of what the type cannot hold."""
        return self.on_bad_value.name != "error"


@dataclass(frozen=True)
class TableContract:
    """All that extraction, checks and publishing need to know of one source table.

    Attributes:
        source: The store it lives in, such as `orders`.
        name: The table's name in the lake and in `ods`.
        columns: In the order of the DBML; after them those that the source computes.
        key: Names of the columns that tell its rows apart.
        cursor: The column that says when a row last changed, or None: the whole table is then taken
            every night.
        pii: Columns that hold personal data.
        control_totals: Numeric columns whose sums are carried through the ledger beside the counts.
        proof: What the source says of a window beside its totals: `digest`, of every row, or `count` alone.
        schema: Where it is in a PostgreSQL source.
        deletes: `mark` finds rows that the source no longer has and marks them in `ods`; `ignore` does not
            look, as where the source marks its deleted rows itself.
        delete_limit: Share of the live rows that a run may mark without being told to.
        row_digests: Runs within which every row is compared with its source, whatever its cursor says; None
            for never. A table without a cursor has 1 or None: of it only what differs is taken then.
        schema_changes: `freeze` stops where the table's definition changed; `evolve` takes columns that were
            added or widened, and the whole table with them.
        left_out: Columns of the source that are not taken, and whose coming is no change.
        source_name: The table's name in the source, where it is another one; also a view's.
    """

    source: str
    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    cursor: str | None
    pii: tuple[str, ...]
    control_totals: tuple[str, ...]
    proof: str = "digest"
    schema: str = "public"
    deletes: str = "mark"
    delete_limit: float = 0.2
    row_digests: int | None = None
    schema_changes: str = "freeze"
    left_out: tuple[str, ...] = ()
    source_name: str = ""

    @property
    def in_source(self) -> str:
        """What the source calls the table."""
        return self.source_name or self.name

    @property
    def source_columns(self) -> tuple[Column, ...]:
        """The columns that the source has."""
        return tuple(column for column in self.columns if column.made is None)

    @property
    def has_key(self) -> bool:
        """Whether its rows have a key, by which a changed row is the same row."""
        return all(self.column(name).made is not Made.ROW for name in self.key)

    @property
    def qualified_name(self) -> str:
        """The name that people read in messages, such as `orders.order_items`."""
        return f"{self.source}.{self.name}"

    @property
    def column_names(self) -> tuple[str, ...]:
        """Names of all columns, in order."""
        return tuple(column.name for column in self.columns)

    def column(self, name: str) -> Column:
        """The column of that name.

        Raises:
            KeyError: The table has no such column.
        """
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(f"{self.qualified_name} has no column {name!r}")

    @cached_property
    def version(self) -> str:
        """The first 12 hexadecimal digits of a SHA-256 over the whole contract."""
        text = json.dumps(asdict(self), sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def validate(self) -> None:
        """Checks that the contract agrees with itself.

        Raises:
            ValueError: It does not; the message names the table and what to change.
        """
        where = self.qualified_name
        for name in (self.source, self.name, *(column.name for column in self.source_columns)):
            if not IDENTIFIER.fullmatch(name):
                raise ValueError(
                    f"{where}: {name!r} is not a plain lower-case identifier of at most 39 characters; give "
                    "it one, and say under `table` or `columns` in the contract what the source calls it"
                )
        self._check_source_names()
        if not self.key:
            raise ValueError(f"{where}: no primary key in its DBML")
        named = {"key": self.key, "pii": self.pii, "control_totals": self.control_totals}
        for what, names in named.items():
            if unknown := sorted(set(names) - set(self.column_names)):
                raise ValueError(f"{where}: {what} names {unknown}, which the DBML does not have")
        self._check_cursor()
        for name in self.control_totals:
            if not self.column(name).type.kind.is_numeric or self.column(name).type.is_wide:
                raise ValueError(
                    f"{where}: control total {name!r} is not an exact number of 38 digits at most"
                )
        if floating := [name for name in self.key if self.column(name).type.kind is Kind.DOUBLE]:
            raise ValueError(f"{where}: {floating[0]} is a floating-point number, which can be no key")
        self._check_comparisons()
        for column in self.columns:
            self._check_policy(column)

    @property
    def replacing(self) -> tuple[Column, ...]:
        """Columns in which something is put in the place of what their type cannot hold."""
        return tuple(column for column in self.columns if column.replaces)

    def _check_source_names(self) -> None:
        """What the source calls things may be anything that it allows; it is quoted wherever it is used."""
        where = self.qualified_name
        for name in (self.schema, self.in_source, *(column.in_source for column in self.source_columns)):
            if not 0 < len(name) <= LONGEST_NAME or "\0" in name:
                raise ValueError(f"{where}: {name!r} can be no name in a source")
        names = [column.in_source for column in self.source_columns]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{where}: two columns are the source's {twice[0]!r}")

    def _check_policy(self, column: Column) -> None:
        if not column.replaces:
            return
        where = f"{self.qualified_name}.{column.name}"
        if column.name in (*self.key, self.cursor):
            # Two rows could meet under one key, or a row leave its window.
            raise ValueError(f"{where}: a key or a cursor can have no other on_bad_value than error")
        if column.name in self.control_totals:
            raise ValueError(f"{where}: a control total can have no other on_bad_value than error")
        sentinel = column.on_bad_value.sentinel
        if sentinel is not None and not column.type.holds(sentinel):
            raise ValueError(f"{where}: its type cannot hold the sentinel {sentinel!r} either")

    def _check_comparisons(self) -> None:
        where = self.qualified_name
        if self.schema_changes not in ("freeze", "evolve"):
            raise ValueError(
                f"{where}: schema_changes {self.schema_changes!r} is neither `freeze` nor `evolve`"
            )
        if both := sorted(set(self.left_out) & set(self.column_names)):
            raise ValueError(f"{where}: left_out names {both}, which the DBML has")
        if self.deletes not in ("mark", "ignore"):
            raise ValueError(f"{where}: deletes {self.deletes!r} is neither `mark` nor `ignore`")
        if type(self.delete_limit) not in (int, float) or not 0 <= self.delete_limit <= 1:
            raise ValueError(f"{where}: delete_limit {self.delete_limit!r} is not a share from 0 to 1")
        if self.row_digests is not None and (type(self.row_digests) is not int or self.row_digests < 1):
            raise ValueError(
                f"{where}: row_digests {self.row_digests!r} is neither null nor a number of runs"
            )
        if self.row_digests is not None and not self.has_key:
            raise ValueError(f"{where}: rows without a key cannot be compared; use `row_digests: null`")
        if self.row_digests not in (None, 1) and self.cursor is None:
            raise ValueError(f"{where}: without a cursor row_digests is 1, or null to take the whole table")
        if self.proof not in ("count", "digest"):
            raise ValueError(f"{where}: proof {self.proof!r} is neither `count` nor `digest`")

    def _check_cursor(self) -> None:
        where = self.qualified_name
        if self.cursor is None:
            return
        if self.cursor not in self.column_names:
            raise ValueError(f"{where}: cursor {self.cursor!r} is not in the DBML; use `cursor: null`")
        if self.column(self.cursor).type.kind is not Kind.TIMESTAMP:
            raise ValueError(
                f"{where}: cursor {self.cursor!r} is not a time. A number that counts up is given "
                "out before its row is committed and tells nothing of updates; use `cursor: null`"
            )
        if not self.has_key:
            raise ValueError(f"{where}: without a key a changed row is another row; use `cursor: null`")
        if self.column(self.cursor).nullable:
            # A window is `cursor >= watermark`: a row without a cursor would never be in one.
            raise ValueError(f"{where}: cursor {self.cursor!r} may be NULL; use `cursor: null`")


@dataclass(frozen=True)
class SourceContract:
    """One source database.

    Attributes:
        name: Such as `orders`.
        engine: `mysql`, `postgres`, `objects` for documents in a bucket, or `files` for CSV files of
            datasets in the lake.
        conn_id: The Airflow connection of the extraction account.
        tables: In the order in which they are extracted: children before their parents, so that a
            parent is never older in raw than the child that names it.
        overlap: Seconds that a window reaches further back where open transactions cannot be seen.
        clock: Who stamps the cursors: `server`, or `application`, whose clocks may differ by `overlap`.
        replica_lag: Seconds that a row can take to arrive on a replica, the longest transaction of its
            primary included; None for a primary.
        give_way: Seconds after which a change of a table's definition, that waits for our reading, gets its
            way; what was read is void then.
        files: By table, its file: owner, dataset and name. Only of the engine `files`.
    """

    name: str
    engine: str
    conn_id: str
    tables: tuple[TableContract, ...]
    overlap: int = 60
    clock: str = "server"
    replica_lag: int | None = None
    give_way: int = 30
    files: Mapping[str, str] = field(default_factory=dict, hash=False)

    def validate(self) -> None:
        """Checks that the contract agrees with itself.

        Raises:
            ValueError: It does not; the message names the source and what to change.
        """
        if self.clock not in ("server", "application"):
            raise ValueError(
                f"source {self.name}: clock {self.clock!r} is neither `server` nor `application`"
            )
        for name in ("overlap", "replica_lag", "give_way"):
            seconds = getattr(self, name)
            if seconds is not None and (type(seconds) is not int or seconds < 0):
                raise ValueError(f"source {self.name}: {name} {seconds!r} is not a number of whole seconds")

    def table(self, name: str) -> TableContract:
        """The table of that name.

        Raises:
            KeyError: The source has no such table.
        """
        for table in self.tables:
            if table.name == name:
                return table
        raise KeyError(f"source {self.name!r} has no table {name!r}")


@dataclass(frozen=True)
class PipelineContract:
    """What one nightly DAG carries: sources, and the models that are built of them.

    Attributes:
        name: Such as `techmarket`.
        sources: Their contracts.
        models: Star-schema tables in the order in which they are merged: dimensions, then facts.
        marts: Tables of the targets that are built from the star schema.
        targets: The stores that its runs are brought to from the warehouse.
    """

    name: str
    sources: tuple[SourceContract, ...]
    models: tuple[str, ...]
    marts: tuple[str, ...]
    targets: tuple[str, ...] = ()

    @property
    def tables(self) -> tuple[TableContract, ...]:
        """Every table of every source."""
        return tuple(table for source in self.sources for table in source.tables)
