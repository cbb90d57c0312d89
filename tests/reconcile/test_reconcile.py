"""A live source compared with `ods`, and the star schema with ClickHouse, on real servers."""

import os
import re
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb as duckdb_file
import mysql.connector
import psycopg
import pytest

from tallyhouse.contracts import Policy
from tallyhouse.publish import follow
from tallyhouse.publish.target import Place
from tallyhouse.publish.targets import clickhouse, duckdb
from tallyhouse.reconcile import Compared, compare_mart, compare_model, compare_source, statements
from tallyhouse.settings import ROOT, Settings
from tests.extract.nights import Nights
from tests.publish.test_clickhouse import PIPELINE, Shop, another, lake, line, shop

__all__ = ["another", "lake", "shop"]  # fixtures
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
        return compare_source(source, nights.engine, warehouse, nights.lake, nights.table)


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


@EVERY
@pytest.mark.parametrize("cursor", ["updated_at", None])
def test_what_no_digests_are_remembered_of_is_explained_by_raw(nights: Nights, cursor: str | None) -> None:
    nights.table = replace(nights.table, row_digests=None, cursor=cursor)
    nights.fill(3_000)
    nights.run()
    nights.source.execute("UPDATE things SET note = 'y', updated_at = '2027-01-01 00:00:00' WHERE id = 6")
    nights.run()
    assert compared(nights).explained == compared(nights).unexplained == {}
    nights.source.execute("DELETE FROM things WHERE id IN (3, 6)")
    nights.source.execute("UPDATE things SET note = 'quietly' WHERE id = 1700")
    found = compared(nights)
    assert found.unexplained == {}
    assert found.explained == {
        "deleted since; the next run marks it": 2,
        "changed without its cursor; the next run compares it": 1,
    }
    alter(nights, "UPDATE ods.things SET amount = amount + 0.01 WHERE id = 7")
    alter(nights, "DELETE FROM ods.things WHERE id = 1234")
    alter(
        nights,
        "INSERT INTO ods.things SELECT 5000, name, amount, note, updated_at, _snapshot, _run FROM "
        "ods.things WHERE id = 8",
    )
    assert sorted(compared(nights).keys) == [
        "id=1234: missing in ods",
        "id=5000: not in the source, and never taken from it",
        "id=7: differs in ods",
    ]
    for key in nights.lake.keys("raw"):
        nights.lake.filesystem.delete_file(nights.lake.path(key))
    assert compared(nights).explained == {}  # nobody knows any more what was taken


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


@pytest.mark.parametrize("kind", ["clickhouse", "duckdb"])
def test_rows_of_a_target_that_differ_are_named_or_explained(shop: Shop, tmp_path: Path, kind: str) -> None:
    file, model = str(tmp_path / "warehouse.duckdb"), "fact_order_line"

    def opened_target() -> Any:
        if kind == "duckdb":
            return duckdb.Target.open(Place(file), shop.lake, shop.access)
        return clickhouse.Target(shop.client, shop.lake, shop.access)

    def publish(run_id: str) -> None:
        target = opened_target()
        follow.publish(shop.connect, kind, target, shop.lake, PIPELINE, run_id)
        if kind == "duckdb":
            target.close()

    def found(*owed: str) -> tuple[Compared, Compared]:
        target = opened_target()
        with shop.connect() as connection:
            model_found = compare_model(connection, shop.lake, target, kind, model, [*owed])
            mart_found = compare_mart(target, kind, "mart_revenue_daily")
        if kind == "duckdb":
            target.close()
        return model_found, mart_found

    def by_hand(*statements: str) -> None:
        for statement in statements:
            if kind == "duckdb":
                with duckdb_file.connect(file) as connection:
                    connection.execute(statement.format(table=f"dwh.{model}"))
            else:
                # The table behind the view.
                ((slot,),) = shop.client.query(f"SELECT slots['{model}'] FROM etl_slots").result_rows
                shop.client.command(
                    statement.format(table=f"{model}__{slot}"), settings={"mutations_sync": 1}
                )

    publish(shop.run(lines=tuple(sold(n) for n in range(1, 5))))
    equal, of_mart = found()
    assert (equal.left, equal.right, equal.unexplained, of_mart.unexplained) == (4, 4, {}, {})

    late = shop.run(lines=(sold(3, quantity=9), sold(9)), removed_lines=(4,))
    behind, _ = found(late)
    assert (behind.explained, behind.unexplained) == ({"of a run that the target does not show yet": 3}, {})
    assert found()[0].unexplained.total() == 3

    change = "ALTER TABLE {table} UPDATE" if kind == "clickhouse" else "UPDATE {table} SET"
    by_hand(
        change + " channel = 'x' WHERE order_item_id LIKE '%1'",
        "INSERT INTO {table} SELECT * FROM {table} WHERE order_item_id LIKE '%2'",
    )
    spoilt, of_mart = found(late)
    title = {"clickhouse": "ClickHouse", "duckdb": "DuckDB"}[kind]
    assert sorted(re.sub("=0*", "=", key) for key in spoilt.keys) == [
        f"order_item_id=1: differs in {title}",
        f"order_item_id=2: 2 times in {title}",
    ]
    assert of_mart.unexplained  # the mart adds up what was there


def sold(key: int, **values: Any) -> dict[str, Any]:
    return line(key, **{"currency": "UAH", "line_total": "9.99", "quantity": 2} | values)


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
