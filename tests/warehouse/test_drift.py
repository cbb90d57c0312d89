"""Databases and definitions: migrations make what they ask for, and a draft ends any difference."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from clickhouse_connect.driver.client import Client

from tallyhouse.models import ModelKind, all_definitions
from tallyhouse.models.__main__ import main
from tallyhouse.models.drift import Change, postgres_changes
from tallyhouse.publish.targets.clickhouse.tables import changes as clickhouse_changes
from tallyhouse.settings import Settings

pytestmark = pytest.mark.integration

MODELS = [model.name for model in all_definitions() if model.kind is not ModelKind.CALENDAR]
BUILT = [model.name for model in all_definitions() if model.is_built]


def apply(execute: Callable[[str], Any], changes: list[Change]) -> None:
    for change in changes:
        for statement in change.statements:
            execute(statement)


def test_migrated_databases_are_what_the_definitions_say(
    warehouse: psycopg.Connection[Any], clickhouse: Client
) -> None:
    assert [change.what for change in postgres_changes(warehouse)] == []
    assert [change.what for change in clickhouse_changes(clickhouse)] == []


@pytest.mark.parametrize("model", BUILT)
def test_a_missing_table_is_made_in_postgres_with_its_unknown_member(
    warehouse: psycopg.Connection[Any], model: str
) -> None:
    before = warehouse.execute(f"SELECT * FROM dwh.{model}").fetchall()
    warehouse.execute(f"DROP TABLE dwh.{model}")
    changes = postgres_changes(warehouse)
    assert [change.what for change in changes] == [f"dwh.{model} is missing"]
    apply(warehouse.execute, changes)  # type: ignore[arg-type]
    assert postgres_changes(warehouse) == []
    assert warehouse.execute(f"SELECT * FROM dwh.{model}").fetchall() == before


@pytest.mark.parametrize("model", MODELS)
def test_a_missing_table_is_made_in_clickhouse_with_its_unknown_member(
    clickhouse: Client, model: str
) -> None:
    before = clickhouse.query(f"SELECT * FROM dwh.{model}").result_rows
    for table in (model, f"{model}__a", f"{model}__b"):
        clickhouse.command(f"DROP TABLE dwh.{table} SYNC")
    changes = clickhouse_changes(clickhouse)
    assert [change.what for change in changes] == [f"{model} is missing"]
    apply(clickhouse.command, changes)
    assert clickhouse_changes(clickhouse) == []
    assert clickhouse.query(f"SELECT * FROM dwh.{model}").result_rows == before


@pytest.mark.parametrize(
    ("by", "what"),
    [
        ("ALTER TABLE dwh.fact_refund DROP COLUMN reason", "dwh.fact_refund.reason is missing"),
        ("ALTER TABLE dwh.fact_refund ADD COLUMN x text", "dwh.fact_refund.x is in no definition"),
        (
            "ALTER TABLE dwh.fact_refund ALTER COLUMN amount TYPE numeric(15,2)",
            "dwh.fact_refund.amount is numeric(15,2), not numeric(14,2)",
        ),
        (
            "ALTER TABLE dwh.fact_refund ALTER COLUMN reason DROP NOT NULL",
            "dwh.fact_refund.reason must not be NULL",
        ),
        (
            "ALTER TABLE ods.orders ALTER COLUMN customer_note SET NOT NULL",
            "ods.orders.customer_note may be NULL",
        ),
        (
            "ALTER TABLE dwh.fact_refund DROP CONSTRAINT fact_refund_pkey, ADD CONSTRAINT fact_refund_pkey "
            "PRIMARY KEY (payment_id)",
            "dwh.fact_refund has the key payment_id, not refund_id",
        ),
        ("DROP INDEX ods.ix_ods_orders_customer_id", "index ix_ods_orders_customer_id is missing"),
        ("CREATE INDEX x ON ods.orders (status)", "index x serves no join"),
        ("COMMENT ON COLUMN dwh.dim_category.path IS 'x'", "dwh.dim_category.path has another comment"),
        ("DROP TABLE ods.roles", "ods.roles is missing"),
        ("CREATE TABLE ods.x (id integer PRIMARY KEY)", "ods.x is in no definition"),
    ],
)
def test_a_difference_is_named_and_ended_in_postgres(
    warehouse: psycopg.Connection[Any], by: str, what: str
) -> None:
    warehouse.execute(by.encode())
    changes = postgres_changes(warehouse)
    assert [change.what for change in changes] == [what]
    apply(warehouse.execute, changes)  # type: ignore[arg-type]
    assert postgres_changes(warehouse) == []


@pytest.mark.parametrize(
    ("by", "what"),
    [
        ("ALTER TABLE dwh.fact_refund__a DROP COLUMN reason", "fact_refund.reason is missing"),
        ("ALTER TABLE dwh.fact_refund__a ADD COLUMN x String", "fact_refund.x is in no definition"),
        (
            "ALTER TABLE dwh.fact_refund__a MODIFY COLUMN reason String",
            "fact_refund.reason is String, not LowCardinality(String)",
        ),
        (
            "CREATE OR REPLACE VIEW dwh.fact_refund AS SELECT refund_id FROM dwh.fact_refund__a",
            "the view fact_refund has other columns",
        ),
        ("CREATE TABLE dwh.x (id Int32) ENGINE = MergeTree ORDER BY id", "x is in no definition"),
    ],
)
def test_a_difference_is_named_and_ended_in_clickhouse(clickhouse: Client, by: str, what: str) -> None:
    clickhouse.command(by)
    changes = clickhouse_changes(clickhouse)
    assert [change.what for change in changes] == [what]
    apply(clickhouse.command, changes)
    assert clickhouse_changes(clickhouse) == []


def test_another_sorting_key_rebuilds_the_table_with_its_rows(clickhouse: Client) -> None:
    before = clickhouse.query("SELECT * FROM dwh.dim_pancake__a").result_rows
    clickhouse.command("CREATE TABLE dwh.other AS dwh.dim_pancake__a ENGINE = MergeTree ORDER BY name")
    clickhouse.command("INSERT INTO dwh.other SELECT * FROM dwh.dim_pancake__a")
    clickhouse.command("EXCHANGE TABLES dwh.other AND dwh.dim_pancake__a")
    clickhouse.command("DROP TABLE dwh.other SYNC")
    changes = clickhouse_changes(clickhouse)
    assert len(changes) == 1
    apply(clickhouse.command, changes)
    assert clickhouse_changes(clickhouse) == []
    assert clickhouse.query("SELECT * FROM dwh.dim_pancake__a").result_rows == before


def test_the_command_says_what_differs(
    migrated: Settings,
    clickhouse: Client,
    clickhouse_settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DWH_DB", migrated.dwh_db)
    for name in ("clickhouse_host", "clickhouse_http_port", "clickhouse_user", "clickhouse_password"):
        monkeypatch.setenv(name.upper(), str(getattr(clickhouse_settings, name)))
    monkeypatch.setenv("PORT_OFFSET", "0")
    monkeypatch.setenv("POSTGRES_PORT", str(migrated.postgres_port))
    assert main(["drift"]) == 0
    clickhouse.command("ALTER TABLE dwh.fact_refund__a DROP COLUMN reason")
    assert main(["drift"]) == 1
    assert "clickhouse: fact_refund.reason is missing" in capsys.readouterr().out
