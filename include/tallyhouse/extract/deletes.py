"""Rows that the source no longer has, found by comparing keys: without CDC, and without fetching all of them.

Of a whole table the batch has every key. After a window, the keys of the source are counted and digested
in buckets, in one snapshot that is opened after the window's; so are those that `ods` will have live once
the batch is published. Only of buckets that differ are keys fetched, in the same snapshot. What lacks there
is deleted; it becomes evidence in raw, a Parquet object of keys. What came since the window is left to the
next run, and the watermark kept before it, whatever its cursor says.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
from psycopg import sql

from tallyhouse.contracts import TableContract
from tallyhouse.errors import TallyhouseError
from tallyhouse.extract.keys import FETCH, Snapshot, ods_number, ods_value, stage
from tallyhouse.extract.raw_digest import raw_number, raw_view
from tallyhouse.lake import Lake

log = logging.getLogger(__name__)

BUCKET_ROWS = 1_000
"""Keys of a bucket, about: so many are fetched for each one that differs."""
MOST_BUCKETS = 16_384
FEW = 10
"""Deletions that need no leave, unless they empty the table."""


@dataclass(frozen=True)
class Census:
    """The keys of a table as its source had them, against those that `ods` will have live.

    Attributes:
        at: The source's clock when they were counted; UTC.
        rows: Keys of the source.
        digest: The sum of their digests.
        left: Keys of the batch that the source no longer had: deleted since, for the next run to see.
        left_digest: The sum of their digests.
        came: Keys that came since the batch, for the next run to take.
        came_digest: The sum of their digests.
        first_came: The earliest cursor among them; UTC.
        deleted: Keys that are deleted, each as its columns' values on the wire.
        missing: Numbers of keys that a replica lacks, for the first time or not for long enough: not deleted
            yet. Each with the time at which it was missed first, UTC.
    """

    at: datetime
    rows: int
    digest: int
    left: int = 0
    left_digest: int = 0
    came: int = 0
    came_digest: int = 0
    first_came: datetime | None = None
    deleted: tuple[tuple[Any, ...], ...] = ()
    missing: tuple[tuple[int, datetime], ...] = ()

    def as_json(self) -> dict[str, Any]:
        """What the manifest keeps; digests as text, since they are larger than JSON's numbers."""
        return {
            "at": self.at.isoformat(),
            "rows": self.rows,
            "digest": str(self.digest),
            "left": self.left,
            "left_digest": str(self.left_digest),
            "came": self.came,
            "came_digest": str(self.came_digest),
            "deleted": len(self.deleted),
            "missing": len(self.missing),
            "missing_digest": str(sum(key for key, _ in self.missing)),
        }


