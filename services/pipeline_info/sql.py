"""The queries that all backends with SQL share, each in its own placeholders and times."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from services.pipeline_info.models import PipelineRun, RunFilter
from services.pipeline_info.repository import Cursor, RunRow, StoreRefusedError, StoreUnavailableError

# The parts of a run that queries filter, sort and sum by. The run itself is its document.
COLUMNS = (
    "id",
    "start_utc",
    "end_utc",
    "pipeline_name",
    "script_name",
    "pipeline_type",
    "environment",
    "date_code",
    "state",
    "elapsed_seconds",
    "rowcount",
    "failure",
)
EQUAL = ("pipeline_name", "script_name", "pipeline_type", "environment", "date_code", "state")


# SQLite's codes of a file that is locked, broken, full, or cannot be reached; and of what it cannot hold.
_SQLITE_AWAY = {
    *(sqlite3.SQLITE_PERM, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM),
    *(sqlite3.SQLITE_READONLY, sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT),
    *(sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_NOTADB),
}
_SQLITE_REFUSED = {sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_RANGE}


def sqlite_told_apart(error: Exception, file: Path) -> Exception:
    """What an error of SQLite, or of its file, means for whoever asked: by its code, not by its class.

    Returns:
        A `StoreUnavailableError`, a `StoreRefusedError`, or the error itself, which is a fault of ours.
    """
    if isinstance(error, OSError):
        return StoreUnavailableError(f"cannot use {file}: {error.strerror}")
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return error
    if code & 0xFF in _SQLITE_AWAY:
        return StoreUnavailableError(f"{file}: {error}")
    if code & 0xFF in _SQLITE_REFUSED:
        return StoreRefusedError(f"{file} cannot hold this: {error}")
    return error


def values(run: PipelineRun, time: Callable[[datetime], object]) -> tuple[object, ...]:
    """The values of `COLUMNS` of a run."""
    return (
        run.id,
        time(run.started),
        None if run.end_utc is None else time(run.end_utc),
        run.pipeline_name,
        run.script_name,
        run.pipeline_type,
        run.environment,
        run.date_code,
        run.state,
        run.elapsed_seconds,
        run.rowcount,
        run.failure,
    )


def run_row(row: Sequence[Any], time: Callable[[Any], datetime]) -> RunRow:
    """A run from the values of `COLUMNS`."""
    run_id, start, end, *rest = row
    return RunRow(run_id, time(start), None if end is None else time(end), *rest)


@dataclass
class Where:
    """A condition and what is bound to it.

    Args:
        placeholder: The placeholder of the n-th bound value, from 1.
        time: A time as the backend keeps it.
        names: The backend's own name or expression of a column, where it has another.
    """

    placeholder: Callable[[int], str]
    time: Callable[[datetime], object]
    names: Mapping[str, str] = field(default_factory=dict)
    parts: list[str] = field(default_factory=list)
    bound: list[object] = field(default_factory=list)

    def bind(self, value: object) -> str:
        """The placeholder of a value."""
        self.bound.append(value)
        return self.placeholder(len(self.bound))

    def column(self, name: str) -> str:
        """The backend's name of a column."""
        return self.names.get(name, name)

    def matching(self, wanted: RunFilter) -> Where:
        """Add what a filter asks for."""
        for name in EQUAL:
            value = getattr(wanted, name)
            if value is not None:
                self.parts.append(f"{self.column(name)} = {self.bind(value)}")
        if wanted.only_environments is not None:
            self._one_of("environment", wanted.only_environments)
        if wanted.only_pipelines is not None:
            self._one_of("pipeline_name", wanted.only_pipelines)
        if wanted.start_from is not None:
            self.parts.append(f"{self.column('start_utc')} >= {self.bind(self.time(wanted.start_from))}")
        if wanted.start_before is not None:
            self.parts.append(f"{self.column('start_utc')} < {self.bind(self.time(wanted.start_before))}")
        if wanted.min_rowcount is not None:
            self.parts.append(f"{self.column('rowcount')} >= {self.bind(wanted.min_rowcount)}")
        return self

    def _one_of(self, name: str, allowed: Sequence[str]) -> None:
        bound = ", ".join(self.bind(value) for value in allowed)
        self.parts.append(f"{self.column(name)} IN ({bound})" if bound else "1 = 0")

    def after(self, cursor: Cursor | None) -> Where:
        """Add that runs come after a cursor.

        The first condition alone lets an index, and the choice of partitions, start at the right place;
        a comparison of pairs would not, and Oracle has none.
        """
        if cursor is not None:
            start, run_id = self.column("start_utc"), self.column("id")
            at = self.time(cursor.start_utc)
            self.parts.append(f"{start} <= {self.bind(at)}")
            self.parts.append(f"({start} < {self.bind(at)} OR {run_id} < {self.bind(cursor.id)})")
        return self

    def __str__(self) -> str:
        return f" WHERE {' AND '.join(self.parts)}" if self.parts else ""
