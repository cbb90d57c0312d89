"""What ends an extraction before its time is said in one line, leaves nothing, and the next try is right."""

import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import mysql.connector
import pytest
from airflow.sdk.exceptions import AirflowException

from scripts.stack import readiness
from scripts.stack.context import Stack
from tallyhouse.contracts import Column, ColumnType, TableContract
from tallyhouse.errors import TallyhouseError
from tallyhouse.extract import mysql as mysql_source
from tallyhouse.extract import statement
from tallyhouse.extract.give_way import mark
from tallyhouse.extract.to_raw import write_batch
from tallyhouse.lake import Lake, check_parts, committed_batches
from tallyhouse.servers import MySqlServer
from tallyhouse.settings import Settings
from tests.extract.nights import Nights
from tests.extract.test_mysql_stream import LONG, insert_long
from tests.store_servers import running

pytestmark = pytest.mark.integration

ALL = pytest.mark.parametrize("nights", ["mariadb", "mysql", "postgres"], indirect=True)
LONG_TABLE = TableContract(
    *("scratch", "oddities"),
    tuple(Column(name, ColumnType.parse(one), False) for name, one in LONG.items()),
    *(("id",), None, (), ()),
)
OURS = {
    "mysql": f"SELECT id FROM information_schema.processlist WHERE info LIKE '%{mark()}%' "
    "AND id <> CONNECTION_ID()",
    "postgres": f"SELECT pid FROM pg_stat_activity WHERE query LIKE '%{mark()}%' AND state = 'active' "
    "AND pid <> pg_backend_pid()",
}
END = {"mysql": "KILL {}", "postgres": "SELECT pg_terminate_backend({})"}
CANCEL = {"mysql": "KILL QUERY {}", "postgres": "SELECT pg_cancel_backend({})"}
LOCK = {"mysql": "LOCK TABLES things WRITE", "postgres": "BEGIN; LOCK TABLE things"}
UNLOCK = {"mysql": "UNLOCK TABLES", "postgres": "COMMIT"}


def fill_with_long_rows(nights: Nights) -> None:
    """180 MB: more than is on its way at any time."""
    nights.fill(1_000)
    wide = "INSERT INTO things SELECT id + 1000, name, amount, REPEAT('x', 60000), updated_at FROM things"
    nights.source.execute(wide)
    nights.source.execute(wide.replace("+ 1000", "+ 4000"))


