"""Runs in JSON Lines files, with an index: for one machine, and for a reader with nothing but `less`.

The files are the truth. Beside them stands an index in SQLite that knows where each run's line is; it can
be deleted at any time and is then made again. Writers of several processes take turns by a lock.

    runs.jsonl          the first segment
    runs.00001.jsonl    the next, begun when the one before it was full; the last one is written to
    runs.00000.g1.jsonl a segment after compaction, in the place of runs.jsonl
    runs.jsonl.lock     held while writing or indexing
    runs.jsonl.index    the index
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
from pydantic import ValidationError

from services.pipeline_info import summary
from services.pipeline_info.models import PipelineRun, PipelineSummary, RunFilter
from services.pipeline_info.repository import (
    Cursor,
    Landed,
    Pending,
    PipelineInfoRepository,
    RunRow,
    StoredRun,
    StoreUnavailableError,
)
from services.pipeline_info.sql import COLUMNS, Where, run_row, sqlite_told_apart, values

log = logging.getLogger(__name__)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_VERSION = 2
_INDEX = f"""
CREATE TABLE segment (
  name TEXT PRIMARY KEY, inode INTEGER NOT NULL, read_to INTEGER NOT NULL, corrupt INTEGER NOT NULL
);
CREATE TABLE run (
  id TEXT PRIMARY KEY, start_utc INTEGER NOT NULL, end_utc INTEGER, pipeline_name TEXT, script_name TEXT,
  pipeline_type TEXT, environment TEXT, date_code TEXT, state TEXT, elapsed_seconds REAL, rowcount INTEGER,
  failure TEXT, segment TEXT NOT NULL, position INTEGER NOT NULL, length INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX run_by_start ON run (start_utc DESC, id DESC);
CREATE INDEX run_by_pipeline ON run (pipeline_name, start_utc DESC, id DESC);
CREATE INDEX run_by_type ON run (pipeline_type, start_utc DESC, id DESC);
CREATE INDEX run_by_environment ON run (environment, start_utc DESC, id DESC);
CREATE INDEX run_by_state ON run (state, start_utc DESC, id DESC);
CREATE INDEX run_by_date_code ON run (date_code, start_utc DESC, id DESC);
CREATE TABLE idempotency_key (key TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, run_id TEXT NOT NULL)
  WITHOUT ROWID;
CREATE TABLE pipeline_summary (
  signature TEXT PRIMARY KEY, pipeline_name TEXT, script_name TEXT, pipeline_type TEXT, environment TEXT,
  total_runs INTEGER, total_rowcount INTEGER, elapsed_sum REAL, elapsed_runs INTEGER, rowcount_runs INTEGER,
  first_start INTEGER, last_start INTEGER, last_id TEXT, last_end INTEGER, last_elapsed REAL,
  last_rowcount INTEGER, last_state TEXT
);
PRAGMA user_version = {_VERSION};
"""


def _micros(time: datetime) -> int:
    return (time - _EPOCH) // timedelta(microseconds=1)


def _time(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of a segment that is a run."""

    run: PipelineRun
    key: str | None
    fingerprint: str
    position: int
    length: int


class _MovedError(Exception):
    """A segment was replaced between the look in the index and the look in the file."""


def _parse(line: bytes) -> tuple[PipelineRun, str | None, str]:
    fields = orjson.loads(line)
    if not isinstance(fields, dict):
        raise ValueError("not an object")
    key, fingerprint = fields.pop("_key", None), fields.pop("_fingerprint", None)
    run = PipelineRun.model_validate(fields)
    return run, key, fingerprint or run.fingerprint()


class JsonlPipelineRepository(PipelineInfoRepository):
    """Appends runs to the last segment; finds them by the index.

    Each batch is on disk before its insert returns, by one write and one fsync. A line that is no run is
    skipped, counted and warned about once, and does not disturb its neighbours. The index follows the
    files: what another process appended, or a killed one had no time to index, is read at the next use.

    Args:
        file: The first segment; made, with its folder, by the first insert.
        rotate_bytes: A segment of this size is full.
    """

    name = "jsonl"

    def __init__(self, file: Path, *, rotate_bytes: int = 64 * 1024 * 1024) -> None:
        self.file = file
        self._rotate_bytes = rotate_bytes
        self._mutex = threading.RLock()
        self._db: sqlite3.Connection | None = None
        stem = re.escape(file.stem)
        self._name = re.compile(rf"{stem}(?:\.(\d{{5}}))?(?:\.g(\d+))?{re.escape(file.suffix)}")

    # -- The contract -----------------------------------------------------------------------------

    def get_pipeline_info(
        self, wanted: RunFilter, *, limit: int, offset: int = 0, after: Cursor | None = None
    ) -> list[StoredRun]:
        """See the contract."""
        where = Where(lambda _: "?", _micros).matching(wanted).after(after)
        query = (
            f"SELECT id, start_utc, segment, position, length FROM run{where}"
            f" ORDER BY start_utc DESC, id DESC LIMIT {where.bind(limit)} OFFSET {where.bind(offset)}"
        )
        return self._find(query, where.bound)

    def list_runs(self, wanted: RunFilter, *, limit: int, after: Cursor | None = None) -> list[RunRow]:
        """See the contract; reads the index alone."""
        where = Where(lambda _: "?", _micros).matching(wanted).after(after)
        query = (
            f"SELECT {', '.join(COLUMNS)} FROM run{where}"
            f" ORDER BY start_utc DESC, id DESC LIMIT {where.bind(limit)}"
        )
        with self._index() as db:
            return [run_row(row, _time) for row in db.execute(query, where.bound)] if db else []

    def count_pipeline_info(self, wanted: RunFilter, *, bound: int | None = None) -> int:
        """See the contract."""
        where = Where(lambda _: "?", _micros).matching(wanted)
        limit = -1 if bound is None else bound
        query = f"SELECT count(*) FROM (SELECT 1 FROM run{where} LIMIT {where.bind(limit)})"
        with self._index() as db:
            return int(db.execute(query, where.bound).fetchone()[0]) if db else 0

    def get_pipelines_summary(self) -> list[PipelineSummary]:
        """See the contract; reads the summaries that the index keeps."""
        with self._index() as db:
            if db is None:
                return []
            cursor = db.execute(f"SELECT {', '.join(summary.TALLY_COLUMNS)} FROM pipeline_summary")
            rows = [dict(zip(summary.TALLY_COLUMNS, row, strict=True)) for row in cursor]
        return sorted((summary.from_row(row, _time) for row in rows), key=summary.order)

    def get_run(self, run_id: str) -> StoredRun | None:
        """See the contract."""
        found = self._find("SELECT id, start_utc, segment, position, length FROM run WHERE id = ?", [run_id])
        return found[0] if found else None

    def ping(self) -> None:
        """See the contract."""
        with self._index():
            pass

    def corrupt_records(self) -> int:
        """How many lines of the files are no runs."""
        with self._index() as db:
            return int(db.execute("SELECT coalesce(sum(corrupt), 0) FROM segment").fetchone()[0]) if db else 0

    def close(self) -> None:
        """See the contract."""
        with self._mutex:
            if self._db is not None:
                self._db.close()
                self._db = None

    # -- Reading ----------------------------------------------------------------------------------

    def _find(self, query: str, bound: Sequence[object]) -> list[StoredRun]:
        """The runs that a query of the index finds, from the files."""
        for _ in range(5):
            with self._index() as db:
                rows = db.execute(query, bound).fetchall() if db else []
            with suppress(_MovedError):
                return self._documents(rows)
        raise StoreUnavailableError(f"{self.file}: the files change faster than they can be read")

    def _documents(self, rows: Sequence[tuple[Any, ...]]) -> list[StoredRun]:
        opened: dict[str, int] = {}
        found = []
        try:
            for run_id, start, segment, position, length in rows:
                if segment not in opened:
                    opened[segment] = os.open(self.file.with_name(segment), os.O_RDONLY)
                try:
                    run, _, _ = _parse(os.pread(opened[segment], length, position))
                except (ValueError, ValidationError) as error:
                    raise _MovedError from error
                if run.id != run_id:
                    raise _MovedError
                found.append(StoredRun(run_id, _time(start), run.document()))
        except FileNotFoundError as error:
            raise _MovedError from error
        except OSError as error:
            raise StoreUnavailableError(f"cannot read {self.file}: {error.strerror}") from error
        finally:
            for descriptor in opened.values():
                os.close(descriptor)
        return found

    # -- Segments ---------------------------------------------------------------------------------

    def _segments(self) -> list[tuple[int, int, str]]:
        """Number, generation and name of every segment, the newest generation of each, in order."""
        newest: dict[int, tuple[int, str]] = {}
        try:
            names = [path.name for path in self.file.parent.iterdir()]
        except FileNotFoundError:
            return []
        for name in names:
            if match := self._name.fullmatch(name):
                number, generation = int(match[1] or 0), int(match[2] or 0)
                newest[number] = max(newest.get(number, (-1, "")), (generation, name))
        return [(number, *newest[number]) for number in sorted(newest)]

    def _segment_name(self, number: int, generation: int) -> str:
        place = f".{number:05d}" if number or generation else ""
        return f"{self.file.stem}{place}{f'.g{generation}' if generation else ''}{self.file.suffix}"

    # -- The index --------------------------------------------------------------------------------

    @contextmanager
    def _index(self) -> Iterator[sqlite3.Connection | None]:
        """The index, in step with the files, in one read transaction; None while there is no folder."""
        with self._mutex:
            try:
                if not self.file.parent.is_dir():
                    self.close()
                    yield None
                    return
                db = self._open()
                db.execute("BEGIN")
                try:
                    if self._behind():
                        db.execute("COMMIT")
                        with self._locked():
                            self._catch_up()
                            db.execute("BEGIN")
                            db.execute("SELECT 1 FROM segment").fetchone()  # the snapshot starts here
                    yield db
                finally:
                    if db.in_transaction:
                        db.execute("COMMIT")
            except (sqlite3.DatabaseError, OSError) as error:
                raise sqlite_told_apart(error, self.file) from error

    def _open(self) -> sqlite3.Connection:
        """The index's database, made where there is none or it is another version's or broken."""
        path = self.file.with_name(self.file.name + ".index")
        if self._db is not None and path.exists():
            return self._db
        self.close()
        for attempt in (1, 2):
            db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
            try:
                db.execute("PRAGMA journal_mode = WAL")
                # Losing the last of it in a power cut costs nothing: it is read from the files again.
                db.execute("PRAGMA synchronous = NORMAL")
                if db.execute("PRAGMA user_version").fetchone()[0] == _VERSION:
                    self._db = db
                    return db
                made = self._make(db)
            except sqlite3.DatabaseError:
                made = False
            if made:
                self._db = db
                return db
            db.close()
            if attempt == 1:
                log.warning("%s is no index of this version and is made again", path)
                for suffix in ("", "-wal", "-shm"):
                    path.with_name(path.name + suffix).unlink(missing_ok=True)
        raise StoreUnavailableError(f"{path}: cannot be made")

    @staticmethod
    def _make(db: sqlite3.Connection) -> bool:
        """Make the tables, unless another process did meanwhile; False when others stand there."""
        db.execute("BEGIN IMMEDIATE")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if version != _VERSION and not tables:
            for statement in _INDEX.split(";\n"):
                if statement.strip():
                    db.execute(statement)
            version = _VERSION
        db.execute("COMMIT")
        return bool(version == _VERSION)

    def _known(self) -> dict[str, tuple[int, int]]:
        rows = self._open().execute("SELECT name, inode, read_to FROM segment")
        return {name: (inode, read_to) for name, inode, read_to in rows}

    def _behind(self) -> bool:
        """Whether the files hold, or lack, something that the index does not know of."""
        known = self._known()
        segments = self._segments()
        if {name for _, _, name in segments} != set(known):
            return True
        for _, _, name in segments:
            try:
                status = self.file.with_name(name).stat()
            except FileNotFoundError:
                return True
            inode, read_to = known[name]
            if status.st_ino != inode or status.st_size != read_to:
                return True
        return False

    def _catch_up(self) -> None:
        """Bring the index in step with the files. Needs the lock."""
        db = self._open()
        known, segments = self._known(), self._segments()
        current = {name for _, _, name in segments}
        for _, _, name in segments:
            if name in known:
                status = self.file.with_name(name).stat()
                inode, read_to = known[name]
                if status.st_ino != inode or status.st_size < read_to:
                    current.discard(name)  # another file stands in its place
        if set(known) - current:
            log.info("%s: files were replaced or removed, the index is made again", self.file)
            db.execute("BEGIN")
            for table in ("run", "idempotency_key", "pipeline_summary", "segment"):
                db.execute(f"DELETE FROM {table}")
            db.execute("COMMIT")
            known = {}
        for _, _, name in segments:
            _, read_to = known.get(name, (0, 0))
            if name not in known or self.file.with_name(name).stat().st_size != read_to:
                self._read(name, read_to)

    def _read(self, name: str, start: int) -> None:
        """Index the whole lines of a segment from `start` on, in transactions of bounded size."""
        with self.file.with_name(name).open("rb") as stream:
            status = os.fstat(stream.fileno())
            stream.seek(start)
            position, corrupt, lines = start, 0, list[_Line]()
            for raw in stream:
                if not raw.endswith(b"\n"):
                    break
                try:
                    lines.append(_Line(*_parse(raw), position, len(raw)))
                except (ValueError, ValidationError) as error:
                    corrupt += 1
                    reason = str(error).splitlines()[0]
                    log.warning("%s at byte %d: no run, skipped: %s", name, position, reason)
                position += len(raw)
                if len(lines) >= 5000:
                    self._add(name, status.st_ino, position, corrupt, lines)
                    corrupt, lines = 0, []
            self._add(name, status.st_ino, position, corrupt, lines)

    def _add(self, name: str, inode: int, read_to: int, corrupt: int, lines: list[_Line]) -> None:
        """Put lines of a segment into the index. A run that is there already is left as it is."""
        db = self._open()
        db.execute("BEGIN")
        try:
            new = []
            for line in lines:
                row = (*values(line.run, _micros), name, line.position, line.length)
                names = f"{', '.join(COLUMNS)}, segment, position, length"
                holes = ", ".join("?" * len(row))
                added = db.execute(f"INSERT OR IGNORE INTO run ({names}) VALUES ({holes})", row).rowcount
                if added:
                    new.append(line.run)
                if line.key is not None:
                    db.execute(
                        "INSERT OR IGNORE INTO idempotency_key VALUES (?, ?, ?)",
                        (line.key, line.fingerprint, line.run.id),
                    )
            statement = summary.upsert("pipeline_summary", "?", "min")
            db.executemany(statement, [tally.row(_micros) for tally in summary.tallies(new)])
            db.execute(
                "INSERT INTO segment VALUES (?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET"
                " inode = excluded.inode, read_to = excluded.read_to, corrupt = corrupt + excluded.corrupt",
                (name, inode, read_to, corrupt),
            )
        except BaseException:
            db.execute("ROLLBACK")
            raise
        db.execute("COMMIT")

    # -- Writing ----------------------------------------------------------------------------------

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock between processes."""
        with self.file.with_name(self.file.name + ".lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _owners_of(self, keys: Sequence[str]) -> dict[str, Landed]:
        found: dict[str, Landed] = {}
        for _ in range(5):
            with self._index() as db, suppress(_MovedError):
                if db is not None:
                    known = {key: self._owner_of_key(db, key) for key in keys}
                    found = {key: owner for key, owner in known.items() if owner is not None}
                return found
        raise StoreUnavailableError(f"{self.file}: the files change faster than they can be read")

    def _insert(self, pending: Sequence[Pending]) -> list[Landed]:
        with self._mutex:
            try:
                self.file.parent.mkdir(parents=True, exist_ok=True)
                with self._locked():
                    self._catch_up()
                    return self._insert_locked(self._open(), pending)
            except (sqlite3.DatabaseError, OSError) as error:
                raise sqlite_told_apart(error, self.file) from error

    def _insert_locked(self, db: sqlite3.Connection, pending: Sequence[Pending]) -> list[Landed]:
        landed: list[Landed | None] = []
        new: list[Pending] = []
        for item in pending:
            known = self._owner(db, item)
            landed.append(known)
            if known is None:
                new.append(item)
        if new:
            name = self._current()
            lines = [self._line(item) for item in new]
            start = self._append(name, b"".join(lines))
            placed, position = [], start
            for item, line in zip(new, lines, strict=True):
                placed.append(_Line(item.run, item.key, item.fingerprint, position, len(line)))
                position += len(line)
            inode = self.file.with_name(name).stat().st_ino
            # A broken line that was ended just before ours is the only thing between.
            broken = start != self._known().get(name, (0, 0))[1]
            self._add(name, inode, position, int(broken), placed)
        return [
            known or Landed(item.stored(), item.fingerprint)
            for known, item in zip(landed, pending, strict=True)
        ]

    def _owner(self, db: sqlite3.Connection, item: Pending) -> Landed | None:
        """What stands in the place of a run to be inserted: by its key, or by its id."""
        if item.key is not None:
            return self._owner_of_key(db, item.key)
        if db.execute("SELECT 1 FROM run WHERE id = ?", (item.run.id,)).fetchone():
            return self._landed(db, item.run.id, item.fingerprint)
        return None

    def _owner_of_key(self, db: sqlite3.Connection, key: str) -> Landed | None:
        row = db.execute("SELECT run_id, fingerprint FROM idempotency_key WHERE key = ?", (key,)).fetchone()
        return self._landed(db, *row) if row else None

    def _landed(self, db: sqlite3.Connection, run_id: str, fingerprint: str) -> Landed:
        place = db.execute(
            "SELECT id, start_utc, segment, position, length FROM run WHERE id = ?", (run_id,)
        ).fetchall()
        return Landed(self._documents(place)[0], fingerprint)

    @staticmethod
    def _line(item: Pending) -> bytes:
        if item.key is None:
            return item.doc + b"\n"
        envelope = orjson.dumps({"_key": item.key, "_fingerprint": item.fingerprint})
        return item.doc[:-1] + b"," + envelope[1:] + b"\n"

    def _current(self) -> str:
        """The segment to append to: the last one, or the next when that is full."""
        segments = self._segments()
        if not segments:
            return self._segment_name(0, 0)
        number, _, name = segments[-1]
        if self.file.with_name(name).stat().st_size < self._rotate_bytes:
            return name
        return self._segment_name(number + 1, 0)

    def _append(self, name: str, lines: bytes) -> int:
        """Write lines and make them durable; what fails half-way leaves nothing behind.

        Returns:
            Where the first line starts.
        """
        with self.file.with_name(name).open("a+b", buffering=0) as stream:
            size = start = stream.seek(0, os.SEEK_END)
            if size:
                stream.seek(-1, os.SEEK_END)
                if stream.read(1) != b"\n":
                    # A writer died in mid-line: end its line, so that ours starts on its own.
                    lines = b"\n" + lines
                    start += 1
            try:
                written = 0
                while written < len(lines):
                    written += stream.write(lines[written:]) or 0
                os.fsync(stream.fileno())
                if not size:
                    self._sync_folder()  # the file's name, too, has to survive a loss of power
            except OSError:
                stream.truncate(size)
                raise
        return start

    def _sync_folder(self) -> None:
        folder = os.open(self.file.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    # -- Compaction -------------------------------------------------------------------------------

    def compact(self, *, progress: Callable[[str], None] = log.info) -> int:
        """Rewrite full segments without lines that are no runs or repeat one; runs are never dropped.

        What is left out is first put into `<segment>.rejected`. Readers go on meanwhile; a kill at any
        moment leaves either the segment as it was or the compacted one.

        Returns:
            How many lines were left out.
        """
        left_out = 0
        if not self.file.parent.is_dir():
            return left_out
        with self._mutex, self._locked():
            for number, generation, name in self._segments()[:-1]:
                kept, rejected = self._sort_out(name)
                if not rejected:
                    continue
                self._write_new(f"{name}.rejected", rejected)
                self._write_new(self._segment_name(number, generation + 1), kept)
                self.file.with_name(name).unlink()
                progress(f"{name}: left out {len(rejected)} of {len(kept) + len(rejected)} lines")
                left_out += len(rejected)
            self._remove_old()
            if left_out:
                self._catch_up()
        return left_out

    def _sort_out(self, name: str) -> tuple[list[bytes], list[bytes]]:
        kept, rejected, seen = list[bytes](), list[bytes](), set[str]()
        with self.file.with_name(name).open("rb") as stream:
            for raw in stream:
                try:
                    run, _, _ = _parse(raw)
                    repeated = run.id in seen
                    seen.add(run.id)
                except (ValueError, ValidationError):
                    repeated = True
                (rejected if repeated else kept).append(raw if raw.endswith(b"\n") else raw + b"\n")
        return kept, rejected

    def _write_new(self, name: str, lines: list[bytes]) -> None:
        """A file that is either not there or whole."""
        path = self.file.with_name(name)
        making = path.with_name(path.name + ".making")
        with making.open("wb") as stream:
            stream.writelines(lines)
            stream.flush()
            os.fsync(stream.fileno())
        making.rename(path)
        self._sync_folder()

    def _remove_old(self) -> None:
        """Remove generations that a killed compaction left beside their successors."""
        newest = {name for _, _, name in self._segments()}
        for path in self.file.parent.iterdir():
            if self._name.fullmatch(path.name) and path.name not in newest:
                path.unlink()
