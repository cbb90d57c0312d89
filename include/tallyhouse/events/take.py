"""Brings the raw objects that no run has taken yet into a raw batch of the lake, line by line."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import batched

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from tallyhouse.contracts import TableContract
from tallyhouse.errors import TallyhouseError, first_line
from tallyhouse.events.reading import documents, read
from tallyhouse.events.table import OBJECTS, EventStore, State
from tallyhouse.extract.to_raw import write_parts
from tallyhouse.lake import Lake, Manifest, batch_prefix, commit

log = logging.getLogger(__name__)

RAW = "raw"
_THREADS = 16
# Objects that are in memory at once: a bulk request's may be some megabytes.
_AT_ONCE = 256
_BATCH_ROWS = 10_000
_READ = ("problem", "id", "event_type", "received_at", "payload")

LINES = pa.schema(
    [
        pa.field("object_key", pa.string()),
        pa.field("line", pa.int32()),
        pa.field("problem", pa.string()),
        pa.field("id", pa.string()),
        pa.field("event_type", pa.string()),
        pa.field("received_at", pa.string()),
        pa.field("payload", pa.string()),
        pa.field("text", pa.binary()),
    ]
)
"""A raw batch: of every line where it stands, and either what it was read as or all of it and why not."""


@dataclass
class Taken:
    """What was read, object by object."""

    keys: list[str] = field(default_factory=list)
    bytes: list[int] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)

    def table(self) -> pa.Table:
        """As it is kept beside the commit."""
        return pa.table({"key": self.keys, "bytes": self.bytes, "lines": self.lines})


def take(
    store: EventStore,
    state: State,
    lake: Lake,
    contract: TableContract,
    *,
    run_id: str,
    attempt: int,
    limit: int | None = None,
) -> Manifest:
    """Reads every object below `raw/` that no run has taken, and commits them as a raw batch.

    The difference of two sets, with no clock in it: an object cannot be passed over because it appeared late,
    nor come twice.

    Args:
        store: Where the objects are.
        state: The curated table; nobody may commit to it meanwhile.
        lake: Where the batch goes.
        contract: Of the events.
        run_id: The run.
        attempt: Which try of the run.
        limit: The most objects to take; the rest is the next run's. None takes all.

    Returns:
        The committed manifest.

    Raises:
        TallyhouseError: An object changed or went away while it was read; nothing was committed.
    """
    now = datetime.now(UTC)
    objects = _new_objects(store, state)[:limit]
    prefix = batch_prefix(contract.source, contract.name, run_id, attempt)
    taken = Taken()
    try:
        parts = tuple(write_parts(_batches(store.lake, objects, taken, now), lake, prefix, LINES))
    except (OSError, pa.ArrowException) as error:
        raise TallyhouseError(
            f"an object could not be read ({first_line(error)})",
            remedy="Nothing was committed; check `make status` and clear the task to list them again",
            transient=True,
            table=contract.qualified_name,
        ) from error
    if taken.bytes != [info.size for info in objects]:
        raise TallyhouseError(
            "an object changed while it was read; ingest never writes one again",
            remedy="Nothing was committed; see who writes below raw/, then clear the task",
            transient=True,
            table=contract.qualified_name,
        )
    with lake.create(f"{prefix}/{OBJECTS}") as sink:
        pq.write_table(taken.table(), sink, compression="zstd")
    manifest = Manifest(
        run_id=run_id,
        source=contract.source,
        table=contract.name,
        attempt=attempt,
        contract_version=contract.version,
        columns=tuple({"name": field.name, "type": str(field.type)} for field in LINES),
        snapshot_at=now,
        watermark_from=None,
        watermark_to=None,
        source_rows=sum(taken.lines),
        rows=sum(lake.row_count(part.key) for part in parts),
        digest=None,
        control_totals={"objects": str(len(objects)), "bytes": str(sum(info.size for info in objects))},
        parts=parts,
    )
    commit(lake, manifest)
    log.info(
        "%s: %s lines of %s objects, %s", contract.qualified_name, manifest.rows, len(objects), manifest.key
    )
    return manifest


def _new_objects(store: EventStore, state: State) -> list[fs.FileInfo]:
    listed = store.lake.filesystem.get_file_info(
        fs.FileSelector(store.lake.path(RAW), recursive=True, allow_not_found=True)
    )
    skipped = len(store.lake.root) + 1
    new = {info.path[skipped:]: info for info in listed if info.is_file}
    for keys in store.taken(state):
        for key in keys:
            new.pop(key, None)
    return [new[key] for key in sorted(new)]


def _batches(lake: Lake, objects: list[fs.FileInfo], taken: Taken, now: datetime) -> Iterator[pa.RecordBatch]:
    skipped = len(lake.root) + 1

    def body(info: fs.FileInfo) -> bytes:
        with lake.filesystem.open_input_stream(info.path) as stream:
            return bytes(stream.read())

    rows: list[tuple[object, ...]] = []
    with ThreadPoolExecutor(_THREADS) as pool:
        for some in batched(objects, _AT_ONCE):
            for info, content in zip(some, pool.map(body, some), strict=True):
                key = info.path[skipped:]
                count = 0
                for count, text in enumerate(documents(content), start=1):
                    found = read(text, now)
                    kept = text if found.problem else None
                    rows.append((key, count, *(getattr(found, name) for name in _READ), kept))
                    if len(rows) >= _BATCH_ROWS:
                        yield _record_batch(rows)
                        rows = []
                taken.keys.append(key)
                taken.bytes.append(len(content))
                taken.lines.append(count)
    if rows:
        yield _record_batch(rows)


def _record_batch(rows: list[tuple[object, ...]]) -> pa.RecordBatch:
    columns = zip(*rows, strict=True)
    return pa.record_batch(
        [pa.array(column, kind.type) for column, kind in zip(columns, LINES, strict=True)], schema=LINES
    )
