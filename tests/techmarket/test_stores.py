"""On real servers: what is in the stores is what was generated, and a load that died is completed."""

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

import mysql.connector
import psycopg
import pytest
from psycopg import sql

from tallyhouse.settings import ROOT, Settings, load_settings
from techmarket.cli import main
from techmarket.shop import Shop
from techmarket.sizes import Sizes
from techmarket.stores import alone
from tests.techmarket.rows import values

pytestmark = pytest.mark.integration

SCHEMAS = {"auth": "01_auth", "catalog": "02_catalog", "orders": "03_orders", "payments": "04_payments"}
SMALL = ["data", "--scale", "0.003", "--seed", "11"]
TABLES = {
    "catalog": ("categories", "products", "product_prices", "inventory"),
    "orders": ("customers", "addresses", "orders", "order_items"),
    "auth": ("roles", "users", "sessions"),
    "payments": ("payment_methods", "payments", "refunds"),
}


@dataclass
class Stores:
    """Scratch stores, and cursors of their own, apart from the generator's."""

    cursors: dict[str, Any]
    pancakes: psycopg.Connection

    def ask(self, store: str, query: str) -> list[tuple[Any, ...]]:
        self.cursors[store].execute(query)
        return self.cursors[store].fetchall()

    def one(self, store: str, query: str) -> Any:
        return self.ask(store, query)[0][0]

    def everything(self) -> dict[str, list[tuple[Any, ...]]]:
        """All rows, but for what the server's clock set."""
        found = {}
        for store, tables in TABLES.items():
            for table in tables:
                columns = [row[0] for row in self.ask(store, f"SHOW COLUMNS FROM {table}")]
                kept = ", ".join(c for c in columns if c not in ("created_at", "updated_at"))
                found[table] = sorted(self.ask(store, f"SELECT {kept} FROM {table}"), key=repr)
        found["pancakes"] = self.pancakes.execute("SELECT * FROM pancakes ORDER BY id").fetchall()
        return found


@pytest.fixture
def stores(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stores]:
    """Empty databases with the real schemas, one on each server; the settings lead to them."""
    name, server = f"scratch_{secrets.token_hex(4)}", settings.environment()
    with ExitStack() as stack:
        cursors = {}
        for store, schema in SCHEMAS.items():
            key = f"MYSQL_{store.upper()}"
            connection = stack.enter_context(
                mysql.connector.connect(
                    host=server[f"{key}_HOST"],
                    port=int(server[f"{key}_PORT"]),
                    user="root",
                    password=settings.mysql_root_password,
                    autocommit=True,
                )
            )
            cursor = cursors[store] = connection.cursor()
            cursor.execute(f"CREATE DATABASE {name}_{store}")
            stack.callback(cursor.execute, f"DROP DATABASE {name}_{store}")
            cursor.execute(f"USE {name}_{store}")
            for statement in (ROOT / f"sql/oltp/{schema}_schema.sql").read_text("utf-8").split(";\n"):
                if statement.strip():
                    cursor.execute(statement)
            monkeypatch.setenv(f"{key}_DB", f"{name}_{store}")
            monkeypatch.setenv(f"{key}_USER", "root")
            monkeypatch.setenv(f"{key}_PASSWORD", settings.mysql_root_password)

        server: dict[str, Any] = {
            "host": settings.postgres_host,
            "port": settings.postgres_port,
            "user": settings.postgres_user,
            "password": settings.postgres_password,
        }
        admin = stack.enter_context(psycopg.connect(**server, dbname="postgres", autocommit=True))
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        drop = sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
        stack.callback(admin.execute, drop)
        pancakes = stack.enter_context(psycopg.connect(**server, dbname=name, autocommit=True))
        pancakes.execute((ROOT / "sql/oltp/05_pancake_schema.sql").read_text("utf-8"))  # type: ignore[arg-type]
        monkeypatch.setenv("PANCAKE_DB", name)
        monkeypatch.setenv("PANCAKE_USER", settings.postgres_user)
        monkeypatch.setenv("PANCAKE_PASSWORD", settings.postgres_password)
        yield Stores(cursors, pancakes)


