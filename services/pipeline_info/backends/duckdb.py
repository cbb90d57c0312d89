"""Runs in a DuckDB file: for one machine, and for whoever wants to analyse them with SQL.

One process may hold the file. What was committed is in DuckDB's write-ahead log, on disk.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from services.pipeline_info import summary
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
)
from services.pipeline_info.sql import COLUMNS, Where, run_row, values

_SCHEMA = """
CREATE TABLE IF NOT EXISTS run (
  id VARCHAR PRIMARY KEY, start_utc TIMESTAMP NOT NULL, end_utc TIMESTAMP, pipeline_name VARCHAR,
  script_name VARCHAR, pipeline_type VARCHAR, environment VARCHAR, date_code VARCHAR, state VARCHAR,
  elapsed_seconds DOUBLE, rowcount BIGINT, doc VARCHAR NOT NULL
);
ALTER TABLE run ADD COLUMN IF NOT EXISTS failure VARCHAR;
CREATE TABLE IF NOT EXISTS idempotency_key (
  key VARCHAR PRIMARY KEY, fingerprint VARCHAR NOT NULL, run_id VARCHAR NOT NULL
);
"""
_TYPES = ("varchar", "timestamp", "timestamp", *["varchar"] * 6, "double", "bigint", "varchar", "varchar")
_SUMMARY = """
SELECT
  pipeline_name, script_name, pipeline_type, environment,
  count(*) AS total_runs,
  coalesce(sum(rowcount), 0) AS total_rowcount,
  coalesce(sum(elapsed_seconds) FILTER (elapsed_seconds > 0), 0) AS elapsed_sum,
  count(*) FILTER (elapsed_seconds > 0) AS elapsed_runs,
  count(*) FILTER (rowcount > 0) AS rowcount_runs,
  min(start_utc) AS first_start,
  max(start_utc) AS last_start,
  arg_max({'id': id, 'end': end_utc, 'elapsed': elapsed_seconds, 'rowcount': rowcount, 'state': state},
    (start_utc, id)) AS last
