"""What a source hands over: one snapshot's own count, and its rows in batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

import pyarrow as pa

from tallyhouse.contracts import Kind, TableContract

_WIRE = {
    Kind.BOOLEAN: pa.int8(),
    Kind.SMALLINT: pa.int16(),
    Kind.INTEGER: pa.int32(),
    Kind.BIGINT: pa.int64(),
    Kind.DOUBLE: pa.float64(),
    Kind.BINARY: pa.binary(),
}


def wire_schema(contract: TableContract) -> pa.Schema:
    """The Arrow schema of a raw batch; what is neither a plain number nor bytes is text."""
    return pa.schema(
        [pa.field(column.name, _WIRE.get(column.type.kind, pa.string())) for column in contract.columns]
    )


@dataclass(frozen=True)
class SnapshotStatement:
    """What the source said of the window, inside the snapshot that the rows come from.

    Attributes:
        snapshot_at: The server's clock, read before the snapshot was opened; UTC.
        rows: Rows of the window.
        digest: Digest of its rows, as exact decimal text; None where the contract asks for the count alone.
        control_totals: Sums of the contract's control totals, as exact decimal text.
    """

    snapshot_at: datetime
    rows: int
    digest: str | None
    control_totals: dict[str, str]


@dataclass(frozen=True)
class SourceQuery:
    """A query that a source answered.

    Attributes:
        what: `count`, which digests too, or `rows`.
        seconds: How long it took; that of the rows also while they waited for who takes them.
        rows_read: Rows of the table that the server read for it, by its own counters; None where several
            of its processes read them, each with counters of its own, or the table is a view.
    """

    what: str
    seconds: float
    rows_read: int | None


@dataclass(frozen=True)
class SourceStream:
    """An open extraction of one table.

    Attributes:
        statement: What the source counted.
        batches: The rows, one bounded batch after the other; where the source breaks off, a RuntimeError
            or the driver's own, never an OSError, which is the lake's.
        schema: What they are on the wire; None for what databases send, see `wire_schema`.
        queries: What the source was asked; that of the rows is added once they are all read.
    """

    statement: SnapshotStatement
    batches: Iterator[pa.RecordBatch]
    schema: pa.Schema | None = None
    queries: list[SourceQuery] = field(default_factory=list)

    @property
    def longest_query(self) -> dict[str, Any] | None:
        """The longest of its queries, for the manifest; None where a source has none, as files."""
        return asdict(max(self.queries, key=lambda query: query.seconds)) if self.queries else None
