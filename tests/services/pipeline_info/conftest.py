"""What the service's tests share: a private PostgreSQL, an empty store of each backend, clients."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from services.pipeline_info.app import create_app
from services.pipeline_info.backends.duckdb import DuckdbPipelineRepository
from services.pipeline_info.backends.jsonl import JsonlPipelineRepository
from services.pipeline_info.backends.oracle import OraclePipelineRepository
from services.pipeline_info.backends.postgres import PostgresPipelineRepository
from services.pipeline_info.repository import PipelineInfoRepository
from services.pipeline_info.settings import Settings
from tests.services.pipeline_info.oracle_stand_in import StandIn


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def chromium() -> str:
    found = (
        os.environ.get("CHROMIUM")
        or os.environ.get("TALLYHOUSE_CHROMIUM")
        or shutil.which("chromium")
        or shutil.which("google-chrome")
    )
    if not found:
        pytest.fail("no browser: install chromium, or name one in CHROMIUM")
    return found


def _binaries() -> Path:
    """PostgreSQL's programs: those of the stack's set-up, else the system's."""
    cache = os.environ.get("TALLYHOUSE_CACHE") or Path(
        os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "tallyhouse"
    )
    places = [*Path(cache).glob("postgres-*/bin"), *sorted(Path("/usr/lib/postgresql").glob("*/bin"))[::-1]]
    for place in places:
        if (place / "initdb").exists() and (place / "postgres").exists():
            return place
    pytest.fail("no PostgreSQL programs found: run `make setup`, or install PostgreSQL 15 or later")


class Postgres:
    """A PostgreSQL server of the tests' own, that can be killed and started again."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.options = options or ("shared_buffers=64MB",)
        self.bin, self.folder, self.port = _binaries(), folder, free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.prefix: list[str] = []
        if os.geteuid() == 0:  # PostgreSQL refuses to be root
            shutil.chown(folder, "nobody")
            # It keeps one privilege: to pass through folders that are not open to it.
            self.prefix = [
                *("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"),
                *(
                    "--inh-caps=+dac_override",
                    "--ambient-caps=+dac_override",
                    "--securebits=+no_setuid_fixup",
                ),
            ]
        self.data = folder / "data"
        if not self.data.exists():
            self._run("initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")

    @classmethod
    @contextmanager
    def running(cls, whose: str) -> Iterator["Postgres"]:
        """A server in a folder of its own, for as long as the block runs."""
        with tempfile.TemporaryDirectory(prefix=f"{whose}-pg-") as folder:
            Path(folder).chmod(0o755)
            server = cls(Path(folder))
            server.start()
            try:
                yield server
            finally:
                server.stop()

    def _run(self, program: str, *arguments: object) -> None:
        command = [*self.prefix, str(self.bin / program), *map(str, arguments)]
        subprocess.run(command, check=True, capture_output=True, cwd=self.folder)

    def start(self) -> None:
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        options = ["-p", str(self.port), "-h", "127.0.0.1", "-k", ""]
        options += [part for option in self.options for part in ("-c", option)]
        command = [*self.prefix, str(self.bin / "postgres"), "-D", str(self.data), *options]
        log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)
        for _ in range(300):
            try:
                psycopg.connect(self.dsn("postgres"), connect_timeout=2).close()
                return
            except psycopg.OperationalError:
                time.sleep(0.1)
        pytest.fail(f"PostgreSQL did not start: {(self.folder / 'log').read_text()[-2000:]}")

    def kill(self) -> None:
        """What `kill -9` does to the server."""
        assert self.process is not None
        children = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, check=False
        )
        self.process.kill()
        for child in children.stdout.split():
            subprocess.run(["kill", "-9", child.decode()], check=False, capture_output=True)
        self.process.wait(10)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()

    def dsn(self, database: str) -> str:
        return f"host=127.0.0.1 port={self.port} user=postgres dbname={database}"

    def new_database(self) -> str:
        """The connection string of an empty database."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        with psycopg.connect(self.dsn("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.dsn(name)


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the store of the stack, or that of another test."""
    for name in [name for name in os.environ if name.startswith("PIPELINE_INFO_")]:
        if name != "PIPELINE_INFO_SCREENSHOTS":
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIPELINE_INFO_FILE", str(tmp_path / "apart" / "runs.jsonl"))


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with Postgres.running("pipeline-info") as server:
        yield server


def client_of(app: FastAPI, **options: Any) -> TestClient:
    """A client as one on this machine: what `auth=auto` asks no credentials of."""
    options = {"base_url": "http://127.0.0.1:8002", "raise_server_exceptions": False} | options
    return TestClient(app, **options)


BACKENDS = ("jsonl", "postgres", "duckdb", pytest.param("oracle", marks=pytest.mark.oracle))
Opener = Callable[[], PipelineInfoRepository]


@pytest.fixture(params=BACKENDS)
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opener]:
    """Opens the same empty store of each backend in turn, as often as it is called."""
    opened: list[PipelineInfoRepository] = []
    dsn = request.getfixturevalue("postgres").new_database() if request.param == "postgres" else ""

    oracle = StandIn(tmp_path / "oracle.db") if request.param == "oracle" else None

    def make() -> PipelineInfoRepository:
        store: PipelineInfoRepository
        if request.param == "jsonl":
            store = JsonlPipelineRepository(tmp_path / "store" / "runs.jsonl")
        elif request.param == "duckdb":
            store = DuckdbPipelineRepository(tmp_path / "store" / "runs.duckdb")
        elif request.param == "oracle":
            store = OraclePipelineRepository(dsn="h:1521/s", user="u", password="p", driver=oracle)
        else:
            store = PostgresPipelineRepository(dsn, pool_size=4)
        opened.append(store)
        return store

    yield make
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: Opener) -> PipelineInfoRepository:
    return open_store()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "data" / "runs.jsonl"


@pytest.fixture
def repository(file: Path) -> Iterator[JsonlPipelineRepository]:
    store = JsonlPipelineRepository(file)
    yield store
    store.close()


@pytest.fixture
def client(repository: JsonlPipelineRepository) -> TestClient:
    return client_of(create_app(Settings(summary_seconds=0, file=repository.file), repository))
