"""Extraction from a real server: what arrives in raw is what the source holds, as it holds it."""

import json
import subprocess
import sys
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import mysql.connector
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tallyhouse.contracts import Column, ColumnType, TableContract
from tallyhouse.errors import TallyhouseError
from tallyhouse.extract import mysql as source
from tallyhouse.extract.preflight import check_columns
from tallyhouse.extract.to_raw import write_batch
from tallyhouse.lake import Lake, Manifest, find_manifests

pytestmark = pytest.mark.integration

TYPES = {
    "id": "char(36)",
    "name": "varchar(40)",
    "amount": "decimal(38,10)",
    "many": "bigint",
    "few": "smallint",
    "flag": "boolean",
    "ratio": "double",
    "born": "date",
    "notes": "text",
    "extra": "json",
    "updated_at": "datetime(6)",
}
TABLE = TableContract(
    source="scratch",
    name="oddities",
    columns=tuple(Column(name, ColumnType.parse(spelled), name != "id") for name, spelled in TYPES.items()),
    key=("id",),
    cursor="updated_at",
    pii=(),
    control_totals=("amount", "many"),
)
LONG = {"id": "int", "body": "mediumtext"}
DDL = (
    "CREATE TABLE oddities ("
    + ", ".join(f"{name} {spelled}" for name, spelled in TYPES.items())
    + (", PRIMARY KEY (id)) CHARACTER SET utf8mb4")
)
TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=40)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.uuids().map(str),
            "name": st.none() | TEXT,
            "amount": st.none()
            | st.decimals(min_value=-(10**27), max_value=10**27, places=10, allow_nan=False),
            "many": st.none() | st.integers(-(2**63), 2**63 - 1),
            "few": st.none() | st.integers(-(2**15), 2**15 - 1),
            "flag": st.none() | st.booleans().map(int),
            "ratio": st.none() | st.floats(allow_nan=False, allow_infinity=False, width=32),
            "born": st.none() | st.dates(min_value=datetime(1000, 1, 1).date()).map(str),
            "notes": st.none() | TEXT,
            "extra": st.none() | st.sampled_from(['{"a": 1}', "[]", '{"є": "😀"}']),
            "updated_at": st.none()
            | st.datetimes(min_value=datetime(1000, 1, 1)).map(
                lambda at: at.strftime("%Y-%m-%d %H:%M:%S.%f").rjust(26, "0")
            ),
        }
    ),
    max_size=12,
    unique_by=lambda row: row["id"],
)


def take(scratch, lake: Lake, watermark: datetime | None = None, run_id: str = "r1") -> Manifest:
    stream = source.open_stream(scratch.server, TABLE, watermark, batch_rows=5)
    return write_batch(stream, lake, TABLE, run_id=run_id, attempt=1, watermark=watermark)


def in_raw(lake: Lake, manifest: Manifest) -> dict[str, dict]:
    rows = [
        row for batch in lake.read_batches([part.key for part in manifest.parts]) for row in batch.to_pylist()
    ]
    assert len(rows) == manifest.rows
    return {row["id"]: row for row in rows}


def insert(scratch, rows: list[dict]) -> None:
    if rows:
        marks = ", ".join(["%s"] * len(TYPES))
        scratch.cursor.executemany(
            f"INSERT INTO oddities VALUES ({marks})", [tuple(row[name] for name in TYPES) for row in rows]
        )


def insert_long(scratch, rows: int, character: str, times: int) -> None:
    scratch.cursor.execute("CREATE TABLE oddities (id int PRIMARY KEY, body mediumtext)")
    scratch.cursor.execute(
        "INSERT INTO oddities "
        f"WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) "
        f"SELECT i, REPEAT('{character}', {times} + i % 7) FROM n"
    )


