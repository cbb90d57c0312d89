"""Every listener of the platform, started as the stack starts it, while nothing behind it answers.

Whatever is sent, it refuses what it should, answers /health at once, and stays small. What each of them
depends on (PostgreSQL, Kafka, MinIO, ClickHouse, the issuer of tokens) takes connections here and never says
a word.
"""

import base64
import concurrent.futures
import gzip
import json
import os
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from scripts.stack.context import Stack
from scripts.stack.services import services
from tallyhouse.settings import ROOT
from tests.services.event_servers import eventually
from tests.services.pipeline_info.conftest import free_port

AT_ONCE = 3.0
"""Seconds within which /health answers, on a machine that others use as well."""
SMALL = 120 * 1024
"""Kilobytes by which a process may grow while it is attacked."""
LISTENERS = {
    "ingest": "INGEST_PORT",
    "ingest-relay": "INGEST_RELAY_PORT",
    "consumer": "CONSUMER_PORT",
    "pancake": "PANCAKE_PORT",
    "kaggle-data-api": "KAGGLE_DATA_PORT",
    "pipeline-info": "PIPELINE_INFO_PORT",
    "data-docs": "DATA_DOCS_PORT",
    "run-metrics": "RUN_METRICS_PORT",
}
WRITES = {
    "ingest": "/ingest",
    "pancake": "/api/pancakes",
    "kaggle-data-api": "/datasets",
    "pipeline-info": "/pipelines",
}
CLOSED = [f"{name} that asks for credentials" for name in WRITES]
DEPENDS = {
    "ingest": "/ready",
    "pancake": "/api/pancakes",
    "kaggle-data-api": "/datasets",
    "pipeline-info": "/pipelines",
    "data-docs": "/index.html",
    "run-metrics": "/metrics",
}
BEHIND = ("POSTGRES_PORT", "MINIO_PORT", "KAFKA_PORT", "CLICKHOUSE_HTTP_PORT")
EVERY = [*LISTENERS, *CLOSED]
# One for all: to make one costs a tenth of a second, which would be taken for the listener's.
CLIENT = httpx.Client(
    limits=httpx.Limits(max_connections=None, max_keepalive_connections=0), trust_env=False, timeout=10
)


@dataclass
class Listener:
    name: str
    port: int
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def writes(self) -> str:
        return WRITES.get(self.name.split(" ")[0], "/health")

    def well(self) -> None:
        """It answers, at once."""
        assert self.process.poll() is None, self.log.read_text()[-2000:]
        began = time.monotonic()
        assert CLIENT.get(f"{self.url}/health", timeout=30).status_code == 200
        assert time.monotonic() - began < AT_ONCE

    def kilobytes(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0])

    def raw(self, sent: bytes, seconds: float = 10) -> bytes:
        """What a connection answers to some bytes."""
        with socket.create_connection(("127.0.0.1", self.port), seconds) as connection:
            try:
                connection.sendall(sent)
                return connection.recv(65536)
            except ConnectionError:
                return b""


@pytest.fixture(scope="module")
def everyone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Listener]]:
    folder = tmp_path_factory.mktemp("listeners")
    holes = [socket.create_server(("127.0.0.1", 0), backlog=500) for _ in BEHIND]
    hole = f"http://127.0.0.1:{holes[0].getsockname()[1]}"
    ports = {key: str(hole.getsockname()[1]) for key, hole in zip(BEHIND, holes, strict=True)}
    chosen = (
        ports | {port: str(free_port()) for port in LISTENERS.values()} | {"TALLYHOUSE_LOCAL": str(folder)}
    )
    found: dict[str, Listener] = {}
    with pytest.MonkeyPatch.context() as patch:
        for key, value in chosen.items():
            patch.setenv(key, value)
        stack = Stack()
        every = {service.name: service for service in services(stack)}

        def start(name: str, command: str, port: int, **more: str) -> None:
            service, log = every[name.split(" ", maxsplit=1)[0]], folder / f"{name}.log"
            with log.open("ab") as sink:
                process = subprocess.Popen(
                    shlex.split(command),
                    cwd=ROOT,
                    env=os.environ | stack.environment | service.environment | more,
                    stdout=sink,
                    stderr=sink,
                    start_new_session=True,
                )
            found[name] = Listener(name, port, process, log)

        for name, key in LISTENERS.items():
            start(name, every[name].command, int(chosen[key]), CONSUMER_PATIENCE_SECONDS="3600")
        for closed in CLOSED:
            name, port = closed.split(" ")[0], free_port()
            prefix = name.replace("-", "_").upper()
            start(
                closed,
                every[name].command.replace(chosen[LISTENERS[name]], str(port)),
                port,
                **{f"{prefix}_AUTH": "on", f"{prefix}_JWT_ISSUER": hole, f"{prefix}_JWT_AUDIENCE": "x"},
            )
    try:
        for listener in found.values():
            _started(listener)
        yield found
    finally:
        for listener in found.values():
            if listener.process.poll() is None:
                os.killpg(listener.process.pid, signal.SIGKILL)
                listener.process.wait()
        for each in holes:
            each.close()