def take_census(
    source: Any,
    dialect: str,
    warehouse: psycopg.Connection[Any],
    lake: Lake,
    contract: TableContract,
    parts: list[str],
    *,
    whole_at: datetime | None,
    replica_lag: int | None = None,
) -> Census | None:
    """Compares the keys of a table, after its batch was written.

    Args:
        source: An open DB-API connection to the source.
        dialect: `mysql` or `postgres`.
        warehouse: A connection to the warehouse; what is staged there is temporary.
        lake: Where the batch is.
        contract: The table.
        parts: The batch's Parquet objects.
        whole_at: When the batch was read, where it is the whole table; None for a window.
        replica_lag: Seconds within which a row arrives where the source is a replica: a key is deleted there
            only if an earlier run missed it too, by at least that long. None for a primary.

    Returns:
        None where `ods` has no live row: nothing can be deleted then.
    """
    with warehouse.transaction():
        # One snapshot: a row is found again where it lies.
        warehouse.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        live = _one(warehouse, _sql("SELECT count(*) FROM ods.{t} WHERE _deleted_at IS NULL", contract))
        if not live:
            return None
        warehouse.execute("CREATE TEMP TABLE batch_keys (k bigint) ON COMMIT DROP")
        stage(warehouse, "batch_keys (k)", ((key,) for key in _batch_keys(lake, contract, parts)))
        warehouse.execute("CREATE TEMP TABLE source_keys (k bigint, c timestamptz) ON COMMIT DROP")
        # What `ods` has live; a deleted row keeps its place there.
        warehouse.execute(
            _sql(
                "CREATE TEMP TABLE live_keys ON COMMIT DROP AS SELECT {k} AS k, o.ctid AS place "
                "FROM ods.{t} AS o WHERE o._deleted_at IS NULL",
                contract,
            )
        )
        for name in ("batch_keys", "live_keys"):
            warehouse.execute(f"ANALYZE {name}".encode())
        if whole_at is not None:
            warehouse.execute("INSERT INTO source_keys (k) SELECT DISTINCT k FROM batch_keys")
            row = warehouse.execute("SELECT count(*), coalesce(sum(k), 0) FROM source_keys").fetchone()
            rows, digest = row or (0, 0)
            census = Census(whole_at, int(rows), int(digest))
            differing, buckets = None, 1
        else:
            buckets = max(1, min(MOST_BUCKETS, live // BUCKET_ROWS))
            snapshot = Snapshot(source, dialect, contract)
            census, differing = _compare(snapshot, warehouse, buckets)
            stage(warehouse, "source_keys (k, c)", snapshot.keys(buckets, differing))
            snapshot.close()
        warehouse.execute("ANALYZE source_keys")
        return _differences(warehouse, contract, census, buckets, differing, replica_lag)


def check_limit(contract: TableContract, census: Census, *, allowed: bool) -> None:
    """Stops a run that would delete more than its contract lets it.

    Raises:
        TallyhouseError: It would, and nobody said yes.
    """
    deleted = len(census.deleted)
    live = census.rows - census.came + census.left + deleted + len(census.missing)
    most = max(FEW, int(live * Decimal(str(contract.delete_limit))))
    if allowed or not deleted or (deleted <= most and deleted < live):
        return
    raise TallyhouseError(
        f"{deleted} of {live} rows are no longer in the source; {most} may go without leave",
        remedy="If that is right, start the run again with the parameter allow_deletes; if the source was "
        "emptied or restored by mistake, put it right first; nothing was deleted here",
        table=contract.qualified_name,
        rule="deleted rows within the contract's delete_limit",
        count=deleted,
        sample=[" ".join(map(str, key)) for key in census.deleted]
        if not set(contract.key) & set(contract.pii)
        else [],
    )


def _compare(
    snapshot: Snapshot, warehouse: psycopg.Connection[Any], buckets: int
) -> tuple[Census, list[int]]:
    there = snapshot.buckets(buckets)
    here = {
        int(b): (int(count), int(total))
        for b, count, total in warehouse.execute(
            "SELECT mod(k, %s) AS b, count(*), sum(k) FROM (SELECT k FROM live_keys UNION ALL "
            "SELECT DISTINCT k FROM batch_keys AS x WHERE NOT EXISTS "
            "(SELECT 1 FROM live_keys AS y WHERE y.k = x.k)) AS x GROUP BY b",
            (buckets,),
        ).fetchall()
    }
    differing = sorted(b for b in there.keys() | here.keys() if there.get(b) != here.get(b))
    rows, digest = (sum(one[i] for one in there.values()) for i in (0, 1))
    return Census(snapshot.at, rows, digest), differing


def _differences(
    warehouse: psycopg.Connection[Any],
    contract: TableContract,
    census: Census,
    buckets: int,
    differing: list[int] | None,
    replica_lag: int | None,
) -> Census:
    """What is on one side alone, of the buckets that differ; of a whole table everything is looked at."""
    looked_at = "TRUE" if differing is None else "mod(x.k, %(buckets)s) = ANY(%(differing)s)"
    bound = {"buckets": buckets, "differing": differing}

    def alone(side: str, others: tuple[str, ...], what: str) -> tuple[Any, ...]:
        absent = " AND ".join(f"NOT EXISTS (SELECT 1 FROM {other} AS y WHERE y.k = x.k)" for other in others)
        found = warehouse.execute(
            f"SELECT {what} FROM {side} AS x WHERE {looked_at} AND {absent}".encode(), bound
        ).fetchone()
        return tuple(found or ())

    left = alone("(SELECT DISTINCT k FROM batch_keys)", ("source_keys",), "count(*), coalesce(sum(x.k), 0)")
    came = alone("source_keys", ("live_keys", "batch_keys"), "count(*), coalesce(sum(x.k), 0), min(x.c)")
    columns = sql.SQL(", ").join(sql.SQL(ods_value(contract.column(name))) for name in contract.key)
    warehouse.execute(
        (
            "CREATE TEMP TABLE gone_keys ON COMMIT DROP AS SELECT x.k, x.place FROM live_keys AS x "
            f"WHERE {looked_at} AND NOT EXISTS (SELECT 1 FROM source_keys AS y WHERE y.k = x.k) "
            "AND NOT EXISTS (SELECT 1 FROM batch_keys AS y WHERE y.k = x.k)"
        ).encode(),
        bound,
    )
    warehouse.execute("ANALYZE gone_keys")
    gone = warehouse.execute(
        _sql("SELECT {c}, x.k FROM gone_keys AS x JOIN ods.{t} AS o ON o.ctid = x.place", contract, c=columns)
    ).fetchall()
    missing: list[tuple[int, datetime]] = []
    if replica_lag is not None:
        first = _missed_before(warehouse, contract)
        missing = [(row[-1], first.get(row[-1], census.at)) for row in gone]
        missing = [
            (key, at) for key, at in missing if census.at - at < timedelta(seconds=max(replica_lag, 1))
        ]
    doubtful = {key for key, _ in missing}
    return replace(
        census,
        left=int(left[0]),
        left_digest=int(left[1]),
        came=int(came[0]),
        came_digest=int(came[1]),
        first_came=came[2],
        deleted=tuple(row[:-1] for row in gone if row[-1] not in doubtful),
        missing=tuple(missing),
    )


def _missed_before(warehouse: psycopg.Connection[Any], contract: TableContract) -> dict[int, datetime]:
    rows = warehouse.execute(
        "SELECT k, missed_at FROM etl.missing_key WHERE source = %s AND table_name = %s",
        (contract.source, contract.name),
    ).fetchall()
    return {int(key): at for key, at in rows}


def _batch_keys(lake: Lake, contract: TableContract, parts: list[str]) -> Iterator[int]:
    """The number of each key of a batch."""
    if not parts:
        return
    with raw_view(lake, parts, list(contract.key)) as connection:
        found = connection.execute(f"SELECT {raw_number(contract)} FROM raw")
        while rows := found.fetchmany(FETCH):
            yield from (int(row[0]) for row in rows)


def _sql(text: str, contract: TableContract, **more: sql.Composable) -> sql.Composed:
    return sql.SQL(text).format(
        t=sql.Identifier(contract.name),
        k=sql.SQL(ods_number(contract)),
        **more,
    )


def _one(connection: psycopg.Connection[Any], query: sql.Composed) -> int:
    row = connection.execute(query).fetchone()
    return int(row[0]) if row else 0