@hypothesis_settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=ROWS)
def test_raw_holds_the_sources_values(mysql_scratch, tmp_path: Path, rows: list[dict]) -> None:
    mysql_scratch.cursor.execute("DROP TABLE IF EXISTS oddities")
    mysql_scratch.cursor.execute(DDL)
    insert(mysql_scratch, rows)
    lake = Lake.local(str(tmp_path))
    manifest = take(mysql_scratch, lake)
    raw = in_raw(lake, manifest)
    assert raw.keys() == {row["id"] for row in rows}
    for row in rows:
        arrived = raw[row["id"]]
        assert arrived["amount"] is None or Decimal(arrived["amount"]) == row["amount"]
        assert (arrived["amount"] is None) == (row["amount"] is None)
        for name in ("name", "many", "few", "flag", "ratio", "born", "notes", "extra", "updated_at"):
            assert arrived[name] == row[name], name
    assert manifest.source_rows == len(rows)
    assert Decimal(manifest.control_totals["many"]) == sum(row["many"] or 0 for row in rows)


def test_an_empty_table_is_a_committed_batch_of_no_rows(mysql_scratch, tmp_path: Path) -> None:
    mysql_scratch.cursor.execute(DDL)
    lake = Lake.local(str(tmp_path))
    manifest = take(mysql_scratch, lake)
    assert (manifest.rows, manifest.source_rows, manifest.parts) == (0, 0, ())
    assert {name: Decimal(total) for name, total in manifest.control_totals.items()} == {
        "amount": 0,
        "many": 0,
    }
    assert find_manifests(lake, "r1", [TABLE]) == [manifest]


def test_values_that_no_calendar_holds_travel_as_they_are(mysql_scratch, tmp_path: Path) -> None:
    mysql_scratch.cursor.execute(DDL)
    mysql_scratch.cursor.execute("SET SESSION sql_mode = ''")
    mysql_scratch.cursor.execute(
        "INSERT INTO oddities (id, born, updated_at) "
        "VALUES ('a', '0000-00-00', '0000-00-00'), ('b', '2026-00-15', NULL)"
    )
    lake = Lake.local(str(tmp_path))
    raw = in_raw(lake, take(mysql_scratch, lake))
    assert raw["a"]["born"] == "0000-00-00"
    assert raw["a"]["updated_at"] == "0000-00-00 00:00:00.000000"
    assert raw["b"]["born"] == "2026-00-15"


def test_the_window_takes_its_lower_bound_in(mysql_scratch, tmp_path: Path) -> None:
    mysql_scratch.cursor.execute(DDL)
    mark = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    for key, at in (
        ("before", mark - timedelta(microseconds=1)),
        ("at", mark),
        ("after", mark + timedelta(days=9)),
    ):
        mysql_scratch.cursor.execute(
            "INSERT INTO oddities (id, updated_at) VALUES (%s, %s)", (key, at.replace(tzinfo=None))
        )
    lake = Lake.local(str(tmp_path))
    manifest = take(mysql_scratch, lake, mark)
    assert in_raw(lake, manifest).keys() == {"at", "after"}
    assert not manifest.full


def test_what_commits_while_the_stream_is_read_is_not_in_it(mysql_scratch, tmp_path: Path) -> None:
    mysql_scratch.cursor.execute(DDL)
    insert(mysql_scratch, [dict.fromkeys(TYPES) | {"id": f"{number:05d}"} for number in range(2000)])
    stream = source.open_stream(mysql_scratch.server, TABLE, None, batch_rows=5)
    insert(mysql_scratch, [dict.fromkeys(TYPES) | {"id": "late"}])
    lake = Lake.local(str(tmp_path))
    manifest = write_batch(stream, lake, TABLE, run_id="r1", attempt=1, watermark=None)
    assert manifest.rows == manifest.source_rows == 2000


