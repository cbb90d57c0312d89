"""Raw batches and the manifest that commits them.

A batch is the folder `raw/<source>/<table>/run=<run>/attempt=<n>/`. Its `_manifest.json` is written
last, and its presence is the commit: a reader that finds no manifest finds nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from tallyhouse.contracts import TableContract
from tallyhouse.errors import TallyhouseError
from tallyhouse.lake.store import Lake

MANIFEST = "_manifest.json"
_TRY = re.compile(r"(.*/attempt=(\d+)/)")
_ATTEMPT = re.compile(r"/attempt=(\d+)/" + re.escape(MANIFEST) + r"\Z")


@dataclass(frozen=True)
class Part:
    """One Parquet object of a batch.

    Attributes:
        key: Where it is in the lake.
        rows: How many rows it holds.
        bytes: Its size.
        sha256: Its checksum, hexadecimal.
    """

    key: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What one extraction of one table brought.

    Attributes:
        run_id: The run it belongs to.
        source: Such as `orders`.
        table: Such as `order_items`.
        attempt: Which try of the run's extraction.
        contract_version: Version of the contract that it was taken under.
        columns: Name and wire type of each column.
        snapshot_at: The source server's clock when the snapshot was opened, UTC; just after the
            batch published before, where that clock was set back.
        watermark_from: The window's lower bound, UTC; None when the whole table was taken.
        watermark_to: Where the next window starts once this one is published, UTC; None without a cursor.
        source_rows: Rows of the window, counted by the source inside the snapshot.
        rows: Rows of the parts.
        digest: Digest of the rows, by the source inside the snapshot, as text; None where the contract asks
            for the count alone.
        control_totals: Sums of the contract's control totals, by the source inside the snapshot, as text.
        parts: The Parquet objects; none when the window was empty.
        raw_digest: Digest of the parts' rows, read back by another engine than the one that wrote them.
        deleted: Parquet objects with the keys that the source no longer has, as evidence.
        census: What was counted of the table's keys; see `extract.deletes.Census`. None where nobody looked.
        missing: Parquet objects with the numbers of keys that a replica lacks, seen once, each with the time.
        digests: Parquet objects with the number of each row's key and its digest; none where the contract
            has no `row_digests`.
        declared: The table's columns as the source declared them.
        evolved: Columns that were taken beyond what the contract has in writing: name, and the source's type.
        compared: What was compared of rows outside of the window; see `extract.changes.Comparison`. None
            where nothing was.
        longest_query: The longest query that took the rows, see `extract.stream.SourceQuery`; None for files.
    """

    run_id: str
    source: str
    table: str
    attempt: int
    contract_version: str
    columns: tuple[dict[str, str], ...]
    snapshot_at: datetime
    watermark_from: datetime | None
    watermark_to: datetime | None
    source_rows: int
    rows: int
    digest: str | None
    control_totals: dict[str, str]
    parts: tuple[Part, ...]
    raw_digest: str | None = None
    deleted: tuple[Part, ...] = ()
    census: dict[str, Any] | None = None
    missing: tuple[Part, ...] = ()
    digests: tuple[Part, ...] = ()
    compared: dict[str, Any] | None = None
    declared: tuple[dict[str, Any], ...] = ()
    evolved: tuple[dict[str, Any], ...] = ()
    longest_query: dict[str, Any] | None = None

    @property
    def full(self) -> bool:
        """Whether the whole table was taken."""
        return self.watermark_from is None and (self.compared is None or self.compared["whole"])

    @property
    def key(self) -> str:
        """Where the manifest is in the lake."""
        return f"{batch_prefix(self.source, self.table, self.run_id, self.attempt)}/{MANIFEST}"

    def to_json(self) -> dict[str, Any]:
        """The manifest as JSON values; times as ISO 8601 with offset."""
        content = asdict(self) | {"full": self.full}
        for name in ("snapshot_at", "watermark_from", "watermark_to"):
            content[name] = content[name].isoformat() if content[name] else None
        return content

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Manifest:
        """Reads what `to_json` wrote."""
        # What older manifests lack has a default.
        values = {name: content[name] for name in cls.__dataclass_fields__ if name in content}
        for name in ("snapshot_at", "watermark_from", "watermark_to"):
            values[name] = datetime.fromisoformat(values[name]) if values[name] else None
        for name in ("columns", "declared", "evolved"):
            values[name] = tuple(values.get(name, ()))
        for name in ("parts", "deleted", "missing", "digests"):
            values[name] = tuple(Part(**part) for part in values.get(name, ()))
        return cls(**values)


