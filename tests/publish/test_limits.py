"""What ClickHouse cannot hold is found by the columns' types, before PostgreSQL shows anything of the run."""

from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from clickhouse_connect.driver.client import Client

from tallyhouse.errors import TallyhouseError
from tallyhouse.lake import Lake
from tallyhouse.migrate import migrate_warehouse
from tallyhouse.publish.limits import Capacity, check_fits
from tallyhouse.publish.postgres import publish
from tallyhouse.publish.staging import table_schema
from tallyhouse.publish.targets.clickhouse import Target
from tallyhouse.settings import Settings
from tests.publish.test_postgres import PIPELINE, Shop
from tests.warehouse.schema import tables

pytestmark = pytest.mark.integration

MODEL = "fact_refund"
CAPACITY = Capacity.of(Target)


@pytest.fixture
def shop(postgres_scratch: str, settings: Settings, tmp_path: Path) -> Shop:
    migrate_warehouse(settings.model_copy(update={"dwh_db": postgres_scratch.rpartition("/")[2]}))
    return Shop(postgres_scratch, Lake.local(str(tmp_path)))


def test_the_ranges_are_those_of_clickhouse(clickhouse: Client) -> None:
    for least, greatest, kind in Target.ranges.values():
        for bound in (least, greatest):
            value = bound.removesuffix("+00")
            (found,) = clickhouse.query(f"SELECT toString(CAST('{value}' AS {kind}))").result_rows[0]
            assert found.startswith(value.removesuffix(".999999")), f"{kind} does not hold {value}"


def test_every_column_of_every_model_has_a_range_or_is_text(shop: Shop) -> None:
    with shop.connect() as connection:
        for name, table in tables().items():
            if table.schema == "dwh":
                limited = {
                    limit.column for limit in CAPACITY.limits_of(connection, "dwh", name.partition(".")[2])
                }
                free = {
                    column.name: column.postgres for column in table.columns if column.name not in limited
                }
                assert {kind.partition("(")[0] for kind in free.values()} <= {
                    *("character", "character varying", "text", "boolean")
                }, free


def row(**values: Any) -> dict[str, Any]:
    return tables()[f"dwh.{MODEL}"].row({"refund_id": f"{1:036}"} | values)


def increment(shop: Shop, run_id: str, **values: Any) -> None:
    with shop.connect() as connection:
        schema = table_schema(connection, "dwh", MODEL)
    texts = row(**values)
    columns = [
        pa.array([texts[field.name]]).cast(field.type)
        if not pa.types.is_decimal(field.type)
        else pa.array([str(texts[field.name])]).cast(field.type)
        for field in schema
    ]
    with shop.lake.create(f"increment/{MODEL}/run={run_id}/part-0.parquet") as sink:
        pq.write_table(pa.Table.from_arrays(columns, schema=schema), sink)
    key = f"report/shop/run={run_id}/transform.json"
    shop.lake.write_json(key, shop.lake.read_json(key) | {"models": {MODEL: 1}})


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("refunded_at", datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC), "9999-12-31 23:59:59"),
        ("refunded_at", datetime(1899, 12, 31, 23, 59, 59, tzinfo=UTC), "1899-12-31 23:59:59"),
        ("business_date", date(2300, 1, 1), "2300-01-01"),
    ],
)
def test_a_run_with_a_value_that_clickhouse_cannot_hold_publishes_nothing(
    shop: Shop, column: str, value: Any, said: str
) -> None:
    run_id = shop.run([(1, "card")])
    increment(shop, run_id, **{column: value})
    pipeline = replace(PIPELINE, models=(MODEL,), targets=("clickhouse",))
    with pytest.raises(
        TallyhouseError, match=f"{column} has 1 values that ClickHouse cannot hold.*{said}"
    ) as raised:
        publish(shop.connect, shop.address, shop.lake, pipeline, run_id)
    failure = raised.value.failure("publish.warehouse")
    assert (failure["table"], failure["count"]) == (MODEL, 1)
    assert failure["sample"][0].startswith(f"refund_id {1:036}: {said}")
    assert shop.ask("SELECT count(*) FROM ods.payment_methods") == [(0,)]
    assert shop.ask("SELECT status FROM etl.run") == [("running",)]
    assert shop.ask("SELECT tablename FROM pg_tables WHERE schemaname = 'staging'") == []
    assert shop.watermark is None


def test_the_edges_of_a_range_are_inside(shop: Shop) -> None:
    greatest = datetime(2299, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
    with shop.connect() as connection:
        values = row(refunded_at=greatest, business_date=date(1900, 1, 1), amount="999999999999.99")
        names = ", ".join(values)
        connection.execute(
            psycopg.sql.SQL("INSERT INTO dwh.fact_refund ({}) VALUES ({})").format(
                psycopg.sql.SQL(names), psycopg.sql.SQL(", ").join(psycopg.sql.Placeholder() * len(values))
            ),
            list(values.values()),
        )
        check_fits(connection, "dwh", MODEL, CAPACITY, model=MODEL)