def test_long_rows_come_in_small_batches(mysql_scratch, tmp_path: Path) -> None:
    insert_long(mysql_scratch, 700, "є", 50_000)
    columns = tuple(Column(name, ColumnType.parse(one), False) for name, one in LONG.items())
    table = TableContract("scratch", "oddities", columns, ("id",), None, (), ())
    stream = source.open_stream(mysql_scratch.server, table, None)
    sizes = [(batch.num_rows, batch.nbytes) for batch in stream.batches]
    assert sum(rows for rows, _ in sizes) == 700
    assert max(size for _, size in sizes) <= source.BATCH_BYTES + 700 * 8  # and the offsets


SLOW_LAKE = """
import json, sys, threading, time
from tallyhouse.contracts import Column, ColumnType, TableContract
from tallyhouse.extract import mysql
from tallyhouse.extract.to_raw import write_batch
from tallyhouse.lake import Lake
from tallyhouse.servers import MySqlServer

columns = tuple(Column(name, ColumnType.parse(one), False) for name, one in {types}.items())
table = TableContract("scratch", "oddities", columns, ("id",), None, (), ())

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4 // 1024

stream = mysql.open_stream(MySqlServer(**json.load(sys.stdin)), table, None)
before = resident()
while any(thread.name == "backlog" for thread in threading.enumerate()):
    time.sleep(0.1)
waiting = resident()
manifest = write_batch(stream, Lake.local(sys.argv[1]), table, run_id="r1", attempt=1, watermark=None)
print(waiting - before, manifest.rows)
"""


def test_a_slow_lake_does_not_bring_the_table_into_memory(mysql_scratch, tmp_path: Path) -> None:
    """225 MB in long rows have been sent before anybody takes one; then they are written and digested."""
    insert_long(mysql_scratch, 900, "x", 250_000)
    done = subprocess.run(
        [sys.executable, "-c", SLOW_LAKE.replace("{types}", repr(LONG)), str(tmp_path)],
        input=json.dumps(asdict(mysql_scratch.server)),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    waiting, rows = map(int, done.stdout.split())
    assert rows == 900
    assert waiting < 100, f"{waiting} MB"


def test_a_table_that_is_not_what_its_contract_says_is_refused(mysql_scratch) -> None:
    with pytest.raises(TallyhouseError, match=r"scratch\.oddities: the source has no such table"):
        check_columns(connection(mysql_scratch), "mysql", TABLE)
    mysql_scratch.cursor.execute(DDL.replace("amount", "amounts"))
    with pytest.raises(TallyhouseError, match=r"scratch\.oddities: the source lacks amount\. Add"):
        check_columns(connection(mysql_scratch), "mysql", TABLE)


def test_a_cursor_that_may_be_null_is_refused(mysql_scratch) -> None:
    mysql_scratch.cursor.execute(DDL)
    with pytest.raises(TallyhouseError, match=r"oddities: its cursor updated_at may be NULL"):
        check_columns(connection(mysql_scratch), "mysql", TABLE)
    mysql_scratch.cursor.execute("ALTER TABLE oddities MODIFY updated_at datetime(6) NOT NULL")
    check_columns(connection(mysql_scratch), "mysql", TABLE)


def test_a_stream_that_breaks_commits_nothing(mysql_scratch, tmp_path: Path) -> None:
    mysql_scratch.cursor.execute(DDL)
    insert(mysql_scratch, [dict.fromkeys(TYPES) | {"id": "a"}])
    lake = Lake.local(str(tmp_path))
    stream = source.open_stream(mysql_scratch.server, TABLE, None)
    broken = type(stream)(
        statement=replace(stream.statement, rows=2),
        batches=stream.batches,
    )
    with pytest.raises(TallyhouseError, match=r"source=raw differs by -1 rows"):
        write_batch(broken, lake, TABLE, run_id="r1", attempt=1, watermark=None)
    assert find_manifests(lake, "r1", [TABLE]) == []


def connection(scratch):
    return mysql.connector.connect(
        host=scratch.settings.mysql_orders_host,
        port=scratch.settings.mysql_orders_port,
        user=scratch.settings.etl_reader_user,
        password=scratch.settings.etl_reader_password,
        database=scratch.name,
    )
