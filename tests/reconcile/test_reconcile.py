"""A live source compared with `ods`, and the star schema with ClickHouse, on real servers."""

import os
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from typing import Any

import mysql.connector
import psycopg
import pytest
from clickhouse_connect.driver.client import Client

from tallyhouse.contracts import Policy
from tallyhouse.migrate import migrate_warehouse
from tallyhouse.reconcile import Compared, compare_clickhouse, compare_source, statements
from tallyhouse.settings import ROOT, Settings
from tests.extract.nights import Nights

pytestmark = [pytest.mark.integration, pytest.mark.spark]
EVERY = pytest.mark.parametrize("nights", ["mariadb", "mysql", "postgres"], indirect=True)


def opened(nights: Nights) -> Any:
    """A plain connection to the source."""
    if nights.engine == "postgres":
        return psycopg.connect(nights.warehouse)
    nights.source.execute("SELECT DATABASE(), @@port")
    ((database, port),) = nights.source.fetchall()
    return mysql.connector.connect(
        host="127.0.0.1",
        port=port,
        user="root",
        password=os.environ.get("MYSQL_ROOT_PASSWORD") or nights.root,  # type: ignore[attr-defined]
        database=database,
    )


@pytest.fixture(autouse=True)
def _root(request: pytest.FixtureRequest, settings: Settings) -> None:
    if "nights" in request.fixturenames:
        request.getfixturevalue("nights").root = settings.mysql_root_password


def compared(nights: Nights) -> Compared:
    with psycopg.connect(nights.warehouse) as warehouse, closing(opened(nights)) as source:
        # Whatever would be written is refused.
        warehouse.read_only = True
        return compare_source(source, nights.engine, warehouse, nights.table)


def alter(nights: Nights, statement: str) -> None:
    with psycopg.connect(nights.warehouse) as warehouse:
        warehouse.execute(statement.encode())


@EVERY
def test_what_is_equal_and_what_is_explained(nights: Nights) -> None:
    nights.fill(3_000)
    nights.run()
    found = compared(nights)
    assert (found.left, found.right, found.explained, found.unexplained) == (3_000, 3_000, {}, {})
    nights.source.execute("DELETE FROM things WHERE id IN (1, 2)")
    nights.run()
    assert (compared(nights).seen, compared(nights).explained) == (2, {})
    nights.source.execute("DELETE FROM things WHERE id = 3")
    nights.source.execute("UPDATE things SET note = 'quietly' WHERE id = 1700")
    nights.source.execute("UPDATE things SET note = 'x', updated_at = '2030-01-01 00:00:00' WHERE id = 5")
    nights.fill(1, first=9_000, at="2031-01-01 00:00:00")
    found = compared(nights)
    assert found.unexplained == {}
    assert found.explained == {
        "newer than the watermark": 2,
        "deleted since; the next run marks it": 1,
        "changed without its cursor; the next run compares it": 1,
    }
    nights.run()
    assert compared(nights).explained == {}


@EVERY
def test_what_was_altered_is_named(nights: Nights) -> None:
    nights.fill(3_000)
    nights.run()
    alter(nights, "UPDATE ods.things SET amount = amount + 0.01 WHERE id = 7")
    alter(nights, "DELETE FROM ods.things WHERE id = 1234")
    alter(nights, "ALTER TABLE ods.things DROP CONSTRAINT things_pkey")
    alter(nights, "INSERT INTO ods.things SELECT * FROM ods.things WHERE id = 2999")
    alter(
        nights,
        "INSERT INTO ods.things SELECT 5000, name, amount, note, updated_at, _snapshot, _run FROM "
        "ods.things WHERE id = 8",
    )
    # As a row looks that an extraction lost: older than the watermark, and in the source alone.
    nights.fill(1, first=6_000, at="2019-01-01 00:00:00")
    found = compared(nights)
    assert sorted(found.keys) == [
        "id=1234: missing in ods",
        "id=2999: 2 times in ods",
        "id=5000: not in the source, and never taken from it",
        "id=6000: missing in ods",
        "id=7: differs in ods",
    ]
    assert (found.explained, found.unexplained.total()) == ({}, 5)


def test_without_a_cursor_what_came_since_is_explained(nights: Nights) -> None:
    nights.table = replace(nights.table, cursor=None)
    nights.fill(100)
    nights.run()
    nights.fill(1, first=6_000, at="2019-01-01 00:00:00")
    found = compared(nights)
    assert (found.explained, found.unexplained) == ({"came since; the next run takes it": 1}, {})


def test_of_many_keys_twenty_are_named(nights: Nights) -> None:
    nights.fill(100)
    nights.run()
    alter(nights, "UPDATE ods.things SET note = 'by hand'")
    found = compared(nights)
    assert (len(found.keys), found.unexplained) == (20, {"differs in ods": 100})


