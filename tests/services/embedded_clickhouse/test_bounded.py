"""No request holds the server, its memory or a session for long; `/ping` is always answered."""

import gc
import gzip
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
import requests

from services.embedded_clickhouse.errors import ClickHouseError
from services.embedded_clickhouse.statement import Checker, Incomplete, insert_head, tokens
from tests.services.embedded_clickhouse.conftest import LOGIN, PASSWORD, Server, free_port, start

CODE = "X-ClickHouse-Exception-Code"
ENDLESS = "SELECT sum(cityHash64(number)) FROM numbers(100000000000)"
WIDE = "SELECT number, repeat('x', 1000) FROM numbers(9000000)"
PATIENCE = 30


def eventually(server: Server, wanted: list[str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while (found := server.running()) != wanted:
        assert time.monotonic() < deadline, found
        time.sleep(0.2)


def send(server: Server, query: str, **params: str) -> socket.socket:
    """A request whose answer nobody reads."""
    connection = socket.create_connection(("127.0.0.1", server.port))
    target = "/?" + "&".join(f"{key}={value}" for key, value in params.items())
    head = (
        f"POST {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-ClickHouse-User: default\r\n"
        f"X-ClickHouse-Key: {PASSWORD}\r\nContent-Length: {len(query)}\r\n\r\n"
    )
    connection.sendall((head + query).encode())
    return connection


@pytest.mark.parametrize("number", [26, 5_000])
@pytest.mark.parametrize(
    "shape", ["/**/{}x", "-- \n{}x", "( {}x", "INSERT INTO /**/{}x", "''{}x", "/*{}", "INSERT INTO t /*{}"]
)
def test_a_statement_of_many_comments_costs_nothing(server: Server, shape: str, number: int) -> None:
    piece, _, rest = shape.partition("{}")
    started = time.monotonic()
    answer = server.ask(piece * number + rest)
    assert not answer.ok
    assert time.monotonic() - started < 5
    if number == 26:
        assert not server.get(piece * number + rest).ok
    assert server.ping() < 2


@pytest.mark.parametrize(
    "piece",
    [
        "/**/",
        "/*",
        "--\n",
        "'a'",
        "''",
        '"a"',
        "`",
        "\\",
        "(",
        "x ",
        "INSERT INTO t FORMAT ",
        "FORMAT CSV ",
        "s3(",
    ],
)
@pytest.mark.parametrize("begin", ["", "INSERT INTO t "])
def test_reading_a_statement_is_linear(begin: str, piece: str) -> None:
    checker = Checker({"s3", "file"}, {"File"}, {"file", "sum"})

    def once(text: str) -> float:
        started = time.process_time()
        for read in (
            lambda: list(tokens(text)),
            lambda: insert_head(text, whole=False),
            lambda: checker.check(text),
        ):
            with suppress(ClickHouseError, Incomplete):
                read()
        return time.process_time() - started

    def cost(size: int) -> float:
        # The least of three, without Python's collector: its passes over all that the tests hold are not
        # the reader's cost.
        text = begin + piece * (size // len(piece))
        gc.disable()
        try:
            return min(once(text) for _ in range(3))
        finally:
            gc.enable()

    cost(10_000)
    # Eight times the text; with squares it would be 64 times the time.
    assert cost(400_000) < max(0.5, 24 * cost(50_000))


def test_a_session_answers_one_at_a_time_and_recovers(server: Server) -> None:
    slow = send(server, WIDE, session_id="slow")
    try:
        eventually(server, [WIDE])
        with ThreadPoolExecutor(45) as pool:
            answers = list(
                pool.map(lambda _: server.ask("SELECT 1", params={"session_id": "slow"}), range(45))
            )
        assert {answer.headers.get(CODE) for answer in answers} == {"373"}
        assert server.ask("SELECT 1").text == "1\n"
        assert server.ping() < 2
    finally:
        slow.close()
    eventually(server, [])
    assert server.ask("SELECT 1", params={"session_id": "slow"}).text == "1\n"


def test_a_session_keeps_its_tables_and_can_be_asked_for(server: Server) -> None:
    session = {"session_id": "kept"}
    assert server.ask("SELECT 1", params=session | {"session_check": "1"}).headers[CODE] == "372"
    assert server.ask("CREATE TEMPORARY TABLE mine (a UInt8)", params=session).ok
    assert server.ask("INSERT INTO mine VALUES (7)", params=session).ok
    assert server.ask("SELECT a FROM mine", params=session | {"session_check": "1"}).text == "7\n"
    assert server.ask("SELECT a FROM mine").headers[CODE] == "60"


@pytest.mark.parametrize(
    "query", [ENDLESS, WIDE, f"{ENDLESS} FORMAT JSON", f"INSERT INTO FUNCTION null('a UInt64') {ENDLESS}"]
)
def test_a_query_ends_with_its_client(server: Server, query: str) -> None:
    connection = send(server, query)
    # As the engine has it: without its FORMAT, perhaps.
    deadline = time.monotonic() + PATIENCE
    while not server.running():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    connection.close()
    eventually(server, [])


def test_a_query_ends_whose_client_leaves_while_its_first_rows_come(server: Server) -> None:
    """Some are killed before their first rows, some when these are there and nobody takes them."""
    names = [f"left-{number}" for number in range(25)]
    connections = [
        send(
            server,
            f"SELECT number, sleep({0.24 + number / 500:.3f}) FROM numbers(100) SETTINGS max_block_size = 1",
            session_id=name,
        )
        for number, name in enumerate(names)
    ]
    time.sleep(0.1)
    for connection in connections:
        connection.close()
    eventually(server, [])
    for name in names:
        assert server.ask("SELECT 1", params={"session_id": name}).text == "1\n"


def test_an_insert_ends_with_its_client(server: Server) -> None:
    server.ask("CREATE TABLE IF NOT EXISTS half (a String) ENGINE = MergeTree ORDER BY a")
    connection = socket.create_connection(("127.0.0.1", server.port))
    connection.sendall(
        "POST /?query=INSERT+INTO+half+FORMAT+CSV HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        "X-ClickHouse-User: default\r\n"
        f"X-ClickHouse-Key: {PASSWORD}\r\nContent-Length: 1000\r\n\r\nx\ny\n".encode()
    )
    deadline = time.monotonic() + PATIENCE
    while not server.running():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    connection.close()
    eventually(server, [])
    assert server.ask("SELECT count() FROM half").text == "0\n"


def test_ping_waits_for_no_query_and_too_many_are_refused(server: Server) -> None:
    connections = [send(server, ENDLESS) for _ in range(40)]
    try:
        deadline = time.monotonic() + PATIENCE
        while (refused := server.ask("SELECT 1")).ok:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert refused.headers[CODE] == "202"
        assert max(server.ping() for _ in range(10)) < 3
    finally:
        for connection in connections:
            connection.close()
    deadline = time.monotonic() + PATIENCE
    while not (answer := server.ask("SELECT 1")).ok:
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.2)
    eventually(server, [])


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("SELECT arrayMap(x -> range(1000000), range(1000))", "241"),
        ("SELECT groupArray(number) FROM numbers(2000000000)", "241"),
        ("SELECT number FROM numbers(100000000) FORMAT JSON", "396"),
        ("SELECT repeat('x', 1000000) FROM numbers(6000) FORMAT JSON", "241"),
        (f"{ENDLESS} SETTINGS max_execution_time = 1", "159"),
    ],
)
def test_memory_time_and_results_are_bounded(server: Server, query: str, code: str) -> None:
    server.forget()
    answer = server.ask(query)
    assert answer.headers.get(CODE) == code, answer.text[:300]
    assert server.resident() < 3_500
    assert server.ping() < 3


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd", "lz4"])
def test_a_small_body_that_unpacks_into_much_is_refused(server: Server, encoding: str) -> None:
    import zlib  # noqa: PLC0415

    import lz4.frame  # type: ignore[import-untyped]  # noqa: PLC0415
    from backports import zstd  # noqa: PLC0415

    pack = {"gzip": gzip.compress, "deflate": zlib.compress, "zstd": zstd.compress, "lz4": lz4.frame.compress}
    body = pack[encoding](b"SELECT 1 " + b" " * 200_000_000)
    assert server.ask("SELECT 1").ok
    server.forget()
    before = server.resident()
    started = time.monotonic()
    answer = requests.post(
        server.url, data=body, auth=LOGIN, headers={"Content-Encoding": encoding}, timeout=60
    )
    assert (answer.status_code, answer.headers[CODE]) == (413, "307"), answer.text
    assert time.monotonic() - started < 10
    assert server.resident() - before < 150