def test_the_stores_hold_what_was_generated(stores: Stores, capsys: pytest.CaptureFixture[str]) -> None:
    before = stores.one("orders", "SELECT UTC_TIMESTAMP(6)")
    assert main(SMALL) == 0
    shop = Shop(11, Sizes.of(0.003))
    counts = {}
    for store, tables in TABLES.items():
        made: dict[str, list[dict[str, str | None]]] = {table: [] for table in tables}
        for batch in shop.batches(store):
            made[batch.table] += [dict(zip(batch.columns, values(r), strict=True)) for r in batch.rows()]
        for table, rows in made.items():
            counts[table] = len(rows)
            assert stores.one(store, f"SELECT COUNT(*) FROM {table}") == len(rows)
            oldest, differing = stores.ask(
                store, f"SELECT MIN(created_at), SUM(created_at <> updated_at) FROM {table}"
            )[0]
            assert oldest >= before, "the server's clock sets created_at"
            assert differing == 0
        if store == "orders":
            for column in ("subtotal", "shipping_fee", "total"):
                total = sum(Decimal(row[column] or 0) for row in made["orders"])
                assert stores.one(store, f"SELECT SUM({column}) FROM orders") == total
            notes = dict(stores.ask(store, "SELECT id, customer_note FROM orders"))
            assert notes == {row["id"]: row["customer_note"] for row in made["orders"]}
        if store == "payments":
            total = sum(Decimal(row["amount"] or 0) for row in made["payments"])
            assert stores.one(store, "SELECT SUM(amount) FROM payments") == total
        if store == "catalog":
            stored = dict(stores.ask(store, "SELECT id, description FROM products"))
            assert stored == {row["id"]: row["description"] for row in made["products"]}
    eaten = stores.pancakes.execute("SELECT COUNT(*), SUM(magical_factor) FROM pancakes").fetchone()
    expected = list(shop.pancakes())
    assert eaten == (len(expected), sum(row[4] for row in expected))

    capsys.readouterr()
    assert main(["verify"]) == 0
    shown = capsys.readouterr().out
    assert all(table in shown for table in [*counts, "pancakes"])
    assert f"{sum(counts.values()) + len(expected):,}" in shown


def test_a_filled_store_is_not_overwritten(stores: Stores, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(SMALL) == 0
    before = stores.everything()
    assert main(SMALL) == 1
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    assert "--replace" in said
    assert main([*SMALL, "--if-empty"]) == 0
    assert stores.everything() == before
    stores.ask("orders", "SELECT COUNT(*) FROM orders")
    stores.cursors["orders"].execute("UPDATE customers SET last_name = 'X'")
    assert main([*SMALL, "--replace"]) == 0
    assert stores.everything() == before


def test_a_killed_load_is_mended(stores: Stores, capsys: pytest.CaptureFixture[str]) -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "techmarket", "data", "--scale", "0.3"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "include")},
    )
    deadline = time.monotonic() + 60
    while not stores.one("orders", "SELECT COUNT(*) FROM orders"):
        assert time.monotonic() < deadline
        assert child.poll() is None
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert main(["verify"]) == 1
    assert "cut short" in capsys.readouterr().err
    assert main(["day"]) == 1
    assert "make data" in capsys.readouterr().err
    # The dead one's lock goes when its server notices; its last statement may still be at work.
    while (status := main([*SMALL, "--if-empty"])) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert status == 0
    completed = stores.everything()
    assert main(["verify"]) == 0
    assert main([*SMALL, "--replace"]) == 0
    assert stores.everything() == completed


def test_days_repeat_and_stay_sound(stores: Stores) -> None:
    assert main(SMALL) == 0
    fresh = stores.everything()
    assert main(["day", "--seed", "11", "--no-deletes"]) == 0
    one_day = stores.everything()
    for table, rows in fresh.items():
        assert {row[0] for row in rows} <= {row[0] for row in one_day[table]}, f"{table} lost rows"
    assert len(one_day["orders"]) > len(fresh["orders"])
    assert len(one_day["product_prices"]) > len(fresh["product_prices"])
    assert stores.one("orders", "SELECT COUNT(*) FROM orders WHERE updated_at > created_at") > 0

    assert main([*SMALL, "--replace"]) == 0
    assert main(["day", "--seed", "11", "--no-deletes"]) == 0
    assert stores.everything() == one_day, "the same seed and stores give the same day"

    for _ in range(12):
        assert main(["day", "--seed", "11", "--deletes"]) == 0
    latest = stores.one("catalog", "SELECT DATE(MAX(valid_from)) FROM product_prices")
    assert latest == date(2026, 1, 14), "thirteen days after the first of January"
    later = stores.everything()
    assert {r[0] for r in one_day["orders"]} - {r[0] for r in later["orders"]}, "no order was deleted"
    assert {r[0] for r in one_day["sessions"]} - {r[0] for r in later["sessions"]}, "no session was deleted"
    _sound(stores)