def end_ours(nights: Nights, how: dict[str, str]) -> None:
    """Ends the statement that reads the rows, as soon as there is one."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        nights.source.execute(OURS[nights.engine])
        if found := nights.source.fetchall():
            for (number,) in found:
                nights.source.execute(how[nights.engine].format(number))
            return
        time.sleep(0.01)


@ALL
@pytest.mark.parametrize("how", [CANCEL, END], ids=["query", "session"])
def test_a_query_that_somebody_ends_in_mid_stream_is_taken_again(nights: Nights, how: dict[str, str]) -> None:
    fill_with_long_rows(nights)
    ending = Thread(target=end_ours, args=(nights, how))
    nights.between = ending.start
    with pytest.raises(AirflowException, match=r"scratch\.things in run \S+: the stream broke off") as raised:
        nights.extract()
    ending.join()
    assert "\n" not in str(raised.value)
    assert "panic" not in str(raised.value)
    assert nights.lake.keys("raw") == []
    assert nights.ask("SELECT * FROM etl.watermark") == []
    nights.between = None
    assert nights.run().rows == 4_000


@ALL
def test_a_query_that_waits_for_a_lock_does_not_wait_for_long(
    nights: Nights, another: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    nights.fill(5)
    nights.table = replace(nights.table, cursor=None)  # else its plan is asked for first
    for engine, settings in statement.SESSION.items():
        short = tuple(one.replace(str(statement.LOCK_SECONDS), "1") for one in settings)
        monkeypatch.setitem(statement.SESSION, engine, short)
    with another() as other:
        cursor = other.cursor()
        cursor.execute(LOCK[nights.engine])
        began = time.monotonic()
        with pytest.raises(AirflowException, match=r"(?i)lock.*timeout.*The next try reads it again"):
            nights.extract()
        assert time.monotonic() - began < 30
        cursor.execute(UNLOCK[nights.engine])
    assert nights.lake.keys("raw") == []
    assert nights.run().rows == 5


@pytest.mark.parametrize("nights", ["mariadb", "mysql"], indirect=True)
def test_a_lake_that_takes_longer_than_the_server_waits_for_a_client(nights: Nights) -> None:
    fill_with_long_rows(nights)
    nights.source.execute("SELECT @@GLOBAL.net_write_timeout")
    ((before,),) = nights.source.fetchall()
    nights.source.execute("SET GLOBAL net_write_timeout = 1")
    try:
        nights.between = lambda: time.sleep(4)
        assert nights.run().rows == 4_000
    finally:
        nights.source.execute(f"SET GLOBAL net_write_timeout = {before}")


@pytest.mark.parametrize("engine", ["mariadb", "mysql"])
def test_a_server_that_is_killed_in_mid_stream_is_read_again_once_it_is_back(
    settings: Settings, tmp_path: Path, engine: str
) -> None:
    lake = Lake.local(str(tmp_path))
    with running(f"killed-{engine}", settings, engine) as (store, start):
        owner: dict[str, Any] = {
            "host": store.mysql_orders_host,
            "port": store.mysql_orders_port,
            "user": "root",
            "password": store.mysql_root_password,
            "autocommit": True,
        }
        with mysql.connector.connect(**owner) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE DATABASE scratch")
            cursor.execute("USE scratch")
            insert_long(type("Scratch", (), {"cursor": cursor}), 900, "x", 250_000)
            cursor.execute(f"GRANT SELECT ON scratch.* TO '{store.etl_reader_user}'@'%'")
            cursor.execute("SELECT @@pid_file")
            ((pid_file,),) = cursor.fetchall()
        server = MySqlServer(
            *(store.mysql_orders_host, store.mysql_orders_port),
            *(store.etl_reader_user, store.etl_reader_password, "scratch"),
        )
        stream = mysql_source.open_stream(server, LONG_TABLE, None)
        os.kill(int(Path(pid_file).read_text()), signal.SIGKILL)
        with pytest.raises(TallyhouseError, match=r"scratch\.oddities: the stream broke off") as raised:
            write_batch(stream, lake, LONG_TABLE, run_id="r1", attempt=1, watermark=None)
        assert raised.value.transient
        assert lake.keys("raw") == []
        with pytest.raises(RuntimeError):
            mysql_source.open_stream(server, LONG_TABLE, None)
        start()
        stream = mysql_source.open_stream(server, LONG_TABLE, None)
        assert write_batch(stream, lake, LONG_TABLE, run_id="r1", attempt=2, watermark=None).rows == 900


@contextmanager
def small_files(size: int) -> Iterator[None]:
    """No file of this process grows beyond a size, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_below_the_lake_or_of_what_waits_for_it(mysql_scratch: Any, tmp_path: Path) -> None:
    lake = Lake.local(str(tmp_path))
    insert_long(mysql_scratch, 900, "x", 250_000)
    mysql_scratch.cursor.execute("UPDATE oddities SET body = CONCAT(body, SHA2(id, 512))")
    stream = mysql_source.open_stream(mysql_scratch.server, LONG_TABLE, None)
    with small_files(64 << 20), pytest.raises(TallyhouseError, match="no room for rows that wait") as raised:
        time.sleep(3)
        write_batch(stream, lake, LONG_TABLE, run_id="r1", attempt=1, watermark=None)
    assert raised.value.transient
    assert "TMPDIR" in raised.value.remedy
    stream = mysql_source.open_stream(mysql_scratch.server, LONG_TABLE, None)
    rows = list(stream.batches)
    with small_files(4096), pytest.raises(TallyhouseError, match=r"oddities: the lake failed \(") as raised:
        write_batch(
            replace(stream, batches=iter(rows)), lake, LONG_TABLE, run_id="r1", attempt=2, watermark=None
        )
    assert "has room" in raised.value.remedy
    assert lake.keys("raw") == []
    stream = mysql_source.open_stream(mysql_scratch.server, LONG_TABLE, None)
    assert write_batch(stream, lake, LONG_TABLE, run_id="r1", attempt=3, watermark=None).rows == 900


