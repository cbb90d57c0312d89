"""Runs in PostgreSQL 15 or later: the stack's default."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, LiteralString, cast

import orjson
import psycopg
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout
from sqlalchemy.exc import DBAPIError

from services.pipeline_info import summary
from services.pipeline_info.migrate import of_postgres
from services.pipeline_info.models import PipelineSummary, RunFilter
from services.pipeline_info.repository import (
    Cursor,
    Landed,
    Pending,
    PipelineInfoRepository,
    RunRow,
    StoredRun,
    StoreRefusedError,
    StoreUnavailableError,
    start_of_id,
)
from services.pipeline_info.sql import COLUMNS, Where, run_row, values

_KINDS = ("text", "timestamptz", "timestamptz", *["text"] * 6, "float8", "int8", "text", "json")
_TYPES = dict(zip((*COLUMNS, "doc"), _KINDS, strict=True))
_OWNERS: LiteralString = (
    "SELECT k.key, k.fingerprint, k.run_id, k.start_utc, r.doc::text FROM idempotency_key AS k"
    " LEFT JOIN run AS r ON r.start_utc = k.start_utc AND r.id = k.run_id WHERE k.key = ANY(%s)"
)
_PARTITIONING = 7_214_002  # an advisory lock: any number that no other program of the database uses


# Classes and codes of SQLSTATE. Away: connection, resources, operator, system, no such database or login
# (as while it is being set up), a stand-by, a lock, a deadlock. Refused: data, limits such as an index row's.
_AWAY = ("08", "53", "57", "58", "28", "3D000", "25006", "40", "55P03")
_REFUSED = ("22", "54")


def told_apart(error: Exception) -> Exception:
    """What an error of the driver means for whoever asked: by its SQLSTATE, not by its class.

    Returns:
        A `StoreUnavailableError`, a `StoreRefusedError`, or the error itself, which is a fault of ours.
    """
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    state = error.sqlstate if isinstance(error, psycopg.Error) else None
    lost = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError | PoolTimeout | PoolClosed)
    if state.startswith(_AWAY) if state else lost:
        # A statement that was too slow once would be so again, and would only add to the load.
        return StoreUnavailableError(f"PostgreSQL does not answer: {reason}", transient=state != "57014")
    if (state or "").startswith(_REFUSED):
        return StoreRefusedError(f"PostgreSQL cannot hold this: {reason}")
    return error


def _same(time: datetime) -> datetime:
    return time


def _utc(time: datetime) -> datetime:
    return time.astimezone(UTC)


def _sql(text: object) -> LiteralString:
    """Mark SQL that is put together from this module's own words; values are always bound."""
    return cast(LiteralString, text)