@pytest.mark.parametrize("rows", [1, 4, 16])
def test_a_killed_day_leaves_sound_stores(stores: Stores, rows: int) -> None:
    assert main(["data", "--scale", "0.05", "--seed", "11"]) == 0
    count = "SELECT COUNT(*) FROM payments"
    before = stores.one("payments", count)
    child = subprocess.Popen(
        [sys.executable, "-m", "techmarket", "day"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "include")},
    )
    deadline = time.monotonic() + 60
    while stores.one("payments", count) < before + rows and child.poll() is None:
        assert time.monotonic() < deadline
    child.send_signal(signal.SIGKILL)
    child.wait()
    _sound(stores)
    while (status := main(["day", "--deletes"])) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert status == 0
    assert stores.one("catalog", "SELECT DATE(MAX(valid_from)) FROM product_prices") == date(2026, 1, 3)
    _sound(stores)


def _sound(stores: Stores) -> None:
    """What must hold in the stores at any time, in plain SQL."""
    wrong_line = "SELECT COUNT(*) FROM order_items WHERE line_total <> quantity * unit_price - discount"
    assert stores.one("orders", wrong_line) == 0
    wrong_order = (
        "SELECT COUNT(*) FROM orders AS o LEFT JOIN (SELECT order_id, SUM(line_total) AS s FROM order_items "
        "GROUP BY order_id) AS i ON i.order_id = o.id "
        "WHERE i.s IS NULL OR i.s <> o.subtotal OR o.total <> o.subtotal + o.shipping_fee"
    )
    assert stores.one("orders", wrong_order) == 0
    wrong_refund = (
        "SELECT COUNT(*) FROM refunds AS r LEFT JOIN payments AS p ON p.id = r.payment_id "
        "WHERE p.id IS NULL OR p.status <> 'succeeded' OR r.amount > p.amount"
    )
    assert stores.one("payments", wrong_refund) == 0
    orders = {row[0]: row[1:] for row in stores.ask("orders", "SELECT id, status, total FROM orders")}
    payments = stores.ask("payments", "SELECT order_id, status, amount FROM payments")
    assert {order for order, *_ in payments} <= set(orders)
    assert all(orders[order][1] == amount for order, _, amount in payments)
    succeeded = [order for order, status, _ in payments if status == "succeeded"]
    assert len(set(succeeded)) == len(succeeded), "an order was paid twice"
    finished = {order for order, (status, _) in orders.items() if status in ("paid", "delivered", "returned")}
    assert finished <= set(succeeded)
    products = {row[0] for row in stores.ask("catalog", "SELECT id FROM products")}
    assert {row[0] for row in stores.ask("orders", "SELECT DISTINCT product_id FROM order_items")} <= products
    customers = {row[0] for row in stores.ask("orders", "SELECT id FROM customers")}
    owners = stores.ask("auth", "SELECT customer_id FROM users WHERE customer_id IS NOT NULL")
    assert {row[0] for row in owners} <= customers


def test_a_day_needs_orders(stores: Stores, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["day"]) == 1
    said = capsys.readouterr().err.strip()
    assert "no orders yet" in said
    assert "make data" in said
    assert "\n" not in said


def test_only_one_writes(stores: Stores, capsys: pytest.CaptureFixture[str]) -> None:
    with alone(load_settings()):
        assert main(SMALL) == 1
    said = capsys.readouterr().err.strip()
    assert "another make data or make day" in said
    assert "\n" not in said
    assert stores.one("orders", "SELECT COUNT(*) FROM orders") == 0


@pytest.mark.parametrize(
    ("key", "value"),
    [("MYSQL_PAYMENTS_PORT", "1"), ("MYSQL_PAYMENTS_PASSWORD", "wrong"), ("PANCAKE_DB_PORT", "1")],
)
def test_a_store_out_of_reach_gets_one_line(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], key: str, value: str
) -> None:
    monkeypatch.setenv("PORT_OFFSET", "0")
    monkeypatch.setenv(key, value)
    assert main(["verify"]) == 1
    out, said = capsys.readouterr()
    assert "categories" in out, "the other stores are shown"
    assert len(said.strip().splitlines()) == 1
    assert "make start" in said
    assert main(SMALL) == 1
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