def _started(listener: Listener) -> None:
    def answers() -> bool:
        assert listener.process.poll() is None, listener.log.read_text()[-2000:]
        return CLIENT.get(f"{listener.url}/health", timeout=5).status_code == 200

    eventually(answers, 120)


@pytest.fixture(params=EVERY)
def listener(request: pytest.FixtureRequest, everyone: dict[str, Listener]) -> Iterator[Listener]:
    found = everyone[request.param]
    before = found.kilobytes()
    yield found
    found.well()
    assert found.kilobytes() - before < SMALL, "it keeps what it was sent"


@pytest.fixture(params=[*WRITES, *CLOSED])
def writer(request: pytest.FixtureRequest, everyone: dict[str, Listener]) -> Iterator[Listener]:
    found = everyone[request.param]
    yield found
    found.well()


JSON = {"Content-Type": "application/json"}
POST = b"POST /health HTTP/1.1\r\nHost: 127.0.0.1\r\n"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "0.0.0.0"])  # noqa: S104
def test_an_unknown_host_is_refused(listener: Listener, host: str):
    for path in ("/health", "/metrics", "/", "/nothing", listener.writes):
        answer = CLIENT.get(listener.url + path, headers={"Host": host})
        assert answer.status_code == 421, path
    assert b"421" in listener.raw(b"GET /health HTTP/1.0\r\n\r\n").split(b"\r\n")[0], "no Host at all"
    two = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n"
    assert listener.raw(two).split(b" ")[1] in (b"400", b"421")


def test_a_page_of_another_origin_changes_nothing(listener: Listener):
    if listener.name.startswith("pancake"):
        return  # its document has it open to any page
    answer = CLIENT.post(listener.url + listener.writes, json={}, headers={"Origin": "https://evil.example"})
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    "path",
    ["//evil.example/x", "//evil.example", "/%2Fevil.example/x", "/%5Cevil.example/x", "/\\evil.example/x"],
)
def test_nobody_is_sent_elsewhere(listener: Listener, path: str):
    answer = listener.raw(b"GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % path.encode())
    assert answer.split(b" ")[1] in (b"404", b"401", b"400"), answer[:200]
    assert b"location:" not in answer.lower()


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 20_000_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 20_000_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"X: a\r\n" * 2_000_000 + b"\r\n",
        b"\x00\xff" * 500_000,
        POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffffff\r\n",
        POST + b"Content-Length: -1\r\n\r\n",
    ],
    ids=["header", "address", "headers", "noise", "two lengths", "long chunk", "negative length"],
)
def test_a_head_that_cannot_be_meant_is_refused(listener: Listener, sent: bytes):
    answer = listener.raw(sent)
    assert not answer or answer.split(b" ")[1] in (b"400", b"405", b"411", b"413", b"431"), answer[:200]


def test_slow_heads_and_slow_bodies_hold_nobody_up(listener: Listener):
    head = (
        b"POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 9999\r\n"
    )
    connections = [socket.create_connection(("127.0.0.1", listener.port), 5) for _ in range(100)]
    try:
        for number, connection in enumerate(connections):
            sent = head % listener.writes.encode()
            connection.sendall(sent[:60] if number % 2 else sent + b"\r\n{")
        for _ in range(3):
            listener.well()
            for connection in connections[::2]:
                try:
                    connection.sendall(b" ")
                except ConnectionError:
                    continue  # it was refused already
    finally:
        for connection in connections:
            connection.close()