@pytest.mark.parametrize("body", [b"\x1f\x8b" + b"x" * 100, b"x" * 100, gzip.compress(b"SELECT 1")[:-9]])
def test_a_damaged_body_is_an_error(server: Server, body: bytes) -> None:
    answer = requests.post(
        server.url, data=body, auth=LOGIN, headers={"Content-Encoding": "gzip"}, timeout=60
    )
    assert CODE in answer.headers


def test_a_long_statement_is_refused_without_being_kept(server: Server) -> None:
    server.forget()
    before = server.resident()
    answer = server.ask(b"SELECT 1 --" + b"x" * 150_000_000)
    assert answer.headers[CODE] == "307"
    assert server.resident() - before < 150


def test_bodies_are_not_read_before_the_login(server: Server) -> None:
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    connection.sendall(b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000000\r\n\r\n")
    assert b" 403 " in connection.recv(1000)
    connection.close()


IMPATIENT = """
import sys
from services.embedded_clickhouse.__main__ import parse
from services.embedded_clickhouse.limits import Limits
from services.embedded_clickhouse.serve import serve
serve(parse(sys.argv[2:]), sys.argv[1], Limits(body_seconds=1, send_seconds=1, sessions=2, insert_bytes=1000))
"""


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with small limits."""
    folder, port = tmp_path_factory.mktemp("impatient"), free_port()
    command = [sys.executable, "-c", IMPATIENT, PASSWORD, "--path", str(folder / "data"), "--port", str(port)]
    server = start(command, port, folder, PYTHONPATH=".")
    yield server
    server.end()


def test_a_body_that_does_not_come_is_given_up(impatient: Server) -> None:
    for path in ("/", "/?query=INSERT+INTO+FUNCTION+null('a+String')+FORMAT+CSV"):
        connection = socket.create_connection(("127.0.0.1", impatient.port), timeout=20)
        connection.sendall(
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-ClickHouse-User: default\r\n"
            f"X-ClickHouse-Key: {PASSWORD}\r\nContent-Length: 1000\r\n\r\nSELECT".encode()
        )
        assert b" 408 " in connection.recv(2000)
        connection.close()
    eventually(impatient, [])


def test_a_client_that_takes_nothing_is_given_up(impatient: Server) -> None:
    connection = send(impatient, WIDE, session_id="stuck")
    eventually(impatient, [WIDE])
    eventually(impatient, [])
    assert impatient.ask("SELECT 1", params={"session_id": "stuck"}).text == "1\n"
    connection.close()


def test_the_idlest_session_makes_room(impatient: Server) -> None:
    for name in ("a", "b", "c"):
        assert impatient.ask("SELECT 1", params={"session_id": name}).text == "1\n"
    check = {"session_check": "1"}
    assert impatient.ask("SELECT 1", params=check | {"session_id": "a"}).headers[CODE] == "372"
    assert impatient.ask("SELECT 1", params=check | {"session_id": "c"}).text == "1\n"


def test_the_rows_of_an_insert_are_bounded(impatient: Server) -> None:
    insert = "INSERT INTO FUNCTION null('a String') FORMAT CSV\n"
    assert impatient.ask(insert + "x\n" * 100).ok
    assert impatient.ask(insert + "x\n" * 1000).headers[CODE] == "307"


def test_many_small_pieces_of_a_head_cost_no_more(server: Server) -> None:
    server.ask("CREATE TABLE IF NOT EXISTS pieces (a String) ENGINE = Memory")
    text = "INSERT INTO pieces" + " " * 3000 + "(a) FORMAT JSONEachRow\n" + json.dumps({"a": "x"}) + "\n"
    sent = requests.post(server.url, data=(letter.encode() for letter in text), auth=LOGIN, timeout=60)
    assert sent.ok, sent.text
    assert server.ask("SELECT a FROM pieces").text == "x\n"


def test_threads_and_files_do_not_grow_with_requests(server: Server) -> None:
    process = Path(f"/proc/{server.process.pid}")

    def threads() -> int:
        return len(list((process / "task").iterdir()))

    def open_files() -> int:
        """But for three that the engine keeps for each of its threads, whose pool fills up over time."""
        of_threads = ("schedstat", "stat", "io")
        found = [os.path.realpath(one) for one in (process / "fd").iterdir()]
        return sum(not one.endswith(of_threads) for one in found)

    def burst() -> None:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: server.ask("SELECT count() FROM numbers(1000)"), range(100)))

    burst()
    before = open_files(), threads()
    burst()
    assert open_files() <= before[0] + 20
    assert threads() <= before[1] + 20