def batch_prefix(source: str, table: str, run_id: str, attempt: int) -> str:
    """The folder of a batch."""
    return f"raw/{source}/{table}/run={run_id}/attempt={attempt}"


def commit(lake: Lake, manifest: Manifest) -> None:
    """Makes a batch exist: from here on readers see it."""
    lake.write_json(manifest.key, manifest.to_json())


def find_manifests(lake: Lake, run_id: str, tables: Iterable[TableContract]) -> list[Manifest]:
    """The committed batches of a run, one a table at most: the newest attempt.

    Tables that the run did not take are left out.
    """
    found = []
    for table in tables:
        keys = lake.keys(f"raw/{table.source}/{table.name}/run={run_id}")
        attempts = {int(match[1]): key for key in keys if (match := _ATTEMPT.search(key))}
        if attempts:
            found.append(Manifest.from_json(lake.read_json(attempts[max(attempts)])))
    return found


def committed_batches(lake: Lake, tables: Iterable[TableContract], run_id: str) -> dict[str, Manifest]:
    """The committed raw batches of a run, by the table's qualified name.

    Raises:
        TallyhouseError: The run has none, or one was taken under other columns than the contract's.
    """
    tables = list(tables)
    found = {f"{m.source}.{m.table}": m for m in find_manifests(lake, run_id, tables)}
    if not found:
        raise TallyhouseError(
            f"no raw batch has a _manifest.json below {lake.path('raw')}",
            remedy="Run the extraction first; a batch without its manifest does not exist.",
        )
    for table in tables:
        if table.qualified_name in found:
            _check_columns(found[table.qualified_name], table)
            check_parts(lake, found[table.qualified_name])
    return found


def check_parts(lake: Lake, manifest: Manifest, *, contents: bool = False) -> None:
    """Makes sure that the objects of a batch are those that were written.

    Args:
        lake: Where they are.
        manifest: The batch.
        contents: Whether each is read and its checksum compared, not its size alone.

    Raises:
        TallyhouseError: One is missing, or another one is in its place.
    """
    for part in (*manifest.parts, *manifest.deleted, *manifest.missing, *manifest.digests):
        size = lake.size(part.key)
        what = None
        if size is None:
            what = "is missing"
        elif size != part.bytes:
            what = f"has {size} bytes, {part.bytes} were written"
        elif contents and lake.sha256(part.key) != part.sha256:
            what = "is damaged: its checksum is another one"
        if what:
            raise TallyhouseError(
                f"{part.key} {what}",
                remedy="Clear the extraction of that source, which takes the table again, and what "
                "follows it; see whether somebody deletes or changes objects below raw/",
                table=f"{manifest.source}.{manifest.table}",
                rule="raw does not change",
            )


def sweep(lake: Lake, manifest: Manifest) -> int:
    """Removes what earlier tries of a batch left that were never committed; nobody reads it.

    Returns:
        How many objects.
    """
    own = f"raw/{manifest.source}/{manifest.table}/run={manifest.run_id}"
    keys = lake.keys(own)
    committed = {key.removesuffix(MANIFEST) for key in keys if key.endswith(f"/{MANIFEST}")}
    left = [
        key
        for key in keys
        if (match := _TRY.match(key)) and int(match[2]) < manifest.attempt and match[1] not in committed
    ]
    for key in left:
        lake.filesystem.delete_file(lake.path(key))
    return len(left)


def _check_columns(manifest: Manifest, table: TableContract) -> None:
    columns = {column["name"] for column in manifest.columns}
    missing = sorted(set(table.column_names) - columns)
    extra = sorted(columns - set(table.column_names) - {column["name"] for column in manifest.evolved})
    if missing or extra:
        raise TallyhouseError(
            f"raw lacks columns {missing or 'none'} and has {extra or 'none'} besides its contract",
            remedy="Extract the table again under the current contract.",
            table=table.qualified_name,
        )