def test_big_bodies_of_anybody_are_not_kept(listener: Listener):
    most, number = 0, 15

    def send(_: int) -> int:
        nonlocal most
        try:
            body = (b"x" * 65536 for _ in range(15 * 16))
            status = CLIENT.post(
                listener.url + listener.writes, content=body, headers=JSON, timeout=60
            ).status_code
        except httpx.HTTPError:
            status = 0  # the connection was closed on it
        most = max(most, listener.kilobytes())
        return status

    before = listener.kilobytes()
    with concurrent.futures.ThreadPoolExecutor(number) as pool:
        sent = [pool.submit(send, each) for each in range(number)]
        while not all(each.done() for each in sent):
            most = max(most, listener.kilobytes())
            time.sleep(0.05)
    statuses = {each.result() for each in sent}
    assert statuses <= {0, 400, 401, 405, 413, 503}, statuses
    # What nobody was asked about is read within the bound of four bodies; all else not at all.
    assert most - before < (SMALL if listener.name not in WRITES else 2 * SMALL)


@pytest.mark.parametrize(
    ("body", "coding"),
    [
        (b"[" * 1_000_000, None),
        (b'{"a":' * 200_000 + b"1" + b"}" * 200_000, None),
        (json.dumps({f"unknown {number}": 1 for number in range(200_000)}).encode(), None),
        (b'{"payload": {"a": 1%s}}' % (b"0" * 1_000_000), None),
        (b'{"extra": {"n": 1e999998}, "payload": {"n": 1e999998}}', None),
        (gzip.compress(b" " * 200_000_000), "gzip"),
        (gzip.compress(b"{}")[:-4], "gzip"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
    ],
    ids=["deep list", "deep object", "unknown fields", "long number", "exponent", "bomb", "cut gzip", "zstd"],
)
def test_a_body_that_cannot_be_meant_is_refused_soon_and_shortly(
    writer: Listener, body: bytes, coding: str | None
):
    headers = JSON | ({"Content-Encoding": coding} if coding else {})
    began = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        sent = pool.submit(CLIENT.post, writer.url + writer.writes, content=body, headers=headers, timeout=60)
        writer.well()
        answer = sent.result()
    # An event's numbers may have any exponent, its text is kept; its database does not answer here.
    assert answer.status_code in ((401, 413, 415) if writer.name in CLOSED else (400, 413, 415, 422, 503))
    assert len(answer.content) < 10_000
    assert time.monotonic() - began < 15


@pytest.mark.parametrize("closed", CLOSED)
def test_junk_tokens_while_the_issuer_hangs(everyone: dict[str, Listener], closed: str):
    listener = everyone[closed]

    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    def ask(number: int) -> int:
        token = f"{part({'alg': 'RS256', 'kid': str(number)})}.{part({'sub': 'x'})}.eHh4"
        headers = {"Authorization": f"Bearer {token}"}
        return CLIENT.post(listener.url + listener.writes, json={}, headers=headers, timeout=60).status_code

    with concurrent.futures.ThreadPoolExecutor(60) as pool:
        asked = [pool.submit(ask, number) for number in range(60)]
        for _ in range(5):
            listener.well()
            key = {"X-API-Key": "th_00000000_x"}
            began = time.monotonic()
            assert CLIENT.get(listener.url + "/metrics", headers=key, timeout=30).status_code == 401
            assert time.monotonic() - began < AT_ONCE
            time.sleep(0.2)
        assert {each.result() for each in asked} == {503}


@pytest.mark.parametrize("name", DEPENDS)
def test_what_waits_for_a_store_holds_nobody_else_up(everyone: dict[str, Listener], name: str):
    listener = everyone[name]

    def ask(_: int) -> int:
        try:
            return CLIENT.get(listener.url + DEPENDS[name], timeout=2).status_code
        except httpx.TimeoutException:
            return 0

    with concurrent.futures.ThreadPoolExecutor(60) as pool:
        asked = [pool.submit(ask, number) for number in range(60)]
        for _ in range(5):
            listener.well()
            time.sleep(0.2)
        assert {each.result() for each in asked} <= {0, 200, 502, 503}


@pytest.mark.parametrize("name", WRITES)
def test_allow_names_what_a_path_takes(everyone: dict[str, Listener], name: str):
    answer = CLIENT.delete(everyone[name].url + WRITES[name])
    assert answer.status_code == 405
    assert answer.headers["allow"] == ("POST" if name == "ingest" else "GET, POST")
