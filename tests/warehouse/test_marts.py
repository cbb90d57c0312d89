"""Each mart that ClickHouse builds, against another query in another engine: marts/<mart>.sql."""

import random
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from clickhouse_connect.driver.client import Client

from tallyhouse.contracts import load_subject
from tallyhouse.publish import sql as statements
from tests.warehouse.conftest import Insert
from tests.warehouse.schema import tables

MARTS = sorted((*load_subject("techmarket").marts, *load_subject("pancake").marts))
CURRENCIES = ("UAH", "EUR", "USD")
Star = dict[str, list[dict[str, Any]]]


def star() -> Star:
    """A small star schema: unknown and missing members, missing values, versions, shared orders."""
    dice = random.Random(7)  # noqa: S311 - the same rows every time

    def day() -> date:
        return date(2026, 1, 1) + timedelta(days=dice.randrange(120))

    orders = [
        {
            "order_id": f"o{number}",
            "customer_key": dice.choice([-1, *range(1, 21)]),
            "business_date": day(),
            "status": dice.choice(["paid", "delivered", "cancelled", "returned"]),
            "currency": dice.choice(CURRENCIES),
            "ship_region": dice.choice(["Kyiv", "Lviv", None]),
        }
        for number in range(300)
    ]
    orphan = dict.fromkeys(("business_date", "status", "currency", "ship_region"))
    orders.append({"order_id": "nowhere", "customer_key": -1, **orphan})
    return {
        "dim_category": [
            {"category_key": key, "category_id": f"c{key}", "root_name": f"Root {key % 2}"}
            for key in range(1, 6)
        ],
        # Two versions of each customer.
        "dim_customer": [{"customer_key": key, "customer_id": f"u{key % 10}"} for key in range(1, 21)],
        "dim_payment_method": [
            {"payment_method_key": key, "method_id": key, "code": f"m{key}", "provider": f"p{key % 2}"}
            for key in range(1, 4)
        ],
        "dim_pancake": [
            {"pancake_key": key, "pancake_id": key, "syrup_type": f"s{key % 3}", "is_buttery": key % 2 == 0}
            for key in range(1, 101)
        ],
        "fact_order_line": [
            {
                **dice.choice(orders),
                "order_item_id": f"i{number}",
                "category_key": dice.choice([-1, 404, *range(1, 6)]),
                "quantity": dice.randint(1, 5),
                "line_total": Decimal(dice.randrange(10**9)) / 100,
            }
            for number in range(1500)
        ],
        "fact_payment": [
            {
                "payment_id": f"p{number}",
                "order_id": f"o{dice.randrange(300)}",
                "payment_method_key": dice.choice([-1, 404, 1, 2, 3]),
                "business_date": day(),
                "status": dice.choice(["pending", "succeeded", "failed"]),
                "amount": Decimal(dice.randrange(10**9)) / 100,
                "currency": dice.choice(CURRENCIES),
            }
            for number in range(800)
        ],
        "fact_pancake_rating": [
            {
                "pancake_id": key,
                "pancake_key": 404 if key == 100 else key,
                "business_date": day(),
                "fluffiness_level": dice.randint(1, 10),
                "magical_factor": Decimal(dice.randrange(99999)) / 100,
            }
            for key in range(1, 101)
        ],
    }


def typed(value: Any) -> Any:
    """Fillers are text; ClickHouse's client wants values."""
    match value:
        case "2026-01-02":
            return date(2026, 1, 2)
        case "2026-01-02 03:04:05+00":
            return datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        case _:
            return value


def fill(clickhouse: Client) -> None:
    for model, rows in star().items():
        table = tables()[f"dwh.{model}"]
        clickhouse.insert(
            table.qualified_name, [[typed(value) for value in table.row(row).values()] for row in rows]
        )


@pytest.mark.integration
@pytest.mark.parametrize("mart", MARTS)
def test_mart_is_what_postgres_makes_of_the_same_rows(
    warehouse: psycopg.Connection[Any], clickhouse: Client, insert: Insert, mart: str
) -> None:
    for model, rows in star().items():
        insert(f"dwh.{model}", rows)
    fill(clickhouse)
    clickhouse.command(statements.render(f"clickhouse/models/{mart}/build.sql", staging=f"dwh.{mart}"))
    found = clickhouse.query(f"SELECT * FROM dwh.{mart}").result_rows
    expected = warehouse.execute((Path(__file__).parent / "marts" / f"{mart}.sql").read_text()).fetchall()
    assert len(expected) > 10
    assert sorted(found, key=repr_of) == sorted(expected, key=repr_of)


def repr_of(row: tuple[Any, ...]) -> str:
    """An order for rows that may hold None."""
    return repr(tuple(Decimal(value) if isinstance(value, int | Decimal) else value for value in row))


@pytest.mark.integration
@pytest.mark.parametrize("mart", MARTS)
def test_mart_of_an_empty_star_schema_is_empty(clickhouse: Client, mart: str) -> None:
    clickhouse.command(statements.render(f"clickhouse/models/{mart}/build.sql", staging=f"dwh.{mart}"))
    assert clickhouse.command(f"SELECT count() FROM dwh.{mart}") == 0
    assert all(Decimal(left) == Decimal(right) == 0 for left, right in law(clickhouse, mart).values())


BROKEN = {
    "mart_revenue_daily": ("currency = 'UAH'", {"rows", "quantity UAH", "revenue UAH", "net_revenue UAH"}),
    "mart_customer_cohorts": ("currency = 'EUR'", {"orders EUR", "revenue EUR"}),
    "mart_payment_conversion": (
        "currency = 'USD'",
        {"rows", *(f"{m} USD" for m in ("succeeded", "failed", "attempted_amount", "paid_amount"))},
    ),
    "mart_pancake_quality": (
        "syrup_type = 's1'",
        {"rows", "fluffy_pancakes", "total_fluffiness", "total_magical_factor"},
    ),
}


@pytest.mark.integration
@pytest.mark.parametrize("mart", MARTS)
def test_law_of_a_mart_holds_until_lines_are_dropped(clickhouse: Client, mart: str) -> None:
    fill(clickhouse)
    clickhouse.command(statements.render(f"clickhouse/models/{mart}/build.sql", staging=f"dwh.{mart}"))
    held = law(clickhouse, mart)
    assert all(Decimal(left) == Decimal(right) != 0 for left, right in held.values())
    lost, fails = BROKEN[mart]
    clickhouse.command(f"DELETE FROM dwh.{mart} WHERE {lost}")
    broken = law(clickhouse, mart)
    assert broken.keys() == held.keys()
    assert {measure for measure, (left, right) in broken.items() if left != right} == fails


def law(clickhouse: Client, mart: str) -> dict[str, tuple[str, str]]:
    rows = clickhouse.query(statements.render(f"clickhouse/models/{mart}/law.sql")).result_rows
    assert len({measure for measure, _, _ in rows}) == len(rows)
    return {measure: (left, right) for measure, left, right in rows}