@pytest.mark.parametrize("nights", ["postgres"], indirect=True)
def test_what_a_policy_put_there_is_explained_and_nothing_else(nights: Nights) -> None:
    alter(nights, "ALTER TABLE ods.things ADD COLUMN extra timestamptz")
    types = {column.name: column for column in nights.table.columns}
    extra = replace(types["updated_at"], name="extra", nullable=True, on_bad_value=Policy("null"))
    nights.table = replace(nights.table, columns=(*nights.table.columns, extra))
    nights.source.execute("ALTER TABLE things ADD COLUMN extra timestamptz")
    values = ", ".join(f"({n}, 'n', 1, NULL, '2026-01-01 00:00:00+00', 'infinity')" for n in range(1, 5))
    nights.source.execute(f"INSERT INTO things VALUES {values}")
    alter(nights, "ALTER TABLE ods.things DROP COLUMN extra")
    alter(nights, "DROP TABLE ods.things")
    nights.make_ods()
    nights.run()
    assert compared(nights).explained == {"policy": 4}
    alter(nights, "UPDATE ods.things SET extra = '2026-01-01' WHERE id = 1")
    alter(nights, "UPDATE ods.things SET name = 'other' WHERE id = 2")
    found = compared(nights)
    assert found.explained == {"policy": 2}
    assert sorted(found.keys) == ["id=1: differs in ods", "id=2: differs in ods"]


@EVERY
def test_the_printed_sql_has_equal_answers(nights: Nights) -> None:
    nights.fill(50)
    nights.run()

    def answers() -> list[tuple[int, str]]:
        found = []
        for what, _, said in statements(nights.pipeline, "scratch.things"):
            place = psycopg.connect(nights.warehouse) if what.startswith("ods") else opened(nights)
            with closing(place), closing(place.cursor()) as cursor:
                for statement in said:
                    cursor.execute(statement)
                ((rows, digest),) = cursor.fetchall()
                found.append((int(rows), str(digest)))
        return found

    source, ods = answers()
    assert source == ods
    assert source[0] == 50
    alter(nights, "UPDATE ods.things SET note = 'by hand' WHERE id = 9")
    source, ods = answers()
    assert source != ods


def test_rows_of_clickhouse_that_differ_are_named(
    postgres_scratch: str, settings: Settings, clickhouse: Client
) -> None:
    migrate_warehouse(settings.model_copy(update={"dwh_db": postgres_scratch.rpartition("/")[2]}))
    with psycopg.connect(postgres_scratch, autocommit=True) as warehouse:
        described = warehouse.execute(
            "SELECT column_name FROM information_schema.columns WHERE table_schema = 'dwh' "
            "AND table_name = 'dim_payment_method' ORDER BY ordinal_position"
        ).fetchall()
        columns = ", ".join(name for (name,) in described)
        rows = warehouse.execute(f"SELECT {columns} FROM dwh.dim_payment_method".encode()).fetchall()
        assert rows, columns
        names = [name for (name,) in described]
        # The table behind the view, as somebody would who changes it by hand.
        shown = "dwh.`dim_payment_method__a`"

        def found() -> Compared:
            with warehouse.transaction():
                return compare_clickhouse(warehouse, clickhouse, "dim_payment_method", behind=False)

        key = rows[0][0]
        clickhouse.command(f"TRUNCATE TABLE {shown}")
        assert found().keys[0].endswith(f"={key}: missing in ClickHouse")
        clickhouse.insert(shown, rows, column_names=names)
        assert (found().unexplained, found().left) == ({}, len(rows))
        clickhouse.insert(shown, rows[:1], column_names=names)
        assert [one.partition("=")[2] for one in found().keys] == [f"{key}: 2 times in ClickHouse"]


def test_a_source_that_is_down_ends_it_with_2(settings: Settings) -> None:
    asked = subprocess.run(
        [
            sys.executable,
            "-m",
            "tallyhouse.reconcile",
            "--pipeline",
            "techmarket",
            "--table",
            "orders.orders",
        ],
        cwd=ROOT,
        env=os.environ | {"MYSQL_ORDERS_PORT": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert asked.returncode == 2, asked.stderr
    assert "source orders does not answer" in asked.stderr
    assert "make status" in asked.stderr


def test_a_table_that_is_not_there_ends_it_with_2() -> None:
    asked = subprocess.run(
        [sys.executable, "-m", "tallyhouse.reconcile", "--table", "orders.nothing"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert asked.returncode == 2
    assert "no pipeline has a table orders.nothing" in asked.stderr
