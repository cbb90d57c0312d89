"""A server, started as the stack starts it, between a lake that it may reach and a place that it may not."""

import http.server
import os
import shlex
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from scripts.stack.context import Stack
from scripts.stack.services import services
from tallyhouse.settings import ROOT, load_settings

PASSWORD = "a b'c"
LOGIN = ("default", PASSWORD)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


class Recorder:
    """An HTTP server that answers 403 and remembers who asked for what."""

    def __init__(self) -> None:
        asked: list[str] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self) -> None:
                asked.append(f"{self.command} {self.path}")
                self.send_response(403)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_GET = do_HEAD = do_PUT = do_POST = answer

            def log_message(self, *arguments: Any) -> None:
                pass

        self.asked = asked
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Server:
    """A running server, and how to talk to it without a client library."""

    def __init__(self, process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
        self.process, self.port, self.log = process, port, log
        self.url = f"http://127.0.0.1:{port}/"

    def ask(self, query: str | bytes, **more: Any) -> requests.Response:
        data = query.encode() if isinstance(query, str) else query
        return requests.request("POST", self.url, data=data, timeout=60, **({"auth": LOGIN} | more))

    def get(self, query: str, **more: Any) -> requests.Response:
        params = {"query": query} | more.pop("params", {})
        return requests.request("GET", self.url, params=params, timeout=60, **({"auth": LOGIN} | more))

    def ping(self) -> float:
        """Seconds until the server says that it lives."""
        started = time.monotonic()
        assert requests.get(f"{self.url}ping", timeout=10).text == "Ok.\n"
        return time.monotonic() - started

    def wait(self) -> None:
        deadline = time.monotonic() + 90
        while True:
            assert self.process.poll() is None, self.log.read_text()
            try:
                self.ping()
                return
            except requests.ConnectionError:
                assert time.monotonic() < deadline, self.log.read_text()
                time.sleep(0.1)

    def resident(self) -> int:
        """MiB that the process has had at most since the last `forget`."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(text.partition("VmHWM:")[2].split()[0]) // 1024

    def forget(self) -> None:
        """Begin to measure anew."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def running(self) -> list[str]:
        """The queries that the engine runs beside the one that asks."""
        text = self.ask("SELECT query FROM system.processes FORMAT TSVRaw").text
        return [line for line in text.splitlines() if "system.processes" not in line]

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(30)


def start(command: list[str], port: int, folder: Path, **environment: str) -> Server:
    log = folder / f"server-{port}.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | environment, stdout=sink, stderr=subprocess.STDOUT
        )
    server = Server(process, port, log)
    try:
        server.wait()
    except BaseException:
        process.kill()
        raise
    return server


@pytest.fixture(scope="session")
def lake() -> Iterator[Recorder]:
    """The S3 server that s3() may name."""
    recorder = Recorder()
    yield recorder
    recorder.stop()


@pytest.fixture(scope="session")
def elsewhere() -> Iterator[Recorder]:
    """Any other server of the machine."""
    recorder = Recorder()
    yield recorder
    recorder.stop()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, lake: Recorder) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("embedded")
    port = free_port()
    changes = {
        "clickhouse_host": "127.0.0.1",
        "clickhouse_http_port": port,
        "clickhouse_user": "default",
        "clickhouse_password": PASSWORD,
        "minio_host": "127.0.0.1",
        "minio_port": lake.port,
        "tallyhouse_local": folder,
    }
    stack = Stack(load_settings().model_copy(update=changes))
    service = next(service for service in services(stack) if service.name == "clickhouse")
    environment = stack.environment | service.environment | {"SOMEBODYS_SECRET": "of-another-service"}
    server = start(shlex.split(service.command), port, folder, **environment)
    yield server
    server.end()


@pytest.fixture
def table(server: Server) -> str:
    """A table with one row."""
    for statement in (
        "DROP TABLE IF EXISTS kept SYNC",
        "CREATE TABLE kept (id UInt64, text String) ENGINE = MergeTree ORDER BY id",
        "INSERT INTO kept VALUES (1, 'here')",
    ):
        answer = server.ask(statement)
        assert answer.ok, answer.text
    return "kept"
