"""The embedded ClickHouse speaks ClickHouse's HTTP protocol, to its own client and to bare HTTP."""

import gzip
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import clickhouse_connect
import pyarrow as pa
import pytest
import requests
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

from tallyhouse.settings import ROOT

PASSWORD = "a b'c"


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A server of its own, on a folder of its own, with a password."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    folder = tmp_path_factory.mktemp("chdb")
    server = subprocess.Popen(
        [sys.executable, "-m", "services.embedded_clickhouse", "--path", str(folder), "--port", str(port)],
        cwd=ROOT,
        env=os.environ | {"CLICKHOUSE_PASSWORD": PASSWORD},
    )
    try:
        wait_for(port, server)
        yield port
    finally:
        server.terminate()
        server.wait(30)


def wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            assert requests.get(f"http://127.0.0.1:{port}/ping", timeout=2).text == "Ok.\n"
            return
        except requests.ConnectionError:
            assert server.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.1)


def connect(port: int, **more: object) -> Client:
    return clickhouse_connect.get_client(
        host="127.0.0.1", port=port, username="default", password=PASSWORD, **more
    )


@pytest.fixture
def client(port: int) -> Iterator[Client]:
    with connect(port) as client:
        client.command("DROP TABLE IF EXISTS t SYNC")
        client.command(
            "CREATE TABLE t (id UInt64, name Nullable(String), amount Decimal(12, 2), "
            "at DateTime64(6, 'UTC')) ENGINE = MergeTree ORDER BY id"
        )
        yield client


def ask(port: int, query: str, **more: object) -> requests.Response:
    url = f"http://127.0.0.1:{port}/"
    return requests.post(url, data=query.encode(), auth=("default", PASSWORD), timeout=30, **more)


def test_what_is_inserted_is_read_back(client: Client) -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    rows = [(2**64 - 1, "Ірина 🥞", Decimal("9999999999.99"), at), (1, None, Decimal("-0.01"), at)]
    client.insert("t", rows, column_names=["id", "name", "amount", "at"])
    found = client.query("SELECT * FROM t ORDER BY id DESC", tz_mode="aware").result_rows
    assert [(i, n, a, t.replace(tzinfo=UTC)) for i, n, a, t in found] == rows


@pytest.mark.parametrize("compress", [False, "lz4", "zstd", "gzip"])
def test_bodies_may_be_compressed(port: int, client: Client, compress: str | bool) -> None:
    with connect(port, compress=compress) as other:
        other.insert_arrow(
            "t", pa.table({"id": range(100_000), "amount": pa.nulls(100_000, pa.int64()).fill_null(3)})
        )
        assert other.query("SELECT count(), sum(id), sum(amount) FROM t").result_rows == [
            (100_000, 4_999_950_000, Decimal("300000"))
        ]


def test_results_of_many_blocks_arrive_whole(client: Client) -> None:
    with client.query_row_block_stream("SELECT number FROM numbers(300000)") as stream:
        assert sum(row[0] for block in stream for row in block) == 300_000 * 299_999 // 2


def test_parameters_are_bound_not_pasted(client: Client) -> None:
    nasty = "x'); DROP TABLE t; --"
    client.insert("t", [(1, nasty, 0)], column_names=["id", "name", "amount"])
    query = "SELECT id FROM t WHERE name = {name:String}"
    assert client.query(query, parameters={"name": nasty}).result_rows == [(1,)]
    assert client.query(query, parameters={"name": "x"}).result_rows == []


def test_wrong_sql_is_answered_with_clickhouses_own_words(client: Client, port: int) -> None:
    with pytest.raises(DatabaseError, match="SYNTAX_ERROR"):
        client.query("SELEC 1")
    missing = ask(port, "SELECT * FROM nowhere")
    assert missing.status_code == 404
    assert missing.headers["X-ClickHouse-Exception-Code"] == "60"
    assert "UNKNOWN_TABLE" in missing.text
    assert client.query("SELECT 1").result_rows == [(1,)]  # and the server lives on


def test_a_row_that_does_not_fit_inserts_nothing(client: Client, port: int) -> None:
    bad = ask(port, "INSERT INTO t (id, amount) FORMAT CSV\n1,1.00\nnot a number,2.00\n")
    assert bad.status_code >= 400
    assert "Code:" in bad.text
    assert client.query("SELECT count() FROM t").result_rows == [(0,)]


def test_bare_http_gets_the_format_it_asks_for(port: int, client: Client) -> None:
    assert ask(port, "SELECT 1 AS one, 'a' AS letter FORMAT JSONEachRow").text == '{"one":1,"letter":"a"}\n'
    assert ask(port, "SELECT 1, 2").text == "1\t2\n"
    got = requests.get(
        f"http://127.0.0.1:{port}/", params={"query": "SELECT 3"}, auth=("default", PASSWORD), timeout=30
    )
    assert got.text == "3\n"
    body = gzip.compress(b"INSERT INTO t (id, amount) FORMAT JSONEachRow\n" + b'{"id":7,"amount":1.5}\n')
    sent = requests.post(
        f"http://127.0.0.1:{port}/",
        data=(body[i : i + 10] for i in range(0, len(body), 10)),  # in chunks, without a length
        headers={"Content-Encoding": "gzip"},
        auth=("default", PASSWORD),
        timeout=30,
    )
    assert sent.ok, sent.text
    assert client.query("SELECT id, amount FROM t").result_rows == [(7, Decimal("1.50"))]


def test_four_clients_at_once(port: int, client: Client) -> None:
    def work(number: int) -> int:
        with connect(port) as other:
            for start in range(0, 1000, 100):
                first = number * 1000 + start
                rows = [(i, str(i), Decimal(i)) for i in range(first, first + 100)]
                other.insert("t", rows, column_names=["id", "name", "amount"])
                other.query("SELECT count() FROM t")
            return int(
                other.query(f"SELECT count() FROM t WHERE intDiv(id, 1000) = {number}").result_rows[0][0]
            )

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(4))) == [1000] * 4
    assert client.query("SELECT count(), uniqExact(id) FROM t").result_rows == [(4000, 4000)]


def test_a_wrong_password_is_refused(port: int) -> None:
    answer = requests.post(f"http://127.0.0.1:{port}/", data="SELECT 1", auth=("default", "no"), timeout=30)
    assert answer.status_code == 403
    assert "AUTHENTICATION_FAILED" in answer.text


@pytest.mark.parametrize("header", [{"Host": "evil.example"}, {"Origin": "http://evil.example"}])
def test_a_page_in_a_browser_is_refused(port: int, header: dict[str, str]) -> None:
    login = {"X-ClickHouse-User": "default", "X-ClickHouse-Key": PASSWORD}
    answer = requests.post(f"http://127.0.0.1:{port}/", data="SELECT 1", headers=login | header, timeout=10)
    assert answer.status_code >= 400
    assert answer.text.strip() != "1"


def test_a_second_process_is_refused_the_folder(tmp_path: Path) -> None:
    ports = []
    for _ in range(2):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            ports.append(probe.getsockname()[1])
    command = [sys.executable, "-m", "services.embedded_clickhouse", "--path", str(tmp_path), "--port"]
    env = os.environ | {"CLICKHOUSE_PASSWORD": PASSWORD}
    first = subprocess.Popen([*command, str(ports[0])], cwd=ROOT, env=env)
    try:
        wait_for(ports[0], first)
        second = subprocess.run(
            [*command, str(ports[1])],
            cwd=ROOT,
            env=env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert second.returncode != 0
        assert "lock" in second.stderr.lower()
    finally:
        first.terminate()
        first.wait(30)
