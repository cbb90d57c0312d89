"""Runs in Oracle 12.2 or later, by python-oracledb in its thin mode.

Values are always bound. Names of tables and columns come from the settings and are checked to be plain
identifiers. The tables are those of `oracle.sql`; this module makes none.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import oracledb

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

_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,127}")
_ALREADY_THERE = 1  # ORA-00001: unique constraint violated
_CODE = re.compile(r"\b(ORA|DPY|DPI)-0*(\d+)")
# Oracle has no usable SQLSTATE; these are the codes of a server that is away, full, stopping or too slow:
# sessions and processes, locks, starting and stopping, network, archiver, undo, table space, deadlines.
_AWAY = {
    *(18, 20, 28, 31, 54, 60, 257, 1012, 1013, 1033, 1034, 1089, 1090, 1092, 1109, 1555, 2391, 2396),
    *(1652, 1653, 1654, 1655, 1658, 1688, 1691, 3113, 3114, 3135, 3136, 3156, 4021, 8177, 25402, 25408),
    *range(12150, 12700),
}
# What the table cannot hold: a text or number too long for its column or index, a value of another form.
_REFUSED = {910, 1400, 1401, 1426, 1438, 1450, 1461, 1482, 1483, 1489, 1722, 1830, 6502, 12899, 22835}


def told_apart(error: Exception) -> Exception:
    """What an error of the driver means for whoever asked: by its code, not by its class.

    Returns:
        A `StoreUnavailableError`, a `StoreRefusedError`, or the error itself, which is a fault of ours.
    """
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    found = _CODE.search(reason)
    kind, code = (found[1], int(found[2])) if found else ("", 0)
    # DPY-4xxx is the driver's class for connections and pools, DPY-6xxx that of the listener.
    away = code in _AWAY if kind == "ORA" else kind != "DPY" or 4000 <= code < 5000 or 6000 <= code < 7000
    if away:
        slow = (kind, code) in {("DPY", 4024), ("ORA", 3156), ("ORA", 1013)}
        return StoreUnavailableError(f"Oracle does not answer: {reason}", transient=not slow)
    if kind == "ORA" and code in _REFUSED:
        return StoreRefusedError(f"Oracle cannot hold this: {reason}")
    return error


# How many values an IN list may have is limited to 1000.
_CHUNK = 500


def _naive(time: datetime) -> datetime:
    return time.astimezone(UTC).replace(tzinfo=None)


def _utc(time: datetime) -> datetime:
    return time.replace(tzinfo=UTC)


def identifier(name: str) -> str:
    """A name that may stand in a statement: letters, digits and underscores, at most one schema before it.

    Raises:
        ValueError: It is none.
    """
    if not all(_IDENTIFIER.fullmatch(part) for part in name.split(".")) or name.count(".") > 1:
        raise ValueError(f"{name!r} is no identifier: use letters, digits and underscores")
    return name


class OraclePipelineRepository(PipelineInfoRepository):
    """Runs in a table, which may be one that was there before, with other names for its columns.

    Args:
        dsn: `host:port/service`.
        user: The account.
        password: Its password.
        table: The table of runs.
        key_table: The table of idempotency keys.
        column_map: For any of `sql.COLUMNS` and `doc`, the table's own name.
        pool_size: The most connections.
        timeout: Seconds to wait for a connection, and for an answer.
        driver: The driver, for tests.
    """

    name = "oracle"

    def __init__(
        self,
        *,
        dsn: str,
        user: str,
        password: str,
        table: str = "PIPELINE_RUN",
        key_table: str = "PIPELINE_RUN_KEY",
        column_map: Mapping[str, str] | None = None,
        pool_size: int = 8,
        timeout: float = 10,
        driver: Any = oracledb,
    ) -> None:
        known = (*COLUMNS, "doc")
        if unknown := set(column_map or {}) - set(known):
            raise ValueError(
                f"ORACLE_COLUMN_MAP: no column {', '.join(sorted(unknown))}: take {', '.join(known)}"
            )
        names = {name: name.upper() for name in known} | {
            name: identifier(column) for name, column in (column_map or {}).items()
        }
        if any("." in column for column in names.values()):
            raise ValueError("ORACLE_COLUMN_MAP: a column's name has no dot")
        self._names = names
        self._table, self._key_table = identifier(table), identifier(key_table)
        self._driver, self._timeout = driver, timeout
        self._credentials = {"user": user, "password": password, "dsn": dsn}
        self._pool_size = pool_size
        self._opening = threading.Lock()
        self._pool_: Any = None

    @contextmanager
    def _connection(self) -> Iterator[Any]:
        driver = self._driver
        try:
            with self._opening:
                if self._pool_ is None:
                    driver.defaults.fetch_lobs = False
                    self._pool_ = driver.create_pool(
                        **self._credentials,
                        min=0,
                        max=self._pool_size,
                        increment=1,
                        getmode=driver.POOL_GETMODE_TIMEDWAIT,
                        wait_timeout=int(self._timeout * 1000),
                        tcp_connect_timeout=self._timeout,
                    )
            with self._pool_.acquire() as connection:
                connection.call_timeout = int(self._timeout * 1000)
                try:
                    yield connection
                except BaseException:
                    connection.rollback()
                    raise
        except driver.DatabaseError as error:
            meant = told_apart(error)
            if meant is error:
                raise
            raise meant from error

    def _where(self) -> Where:
        return Where(lambda number: f":b{number}", _naive, self._names)

    def _run(self, connection: Any, statement: str, bound: Sequence[object]) -> Any:
        """Execute a query with `bound` as :b1, :b2, ..."""
        binds = {f"b{number}": value for number, value in enumerate(bound, 1)}
        cursor = connection.cursor()
        # A datetime would be bound as DATE, which has no fraction of a second.
        times = {name: self._driver.DB_TYPE_TIMESTAMP for name, v in binds.items() if isinstance(v, datetime)}
        if times:
            cursor.setinputsizes(**times)
        cursor.execute(statement, binds)
        return cursor

    def get_pipeline_info(
        self, wanted: RunFilter, *, limit: int, offset: int = 0, after: Cursor | None = None
    ) -> list[StoredRun]:
        """See the contract."""
        names = self._names
        where = self._where().matching(wanted).after(after)
        statement = (
            f"SELECT {names['id']}, {names['start_utc']}, {names['doc']} FROM {self._table}{where}"
            f" ORDER BY {names['start_utc']} DESC, {names['id']} DESC"
            f" OFFSET {where.bind(offset)} ROWS FETCH NEXT {where.bind(limit)} ROWS ONLY"
        )
        with self._connection() as connection:
            rows = self._run(connection, statement, where.bound).fetchall()
        return [StoredRun(run_id, _utc(start), doc.encode()) for run_id, start, doc in rows]

    def list_runs(self, wanted: RunFilter, *, limit: int, after: Cursor | None = None) -> list[RunRow]:
        """See the contract."""
        names = self._names
        where = self._where().matching(wanted).after(after)
        statement = (
            f"SELECT {', '.join(names[name] for name in COLUMNS)} FROM {self._table}{where}"
            f" ORDER BY {names['start_utc']} DESC, {names['id']} DESC"
            f" FETCH FIRST {where.bind(limit)} ROWS ONLY"
        )
        with self._connection() as connection:
            return [run_row(row, _utc) for row in self._run(connection, statement, where.bound).fetchall()]

    def count_pipeline_info(self, wanted: RunFilter, *, bound: int | None = None) -> int:
        """See the contract."""
        where = self._where().matching(wanted)
        inner = f"SELECT 1 AS HIT FROM {self._table}{where}"
        if bound is not None:
            inner += f" FETCH FIRST {where.bind(bound)} ROWS ONLY"
        with self._connection() as connection:
            row = self._run(connection, f"SELECT COUNT(*) FROM ({inner})", where.bound).fetchone()
        return int(row[0])

    def get_pipelines_summary(self) -> list[PipelineSummary]:
        """See the contract."""
        n = self._names
        parts = ("pipeline_name", "script_name", "pipeline_type", "environment")
        keys = ", ".join(n[part] for part in parts)
        statement = (
            f"SELECT {', '.join(f'{n[part]} AS {part}' for part in parts)},"
            " COUNT(*) AS total_runs,"
            f" COALESCE(SUM({n['rowcount']}), 0) AS total_rowcount,"
            f" COALESCE(SUM({n['elapsed_seconds']}), 0) AS elapsed_sum,"
            f" SUM(CASE WHEN {n['elapsed_seconds']} > 0 THEN 1 ELSE 0 END) AS elapsed_runs,"
            f" SUM(CASE WHEN {n['rowcount']} > 0 THEN 1 ELSE 0 END) AS rowcount_runs,"
            f" MIN({n['start_utc']}) AS first_start,"
            f" MAX({n['start_utc']}) AS last_start,"
            f" MAX(CASE WHEN place = 1 THEN {n['id']} END) AS last_id,"
            f" MAX(CASE WHEN place = 1 THEN {n['end_utc']} END) AS last_end,"
            f" MAX(CASE WHEN place = 1 THEN {n['elapsed_seconds']} END) AS last_elapsed,"
            f" MAX(CASE WHEN place = 1 THEN {n['rowcount']} END) AS last_rowcount,"
            f" MAX(CASE WHEN place = 1 THEN {n['state']} END) AS last_state"
            f" FROM (SELECT {', '.join(n[name] for name in COLUMNS)},"
            f" ROW_NUMBER() OVER (PARTITION BY {keys}"
            f" ORDER BY {n['start_utc']} DESC, {n['id']} DESC) AS place FROM {self._table})"
            f" GROUP BY {keys}"
        )
        with self._connection() as connection:
            cursor = self._run(connection, statement, ())
            columns = [column[0].lower() for column in cursor.description]
            rows = [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]
        return sorted((summary.from_row(row, _utc) for row in rows), key=summary.order)

    def get_run(self, run_id: str) -> StoredRun | None:
        """See the contract."""
        n = self._names
        statement = f"SELECT {n['start_utc']}, {n['doc']} FROM {self._table} WHERE {n['id']} = :b1"
        with self._connection() as connection:
            row = self._run(connection, statement, (run_id,)).fetchone()
        return StoredRun(run_id, _utc(row[0]), row[1].encode()) if row else None

    def _insert(self, pending: Sequence[Pending]) -> list[Landed]:
        if not pending:
            return []
        with self._connection() as connection:
            keyed = sorted(
                (item for item in pending if item.key is not None), key=lambda item: item.key or ""
            )
            self._add(
                connection,
                f"INSERT INTO {self._key_table} (IDEMPOTENCY_KEY, FINGERPRINT, RUN_ID)"
                " VALUES (:b1, :b2, :b3)",
                [(item.key, item.fingerprint, item.run.id) for item in keyed],
            )
            mine = {item.key: item.run.id for item in keyed}
            owners: dict[str | None, Landed] = {
                key: owner
                for key, owner in self._owners(connection, [key for key in mine if key is not None]).items()
                if owner.stored.id != mine[key]
            }
            ours = [item for item in pending if item.key not in owners]
            names = [self._names[name] for name in (*COLUMNS, "doc")]
            holes = ", ".join(f":b{number}" for number in range(1, len(names) + 1))
            self._add(
                connection,
                f"INSERT INTO {self._table} ({', '.join(names)}) VALUES ({holes})",
                [(*values(item.run, _naive), item.doc.decode()) for item in ours],
                b2=self._driver.DB_TYPE_TIMESTAMP,
                b3=self._driver.DB_TYPE_TIMESTAMP,
                b10=self._driver.DB_TYPE_BINARY_DOUBLE,
                b13=self._driver.DB_TYPE_CLOB,
            )
            connection.commit()
        return [
            owners[item.key] if item.key in owners else Landed(item.stored(), item.fingerprint)
            for item in pending
        ]

    def _add(self, connection: Any, statement: str, rows: Sequence[tuple[object, ...]], **types: Any) -> None:
        """Insert rows, leaving alone those that are there already.

        A row that another session is inserting is waited for; rows come in order of their key, so that two
        sessions never wait for each other.
        """
        if not rows:
            return
        cursor = connection.cursor()
        if types:
            cursor.setinputsizes(**types)
        binds = [{f"b{number}": value for number, value in enumerate(row, 1)} for row in rows]
        cursor.executemany(statement, binds, batcherrors=True)
        for error in cursor.getbatcherrors():
            if error.code != _ALREADY_THERE:
                raise self._driver.DatabaseError(error.message)

    def _owners_of(self, keys: Sequence[str]) -> dict[str, Landed]:
        with self._connection() as connection:
            return self._owners(connection, keys)

    def _owners(self, connection: Any, keys: Sequence[str]) -> dict[str, Landed]:
        owners: dict[str, Landed] = {}
        for start in range(0, len(keys), _CHUNK):
            chunk = keys[start : start + _CHUNK]
            holes = ", ".join(f":b{number}" for number in range(1, len(chunk) + 1))
            n = self._names
            statement = (
                f"SELECT k.IDEMPOTENCY_KEY, k.FINGERPRINT, r.{n['id']}, r.{n['start_utc']}, r.{n['doc']}"
                f" FROM {self._key_table} k JOIN {self._table} r ON r.{n['id']} = k.RUN_ID"
                f" WHERE k.IDEMPOTENCY_KEY IN ({holes})"
            )
            for key, fingerprint, run_id, at, doc in self._run(connection, statement, chunk).fetchall():
                owners[key] = Landed(StoredRun(run_id, _utc(at), doc.encode()), fingerprint)
        return owners

    def ping(self) -> None:
        """See the contract."""
        with self._connection() as connection:
            connection.ping()

    def pool(self) -> dict[str, int]:
        """See the contract."""
        if self._pool_ is None:
            return {}
        busy, opened = self._pool_.busy, self._pool_.opened
        return {"in_use": busy, "idle": opened - busy}

    def close(self) -> None:
        """See the contract."""
        with self._opening:
            if self._pool_ is not None:
                self._pool_.close(force=True)
                self._pool_ = None