FROM run
GROUP BY ALL
"""
# Nothing is downloaded while the service runs.
_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}
# Two stores of one process that have the same file open take turns here.
_writing: dict[Path, threading.Lock] = {}
_writing_guard = threading.Lock()
_making = threading.Lock()


def _naive(time: datetime) -> datetime:
    return time.astimezone(UTC).replace(tzinfo=None)


def _utc(time: datetime) -> datetime:
    return time.replace(tzinfo=UTC)


class DuckdbPipelineRepository(PipelineInfoRepository):
    """Runs in a table of a DuckDB file; summaries are computed, which a column store does fast.

    Args:
        file: The database file; made, with its folder, at the first use.
    """

    name = "duckdb"

    def __init__(self, file: Path) -> None:
        self.file = file
        self._opening = threading.Lock()
        self._connection: duckdb.DuckDBPyConnection | None = None
        with _writing_guard:
            self._turn = _writing.setdefault(file.absolute(), threading.Lock())

    @contextmanager
    def _cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        try:
            with self._opening:
                if self._connection is None:
                    self.file.parent.mkdir(parents=True, exist_ok=True)
                    connection = duckdb.connect(str(self.file), config=_CONFIG)
                    with _making:
                        connection.execute(_SCHEMA)
                    self._connection = connection
                cursor = self._connection.cursor()
            try:
                yield cursor
            finally:
                cursor.close()
        except duckdb.IOException as error:
            held = "lock" in str(error).lower()
            remedy = "another process holds the file: stop it" if held else "see the log"
            raise StoreUnavailableError(f"{self.file}: cannot be used: {remedy}") from error
        except duckdb.DataError as error:  # DuckDB gives no SQLSTATE: its classes are its codes
            raise StoreRefusedError(f"DuckDB cannot hold this: {str(error).splitlines()[0]}") from error
        except (duckdb.FatalException, duckdb.OutOfMemoryException, OSError) as error:
            raise StoreUnavailableError(f"{self.file}: {str(error).splitlines()[0]}") from error

    def get_pipeline_info(
        self, wanted: RunFilter, *, limit: int, offset: int = 0, after: Cursor | None = None
    ) -> list[StoredRun]:
        """See the contract."""
        where = Where(lambda _: "?", _naive).matching(wanted).after(after)
        query = (
            f"SELECT id, start_utc, doc FROM run{where}"
            f" ORDER BY start_utc DESC, id DESC LIMIT {where.bind(limit)} OFFSET {where.bind(offset)}"
        )
        with self._cursor() as cursor:
            rows = cursor.execute(query, where.bound).fetchall()
        return [StoredRun(run_id, _utc(start), doc.encode()) for run_id, start, doc in rows]

    def list_runs(self, wanted: RunFilter, *, limit: int, after: Cursor | None = None) -> list[RunRow]:
        """See the contract."""
        where = Where(lambda _: "?", _naive).matching(wanted).after(after)
        query = (
            f"SELECT {', '.join(COLUMNS)} FROM run{where}"
            f" ORDER BY start_utc DESC, id DESC LIMIT {where.bind(limit)}"
        )
        with self._cursor() as cursor:
            return [run_row(row, _utc) for row in cursor.execute(query, where.bound).fetchall()]

    def count_pipeline_info(self, wanted: RunFilter, *, bound: int | None = None) -> int:
        """See the contract."""
        where = Where(lambda _: "?", _naive).matching(wanted)
        inner = f"SELECT 1 FROM run{where}" + (f" LIMIT {where.bind(bound)}" if bound is not None else "")
        with self._cursor() as cursor:
            row = cursor.execute(f"SELECT count(*) FROM ({inner})", where.bound).fetchone()
        return int(row[0]) if row else 0

    def get_pipelines_summary(self) -> list[PipelineSummary]:
        """See the contract."""
        with self._cursor() as cursor:
            found = cursor.execute(_SUMMARY)
            names = [column[0] for column in found.description]
            rows = [dict(zip(names, row, strict=True)) for row in found.fetchall()]
        for row in rows:
            row |= {f"last_{name}": value for name, value in row.pop("last").items()}
        return sorted((summary.from_row(row, _utc) for row in rows), key=summary.order)

    def get_run(self, run_id: str) -> StoredRun | None:
        """See the contract."""
        with self._cursor() as cursor:
            row = cursor.execute("SELECT start_utc, doc FROM run WHERE id = ?", [run_id]).fetchone()
        return StoredRun(run_id, _utc(row[0]), row[1].encode()) if row else None

    def _insert(self, pending: Sequence[Pending]) -> list[Landed]:
        if not pending:
            return []
        with self._turn, self._cursor() as cursor:
            cursor.begin()
            try:
                owners = self._claim(cursor, {item.key: item for item in pending if item.key is not None})
                ours = [item for item in pending if item.key not in owners]
                self._write(cursor, ours)
                cursor.commit()
            except BaseException:
                cursor.rollback()
                raise
        return [
            owners[item.key] if item.key in owners else Landed(item.stored(), item.fingerprint)
            for item in pending
        ]

    def _owners_of(self, keys: Sequence[str]) -> dict[str, Landed]:
        with self._cursor() as cursor:
            return self._owners(cursor, keys)

    @staticmethod
    def _owners(cursor: duckdb.DuckDBPyConnection, keys: Sequence[str]) -> dict[str, Landed]:
        rows = cursor.execute(
            "SELECT k.key, k.fingerprint, r.id, r.start_utc, r.doc FROM idempotency_key AS k"
            " JOIN run AS r ON r.id = k.run_id WHERE list_contains(?::varchar[], k.key)",
            [list(keys)],
        ).fetchall()
        return {
            key: Landed(StoredRun(run_id, _utc(start), doc.encode()), fingerprint)
            for key, fingerprint, run_id, start, doc in rows
        }

    def _claim(
        self, cursor: duckdb.DuckDBPyConnection, keyed: Mapping[str, Pending]
    ) -> Mapping[str | None, Landed]:
        """The keys that belong to other runs, with these; the others are taken."""
        if not keyed:
            return {}
        owners = dict[str | None, Landed](self._owners(cursor, list(keyed)).items())
        new = [item for key, item in keyed.items() if key not in owners]
        if new:
            cursor.execute(
                "INSERT INTO idempotency_key"
                " SELECT unnest(?::varchar[]), unnest(?::varchar[]), unnest(?::varchar[])",
                [[i.key for i in new], [i.fingerprint for i in new], [i.run.id for i in new]],
            )
        return owners

    @staticmethod
    def _write(cursor: duckdb.DuckDBPyConnection, ours: Sequence[Pending]) -> None:
        if not ours:
            return
        rows = [(*values(item.run, _naive), item.doc.decode()) for item in ours]
        arrays = ", ".join(f"unnest(?::{kind}[])" for kind in _TYPES)
        cursor.execute(
            f"INSERT INTO run ({', '.join(COLUMNS)}, doc) SELECT {arrays} ON CONFLICT DO NOTHING",
            [list(column) for column in zip(*rows, strict=True)],
        )

    def ping(self) -> None:
        """See the contract."""
        with self._cursor() as cursor:
            cursor.execute("SELECT 1").fetchone()

    def close(self) -> None:
        """See the contract."""
        with self._opening:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
