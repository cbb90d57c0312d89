"""Servers that die under a run, and come back."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path

import psycopg

from scripts.stack import readiness
from scripts.stack.context import Stack
from scripts.stack.supervise import Supervisor

FULL = 4096
"""Bytes that no file may grow beyond on a disk that is full."""


def process(word: str) -> Iterator[int]:
    """Processes whose command line has a word, by their ids."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if word in file.read_bytes().replace(b"\0", b" ").decode(errors="replace"):
                yield int(file.parent.name)


class Servers:
    """The servers of a proof: PostgreSQL and MinIO are the stack's, ClickHouse is the proof's own.

    Args:
        postgres: A URI of PostgreSQL.
        folder: ClickHouse's.
        start_clickhouse: Starts it again, on the same port.
    """

    def __init__(
        self, postgres: str, folder: Path, start_clickhouse: Callable[[], AbstractContextManager[int]]
    ) -> None:
        self.postgres, self.folder, self.start_clickhouse = postgres, folder, start_clickhouse
        self.stack = Stack()
        self.started = ExitStack()
        self.run = 0
        self.deaths: dict[str, Callable[[], None]] = {
            "PostgreSQL is killed": lambda: os.kill(self._postmaster(), signal.SIGKILL),
            "MinIO is killed": lambda: os.kill(self._minio(), signal.SIGKILL),
            "ClickHouse is killed": lambda: os.kill(self._clickhouse(), signal.SIGKILL),
            "ClickHouse's disk is full": lambda: self._limit(FULL),
            "Spark's process is killed": lambda: os.kill(self._spark(), signal.SIGKILL),
        }

    def bring_back(self) -> None:
        """Waits until all of them are there; those that nobody else starts again are started."""
        try:
            self._limit(resource.RLIM_INFINITY)
        except StopIteration:
            self.started.close()
            self.started.enter_context(self.start_clickhouse())
        deadline = time.monotonic() + 60
        for ready in (lambda: psycopg.connect(self.postgres).close(), self._minio_answers):
            while True:
                try:
                    ready()
                    break
                except (psycopg.OperationalError, OSError):
                    assert time.monotonic() < deadline
                    time.sleep(0.2)

    def _minio_answers(self) -> None:
        readiness.http(f"{self.stack.settings.minio_url}/minio/health/ready")

    def _postmaster(self) -> int:
        return int((self.stack.data / "postgres" / "postmaster.pid").read_text().split()[0])

    def _minio(self) -> int:
        return int(Supervisor(self.stack).states()["minio"]["pid"])

    def _clickhouse(self) -> int:
        return next(process(str(self.folder / "data")))

    def _limit(self, size: int) -> None:
        resource.prlimit(self._clickhouse(), resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    def _spark(self) -> int:
        return next(
            pid for pid in process("org.apache.spark.deploy.SparkSubmit") if os.getpgid(pid) == self.run
        )
