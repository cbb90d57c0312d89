"""Lineage in PostgreSQL, or in an SQLite file for every other backend."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy.exc import DBAPIError

from services.pipeline_info.backends.postgres import PostgresPipelineRepository
from services.pipeline_info.lineage import ColumnOrigin, FoundNode, RunEvent, Seen
from services.pipeline_info.migrate import of_sqlite, open_sqlite
from services.pipeline_info.sql import sqlite_told_apart

MAX_COLUMNS = 10_000
_NODE = ("environment", "node_key", "node", "folded", "last_seen", "reported_at")
_LINK = ("environment", "source_key", "target_key", "source", "target", "last_seen", "reported_at")
_ORIGIN = (
    *("environment", "origin_key", "target_key", "source_key", "target", "target_field"),
    *("source", "source_field", "how", "last_seen", "reported_at"),
)
_EVENT = (
    "INSERT INTO lineage_event (fingerprint, event_time, event_type, run_id, job, doc, environment,"
    " reported_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
)


def _upsert(table: str, columns: Sequence[str], key: str, *, changes: Sequence[str] = ()) -> str:
    """The statement that adds a row, or says that it was reported once more; the later event counts."""
    later = f"excluded.last_seen > {table}.last_seen"
    sets = [
        f"{name} = CASE WHEN {later} THEN excluded.{name} ELSE {table}.{name} END"
        for name in (*changes, "last_seen")
    ]
    sets.append(
        f"reported_at = CASE WHEN excluded.reported_at > {table}.reported_at"
        f" THEN excluded.reported_at ELSE {table}.reported_at END"
    )
    return (
        f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
        f" ON CONFLICT ({key}) DO UPDATE SET {', '.join(sets)}"
    )


_PUT_NODE = _upsert("lineage_node", _NODE, "environment, node_key")
_PUT_LINK = _upsert("lineage_link", _LINK, "environment, source_key, target_key")
_PUT_ORIGIN = _upsert("lineage_origin", _ORIGIN, "environment, origin_key", changes=("how",))


def name_key(name: str) -> str:
    """What stands for a name in an index: names may be longer than an entry of an index."""
    return hashlib.sha256(name.encode()).hexdigest()


def origin_key(target: str, target_field: str, source: str, source_field: str) -> str:
    """What stands for a column's origin in an index."""
    return name_key("".join(map(name_key, (target, target_field, source, source_field))))


class SqlLineage(ABC):
    """Lineage in tables, by the same statements in either database."""

    @abstractmethod
    def _time(self, time: datetime) -> object:
        """A time as the database keeps it."""

    @abstractmethod
    def _back(self, time: Any) -> datetime:
        """The time that the database kept."""

    @abstractmethod
    def _read(self, statement: str, bound: Sequence[object]) -> list[tuple[Any, ...]]:
        """The rows of a query."""

    @abstractmethod
    def _write[T](self, work: Callable[[Callable[[str, Sequence[Sequence[object]]], int]], T]) -> T:
        """Do `work` in one transaction; it is given what executes a statement for many rows."""

    def add_event(self, event: RunEvent, doc: bytes, fingerprint: str, environment: str) -> bool:
        """See the protocol; the event and what it adds to the graph are one transaction."""
        received = datetime.now(UTC)
        at, now = self._time(event.eventTime.astimezone(UTC)), self._time(received)
        row = (fingerprint, at, event.eventType, str(event.run.runId), event.node, doc.decode())
        edges, columns = event.edges(), event.columns()
        nodes = sorted({event.node, *(end for edge in edges for end in edge)})

        def work(execute: Callable[[str, Sequence[Sequence[object]]], int]) -> bool:
            if execute(_EVENT, [(*row, environment, now)]) == 0:
                return False
            # The lists are in order, so that two events never wait for each other in a circle.
            execute(_PUT_NODE, [(environment, name_key(node), node, node.lower(), at, now) for node in nodes])
            execute(
                _PUT_LINK,
                [
                    (environment, name_key(source), name_key(target), source, target, at, now)
                    for source, target in edges
                ],
            )
            execute(
                _PUT_ORIGIN,
                [
                    (
                        *(environment, origin_key(target, field, source, source_field)),
                        *(name_key(target), name_key(source)),
                        *(target, field, source, source_field, how, at, now),
                    )
                    for target, field, source, source_field, how in columns
                ],
            )
            return True

        return self._write(work)

    def _seen(self, seen: Seen) -> tuple[str, list[object]]:
        """The condition for what the asker sees, and what is bound to it."""
        parts, bound = ["1 = 1"], list[object]()
        if seen.environments is not None:
            parts.append(f"environment IN ({_holes(seen.environments)})" if seen.environments else "1 = 0")
            bound += seen.environments
        if seen.since is not None:
            parts.append("reported_at >= ?")
            bound.append(self._time(seen.since))
        return " AND ".join(parts), bound

    def edges_of(self, nodes: Sequence[str], limit: int, seen: Seen) -> list[tuple[str, str]]:
        """See the protocol."""
        condition, bound = self._seen(seen)
        if not nodes:
            rows = self._read(
                f"SELECT source, target FROM lineage_link WHERE {condition}"
                " GROUP BY source, target ORDER BY max(last_seen) DESC, source, target LIMIT ?",
                [*bound, limit],
            )
        else:
            keys = [name_key(node) for node in nodes]
            holes = _holes(keys)
            rows = self._read(
                f"SELECT DISTINCT source, target FROM lineage_link WHERE {condition}"
                f" AND (source_key IN ({holes}) OR target_key IN ({holes}))"
                " ORDER BY source, target LIMIT ?",
                [*bound, *keys, *keys, limit],
            )
        return [(source, target) for source, target in rows]

    def origins_of(self, nodes: Sequence[str], limit: int, seen: Seen) -> list[tuple[str, str]]:
        """See the protocol."""
        if not nodes:
            return []
        condition, bound = self._seen(seen)
        keys = [name_key(node) for node in nodes]
        holes = _holes(keys)
        rows = self._read(
            f"SELECT DISTINCT source, target FROM lineage_origin WHERE {condition}"
            f" AND (source_key IN ({holes}) OR target_key IN ({holes}))"
            " ORDER BY source, target LIMIT ?",
            [*bound, *keys, *keys, limit],
        )
        return [(source, target) for source, target in rows]

    def columns_of(self, node: str, seen: Seen) -> list[ColumnOrigin]:
        """See the protocol."""
        condition, bound = self._seen(seen)
        rows = self._read(
            "SELECT target, target_field, source, source_field, max(how) FROM lineage_origin"
            f" WHERE {condition} AND (target_key = ? OR source_key = ?)"
            " GROUP BY target, target_field, source, source_field"
            " ORDER BY target, target_field, source, source_field LIMIT ?",
            [*bound, name_key(node), name_key(node), MAX_COLUMNS],
        )
        return [ColumnOrigin(*row) for row in rows]

    def find(self, words: Sequence[str], limit: int, seen: Seen) -> list[FoundNode]:
        """See the protocol."""
        condition, bound = self._seen(seen)
        like = "".join(" AND folded LIKE ? ESCAPE '!'" for _ in words)
        patterns = [f"%{_escaped(word.lower())}%" for word in words]
        rows = self._read(
            f"SELECT node, max(reported_at) FROM lineage_node WHERE {condition}{like}"
            " GROUP BY node ORDER BY max(last_seen) DESC, node LIMIT ?",
            [*bound, *patterns, limit],
        )
        return [FoundNode(node, self._back(at)) for node, at in rows]

    def retire(self, before: datetime, *, dry: bool = False) -> dict[str, int]:
        """See the protocol."""
        at = self._time(before)
        tables = {
            "nodes": ("lineage_node", "reported_at < ?"),
            "edges": ("lineage_link", "reported_at < ?"),
            "columns": ("lineage_origin", "reported_at < ?"),
            "events": ("lineage_event", "coalesce(reported_at, event_time) < ?"),
        }
        if dry:
            return {
                name: int(self._read(f"SELECT count(*) FROM {table} WHERE {old}", [at])[0][0])
                for name, (table, old) in tables.items()
            }
        return self._write(
            lambda execute: {
                name: execute(f"DELETE FROM {table} WHERE {old}", [[at]])
                for name, (table, old) in tables.items()
            }
        )


