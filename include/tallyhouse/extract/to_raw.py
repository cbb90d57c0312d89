"""Writes an open extraction into the lake as an immutable raw batch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
from adbc_driver_manager import Error as AdbcError

from tallyhouse.contracts import TableContract
from tallyhouse.errors import TallyhouseError, first_line
from tallyhouse.extract.changes import Comparison
from tallyhouse.extract.deletes import Census
from tallyhouse.extract.raw_digest import DIGESTS, raw_digest, raw_row_digests, sum_of
from tallyhouse.extract.schema_drift import Checked
from tallyhouse.extract.stream import SourceStream, wire_schema
from tallyhouse.lake import Lake, Manifest, Part, batch_prefix, commit, sweep
from tallyhouse.ledger import ROWS, Hop, Line

log = logging.getLogger(__name__)

PART_ROWS = 1_000_000
GROUP_ROWS, GROUP_BYTES = 50_000, 16 << 20
"""A row group is written as soon as it has either; it is what a reader holds at once."""


def write_batch(
    stream: SourceStream,
    lake: Lake,
    contract: TableContract,
    *,
    run_id: str,
    attempt: int,
    watermark: datetime | None,
    next_watermark: datetime | None = None,
    census: Callable[[list[str], datetime], Census | None] | None = None,
    compared: Comparison | None = None,
    checked: Checked | None = None,
    previous: Manifest | None = None,
) -> Manifest:
    """Streams rows into Parquet parts and commits them by their manifest.

    Args:
        stream: An open extraction.
        lake: Where to.
        contract: The table.
        run_id: The run.
        attempt: Which try of the run; a try never writes where another one wrote.
        watermark: The window's lower bound, None for the whole table.
        next_watermark: Where the next window starts, from `open_work.next_watermark`; None where that
            is not known or the table has no cursor.
        census: Looks for deleted rows, given the keys of the parts and when they were read.
        compared: What was compared of rows outside of the window, and is taken with it.
        checked: How the table is defined in the source, and what of that is not in its contract.
        previous: The last published batch of the table.

    Returns:
        The committed manifest.

    Raises:
        TallyhouseError: The stream or the lake broke off, or the stream brought other rows than the source
            counted and digested.
    """
    prefix = batch_prefix(contract.source, contract.name, run_id, attempt)
    schema = stream.schema or wire_schema(contract)
    with lake.answering(contract.qualified_name):
        received = _receive(stream, lake, prefix, contract, schema)
        found = (
            census([part.key for part in received.parts], stream.statement.snapshot_at) if census else None
        )
        deleted = tuple(_write_evidence(found, lake, prefix, contract)) if found else ()
        missing = tuple(_write_missing(found, lake, prefix)) if found else ()
        if found and found.first_came and next_watermark:
            next_watermark = min(next_watermark, found.first_came)
        manifest = Manifest(
            run_id=run_id,
            source=contract.source,
            table=contract.name,
            attempt=attempt,
            contract_version=contract.version,
            columns=tuple({"name": field.name, "type": str(field.type)} for field in schema),
            snapshot_at=_after(previous, stream.statement.snapshot_at),
            watermark_from=watermark,
            watermark_to=next_watermark if contract.cursor else None,
            source_rows=stream.statement.rows,
            rows=received.rows,
            digest=stream.statement.digest,
            control_totals=stream.statement.control_totals,
            parts=received.parts,
            raw_digest=received.digest,
            deleted=deleted,
            census=found.as_json() if found else None,
            missing=missing,
            digests=received.digests,
            compared=compared.as_json() if compared else None,
            declared=checked.declared_json if checked else (),
            evolved=checked.evolved if checked else (),
            longest_query=stream.longest_query,
        )
        commit(lake, manifest)
        if left := sweep(lake, manifest):
            log.info("%s: %s objects of earlier tries removed", contract.qualified_name, left)
    log.info(
        "%s: %s rows in %s parts, %s",
        *(contract.qualified_name, manifest.rows, len(manifest.parts), manifest.key),
    )
    return manifest


@dataclass(frozen=True)
class _Received:
    """What of a stream is in the lake: the rows that the source counted and digested."""

    parts: tuple[Part, ...]
    rows: int
    digests: tuple[Part, ...]
    digest: str | None


def _receive(
    stream: SourceStream, lake: Lake, prefix: str, contract: TableContract, schema: pa.Schema
) -> _Received:
    try:
        parts = tuple(write_parts(stream.batches, lake, prefix, schema))
    except (RuntimeError, AdbcError, pa.ArrowException) as error:
        raise TallyhouseError(
            f"the stream broke off ({first_line(error)})",
            remedy="Nothing was committed; check the source's log and clear the task to take it again",
            transient=True,
            table=contract.qualified_name,
            rule="source=raw",
        ) from error
    # Counted in the lake, not while writing: the footer is what every later reader will see.
    rows = sum(lake.row_count(part.key) for part in parts)
    if rows != stream.statement.rows:
        raise TallyhouseError(
            f"source=raw differs by {rows - stream.statement.rows} rows: "
            f"the source counted {stream.statement.rows}, raw holds {rows}",
            remedy="Nothing was committed; clear the task to take it again",
            table=contract.qualified_name,
            rule="source=raw rows",
            count=rows - stream.statement.rows,
        )
    digests, digest = _digest(stream, lake, prefix, contract, parts)
    if stream.statement.digest is not None and digest != stream.statement.digest:
        raise TallyhouseError(
            "source=raw differs in the values of its rows: the source's digest is "
            f"{stream.statement.digest}, raw's {digest}",
            remedy="Nothing was committed; clear the task to take it again. Where it stays so, a driver "
            "changes a value on its way; `proof: count` in the contract passes over it",
            table=contract.qualified_name,
            rule="source=raw digest",
        )
    return _Received(parts, rows, digests, digest)


def _after(previous: Manifest | None, at: datetime) -> datetime:
    """When a snapshot was taken, later than all that was published before, also by a clock that was set back.

    What was seen later is what `ods` shows.
    """
    if previous is None:
        return at
    seen = previous.snapshot_at
    if previous.census:
        seen = max(seen, datetime.fromisoformat(previous.census["at"]))
    return max(at, seen + timedelta(microseconds=1))


def _digest(
    stream: SourceStream, lake: Lake, prefix: str, contract: TableContract, parts: tuple[Part, ...]
) -> tuple[tuple[Part, ...], str | None]:
    """Digests what was written: each row, where the contract compares rows, and all of them together."""
    keys = [part.key for part in parts]
    if contract.row_digests is None or not keys:
        return (), raw_digest(lake, keys, contract) if stream.statement.digest is not None else None
    total = 0

    def summed() -> Iterator[pa.RecordBatch]:
        nonlocal total
        for batch in raw_row_digests(lake, keys, contract):
            total += sum_of(batch)
            yield batch

    digests = tuple(write_parts(summed(), lake, f"{prefix}/digests", DIGESTS))
    return digests, str(total) if stream.statement.digest is not None else None


def _write_missing(census: Census, lake: Lake, prefix: str) -> Iterator[Part]:
    """The keys that a replica lacks and that are not deleted yet."""
    if not census.missing:
        return iter(())
    schema = pa.schema([pa.field("k", pa.int64()), pa.field("missed_at", pa.timestamp("us", "UTC"))])
    columns = zip(*census.missing, strict=True)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    batch = pa.RecordBatch.from_arrays(arrays, schema=schema)
    return write_parts(iter([batch]), lake, f"{prefix}/missing", schema)


def _write_evidence(census: Census, lake: Lake, prefix: str, contract: TableContract) -> Iterator[Part]:
    """The deleted keys as a Parquet object, typed as the wire has them."""
    if not census.deleted:
        return iter(())
    columns = zip(*census.deleted, strict=True)
    schema = pa.schema([wire_schema(contract).field(name) for name in contract.key])
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    return write_parts(
        iter([pa.RecordBatch.from_arrays(arrays, schema=schema)]), lake, f"{prefix}/deleted", schema
    )


def source_raw(manifest: Manifest) -> list[Line]:
    """The ledger's lines from the source to raw: rows, and their digest where the contract asks for it."""
    table = f"{manifest.source}.{manifest.table}"
    lines = [Line(table, Hop.SOURCE_RAW, ROWS, Decimal(manifest.source_rows), Decimal(manifest.rows))]
    if manifest.digest is not None and manifest.raw_digest is not None:
        both = Decimal(manifest.digest), Decimal(manifest.raw_digest)
        lines.append(Line(table, Hop.SOURCE_RAW, "digest", *both))
    return lines