class Minio:
    """A server of our own, on a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with closing(socket.socket()) as listener:
            listener.bind(("127.0.0.1", 0))
            self.port: int = listener.getsockname()[1]
        (folder / "lake").mkdir(parents=True)

    def start(self) -> None:
        self.process = subprocess.Popen(
            [
                str(Stack().minio),
                "server",
                "--quiet",
                "--address",
                f"127.0.0.1:{self.port}",
                str(self.folder),
            ],
            env=os.environ | {"MINIO_ROOT_USER": "tester", "MINIO_ROOT_PASSWORD": "tester-of-lakes"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 60
        while True:
            try:
                return readiness.http(f"http://127.0.0.1:{self.port}/minio/health/ready")
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.2)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    @property
    def lake(self) -> Lake:
        return Lake.s3(
            "lake",
            endpoint=f"http://127.0.0.1:{self.port}",
            access_key="tester",
            secret_key="tester-of-lakes",
        )


@pytest.fixture
def minio(tmp_path: Path) -> Iterator[Minio]:
    server = Minio(tmp_path / "minio")
    server.start()
    try:
        yield server
    finally:
        server.kill()


def test_a_lake_that_is_killed_in_mid_upload_is_written_again_once_it_is_back(
    mysql_scratch: Any, minio: Minio
) -> None:
    insert_long(mysql_scratch, 900, "x", 250_000)
    mysql_scratch.cursor.execute("UPDATE oddities SET body = CONCAT(REPEAT(SHA2(id, 512), 400), id)")

    def taken(attempt: int, after: Callable[[], None]) -> int:
        opened = mysql_source.open_stream(mysql_scratch.server, LONG_TABLE, None)

        def batches() -> Iterator[Any]:
            for number, one in enumerate(opened.batches):
                if number == 3:
                    after()
                yield one

        stream = replace(opened, batches=batches())
        arguments = {"run_id": "r1", "attempt": attempt, "watermark": None}
        return write_batch(stream, minio.lake, LONG_TABLE, **arguments).rows

    with pytest.raises(TallyhouseError, match=r"scratch\.oddities: the lake failed \(") as raised:
        taken(1, minio.kill)
    assert raised.value.transient
    assert "\n" not in str(raised.value)
    minio.start()
    assert minio.lake.keys("raw") == []
    assert taken(2, lambda: None) == 900
    assert {key.split("/")[4] for key in minio.lake.keys("raw")} == {"attempt=2"}


def test_a_stream_that_breaks_leaves_no_object_in_a_real_lake(mysql_scratch: Any, minio: Minio) -> None:
    insert_long(mysql_scratch, 900, "x", 250_000)
    stream = mysql_source.open_stream(mysql_scratch.server, LONG_TABLE, None)
    mysql_scratch.cursor.execute(OURS["mysql"])
    for (number,) in mysql_scratch.cursor.fetchall():
        mysql_scratch.cursor.execute(f"KILL {number}")
    with pytest.raises(TallyhouseError, match="the stream broke off"):
        write_batch(stream, minio.lake, LONG_TABLE, run_id="r1", attempt=1, watermark=None)
    assert minio.lake.keys("raw") == []


def test_an_object_that_is_lost_or_damaged_in_a_real_lake_is_named(mysql_scratch: Any, minio: Minio) -> None:
    insert_long(mysql_scratch, 5, "x", 10)
    lake = minio.lake
    stream = mysql_source.open_stream(mysql_scratch.server, LONG_TABLE, None)
    manifest = write_batch(stream, lake, LONG_TABLE, run_id="r1", attempt=1, watermark=None)
    (part,) = manifest.parts
    assert committed_batches(lake, [LONG_TABLE], "r1") == {"scratch.oddities": manifest}
    with lake.filesystem.open_input_stream(lake.path(part.key)) as object_:
        content = bytearray(object_.read())
    content[len(content) // 2] ^= 1
    with lake.create(part.key) as sink:
        sink.write(bytes(content))
    with pytest.raises(TallyhouseError, match=r"part-00000.parquet is damaged: .*Clear the extraction"):
        check_parts(lake, manifest, contents=True)
    lake.filesystem.delete_file(lake.path(part.key))
    with pytest.raises(TallyhouseError, match=r"scratch\.oddities: .*part-00000.parquet is missing"):
        committed_batches(lake, [LONG_TABLE], "r1")