def _holes(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))


def _escaped(word: str) -> str:
    return word.replace("!", "!!").replace("%", "!%").replace("_", "!_")


class PostgresLineage(SqlLineage):
    """Lineage beside the runs, in their schema.

    Args:
        repository: The runs, whose connections and migrations are used.
    """

    def __init__(self, repository: PostgresPipelineRepository) -> None:
        self._repository = repository

    def _time(self, time: datetime) -> object:
        return time

    def _back(self, time: Any) -> datetime:
        at: datetime = time
        return at.astimezone(UTC)

    def _read(self, statement: str, bound: Sequence[object]) -> list[tuple[Any, ...]]:
        with self._repository.connection() as connection:
            return connection.execute(_percent(statement), bound).fetchall()

    def _write[T](self, work: Callable[[Callable[[str, Sequence[Sequence[object]]], int]], T]) -> T:
        with self._repository.connection() as connection, connection.transaction():

            def execute(statement: str, rows: Sequence[Sequence[object]]) -> int:
                with connection.cursor() as cursor:
                    cursor.executemany(_percent(statement), rows)
                    return max(cursor.rowcount, 0)

            return work(execute)


def _percent(statement: str) -> Any:
    return statement.replace("?", "%s")


class SqliteLineage(SqlLineage):
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
            of_sqlite(self.file).upgrade()
            self._db = open_sqlite(self.file)
        return self._db

    def _try[T](self, work: Callable[[sqlite3.Connection], T]) -> T:
        with self._lock:
            try:
                return work(self._open())
            except DBAPIError as error:  # of a migration
                raise sqlite_told_apart(error.orig or error, self.file) from error
            except (sqlite3.Error, OSError) as error:
                raise sqlite_told_apart(error, self.file) from error

    def _time(self, time: datetime) -> object:
        return time.astimezone(UTC).isoformat(timespec="microseconds")

    def _back(self, time: Any) -> datetime:
        return datetime.fromisoformat(time)

    def _read(self, statement: str, bound: Sequence[object]) -> list[tuple[Any, ...]]:
        return self._try(lambda db: db.execute(statement, tuple(bound)).fetchall())

    def _write[T](self, work: Callable[[Callable[[str, Sequence[Sequence[object]]], int]], T]) -> T:
        def once(db: sqlite3.Connection) -> T:
            def execute(statement: str, rows: Sequence[Sequence[object]]) -> int:
                return max(db.executemany(statement, rows).rowcount, 0)

            db.execute("BEGIN IMMEDIATE")
            try:
                result = work(execute)
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")
            return result

        return self._try(once)
