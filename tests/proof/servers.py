"""Servers that die under a run, and come back."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from pathlib import Path

import psycopg

from scripts.stack import readiness
from scripts.stack.context import Stack
from scripts.stack.dag_runs import StackAirflow
from scripts.stack.supervise import Supervisor
from scripts.tools import go_tool

VERSITYGW = "v1.8.0"
FULL = 0
"""Bytes that no file may grow beyond on a disk that is full: none."""


def process(word: str) -> Iterator[int]:
    """Processes whose command line has a word, by their ids."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if word in file.read_bytes().replace(b"\0", b" ").decode(errors="replace"):
                yield int(file.parent.name)


@contextmanager
def versitygw(folder: Path, account: str, password: str) -> Iterator[int]:
    """A second S3 server over a folder, on a port of its own, while the block runs.

    Yields:
        The port.
    """
    program = go_tool(
        f"versitygw-{VERSITYGW}", "install", f"github.com/versity/versitygw/cmd/versitygw@{VERSITYGW}"
    )
    objects = folder / "versitygw"
    objects.mkdir()
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    server = subprocess.Popen(
        [program, "--port", f"127.0.0.1:{port}", "posix", str(objects)],
        env=os.environ | {"ROOT_ACCESS_KEY": account, "ROOT_SECRET_KEY": password},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 30
        while True:
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", port)).close()
                break
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield port
    finally:
        server.kill()
        server.wait()


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A file system of its own under a folder, while the block runs; only root can mount one."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512m", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


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
            "PostgreSQL's disk is full": lambda: _limit(self._postmaster(), FULL),
            "MinIO's disk is full": lambda: _limit(self._minio(), FULL),
            "ClickHouse's disk is full": self._fill,
            "Spark's process is killed": lambda: os.kill(self._spark(), signal.SIGKILL),
        }

    def bring_back(self) -> None:
        """Waits until all of them are there; those that nobody else starts again are started."""
        # A server that was killed has another process by now, without the limit, or none yet.
        for of in (self._postmaster, self._minio):
            with suppress(OSError, ValueError, IndexError, subprocess.CalledProcessError):
                _limit(of(), resource.RLIM_INFINITY)
        self._filler.unlink(missing_ok=True)
        try:
            self._clickhouse()
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

    @property
    def _filler(self) -> Path:
        return self.folder / "data" / "filler"

    def _fill(self) -> None:
        """ClickHouse's own small file system: an engine that is told EFBIG keeps empty parts."""
        free = os.statvfs(self.folder / "data")
        with self._filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize)

    def airflow_run(self, dag_id: str, *, killed_in: str | None, killed: str = "") -> str:
        """Carries out a run of the stack's Airflow.

        Args:
            dag_id: The DAG.
            killed_in: The task at whose work a process is killed; None to leave all alone.
            killed: The process, as the stack calls it.

        Returns:
            The state in which the run ended.
        """
        airflow = StackAirflow(self.stack)
        run = f"dags/{dag_id}/dagRuns/{airflow.trigger(dag_id)}"
        airflow.unpause(dag_id)
        deadline = time.monotonic() + 1_200
        while True:
            assert time.monotonic() < deadline, "the run does not end"
            tasks = airflow.ask("GET", f"{run}/taskInstances")["task_instances"]
            if any(one["task_id"] == killed_in and one["state"] == "running" for one in tasks):
                killed_in = None
                os.kill(int(Supervisor(self.stack).states()[killed]["pid"]), signal.SIGKILL)
            state = str(airflow.ask("GET", run)["state"])
            if state in ("success", "failed"):
                assert killed_in is None, f"{killed_in} was not seen at work"
                return state
            time.sleep(0.2)

    def _minio_answers(self) -> None:
        readiness.http(f"{self.stack.settings.minio_url}/minio/health/ready")

    def _postmaster(self) -> int:
        return int((self.stack.data / "postgres" / "postmaster.pid").read_text().split()[0])

    def _minio(self) -> int:
        return int(Supervisor(self.stack).states()["minio"]["pid"])

    def _clickhouse(self) -> int:
        return next(process(str(self.folder / "data")))

    def _spark(self) -> int:
        return next(
            pid for pid in process("org.apache.spark.deploy.SparkSubmit") if os.getpgid(pid) == self.run
        )


def _limit(pid: int, size: int) -> None:
    """Lets no file of a process, or of those that it starts from now on, grow beyond so many bytes."""
    of = Path(f"/proc/{pid}").stat()
    soft = "unlimited" if size == resource.RLIM_INFINITY else str(size)
    # As its own account: another one's would ask for a right that not every root has.
    subprocess.run(
        ["prlimit", "--pid", str(pid), f"--fsize={soft}:unlimited"],
        user=of.st_uid,
        group=of.st_gid,
        extra_groups=[],
        check=True,
    )
