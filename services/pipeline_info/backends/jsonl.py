"""Runs in a JSON Lines file: for one machine, and for a reader with nothing but `less`."""

from __future__ import annotations

import fcntl
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson
from pydantic import ValidationError

from services.pipeline_info.models import PipelineInfo, PipelineRun, PipelineSummary, RunFilter
from services.pipeline_info.repository import (
    Inserted,
    KeyReusedError,
    PipelineInfoRepository,
    StoreUnavailableError,
    new_id,
)
from services.pipeline_info.summary import summarise

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Keyed:
    run: PipelineRun
    fingerprint: str


class JsonlPipelineRepository(PipelineInfoRepository):
    """Appends runs to one file and answers queries from what it has read of it.

    Writers of several processes take turns by a lock on `<file>.lock`; each append is on disk before it
    returns. A reader takes whole lines only, and reads on from where it stopped. A line that is no run is
    skipped, counted and warned about once, and does not disturb its neighbours.

    Args:
        file: The file; made, with its folder, by the first insert.
    """

    name = "jsonl"

    def __init__(self, file: Path) -> None:
        self.file = file
        self._mutex = threading.RLock()
        self._forget()

    def _forget(self) -> None:
        self._inode = -1
        self._read_to = 0
        self._lines = 0
        self._corrupt = 0
        self._runs: list[PipelineRun] = []
        self._by_key: dict[str, _Keyed] = {}

    def get_pipeline_info(
        self, wanted: RunFilter, *, limit: int | None = None, offset: int = 0
    ) -> list[PipelineRun]:
        """See the contract; sorts what matches."""
        found = [run for run in self._all() if wanted.matches(run)]
        found.sort(key=lambda run: (run.started, run.id), reverse=True)
        return found[offset:] if limit is None else found[offset : offset + limit]

    def count_pipeline_info(self, wanted: RunFilter) -> int:
        """See the contract."""
        return sum(wanted.matches(run) for run in self._all())

    def get_pipelines_summary(self) -> list[PipelineSummary]:
        """See the contract."""
        return summarise(self._all())

    def insert_pipeline_info(self, record: PipelineInfo, *, idempotency_key: str | None = None) -> Inserted:
        """See the contract."""
        fingerprint = record.fingerprint()
        with self._mutex, self._locked() as folder:
            if idempotency_key is not None:
                self._catch_up()
                known = self._by_key.get(idempotency_key)
                if known is not None:
                    if known.fingerprint != fingerprint:
                        raise KeyReusedError(idempotency_key)
                    return Inserted(known.run, created=False)
            run = PipelineRun(id=new_id(), **record.model_dump())
            line = run.model_dump(mode="json")
            if idempotency_key is not None:
                line |= {"_key": idempotency_key, "_fingerprint": fingerprint}
            self._append(orjson.dumps(line) + b"\n", folder)
            return Inserted(run, created=True)

    def corrupt_records(self) -> int:
        """How many lines of the file are no runs."""
        self._all()
        return self._corrupt

    def _all(self) -> list[PipelineRun]:
        with self._mutex:
            self._catch_up()
            return list(self._runs)

    def _catch_up(self) -> None:
        """Read the whole lines that were added since the last time."""
        try:
            with self.file.open("rb") as stream:
                status = os.fstat(stream.fileno())
                if status.st_ino != self._inode or status.st_size < self._read_to:
                    self._forget()  # another file stands in its place
                    self._inode = status.st_ino
                stream.seek(self._read_to)
                for line in stream:
                    if not line.endswith(b"\n"):
                        break  # another process is in the middle of writing it, or died there
                    self._read_to += len(line)
                    self._lines += 1
                    self._take(line)
        except FileNotFoundError:
            self._forget()
        except OSError as error:
            raise StoreUnavailableError(f"cannot read {self.file}: {error.strerror}") from error

    def _take(self, line: bytes) -> None:
        try:
            fields = orjson.loads(line)
            key, fingerprint = fields.pop("_key", None), fields.pop("_fingerprint", None)
            run = PipelineRun.model_validate(fields)
        except (orjson.JSONDecodeError, ValidationError, AttributeError, TypeError) as error:
            self._corrupt += 1
            reason = str(error).splitlines()[0]
            log.warning("%s line %d is no run and is skipped: %s", self.file, self._lines, reason)
            return
        self._runs.append(run)
        if key is not None:
            self._by_key[key] = _Keyed(run, fingerprint)

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """Hold the lock between processes; gives the folder's descriptor."""
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            folder = os.open(self.file.parent, os.O_RDONLY)
            try:
                with self.file.with_name(self.file.name + ".lock").open("ab") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX)
                    yield folder
            finally:
                os.close(folder)
        except OSError as error:
            raise StoreUnavailableError(f"cannot write {self.file}: {error.strerror}") from error

    def _append(self, line: bytes, folder: int) -> None:
        """Write one line and make it durable; what fails half-way leaves nothing behind."""
        with self.file.open("a+b", buffering=0) as stream:
            size = stream.seek(0, os.SEEK_END)
            if size:
                stream.seek(-1, os.SEEK_END)
                if stream.read(1) != b"\n":
                    # A writer died in mid-line: end its line, so that ours starts on its own.
                    line = b"\n" + line
            try:
                written = 0
                while written < len(line):
                    written += stream.write(line[written:]) or 0
                os.fsync(stream.fileno())
                if not size:
                    os.fsync(folder)  # the file's name, too, has to survive a loss of power
            except OSError:
                stream.truncate(size)
                raise
