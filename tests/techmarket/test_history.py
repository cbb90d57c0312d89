"""The history's rows agree with each other. Amounts are checked with Decimal, the generator uses int."""

import bisect
import json
import re
from collections import Counter, defaultdict
from decimal import ROUND_HALF_UP, Decimal

import pytest

from techmarket.business_time import END, to_datetime

Table = list[dict[str, str]]
Tables = dict[str, Table]
END_TEXT = to_datetime(END).isoformat()
RATES = {"UAH": Decimal(1), "USD": Decimal("41.50"), "EUR": Decimal("48.20")}


def test_every_table_has_rows_and_distinct_keys(tables: Tables) -> None:
    assert len(tables) == 14
    for name, rows in tables.items():
        key = ("product_id", "warehouse_code") if name == "inventory" else ("id",)
        assert len({tuple(row[k] for k in key) for row in rows}) == len(rows) > 0, name
        assert "created_at" not in rows[0], name
        assert "updated_at" not in rows[0], name


@pytest.mark.parametrize(
    ("child", "column", "parent"),
    [
        ("categories", "parent_category_id", "categories"),
        ("products", "category_id", "categories"),
        ("product_prices", "product_id", "products"),
        ("inventory", "product_id", "products"),
        ("addresses", "customer_id", "customers"),
        ("orders", "customer_id", "customers"),
        ("orders", "shipping_address_id", "addresses"),
        ("order_items", "order_id", "orders"),
        ("order_items", "product_id", "products"),
        ("users", "customer_id", "customers"),
        ("users", "role_id", "roles"),
        ("sessions", "user_id", "users"),
        ("payments", "order_id", "orders"),
        ("payments", "method_id", "payment_methods"),
        ("refunds", "payment_id", "payments"),
    ],
)
def test_references_hold(tables: Tables, child: str, column: str, parent: str) -> None:
    there = {row["id"] for row in tables[parent]}
    assert {row[column] for row in tables[child] if row[column] is not None} <= there


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("users", "email"),
        ("products", "sku"),
        ("categories", "slug"),
        ("orders", "order_number"),
        ("payments", "provider_reference"),
    ],
)
def test_what_is_unique_is_unique(tables: Tables, table: str, column: str) -> None:
    found = [row[column].casefold() for row in tables[table]]
    assert len(set(found)) == len(found)


def test_categories_come_parents_first_in_three_levels(tables: Tables) -> None:
    depth: dict[str | None, int] = {None: 0}
    for row in tables["categories"]:
        depth[row["id"]] = depth[row["parent_category_id"]] + 1
    assert set(depth.values()) == {0, 1, 2, 3}


def test_money_adds_up(tables: Tables) -> None:
    subtotals: defaultdict[str, Decimal] = defaultdict(Decimal)
    for line in tables["order_items"]:
        total = Decimal(line["line_total"])
        assert total == int(line["quantity"]) * Decimal(line["unit_price"]) - Decimal(line["discount"])
        assert total > 0
        assert Decimal(line["discount"]) >= 0
        subtotals[line["order_id"]] += total
    for order in tables["orders"]:
        assert Decimal(order["subtotal"]) == subtotals[order["id"]]
        assert Decimal(order["total"]) == subtotals[order["id"]] + Decimal(order["shipping_fee"])


def test_a_line_has_the_price_in_force(tables: Tables) -> None:
    prices: defaultdict[str, list[tuple[str, Decimal]]] = defaultdict(list)
    for row in sorted(tables["product_prices"], key=lambda r: r["valid_from"]):
        prices[row["product_id"]].append((row["valid_from"], Decimal(row["price"])))
    orders = {row["id"]: row for row in tables["orders"]}
    changed = 0
    for line in tables["order_items"]:
        order, history = orders[line["order_id"]], prices[line["product_id"]]
        at = bisect.bisect_right([since for since, _ in history], order["ordered_at"]) - 1
        assert at >= 0
        in_force = (history[at][1] / RATES[order["currency"]]).quantize(Decimal("0.01"), ROUND_HALF_UP)
        assert Decimal(line["unit_price"]) == in_force
        changed += at > 0
    assert changed > len(tables["order_items"]) / 4


