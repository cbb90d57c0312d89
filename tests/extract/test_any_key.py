"""Nights of tables without a key, and of keys that their collation compares in its own way."""

from __future__ import annotations

from collections import Counter
from typing import Any

import psycopg
import pytest

from tallyhouse.contracts.load import read_source
from tallyhouse.models.drift import postgres_changes
from tallyhouse.models.postgres import ods_table
from tests.extract.nights import Nights

pytestmark = [pytest.mark.integration, pytest.mark.spark]

LIVE = "SELECT {} FROM ods.things WHERE _deleted_at IS NULL"


def instead(
    nights: Nights, columns: str, dbml: str, settings: dict[str, Any], patch: pytest.MonkeyPatch
) -> None:
    """Puts another table, and its contract, in the place of `things`."""
    nights.source.execute("DROP TABLE things")
    nights.source.execute(f"CREATE TABLE things ({columns})")
    overlay = {"engine": nights.engine, "conn_id": "scratch", "dbml": "", "tables": {"things": settings}}
    nights.contract = read_source("scratch", overlay, f"Table things {{\n{dbml}\n}}")
    patch.setattr("tallyhouse.models.postgres.tables", lambda: [ods_table(nights.table)])
    with psycopg.connect(nights.warehouse) as connection:
        connection.execute("DROP TABLE ods.things")
        (change,) = [one for one in postgres_changes(connection) if one.what == "ods.things is missing"]
        for statement in change.statements:
            connection.execute(statement.encode())


@pytest.mark.parametrize("nights", ["mariadb", "postgres"], indirect=True)
def test_rows_without_a_key_are_counted_alike(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = "name varchar(40), amount decimal(12,2)"
    instead(
        nights,
        columns,
        columns.replace(", ", "\n"),
        {"cursor": None, "delete_limit": 1, "control_totals": ["amount"]},
        monkeypatch,
    )
    nights.source.execute(
        "INSERT INTO things VALUES ('twice', 1), ('twice', 1), ('thrice', 2), ('thrice', 2), "
        "('thrice', 2), (NULL, NULL), ('', 3), ('gone', 4)"
    )

    def same() -> bool:
        nights.source.execute("SELECT name, amount FROM things")
        return Counter(map(tuple, nights.source.fetchall())) == Counter(
            nights.ask(LIVE.format("name, amount"))
        )

    assert nights.run().rows == 8
    assert same()
    nights.source.execute("DELETE FROM things WHERE name IN ('gone', 'thrice')")
    nights.source.execute("UPDATE things SET amount = 9 WHERE name = ''")
    nights.source.execute("INSERT INTO things VALUES ('thrice', 2), (NULL, NULL)")
    manifest = nights.run()
    assert same()
    assert manifest.census is not None
    assert manifest.census["deleted"] == 4  # two of three alike, one changed, one gone


@pytest.mark.parametrize("nights", ["mariadb"], indirect=True)
def test_a_key_in_another_case_is_the_same_row(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    instead(
        nights,
        "code varchar(20) COLLATE utf8mb4_general_ci PRIMARY KEY, amount decimal(12,2) NOT NULL, "
        "updated_at datetime(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6)",
        "code varchar(20) [pk]\namount decimal(12,2) [not null]\nupdated_at datetime(6) [not null]",
        {"cursor": "updated_at", "collated": ["code"]},
        monkeypatch,
    )
    nights.source.execute("INSERT INTO things (code, amount) VALUES ('SPRING', 1), ('Été', 2)")
    assert nights.run().rows == 2
    nights.source.execute("UPDATE things SET code = 'spring', amount = 5 WHERE code = 'SPRING'")
    manifest = nights.run()
    assert manifest.census is not None
    assert manifest.census["deleted"] == 0
    assert sorted(nights.ask("SELECT code, amount::text, _deleted_at FROM ods.things")) == [
        ("spring", "5.00", None),
        ("Été", "2.00", None),
    ]
    nights.source.execute("DELETE FROM things WHERE code = 'ETE'")
    nights.run()
    assert nights.ask(LIVE.format("code")) == [("spring",)]
