"""Rows that changed without their cursor, found by comparing digests of rows; and a source that went back.

Of each row that was taken the warehouse remembers the digest, as raw had it (`digest.<table>`). Before a
window is read, the source counts and digests its rows outside of that window, in buckets of keys; so does
the warehouse with what it remembers. Only of buckets that differ are the digests of rows fetched. What
differs is taken together with the window, in the same snapshot, under the same count and digest.

A run looks at one slice of the keys; after as many runs as its contract says, all rows were looked at.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime
from time import monotonic
from typing import Any

import psycopg
from psycopg import sql

from tallyhouse.contracts import Kind, TableContract
from tallyhouse.errors import TallyhouseError
from tallyhouse.extract.deletes import BUCKET_ROWS, FEW, MOST_BUCKETS
from tallyhouse.extract.keys import Snapshot, ods_value, stage
from tallyhouse.extract.statement import literal

log = logging.getLogger(__name__)

MOST_KEYS = 10_000
"""Where more rows than these differ, the whole table is taken."""
_SHOWN = 1_000


@dataclass(frozen=True)
class Comparison:
    """What a comparison of rows found, before the window was read.

    Attributes:
        at: The source's clock at its snapshot, UTC; None where nothing could be compared.
        slices: Into how many slices the table's keys fall.
        slice: Which of them was looked at.
        rows: Rows of the source in it, outside of the window.
        same: Of these, rows that are as they were taken.
        buckets: Into how many buckets they fell.
        differing: Buckets that differed.
        keys: Numbers of the keys of rows that differ or were never taken.
        whole: Whether so many differ that the whole table is to be taken.
        seconds: What it cost.
    """

    at: datetime | None
    slices: int
    slice: int
    rows: int = 0
    same: int = 0
    buckets: int = 0
    differing: int = 0
    keys: tuple[int, ...] = ()
    whole: bool = False
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """What the manifest keeps."""
        return {
            "at": self.at.isoformat() if self.at else None,
            **{
                name: getattr(self, name)
                for name in ("slices", "slice", "rows", "same", "buckets", "differing")
            },
            "taken_again": len(self.keys),
            "whole": self.whole,
            "seconds": self.seconds,
        }


def compare_rows(
    source: Any,
    dialect: str,
    warehouse: psycopg.Connection[Any],
    contract: TableContract,
    watermark: datetime | None,
) -> Comparison | None:
    """Compares the rows of a table outside of its window with what was taken of them.

    Args:
        source: An open DB-API connection to the source.
        dialect: `mysql` or `postgres`.
        warehouse: A connection to the warehouse; what is staged there is temporary.
        contract: The table.
        watermark: Where the window begins; None where the table has no cursor.

    Returns:
        None where the contract asks for no comparison, or nothing of the table was taken yet.
    """
    if contract.row_digests is None:
        return None
    began = monotonic()
    with warehouse.transaction():
        if not _exists(warehouse, "ods", contract, "WHERE _deleted_at IS NULL"):
            return None
        slices = contract.row_digests
        slice_ = next_slice(warehouse, contract)
        if not _exists(warehouse, "digest", contract):
            log.info(
                "%s: nothing is remembered of its rows; the whole table is taken", contract.qualified_name
            )
            return Comparison(None, slices, slice_, whole=True)
        snapshot = Snapshot(source, dialect, contract)
        try:
            return _compare(snapshot, warehouse, contract, watermark, slices, slice_, began)
        finally:
            snapshot.close()


def next_slice(warehouse: psycopg.Connection[Any], contract: TableContract) -> int:
    """The slice that was not compared for the longest time."""
    row = warehouse.execute(
        "SELECT s FROM generate_series(0, %(slices)s - 1) AS s LEFT JOIN etl.compared AS c "
        "ON c.source = %(source)s AND c.table_name = %(table)s AND c.slices = %(slices)s AND c.slice = s "
        "ORDER BY c.compared_at NULLS FIRST, s LIMIT 1",
        {"slices": contract.row_digests, "source": contract.source, "table": contract.name},
    ).fetchone()
    return int(row[0]) if row else 0


def _compare(
    snapshot: Snapshot,
    warehouse: psycopg.Connection[Any],
    contract: TableContract,
    watermark: datetime | None,
    slices: int,
    slice_: int,
    began: float,
) -> Comparison:
    dialect = snapshot.dialect
    outside, window = "TRUE", "FALSE"
    if contract.cursor and watermark:
        at = literal(dialect, watermark)
        outside, window = (f"{snapshot.name(contract.cursor)} {sign} {at}" for sign in ("<", ">="))
    of_slice = f"MOD({{k}}, {slices}) = {slice_}"
    warehouse.execute("CREATE TEMP TABLE window_keys (k bigint) ON COMMIT DROP")
    if watermark:
        stage(warehouse, "window_keys (k)", snapshot.window_keys(window, of_slice))
    warehouse.execute("ANALYZE window_keys")
    warehouse.execute(
        sql.SQL(
            "CREATE TEMP TABLE remembered ON COMMIT DROP AS SELECT k, d FROM digest.{} AS r "
            f"WHERE {of_slice.format(k='k')} AND NOT EXISTS (SELECT 1 FROM window_keys AS w WHERE w.k = r.k)"
        ).format(sql.Identifier(contract.name))
    )
    kept = _row(warehouse, "SELECT count(*) FROM remembered")[0]
    buckets = max(1, min(MOST_BUCKETS, kept // BUCKET_ROWS))
    there = snapshot.row_buckets(outside, of_slice, _bucket(dialect, slices, buckets))
    own = _bucket("postgres", slices, buckets)
    here = {
        int(b): (int(count), int(keys), int(rows))
        for b, count, keys, rows in warehouse.execute(
            f"SELECT {own.format(k='k')} AS b, count(*), sum(k), sum(d) FROM remembered GROUP BY b".encode()
        ).fetchall()
    }
    differing = sorted(b for b in there.keys() | here.keys() if there.get(b) != here.get(b))
    warehouse.execute("CREATE TEMP TABLE source_rows (k bigint, d bigint) ON COMMIT DROP")
    stage(
        warehouse,
        "source_rows (k, d)",
        snapshot.rows(outside, of_slice, _bucket(dialect, slices, buckets), differing),
    )
    warehouse.execute("ANALYZE source_rows, remembered")
    is_other = "NOT EXISTS (SELECT 1 FROM remembered AS r WHERE r.k = s.k AND r.d = s.d)"
    others = _row(warehouse, f"SELECT count(*) FROM source_rows AS s WHERE {is_other}")[0]
    keys: tuple[int, ...] = ()
    if others <= MOST_KEYS:
        found = warehouse.execute(f"SELECT DISTINCT k FROM source_rows AS s WHERE {is_other}".encode())
        keys = tuple(sorted(int(key) for (key,) in found))
    same_here = _row(
        warehouse,
        "SELECT count(*) FROM source_rows AS s WHERE EXISTS "
        "(SELECT 1 FROM remembered AS r WHERE r.k = s.k AND r.d = s.d)",
    )[0]
    return Comparison(
        at=snapshot.at,
        slices=slices,
        slice=slice_,
        rows=sum(count for count, _, _ in there.values()),
        same=sum(one[0] for b, one in here.items() if b not in set(differing)) + same_here,
        buckets=buckets,
        differing=len(differing),
        keys=keys,
        whole=others > MOST_KEYS,
        seconds=round(monotonic() - began, 3),
    )


def went_back(
    source: Any,
    dialect: str,
    warehouse: psycopg.Connection[Any],
    contract: TableContract,
    *,
    allowed: bool,
) -> bool:
    """Whether a source ends before what was taken of it, as after a restore from an earlier backup.

    What is compared is the newest cursor, or, without one, the greatest key, where that is a number. A few
    rows say nothing: they were deleted, or changed last by a transaction that had begun first.

    Args:
        source: An open DB-API connection to the source.
        dialect: `mysql` or `postgres`.
        warehouse: A connection to the warehouse.
        contract: The table.
        allowed: Whether an operator said that the source is right as it is.

    Returns:
        True where it does and an operator said that it is right: the whole table is to be taken.

    Raises:
        TallyhouseError: It does, and nobody said yes.
    """
    column = contract.cursor or _counting_key(contract)
    if column is None:
        return False
    with warehouse.transaction():
        taken = _row(warehouse, _live("SELECT max({c}) FROM ods.{t}", contract, column))[0]
        if taken is None:
            return False
        snapshot = Snapshot(source, dialect, contract)
        try:
            newest = snapshot.newest(column)
        finally:
            snapshot.close()
        # Of an emptied table the limit of deletions speaks.
        if newest is None or newest >= taken:
            return False
        newer = _live("SELECT {k} FROM ods.{t}", contract, column)
        newer += sql.SQL(" AND o.{} > {}").format(sql.Identifier(column), sql.Literal(newest))
        rows = warehouse.execute(newer).fetchmany(_SHOWN)
    if len(rows) <= FEW:
        return False
    if allowed:
        return True
    raise TallyhouseError(
        f"the source ends at {column} {newest}, but rows up to {taken} were taken: "
        f"{len(rows) if len(rows) < _SHOWN else f'{_SHOWN} or more'} of its newest rows are gone, or older "
        "than they were, as after a restore from a backup",
        remedy="If that is not meant, put the source right first. If it is, start the run again with the "
        "parameter allow_deletes: the warehouse then follows the source; nothing was taken here",
        table=contract.qualified_name,
        rule="a source does not go back in time",
        count=len(rows),
        sample=_sample(contract, rows),
    )


def _sample(contract: TableContract, rows: list[tuple[Any, ...]]) -> list[str]:
    if set(contract.key) & set(contract.pii):
        return []
    return [" ".join(map(str, row)) for row in rows]


def _counting_key(contract: TableContract) -> str | None:
    (first, *others) = contract.key
    is_whole = contract.column(first).type.kind in (Kind.SMALLINT, Kind.INTEGER, Kind.BIGINT)
    return first if is_whole and not others else None


def _bucket(dialect: str, slices: int, buckets: int) -> str:
    divide = "DIV" if dialect == "mysql" else "/"
    return f"MOD({{k}} {divide} {slices}, {buckets})"


def _key_columns(contract: TableContract) -> sql.Composable:
    return sql.SQL(", ").join(sql.SQL(ods_value(contract.column(name))) for name in contract.key)


def _live(text: str, contract: TableContract, column: str) -> sql.Composed:
    return sql.SQL(text + " AS o WHERE o._deleted_at IS NULL").format(
        c=sql.Identifier("o", column),
        k=_key_columns(contract),
        t=sql.Identifier(contract.name),
    )


def _exists(
    warehouse: psycopg.Connection[Any], schema: str, contract: TableContract, condition: str = ""
) -> bool:
    """Whether a table of the warehouse is there and holds such a row."""
    name = f"{schema}.{contract.name}"
    if _row(warehouse, sql.SQL("SELECT to_regclass({})").format(sql.Literal(name)))[0] is None:
        return False
    query = sql.SQL("SELECT EXISTS (SELECT 1 FROM {} {})").format(
        sql.Identifier(schema, contract.name), sql.SQL(condition)
    )
    return bool(_row(warehouse, query)[0])


def _row(warehouse: psycopg.Connection[Any], query: str | sql.Composed) -> tuple[Any, ...]:
    row = warehouse.execute(query.encode() if isinstance(query, str) else query).fetchone()
    assert row is not None  # noqa: S101 - an aggregate has one row
    return tuple(row)
