"""Each mart that ClickHouse builds, against another query in another engine: tests/cases/<mart>.sql."""

import random
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from clickhouse_connect.driver.client import Client

from tallyhouse.contracts import Kind
from tallyhouse.lake import Lake
from tallyhouse.models import Definition, ModelKind, all_definitions, definition
from tallyhouse.publish import sql as statements
from tallyhouse.publish.follow import check_mart
from tallyhouse.publish.target import LakeAccess
from tallyhouse.publish.targets.clickhouse import Target
from tallyhouse.settings import ROOT
from tests.warehouse.conftest import Insert
from tests.warehouse.schema import tables

MARTS = sorted(model.name for model in all_definitions() if model.kind is ModelKind.MART)
NO_LAKE, NO_ACCESS = Lake.local("nowhere"), LakeAccess("", "", "")
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


def whole_star() -> Star:
    """The rows above, and some of every other model, for marts that are added."""
    made = star()
    for model in all_definitions():
        if model.is_built and model.name not in made:
            made[model.name] = [some_row(model, number) for number in range(60)]
    return made


def some_row(model: Definition, number: int) -> dict[str, Any]:
    """A row under a key of its own, with a few values in the columns that marts group by and add up."""
    row: dict[str, Any] = {}
    for name, column in model.columns.items():
        kind = column.column_type.kind
        if kind is Kind.DATE:
            row[name] = date(2026, 1, 1) + timedelta(days=number % 7)
        elif kind in (Kind.CHAR, Kind.VARCHAR, Kind.TEXT):
            row[name] = f"v{number % 3}"[: column.column_type.length]
        elif kind.is_numeric:
            row[name] = number % 5
        if name in (*model.key, model.natural_key):
            row[name] = str(number) if kind in (Kind.CHAR, Kind.VARCHAR, Kind.TEXT) else number
    return row


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
    for model, rows in whole_star().items():
        table = tables()[f"dwh.{model}"]
        clickhouse.insert(
            f"{table.qualified_name}__a",
            [[typed(value) for value in table.row(row).values()] for row in rows],
        )


@pytest.mark.integration
@pytest.mark.parametrize("mart", MARTS)
def test_mart_is_what_postgres_makes_of_the_same_rows(
    warehouse: psycopg.Connection[Any], clickhouse: Client, insert: Insert, mart: str
) -> None:
    for model, rows in whole_star().items():
        insert(f"dwh.{model}", rows)
    fill(clickhouse)
    clickhouse.command(statements.render(f"clickhouse/models/{mart}/build.sql", staging=f"dwh.{mart}__a"))
    found = clickhouse.query(f"SELECT * FROM dwh.{mart}").result_rows
    expected = warehouse.execute((ROOT / "tests" / "cases" / f"{mart}.sql").read_text()).fetchall()
    assert len(expected) > 10
    assert sorted(found, key=repr_of) == sorted(expected, key=repr_of)


def repr_of(row: tuple[Any, ...]) -> str:
    """An order for rows that may hold None."""
    return repr(tuple(Decimal(value) if isinstance(value, int | Decimal) else value for value in row))


@pytest.mark.integration
@pytest.mark.parametrize("mart", MARTS)
def test_mart_of_an_empty_star_schema_is_empty(clickhouse: Client, mart: str) -> None:
    clickhouse.command(statements.render(f"clickhouse/models/{mart}/build.sql", staging=f"dwh.{mart}__a"))
    assert clickhouse.command(f"SELECT count() FROM dwh.{mart}") == 0
    assert all(
        line.left == line.right == 0
        for line in check_mart("clickhouse", Target(clickhouse, NO_LAKE, NO_ACCESS), mart)
    )


@pytest.mark.integration
@pytest.mark.parametrize("mart", [mart for mart in MARTS if definition(mart).totals])
def test_the_totals_of_a_mart_hold_until_rows_are_dropped(clickhouse: Client, mart: str) -> None:
    fill(clickhouse)
    clickhouse.command(statements.render(f"clickhouse/models/{mart}/build.sql", staging=f"dwh.{mart}__a"))
    held = check_mart("clickhouse", Target(clickhouse, NO_LAKE, NO_ACCESS), mart)
    assert all(line.left == line.right != 0 for line in held)
    totals = definition(mart).totals
    assert totals is not None
    group, lost = "", "1"
    for column in totals.by:
        group = clickhouse.command(f"SELECT toString(min(`{column}`)) FROM dwh.{mart}")
        lost = f"toString(`{column}`) = '{group}'"
    clickhouse.command(f"DELETE FROM dwh.{mart}__a WHERE {lost}")
    broken = {
        line.measure
        for line in check_mart("clickhouse", Target(clickhouse, NO_LAKE, NO_ACCESS), mart)
        if not line.closed
    }
    suffix = f" {group}" if group else ""
    assert broken == {*(f"{name}{suffix}" for name in totals.sums), *(["rows"] if totals.rows else [])}
