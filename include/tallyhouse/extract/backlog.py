"""What a source has sent and the lake has not taken yet: in memory up to a bound, the rest in a file.

ConnectorX puts what it reads into a queue without a bound, so a lake that is slower than the source would
bring the whole table into memory. Here its rows are taken as they come, and those that have to wait for
long wait on the disk, in a file without a name, which goes with the process at the latest.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from tallyhouse.errors import TallyhouseError, first_line

MEMORY = 16 << 20


@dataclass(frozen=True)
class _Filed:
    """A batch in the file.

    Attributes:
        start: Where it begins.
        size: Its bytes.
        schema: Its columns, which are not in the file.
    """

    start: int
    size: int
    schema: pa.Schema


class Backlog:
    """Batches in the order in which they come, taken from their source by a thread. To be read once.

    Args:
        batches: Where they come from.
        memory: Bytes of batches that are held in memory; a longer one is held alone.
    """

    def __init__(self, batches: Iterator[pa.RecordBatch], memory: int = MEMORY) -> None:
        self._batches, self._memory = batches, memory
        self._waiting: deque[pa.RecordBatch | _Filed] = deque()
        self._held = self._end = 0
        self._ended = self._given_up = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - two threads use it, the last one closes it

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """The batches.

        Raises:
            BaseException: What the source raised, once the batches before it were taken.
            TallyhouseError: The disk is full.
        """
        taker = threading.Thread(target=self._take, name="backlog", daemon=True)
        taker.start()
        try:
            while (batch := self._next()) is not None:
                yield batch
            if self._error is not None:
                raise self._error
        finally:
            with self._changed:
                self._given_up = True
                if self._ended:
                    self._file.close()

    def _take(self) -> None:
        try:
            for batch in self._batches:
                if self._given_up:
                    break
                self._put(batch)
        except BaseException as error:  # raised where the batches are read
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify()
                # Nobody else may: its number would be another file's while this thread still writes.
                if self._given_up:
                    self._file.close()

    def _put(self, batch: pa.RecordBatch) -> None:
        with self._changed:
            if not self._waiting or self._held + batch.nbytes <= self._memory:
                self._waiting.append(batch)
                self._held += batch.nbytes
                self._changed.notify()
                return
            start = self._end
        content = memoryview(batch.serialize())
        done = 0
        try:
            while done < len(content):
                done += os.pwrite(self._file.fileno(), content[done:], start + done)
        except OSError as error:
            raise TallyhouseError(
                f"no room for rows that wait for the lake in {tempfile.gettempdir()} ({first_line(error)})",
                remedy="Free room there, or set TMPDIR to a larger disk; then clear the task",
                transient=True,
            ) from error
        with self._changed:
            self._end = start + len(content)
            self._waiting.append(_Filed(start, len(content), batch.schema))
            self._changed.notify()

    def _next(self) -> pa.RecordBatch | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ended)
            if not self._waiting:
                return None
            if not any(isinstance(one, _Filed) for one in self._waiting):
                self._end = 0  # what is in the file was taken
            one = self._waiting.popleft()
            if isinstance(one, pa.RecordBatch):
                self._held -= one.nbytes
                return one
        content = os.pread(self._file.fileno(), one.size, one.start)
        return pa.ipc.read_record_batch(pa.py_buffer(content), one.schema)
