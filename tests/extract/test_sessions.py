"""Defaults of a server, a role or a client change nothing of what arrives in raw."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from tallyhouse.contracts import Column, ColumnType, TableContract
from tallyhouse.extract import mysql as mysql_source
from tallyhouse.extract import postgres as postgres_source
from tallyhouse.extract.to_raw import write_batch
from tallyhouse.lake import Lake

pytestmark = pytest.mark.integration


def contract(engine: str, types: dict[str, str]) -> TableContract:
    columns = tuple(Column(name, ColumnType.parse(one, engine), name != "id") for name, one in types.items())
    return TableContract("scratch", "moments", columns, ("id",), None, (), ())


def in_raw(stream, table: TableContract, folder: Path) -> list[dict]:
    lake = Lake.local(str(folder))
    manifest = write_batch(stream, lake, table, run_id="r1", attempt=1, watermark=None)
    rows = [
        row for batch in lake.read_batches([part.key for part in manifest.parts]) for row in batch.to_pylist()
    ]
    assert len(rows) == manifest.rows == manifest.source_rows
    return rows


@pytest.fixture
def odd_role(postgres_scratch: str) -> Iterator[str]:
    """The address of a role whose every session starts with other settings than ours."""
    account = urlsplit(postgres_scratch)
    settings = {
        "timezone": "'Europe/Kyiv'",
        "datestyle": "'SQL, DMY'",
        "intervalstyle": "'sql_standard'",
        "extra_float_digits": "-15",
        "client_encoding": "'WIN1251'",
        "search_path": "decoy",
    }
    with psycopg.connect(postgres_scratch, autocommit=True) as owner:
        database = account.path.lstrip("/")
        for name, value in settings.items():
            owner.execute(f"ALTER DATABASE {database} SET {name} = {value}")  # type: ignore[call-overload]
        owner.execute("CREATE SCHEMA decoy CREATE TABLE moments (id int PRIMARY KEY)")
        yield postgres_scratch


def test_a_postgresql_sessions_settings_are_ours(odd_role: str, tmp_path: Path) -> None:
    types = {
        "id": "integer",
        "wall": "timestamp",
        "at": "timestamptz",
        "day": "date",
        "took": "interval",
        "ratios": "float8[]",
        "days": "date[]",
        "word": "text",
    }
    with psycopg.connect(odd_role, autocommit=True, client_encoding="utf8") as owner:
        columns = ", ".join(f"{name} {type_}" for name, type_ in types.items())
        owner.execute(f"CREATE TABLE public.moments ({columns})")  # type: ignore[call-overload]
        owner.execute(
            "INSERT INTO public.moments VALUES (1, '2026-07-01 12:00', '2026-07-01 12:00+00', '01/07/2026', "
            "'1 day 02:03:04', '{0.1,0.30000000000000004}', '{01/07/2026}', 'є🥞')"
        )
    table = contract("postgres", types)
    assert in_raw(postgres_source.open_stream(odd_role, table, None), table, tmp_path) == [
        {
            "id": 1,
            "wall": "2026-07-01 12:00:00.000000",
            "at": "2026-07-01 12:00:00.000000",
            "day": "2026-07-01",
            "took": "1 day 02:03:04",
            "ratios": "{0.1,0.30000000000000004}",
            "days": "{2026-07-01}",
            "word": "є🥞",
        }
    ]


def test_a_mysql_sessions_settings_are_ours(mysql_scratch, tmp_path: Path) -> None:
    types = {"id": "int", "code": "char(5)", "word": "varchar(20)", "at": "timestamp(6)"}
    cursor = mysql_scratch.cursor
    cursor.execute(
        "CREATE TABLE moments (id int PRIMARY KEY, code char(5), word varchar(20), at timestamp(6))"
    )
    cursor.execute("SET time_zone = '+00:00'")
    cursor.execute("INSERT INTO moments VALUES (1, 'ab', 'є🥞', '2026-07-01 12:00:00'), (2, '', '', NULL)")
    odd = "SET NAMES latin1, sql_mode = 'PAD_CHAR_TO_FULL_LENGTH,ANSI_QUOTES,NO_BACKSLASH_ESCAPES', "
    odd += "time_zone = '+03:00', sql_select_limit = 1"
    table = contract("mysql", types)
    address = mysql_scratch.server
    cursor.execute("SET GLOBAL init_connect = %s", (odd,))
    try:
        rows = in_raw(mysql_source.open_stream(address, table, None), table, tmp_path)
    finally:
        cursor.execute("SET GLOBAL init_connect = ''")
    assert rows == [
        {"id": 1, "code": "ab", "word": "є🥞", "at": "2026-07-01 12:00:00.000000"},
        {"id": 2, "code": "", "word": "", "at": None},
    ]