class PostgresPipelineRepository(PipelineInfoRepository):
    """Runs in a table partitioned by month; summaries kept up to date by the inserting transaction.

    The schema is made and migrated at the first use, by whichever process comes first. Nothing is
    connected before, so the service starts while the database is down.

    Args:
        dsn: A connection string of libpq.
        schema: The schema that holds the tables.
        pool_size: The most connections that are opened.
        timeout: Seconds to wait for a connection, and for a statement.
    """

    name = "postgres"

    def __init__(
        self, dsn: str, *, schema: str = "pipeline_info", pool_size: int = 8, timeout: float = 10.0
    ) -> None:
        if not schema.isidentifier() or not schema.isascii():
            raise ValueError(f"schema {schema!r}: use letters, digits and underscores")
        self._migrations = of_postgres(dsn, schema, connect_timeout=max(2, int(timeout)))
        self._prepared = threading.Lock()
        self._ready = False
        self._months: set[tuple[int, int]] = set()
        milliseconds = int(timeout * 1000)
        self._pool = ConnectionPool(
            dsn,
            min_size=0,
            max_size=pool_size,
            timeout=timeout,
            open=False,
            check=ConnectionPool.check_connection,
            reconnect_timeout=timeout,
            kwargs={
                "autocommit": True,
                "connect_timeout": max(2, int(timeout)),
                "application_name": "pipeline-info",
                "options": f"-c search_path={schema} -c statement_timeout={milliseconds} -c timezone=UTC",
            },
        )

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
        """A connection of the pool, to a schema that is up to date.

        Raises:
            StoreUnavailableError: There is none, or it broke.
        """
        try:
            if not self._ready:
                self._migrate()
            with self._pool.connection() as connection:
                yield connection
        except psycopg.errors.CheckViolation as error:
            # Somebody dropped a month that this process had seen: it is made again at the next try.
            self._months.clear()
            raise StoreUnavailableError("PostgreSQL has no partition for this run: try again") from error
        except (psycopg.Error, PoolTimeout, PoolClosed) as error:
            meant = told_apart(error)
            if meant is error:
                raise
            raise meant from error

    def _migrate(self) -> None:
        """Bring the schema up to date, once among all processes."""
        with self._prepared:
            if self._ready:
                return
            try:
                self._migrations.upgrade()
            except DBAPIError as error:
                raise (error.orig or error) from error
            self._pool.open()
            self._ready = True

    def get_pipeline_info(
        self, wanted: RunFilter, *, limit: int, offset: int = 0, after: Cursor | None = None
    ) -> list[StoredRun]:
        """See the contract."""
        where = Where(lambda _: "%s", _same).matching(wanted).after(after)
        query = (
            f"SELECT id, start_utc, doc::text FROM run{where}"
            f" ORDER BY start_utc DESC, id DESC LIMIT {where.bind(limit)} OFFSET {where.bind(offset)}"
        )
        with self.connection() as connection:
            return [
                StoredRun(run_id, _utc(start), doc.encode())
                for run_id, start, doc in connection.execute(_sql(query), where.bound)
            ]

    def list_runs(self, wanted: RunFilter, *, limit: int, after: Cursor | None = None) -> list[RunRow]:
        """See the contract."""
        where = Where(lambda _: "%s", _same).matching(wanted).after(after)
        query = (
            f"SELECT {', '.join(COLUMNS)} FROM run{where}"
            f" ORDER BY start_utc DESC, id DESC LIMIT {where.bind(limit)}"
        )
        with self.connection() as connection:
            return [run_row(row, _utc) for row in connection.execute(_sql(query), where.bound)]

    def count_pipeline_info(self, wanted: RunFilter, *, bound: int | None = None) -> int:
        """See the contract."""
        where = Where(lambda _: "%s", _same).matching(wanted)
        inner = f"SELECT 1 FROM run{where}" + (f" LIMIT {where.bind(bound)}" if bound is not None else "")
        with self.connection() as connection:
            row = connection.execute(_sql(f"SELECT count(*) FROM ({inner}) AS found"), where.bound).fetchone()
        return int(row[0]) if row else 0

    def get_pipelines_summary(self) -> list[PipelineSummary]:
        """See the contract; reads the summaries kept."""
        with self.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
            rows = cursor.execute("SELECT * FROM pipeline_summary").fetchall()
        return sorted((summary.from_row(row, _utc) for row in rows), key=summary.order)

    def get_run(self, run_id: str) -> StoredRun | None:
        """See the contract; the id says which partition to look in."""
        start = start_of_id(run_id)
        if start is None:
            return None
        with self.connection() as connection:
            row = connection.execute(
                "SELECT doc::text FROM run WHERE start_utc = %s AND id = %s", (start, run_id)
            ).fetchone()
        return StoredRun(run_id, start, row[0].encode()) if row else None

    def _insert(self, pending: Sequence[Pending]) -> list[Landed]:
        if not pending:
            return []
        with self.connection() as connection:
            self._partitions(connection, pending)
            with connection.transaction():
                owners = self._claim(connection, [item for item in pending if item.key is not None])
                ours = [item for item in pending if item.key not in owners]
                self._write(connection, ours)
        return [
            owners[item.key] if item.key in owners else Landed(item.stored(), item.fingerprint)
            for item in pending
        ]

    def _claim(
        self, connection: psycopg.Connection[tuple[Any, ...]], keyed: Sequence[Pending]
    ) -> dict[str | None, Landed]:
        """Take the keys; give back those that belong to other runs, with these.

        Another transaction that is taking the same key is waited for. Keys are taken in order, so that
        two batches never wait for each other.
        """
        if not keyed:
            return {}
        ordered = sorted(keyed, key=lambda item: item.key or "")
        connection.execute(
            "INSERT INTO idempotency_key (key, fingerprint, run_id, start_utc)"
            " SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::timestamptz[])"
            " ON CONFLICT (key) DO NOTHING",
            (
                [item.key for item in ordered],
                [item.fingerprint for item in ordered],
                [item.run.id for item in ordered],
                [item.run.started for item in ordered],
            ),
        )
        mine = {item.key: item for item in ordered}
        owners: dict[str | None, Landed] = {}
        for key, fingerprint, run_id, start, doc in connection.execute(_OWNERS, (list(mine),)).fetchall():
            run = mine[key].run
            if run_id != run.id:
                # A month that was dropped took its documents along, but the key still means its run.
                document = doc.encode() if doc else run.model_copy(update={"id": run_id}).document()
                owners[key] = Landed(StoredRun(run_id, _utc(start), document), fingerprint)
        return owners

    def _owners_of(self, keys: Sequence[str]) -> dict[str, Landed]:
        with self.connection() as connection:
            rows = connection.execute(_OWNERS, (list(keys),)).fetchall()
        return {
            # A month that was dropped took its documents along: nothing there can be given back.
            key: Landed(StoredRun(run_id, _utc(start), doc.encode()), fingerprint)
            for key, fingerprint, run_id, start, doc in rows
            if doc is not None
        }

    def _write(self, connection: psycopg.Connection[tuple[Any, ...]], ours: Sequence[Pending]) -> None:
        if not ours:
            return
        rows = [
            dict(zip(COLUMNS, values(item.run, _same), strict=True)) | {"doc": orjson.Fragment(item.doc)}
            for item in ours
        ]
        # One JSON text: a tenth of what arrays cost to write, and the documents arrive as they are.
        names = ", ".join(_TYPES)
        types = ", ".join(f"{name} {kind}" for name, kind in _TYPES.items())
        written = connection.execute(
            _sql(
                f"INSERT INTO run ({names}) SELECT {names}"
                f" FROM json_to_recordset(%s::json) AS given ({types})"
                " ON CONFLICT DO NOTHING RETURNING id"
            ),
            (orjson.dumps(rows).decode(),),
        ).fetchall()
        new = {row[0] for row in written}
        with connection.cursor() as cursor:
            cursor.executemany(
                _sql(summary.upsert("pipeline_summary", "%s", "least")),
                [tally.row(_same) for tally in summary.tallies(i.run for i in ours if i.run.id in new)],
            )

    def _partitions(
        self, connection: psycopg.Connection[tuple[Any, ...]], pending: Sequence[Pending]
    ) -> None:
        """Make the months that the runs fall in, where they are not there yet."""
        months = {(item.run.started.year, item.run.started.month) for item in pending} - self._months
        for year, month in sorted(months):
            first = f"{year}-{month:02d}-01"
            following = f"{year + month // 12}-{month % 12 + 1:02d}-01"
            with connection.transaction():
                connection.execute("SELECT pg_advisory_xact_lock(%s)", (_PARTITIONING,))
                connection.execute(
                    _sql(
                        f"CREATE TABLE IF NOT EXISTS run_{year}_{month:02d} PARTITION OF run"
                        f" FOR VALUES FROM ('{first} 00:00+00') TO ('{following} 00:00+00')"
                    )
                )
        self._months |= months

    def ping(self) -> None:
        """See the contract."""
        with self.connection() as connection:
            connection.execute("SELECT 1")

    def pool(self) -> dict[str, int]:
        """See the contract."""
        stats = self._pool.get_stats()
        size, idle = stats.get("pool_size", 0), stats.get("pool_available", 0)
        return {"in_use": size - idle, "idle": idle, "waiting": stats.get("requests_waiting", 0)}

    def close(self) -> None:
        """See the contract."""
        self._pool.close()