def write_parts(
    batches: Iterator[pa.RecordBatch], lake: Lake, prefix: str, schema: pa.Schema
) -> Iterator[Part]:
    """Streams rows into Parquet objects of bounded size below a prefix."""
    pending = _row_groups(batches, schema)
    group = next(pending, None)
    number = 0
    while group is not None:
        key = f"{prefix}/part-{number:05d}.parquet"
        rows = 0
        with lake.create(key) as sink:
            # Without dictionaries, which zstd makes up for: half the time, and no larger.
            with pq.ParquetWriter(sink, schema, compression="zstd", use_dictionary=False) as writer:
                while group is not None and rows < PART_ROWS:
                    writer.write_table(group)
                    rows += group.num_rows
                    group = next(pending, None)
            sink.flush()
        yield Part(key=key, rows=rows, bytes=sink.size, sha256=sink.sha256)
        number += 1


def _ahead[T](batches: Iterator[T]) -> Iterator[T]:
    """The same, each read while the one before it is written; so two are held at once."""
    with ThreadPoolExecutor(1, "reader") as reader:
        coming = reader.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = reader.submit(next, batches, None)
            yield batch


def _row_groups(batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    """Batches in the schema's types, small ones put together."""
    gathered: list[pa.RecordBatch] = []
    for batch in _ahead(batches):
        if batch.num_rows:
            gathered.append(batch.cast(schema))
        if (
            sum(one.num_rows for one in gathered) >= GROUP_ROWS
            or sum(one.nbytes for one in gathered) >= GROUP_BYTES
        ):
            yield pa.Table.from_batches(gathered)
            gathered = []
    if gathered:
        yield pa.Table.from_batches(gathered)
