"""The digest of the same rows is the same number in every engine that meets them, and in Python."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from clickhouse_connect.driver.client import Client
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tallyhouse.contracts import Column, ColumnType, TableContract
from tallyhouse.errors import TallyhouseError
from tallyhouse.extract import mysql as mysql_source
from tallyhouse.extract import postgres as postgres_source
from tallyhouse.extract.digest import row_digest, total
from tallyhouse.extract.to_raw import source_raw, write_batch
from tallyhouse.lake import Lake, find_manifests
from tallyhouse.servers import MySqlServer

pytestmark = pytest.mark.integration

TYPES = {
    "id": "char(36)",
    "name": "varchar(40)",
    "amount": "decimal(20,4)",
    "many": "bigint",
    "flag": "boolean",
    "ratio": "double",
    "born": "date",
    "notes": "text",
    "updated_at": "datetime(6)",
}
TABLE = TableContract(
    source="scratch",
    name="things",
    columns=tuple(Column(name, ColumnType.parse(spelled), name != "id") for name, spelled in TYPES.items()),
    key=("id",),
    cursor="updated_at",
    pii=(),
    control_totals=("amount",),
)
Row = tuple[Any, ...]

LONG = "є" * 600
"""1,200 bytes."""
GOLDEN: dict[Row, int] = {
    (
        "a",
        "x",
        Decimal("1.5000"),
        7,
        1,
        0.1,
        "2026-01-02",
        "n",
        "2026-01-02 03:04:05.600000",
    ): 1_098_718_552_155_581_213,
    ("b", *[None] * 8): 359_300_853_291_018_770,
    (
        *("c", "N", Decimal("-0.0001"), -(2**63), 0, None, "1000-01-01"),
        *("є😀|1:x", "9999-12-31 23:59:59.999999"),
    ): 590_574_069_114_494_185,
    ("d", "", Decimal("0.0000"), 0, None, None, None, "", None): 293_617_796_925_598_526,
    ("e", "1:x", None, None, None, None, None, LONG, None): 1_100_138_614_475_301_425,
}
"""Rows and their digests."""


def text_of(row: Row) -> str:
    """The canonical text, written down here once more."""
    parts = []
    for (_, spelled), value in zip(TYPES.items(), row, strict=True):
        if spelled == "double":
            continue
        free = spelled.startswith(("char", "varchar", "text"))
        if value is None:
            parts.append("N" if free else "N|")
        elif free:
            raw = str(value).encode()
            parts.append(
                f"{len(raw)}:" + (hashlib.sha256(raw).hexdigest() if len(raw) > 1024 else str(value))
            )
        else:
            parts.append(f"{value:f}|" if isinstance(value, Decimal) else f"{value}|")
    return "".join(parts)


def digest_of(rows: list[Row]) -> int:
    return sum(int(hashlib.sha256(text_of(row).encode()).hexdigest()[:15], 16) for row in rows)


@pytest.fixture
def stores(mysql_scratch: Any, postgres_scratch: str, clickhouse_server: Client) -> Iterator["Stores"]:
    mysql_scratch.cursor.execute(
        "CREATE TABLE things ("
        + ", ".join(f"{name} {spelled}" for name, spelled in TYPES.items())
        + ", PRIMARY KEY (id)) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
    )
    spelled_there = {"datetime(6)": "timestamptz", "boolean": "boolean", "double": "double precision"}
    with psycopg.connect(postgres_scratch, autocommit=True) as connection:
        columns = ", ".join(
            f"{name} {spelled_there.get(spelled, spelled)}" for name, spelled in TYPES.items()
        )
        connection.execute(f"CREATE TABLE things ({columns}, PRIMARY KEY (id))".encode())
    clickhouse_server.command("CREATE DATABASE IF NOT EXISTS scratch ENGINE = Atomic")
    clickhouse_server.command(
        "CREATE OR REPLACE TABLE scratch.things ("
        + ", ".join(f"{name} Nullable(String)" for name in TYPES)
        + ") ENGINE = Memory"
    )
    yield Stores(mysql_scratch, postgres_scratch, clickhouse_server)
    clickhouse_server.command("DROP DATABASE scratch SYNC")


class Stores:
    """One table, with the same rows in each store."""

    def __init__(self, scratch: Any, postgres: str, clickhouse: Client) -> None:
        self.scratch, self.postgres, self.clickhouse = scratch, postgres, clickhouse
        s = scratch.settings
        self.address = MySqlServer(
            host=s.mysql_orders_host,
            port=s.mysql_orders_port,
            user=s.etl_reader_user,
            password=s.etl_reader_password,
            database=scratch.name,
        )

    def fill(self, rows: list[Row]) -> None:
        marks = ", ".join(["%s"] * len(TYPES))
        self.scratch.cursor.execute("DELETE FROM things")
        if rows:
            self.scratch.cursor.executemany(f"INSERT INTO things VALUES ({marks})", rows)
        flag = list(TYPES).index("flag")
        with psycopg.connect(self.postgres, autocommit=True) as connection:
            connection.execute("DELETE FROM things")
            if rows:
                connection.cursor().executemany(
                    f"INSERT INTO things VALUES ({marks})".encode(),
                    [
                        (*row[:flag], None if row[flag] is None else bool(row[flag]), *row[flag + 1 :])
                        for row in rows
                    ],
                )
        self.clickhouse.command("TRUNCATE TABLE scratch.things")
        if rows:
            wire = [
                [None if v is None else (f"{v:f}" if isinstance(v, Decimal) else str(v)) for v in r]
                for r in rows
            ]
            self.clickhouse.insert("things", wire, column_names=list(TYPES), database="scratch")

    def by_mysql(self) -> Any:
        return mysql_source.open_stream(self.address, TABLE, None, batch_rows=3)

    def by_postgres(self) -> Any:
        return postgres_source.open_stream(self.postgres, TABLE, None)

    def by_clickhouse(self) -> str:
        number = row_digest("clickhouse", [(column.type, f"`{column.name}`") for column in TABLE.columns])
        query = f"SELECT {total('clickhouse', number)} FROM scratch.things"
        return str(self.clickhouse.query(query).result_rows[0][0])

    def agree(self, rows: list[Row], lake: Lake) -> None:
        self.fill(rows)
        expected = str(digest_of(rows))
        assert self.by_clickhouse() == expected
        for number, stream in enumerate((self.by_mysql(), self.by_postgres())):
            assert stream.statement.digest == expected
            manifest = write_batch(stream, lake, TABLE, run_id="r", attempt=number, watermark=None)
            assert (manifest.digest, manifest.raw_digest) == (expected, expected)
            assert all(line.closed for line in source_raw(manifest))
            assert [line.measure for line in source_raw(manifest)] == ["rows", "digest"]


def test_golden_vectors_are_the_same_everywhere(stores: Stores, tmp_path: Path) -> None:
    lake = Lake.local(str(tmp_path))
    for row, digest in GOLDEN.items():
        assert digest_of([row]) == digest
        stores.agree([row], lake)
    stores.agree(list(GOLDEN), lake)
    stores.agree([], lake)


TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=30)
ROWS = st.lists(
    st.tuples(
        st.uuids().map(str),
        st.none() | TEXT,
        st.none()
        | st.decimals(min_value=-(10**15), max_value=10**15, places=4, allow_nan=False).map(lambda d: d + 0),
        st.none() | st.integers(-(2**63), 2**63 - 1),
        st.none() | st.integers(0, 1),
        st.none() | st.floats(allow_nan=False, allow_infinity=False, width=32),
        st.none() | st.dates(min_value=datetime(1000, 1, 1).date()).map(str),
        st.none() | TEXT | st.integers(1000, 1100).map(lambda length: "y" * length),
        st.none()
        | st.datetimes(min_value=datetime(1000, 1, 1)).map(
            lambda at: at.strftime("%Y-%m-%d %H:%M:%S.%f").rjust(26, "0")
        ),
    ),
    max_size=8,
    unique_by=lambda row: row[0],
)


@hypothesis_settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=ROWS)
def test_drawn_rows_are_the_same_everywhere(stores: Stores, tmp_path: Path, rows: list[Row]) -> None:
    stores.agree(rows, Lake.local(str(tmp_path)))


def test_a_value_that_changes_on_its_way_voids_the_attempt(stores: Stores, tmp_path: Path) -> None:
    stores.fill(list(GOLDEN))
    stream = stores.by_mysql()
    notes = list(TYPES).index("notes")

    def changed() -> Iterator[pa.RecordBatch]:
        for batch in stream.batches:
            values = [f"{value} " if value else value for value in batch.column(notes).to_pylist()]
            yield batch.set_column(
                notes, batch.schema.field(notes), pa.array(values, batch.schema.field(notes).type)
            )

    lake = Lake.local(str(tmp_path))
    with pytest.raises(TallyhouseError, match=r"source=raw differs in the values"):
        write_batch(replace(stream, batches=changed()), lake, TABLE, run_id="r", attempt=1, watermark=None)
    assert find_manifests(lake, "r", [TABLE]) == []


def test_a_contract_may_ask_for_the_count_alone(stores: Stores, tmp_path: Path) -> None:
    counted = replace(TABLE, proof="count")
    stores.fill(list(GOLDEN))
    stream = mysql_source.open_stream(stores.address, counted, None)
    lake = Lake.local(str(tmp_path))
    manifest = write_batch(stream, lake, counted, run_id="r", attempt=1, watermark=None)
    assert (manifest.digest, manifest.raw_digest) == (None, None)
    assert [line.measure for line in source_raw(manifest)] == ["rows"]


def test_text_of_another_character_set_is_digested_as_it_travels(stores: Stores, tmp_path: Path) -> None:
    stores.scratch.cursor.execute("ALTER TABLE things MODIFY name varchar(40) CHARACTER SET latin1")
    stores.scratch.cursor.execute("INSERT INTO things (id, name) VALUES ('a', 'é ü')")
    lake = Lake.local(str(tmp_path))
    manifest = write_batch(stores.by_mysql(), lake, TABLE, run_id="r", attempt=1, watermark=None)
    assert manifest.digest == str(digest_of([("a", "é ü", *[None] * 7)]))
