"""Lineage in PostgreSQL, or in an SQLite file for every other backend."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from services.pipeline_info.backends.postgres import PostgresPipelineRepository
from services.pipeline_info.lineage import ColumnOrigin, RunEvent, utc
from services.pipeline_info.repository import StoreUnavailableError

_EVENT = (
    "INSERT INTO lineage_event (fingerprint, event_time, event_type, run_id, job, doc)"
    " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
)
_EDGE = (
    "INSERT INTO lineage_edge (source, target, last_seen) VALUES (?, ?, ?)"
    " ON CONFLICT (source, target) DO UPDATE SET last_seen = excluded.last_seen"
    " WHERE excluded.last_seen > lineage_edge.last_seen"
)
_COLUMN = (
    "INSERT INTO lineage_column (target, target_field, source, source_field, how, last_seen)"
    " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (target, target_field, source, source_field)"
    " DO UPDATE SET how = excluded.how, last_seen = excluded.last_seen"
    " WHERE excluded.last_seen > lineage_column.last_seen"
)
_LATEST = "SELECT source, target FROM lineage_edge ORDER BY last_seen DESC, source, target LIMIT ?"
_COLUMNS = (
    "SELECT target, target_field, source, source_field, how FROM lineage_column"
    " WHERE target = ? OR source = ? ORDER BY target, target_field, source, source_field LIMIT 10000"
)


class PostgresLineage:
    """Lineage beside the runs, in their schema.

    Args:
        repository: The runs, whose connections and migrations are used.
    """

    def __init__(self, repository: PostgresPipelineRepository) -> None:
        self._repository = repository

    def add_event(self, event: RunEvent, doc: bytes, fingerprint: str) -> bool:
        """See the protocol; the event and what it adds to the graph are one transaction."""
        at = utc(event.eventTime)
        with self._repository.connection() as connection, connection.transaction():
            row = (fingerprint, at, event.eventType, str(event.run.runId), event.node, doc.decode())
            if connection.execute(_percent(_EVENT), row).rowcount == 0:
                return False
            with connection.cursor() as cursor:
                # Both lists are in order, so that two events never wait for each other in a circle.
                cursor.executemany(_percent(_EDGE), [(*edge, at) for edge in event.edges()])
                cursor.executemany(_percent(_COLUMN), [(*column, at) for column in event.columns()])
        return True

    def edges_of(self, nodes: Sequence[str], limit: int) -> list[tuple[str, str]]:
        """See the protocol."""
        with self._repository.connection() as connection:
            if not nodes:
                found = connection.execute(_percent(_LATEST), (limit,))
            else:
                found = connection.execute(
                    "SELECT source, target FROM lineage_edge WHERE source = ANY(%s) OR target = ANY(%s)"
                    " ORDER BY source, target LIMIT %s",
                    (list(nodes), list(nodes), limit),
                )
            return [(source, target) for source, target in found]

    def columns_of(self, node: str) -> list[ColumnOrigin]:
        """See the protocol."""
        with self._repository.connection() as connection:
            return [ColumnOrigin(*row) for row in connection.execute(_percent(_COLUMNS), (node, node))]


def _percent(statement: str) -> Any:
    return statement.replace("?", "%s")


class SqliteLineage:
    """Lineage in a file of its own.

    Args:
        file: The database; made, with its folder, at the first event.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None

    def _open(self) -> sqlite3.Connection:
        if self._db is None:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            db = sqlite3.connect(self.file, timeout=30, isolation_level=None, check_same_thread=False)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            migration = Path(__file__).parents[1] / "migrations" / "002_lineage.sql"
            script = (
                migration.read_text()
                .replace(' COLLATE "C"', "")
                .replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS")
            )
            db.executescript(script.replace("CREATE INDEX", "CREATE INDEX IF NOT EXISTS"))
            self._db = db
        return self._db

    def _try(self, work: Any) -> Any:
        with self._lock:
            try:
                return work(self._open())
            except (sqlite3.DatabaseError, OSError) as error:
                raise StoreUnavailableError(f"{self.file}: {error}") from error

    def add_event(self, event: RunEvent, doc: bytes, fingerprint: str) -> bool:
        """See the protocol."""
        at = utc(event.eventTime).isoformat(timespec="microseconds")
        row = (fingerprint, at, event.eventType, str(event.run.runId), event.node, doc.decode())

        def work(db: sqlite3.Connection) -> bool:
            db.execute("BEGIN IMMEDIATE")
            try:
                new = db.execute(_EVENT, row).rowcount == 1
                if new:
                    db.executemany(_EDGE, [(*edge, at) for edge in event.edges()])
                    db.executemany(_COLUMN, [(*column, at) for column in event.columns()])
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")
            return new

        return bool(self._try(work))

    def edges_of(self, nodes: Sequence[str], limit: int) -> list[tuple[str, str]]:
        """See the protocol."""
        holes = ", ".join("?" * len(nodes))
        some = (
            f"SELECT source, target FROM lineage_edge WHERE source IN ({holes}) OR target IN ({holes})"
            " ORDER BY source, target LIMIT ?"
        )

        def work(db: sqlite3.Connection) -> list[tuple[str, str]]:
            return db.execute(*((some, (*nodes, *nodes, limit)) if nodes else (_LATEST, (limit,)))).fetchall()

        found: list[tuple[str, str]] = self._try(work)
        return found

    def columns_of(self, node: str) -> list[ColumnOrigin]:
        """See the protocol."""
        rows = self._try(lambda db: db.execute(_COLUMNS, (node, node)).fetchall())
        return [ColumnOrigin(*row) for row in rows]