def test_status_says_what_payments_say(tables: Tables) -> None:
    attempts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for payment in tables["payments"]:
        attempts[payment["order_id"]][payment["status"]] += 1
        assert (payment["settled_at"] is None) == (payment["status"] == "pending")
        assert (payment["failure_reason"] is None) == (payment["status"] != "failed")
    for order in tables["orders"]:
        tried = attempts[order["id"]]
        match order["status"]:
            case "paid" | "delivered" | "returned":
                assert tried["succeeded"] == 1
                assert not tried["pending"]
            case "shipped":
                assert tried["succeeded"] + tried["pending"] == 1  # cash comes with the delivery
            case "pending":
                assert not tried["succeeded"]
            case "cancelled":
                assert not tried["pending"]
            case other:
                pytest.fail(f"status {other}")


def test_payments_and_refunds_fit_their_orders(tables: Tables) -> None:
    orders = {row["id"]: row for row in tables["orders"]}
    payments = {row["id"]: row for row in tables["payments"]}
    for payment in payments.values():
        order = orders[payment["order_id"]]
        assert (payment["amount"], payment["currency"]) == (order["total"], order["currency"])
        assert order["ordered_at"] < payment["attempted_at"] < END_TEXT
        assert payment["settled_at"] is None or payment["attempted_at"] < payment["settled_at"] < END_TEXT
    for refund in tables["refunds"]:
        payment = payments[refund["payment_id"]]
        assert payment["status"] == "succeeded"
        assert 0 < Decimal(refund["amount"]) <= Decimal(payment["amount"])
        assert refund["currency"] == payment["currency"]
        assert payment["settled_at"] < refund["refunded_at"] < END_TEXT


def test_nobody_acts_before_registering(tables: Tables) -> None:
    since = {row["id"]: row["registered_at"] for row in tables["customers"]}
    assert all(since[row["customer_id"]] < row["ordered_at"] for row in tables["orders"])
    users = {row["id"]: row for row in tables["users"]}
    last: dict[str, str] = {}
    for row in tables["sessions"]:
        assert users[row["user_id"]]["registered_at"] < row["started_at"]
        assert row["ended_at"] is None or row["ended_at"] > row["started_at"]
        last[row["user_id"]] = max(last.get(row["user_id"], ""), row["started_at"])
    for user in users.values():
        if user["customer_id"] is not None:
            assert user["last_login_at"] == last.get(user["id"])


def test_shape_is_believable(tables: Tables) -> None:
    orders = Counter(row["customer_id"] for row in tables["orders"])
    busiest = sum(count for _, count in orders.most_common(len(tables["customers"]) // 10))
    assert 0.25 < busiest / len(tables["orders"]) < 0.8, "a tenth of the customers make a third of the orders"
    assert sum(count > 1 for count in orders.values()) > 0.4 * len(orders), "customers return"
    sold = Counter(row["product_id"] for row in tables["order_items"])
    assert sold.most_common(1)[0][1] > 8 * (sum(sold.values()) / len(sold)), "some products are far ahead"
    failed = sum(row["status"] == "failed" for row in tables["payments"]) / len(tables["payments"])
    assert 0.05 < failed < 0.25
    assert 0.03 < len(tables["refunds"]) / len(tables["orders"]) < 0.15
    currencies = Counter(row["currency"] for row in tables["orders"])
    assert currencies["UAH"] > 0.8 * len(tables["orders"])
    assert set(currencies) == {"UAH", "USD", "EUR"}


def test_text_is_awkward_on_purpose(tables: Tables) -> None:
    notes = {row["customer_note"] for row in tables["orders"]}
    descriptions = {row["description"] for row in tables["products"]}
    assert None in notes
    assert "" in notes
    assert None in descriptions
    text = "".join(note or "" for note in notes | descriptions)
    assert all(mark in text for mark in ("'", '"', "\n", "\\", "🙏", "ї"))
    for product in tables["products"]:
        if product["attributes"] is not None:
            json.loads(product["attributes"])


def test_values_fit_their_columns(tables: Tables, schema_lengths: dict[tuple[str, str], int]) -> None:
    for (table, column), length in schema_lengths.items():
        for row in tables[table]:
            value = row.get(column)
            assert value is None or len(value) <= length, f"{table}.{column}: {value!r}"


@pytest.fixture(scope="module")
def schema_lengths() -> dict[tuple[str, str], int]:
    from tallyhouse.settings import ROOT  # noqa: PLC0415

    found = {}
    for path in (ROOT / "sql/oltp").glob("0[1-4]_*.sql"):
        table = ""
        for line in path.read_text("utf-8").splitlines():
            if opened := re.match(r"CREATE TABLE `(\w+)`", line):
                table = opened[1]
            elif column := re.match(r"\s+`(\w+)` (?:var)?char\((\d+)\)", line):
                found[table, column[1]] = int(column[2])
    assert len(found) > 40
    return found
