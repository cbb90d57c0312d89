"""Whole nights through Airflow on real servers, judged by plain SQL that imports nothing of the project.

The tests of this file run in order on one warehouse: a first night, a night that bad data stops, the
next one that is right again, and one with nothing new.
"""

import json
import os
import re
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import mysql.connector
import psycopg
import pytest

pytestmark = pytest.mark.integration

REPOSITORY = Path(__file__).resolve().parents[2]
STORES = {
    "auth": ("roles", "users", "sessions"),
    "catalog": ("categories", "products", "product_prices", "inventory"),
    "orders": ("customers", "addresses", "orders", "order_items"),
    "payments": ("payment_methods", "payments", "refunds"),
}
MONEY = {
    ("orders", "order_items", "line_total"): "SELECT sum(line_total) FROM dwh.fact_order_line",
    ("orders", "order_items", "quantity"): "SELECT sum(quantity) FROM dwh.fact_order_line",
    ("payments", "payments", "amount"): "SELECT sum(amount) FROM dwh.fact_payment",
    ("payments", "refunds", "amount"): "SELECT sum(amount) FROM dwh.fact_refund",
}
FACTS = {
    "order_items": "fact_order_line",
    "payments": "fact_payment",
    "refunds": "fact_refund",
}


class Store:
    """Plain SQL on one of the source stores."""

    def __init__(self, name: str) -> None:
        prefix = f"MYSQL_{name.upper()}"
        self.connection = mysql.connector.connect(
            host=os.environ[f"{prefix}_HOST"],
            port=int(os.environ[f"{prefix}_PORT"]),
            database=os.environ[f"{prefix}_DB"],
            user=os.environ[f"{prefix}_USER"],
            password=os.environ[f"{prefix}_PASSWORD"],
            autocommit=True,
        )

    def value(self, query: str) -> object:
        cursor = self.connection.cursor()
        cursor.execute(query)
        (found,) = cursor.fetchone()
        cursor.close()
        return found

    def run(self, statement: str, *values: object) -> None:
        cursor = self.connection.cursor()
        cursor.execute(statement, values)
        cursor.close()


@pytest.fixture(scope="module")
def stores() -> dict[str, Store]:
    return {name: Store(name) for name in STORES}


def owner(database: str) -> psycopg.Connection:
    """The warehouse's owner in one of its databases."""
    return psycopg.connect(
        host=os.environ["POSTGRES_HOST"],
        port=os.environ["POSTGRES_PORT"],
        dbname=database,
        user=os.environ["DWH_USER"],
        password=os.environ["DWH_PASSWORD"],
        autocommit=True,
    )


@pytest.fixture(scope="module")
def warehouse() -> Iterator[psycopg.Connection]:
    with owner(os.environ["DWH_DB"]) as connection:
        yield connection


def ask(warehouse: psycopg.Connection, query: str) -> object:
    (found,) = warehouse.execute(query).fetchone()
    return found


def clickhouse(query: str) -> str:
    url = f"http://{os.environ['CLICKHOUSE_HOST']}:{os.environ['CLICKHOUSE_HTTP_PORT']}/?"
    request = urllib.request.Request(url + urllib.parse.urlencode({"query": query}))  # noqa: S310
    request.add_header("X-ClickHouse-User", os.environ["CLICKHOUSE_USER"])
    request.add_header("X-ClickHouse-Key", os.environ["CLICKHOUSE_PASSWORD"])
    with urllib.request.urlopen(request) as answer:  # noqa: S310
        return answer.read().decode().strip()


def run_dag(dag: str, date: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Runs a DAG as a user would: `airflow dags test`."""
    return subprocess.run(
        ["scripts/airflow", "dags", "test", dag, date, *options],
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
        timeout=900,
    )


def assert_succeeds(done: subprocess.CompletedProcess[str]) -> None:
    output = done.stdout + done.stderr
    assert done.returncode == 0, output[-6000:]
    assert "task_id=close_run" in output, output[-6000:]


def assert_same(stores: dict[str, Store], warehouse: psycopg.Connection) -> None:
    """The warehouse and ClickHouse hold what the stores hold, by count and by sums of money."""
    for store, tables in STORES.items():
        for table in tables:
            rows = stores[store].value(f"SELECT COUNT(*) FROM {table}")
            assert ask(warehouse, f"SELECT count(*) FROM ods.{table} WHERE _deleted_at IS NULL") == rows, (
                table
            )
            if table in FACTS:
                assert ask(warehouse, f"SELECT count(*) FROM dwh.{FACTS[table]}") == rows, table
                assert clickhouse(f"SELECT count() FROM dwh.{FACTS[table]}") == str(rows), table
    for (store, table, column), query in MONEY.items():
        total = stores[store].value(f"SELECT SUM({column}) FROM {table}")
        assert ask(warehouse, query) == total, (table, column)
        assert Decimal(clickhouse(query)) == total, (table, column)
    per_currency = "SELECT string_agg(c || '=' || s, ',' ORDER BY c) FROM ({}) AS t"
    stores["orders"].run("SET SESSION group_concat_max_len = 100000")
    source = stores["orders"].value(
        "SELECT GROUP_CONCAT(CONCAT(c, '=', s) ORDER BY c SEPARATOR ',') FROM (SELECT o.currency AS c, "
        "SUM(i.line_total) AS s FROM order_items i JOIN orders o ON o.id = i.order_id GROUP BY o.currency) t"
    )
    fact = "SELECT currency AS c, sum(line_total) AS s FROM dwh.fact_order_line GROUP BY currency"
    assert ask(warehouse, per_currency.format(fact)) == source
    revenue = Decimal(clickhouse("SELECT sum(revenue) FROM dwh.mart_revenue_daily"))
    assert revenue == stores["orders"].value("SELECT SUM(line_total) FROM order_items")


def content(warehouse: psycopg.Connection) -> dict[str, object]:
    """A digest of every row of the warehouse, order aside."""
    tables = warehouse.execute(
        "SELECT table_schema, table_name FROM information_schema.tables "
        "WHERE table_schema IN ('ods', 'dwh') AND table_type = 'BASE TABLE' ORDER BY 1, 2"
    ).fetchall()
    return {
        f"{schema}.{table}": ask(
            warehouse,
            f"SELECT coalesce(sum(('x' || substr(md5(t::text), 1, 15))::bit(60)::bigint::numeric), 0) "
            f'FROM "{schema}"."{table}" AS t',
        )
        for schema, table in tables
    }


def assert_checked(warehouse: psycopg.Connection) -> None:
    """The newest run looked at all rows of one model, and of the facts beside it at what changed."""
    whole = {
        model
        for model, part in warehouse.execute(
            "SELECT table_name, bool_or(coalesce(parts ? 'changed', false)) FROM etl.ledger "
            "WHERE hop = 'ods=model' AND run_id = (SELECT run_id FROM etl.run WHERE pipeline = 'techmarket' "
            "AND status = 'published' ORDER BY published_at DESC LIMIT 1) GROUP BY 1"
        )
        if not part
    }
    assert whole
    assert len(whole & set(FACTS.values())) <= 1, whole


def test_a_first_night_brings_every_row(stores: dict[str, Store], warehouse: psycopg.Connection) -> None:
    assert stores["orders"].value("SELECT COUNT(*) FROM order_items") > 100, "load data first: make data"
    assert_succeeds(run_dag("techmarket_nightly", "2026-01-02"))
    assert_same(stores, warehouse)
    assert ask(warehouse, "SELECT count(*) FROM etl.ledger WHERE NOT closed") == 0
    hops = {row[0] for row in warehouse.execute("SELECT DISTINCT hop FROM etl.ledger")}
    assert hops == {
        "source=raw",
        "raw=accepted",
        "accepted=ods",
        "ods=model",
        "postgres=clickhouse",
        "clickhouse=mart",
    }


def test_bad_data_stops_the_night_before_anything_is_published(
    stores: dict[str, Store], warehouse: psycopg.Connection
) -> None:
    before = content(warehouse)
    marks = warehouse.execute("SELECT * FROM etl.watermark ORDER BY source, table_name").fetchall()
    victim = stores["orders"].value("SELECT MIN(id) FROM orders")
    was = stores["orders"].value(f"SELECT ordered_at FROM orders WHERE id = '{victim}'")
    stores["orders"].run("UPDATE orders SET ordered_at = '9999-12-31 23:59:59' WHERE id = %s", victim)
    try:
        done = run_dag("techmarket_nightly", "2026-01-03")
    finally:
        stores["orders"].run("UPDATE orders SET ordered_at = %s WHERE id = %s", was, victim)
    output = done.stdout + done.stderr
    assert "DagRun failed" in output, output[-6000:]
    assert re.search(r"orders\.orders in run techmarket-\S+: .*ordered_at", output), output[-6000:]
    assert content(warehouse) == before
    assert warehouse.execute("SELECT * FROM etl.watermark ORDER BY source, table_name").fetchall() == marks
    newest = "SELECT status FROM etl.run WHERE pipeline = 'techmarket' ORDER BY started_at DESC LIMIT 1"
    assert ask(warehouse, newest) == "failed"
    # Why is kept where people look, and what was taken is in the ledger all the same.
    failure = ask(warehouse, newest.replace("status FROM", "failure FROM"))
    assert {name: failure[name] for name in ("task", "table", "rule", "count", "sample")} == {
        "task": "check",
        "table": "orders.orders",
        "rule": "expect_column_values_to_be_between(ordered_at)",
        "count": 1,
        "sample": [f"id {victim}"],
    }
    run_id = ask(warehouse, newest.replace("status FROM", "run_id FROM"))
    assert warehouse.execute(
        "SELECT DISTINCT hop, closed FROM etl.ledger WHERE run_id = %s", (run_id,)
    ).fetchall() == [("source=raw", True)]
    printed = subprocess.run(
        [sys.executable, "-m", "tallyhouse.ledger", "print", "--run", run_id],
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
    ).stdout
    assert printed.startswith(f"{run_id}: failed\nfailed in   check"), printed
    assert victim in printed


def test_the_night_after_takes_up_all_that_changed(
    stores: dict[str, Store], warehouse: psycopg.Connection
) -> None:
    subprocess.run(["python", "-m", "techmarket", "day"], check=True, cwd=REPOSITORY)
    assert_succeeds(run_dag("techmarket_nightly", "2026-01-04"))
    assert_same(stores, warehouse)


def test_a_night_with_nothing_new_changes_nothing(
    stores: dict[str, Store], warehouse: psycopg.Connection
) -> None:
    before = content(warehouse)
    assert_succeeds(run_dag("techmarket_nightly", "2026-01-05"))
    assert content(warehouse) == before
    assert_same(stores, warehouse)
    assert_checked(warehouse)


def test_a_misspelt_parameter_is_no_ordinary_run(warehouse: psycopg.Connection) -> None:
    before = ask(warehouse, "SELECT count(*) FROM etl.run")
    done = run_dag("pancake_nightly", "2026-01-02", "--conf", '{"full_refesh": true, "tabels": ["x"]}')
    output = done.stdout + done.stderr
    assert "DagRun failed" in output, output[-6000:]
    assert "no parameter 'full_refesh' (full_refresh?), 'tabels' (tables?)" in output, output[-6000:]
    assert ask(warehouse, "SELECT count(*) FROM etl.run") == before


def test_pancakes_arrive_too(warehouse: psycopg.Connection) -> None:
    assert_succeeds(run_dag("pancake_nightly", "2026-01-02"))
    with psycopg.connect(
        host=os.environ["POSTGRES_HOST"],
        port=os.environ["POSTGRES_PORT"],
        dbname=os.environ["PANCAKE_DB"],
        user=os.environ["PANCAKE_USER"],
        password=os.environ["PANCAKE_PASSWORD"],
    ) as shop:
        rows, fluffiness, magic = shop.execute(
            "SELECT count(*), sum(fluffiness_level), sum(magical_factor) FROM pancakes"
        ).fetchone()
    found = warehouse.execute(
        "SELECT count(*), sum(fluffiness_level), sum(magical_factor) FROM dwh.fact_pancake_rating"
    ).fetchone()
    assert found == (rows, fluffiness, magic)
    assert (
        clickhouse("SELECT count(), sum(fluffiness_level) FROM dwh.fact_pancake_rating")
        == f"{rows}\t{fluffiness}"
    )


def test_live_sources_are_what_the_stores_hold_and_what_is_not_is_named(
    warehouse: psycopg.Connection,
) -> None:
    def reconcile(*arguments: str) -> tuple[int, str]:
        done = subprocess.run(
            ["python", "-m", "tallyhouse.reconcile", *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=REPOSITORY,
        )
        return done.returncode, done.stdout + done.stderr

    code, said = reconcile()
    assert code == 0, said
    assert "orders.orders source=ods" in said
    assert "mart_pancake_quality clickhouse=mart" in said
    assert re.search(r"reconciled: [1-9]\d+ rows compared, 0 unexplained", said)
    change = "UPDATE dwh.fact_refund SET amount = amount {} 1 WHERE refund_id = %s"
    refund = ask(warehouse, "SELECT min(refund_id) FROM dwh.fact_refund")
    warehouse.execute(change.format("+").encode(), (refund,))
    try:
        code, said = reconcile("--table", "fact_refund")
    finally:
        warehouse.execute(change.format("-").encode(), (refund,))
    assert code == 1, said
    assert f"refund_id={refund}: differs in ClickHouse" in said
    assert f"refund_id={refund}: differs from refunds" in said


def test_raw_alone_gives_the_same_warehouse(warehouse: psycopg.Connection) -> None:
    """All these nights again, from raw alone; judged here row by row, beside what the DAG says itself."""
    done = run_dag("rebuild_warehouse", "2026-01-09")
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    with owner(os.environ["DWH_REBUILD_DB"]) as rebuilt:
        for table in ("ods.orders", "dwh.fact_order_line", "dwh.dim_customer"):
            columns = ask(
                warehouse,
                "SELECT string_agg(quote_ident(column_name), ', ' ORDER BY column_name) FROM "
                "information_schema.columns WHERE table_schema || '.' || table_name = "
                f"'{table}' AND column_name !~ '^_(run|snapshot)$'",
            )
            query = f"SELECT t::text FROM (SELECT {columns} FROM {table}) AS t ORDER BY 1"
            rows = warehouse.execute(query).fetchall()
            assert rows
            assert rebuilt.execute(query).fetchall() == rows, table


def test_the_nights_told_what_they_read_and_wrote() -> None:
    """Airflow's OpenLineage provider told pipeline-info, from the sources to ClickHouse, down to columns."""

    def told(path: str, node: str) -> dict:
        url = f"http://{os.environ['PIPELINE_INFO_HOST']}:{os.environ['PIPELINE_INFO_PORT']}/api/v1/{path}"
        query = urllib.parse.urlencode({"nodeId": node})
        with urllib.request.urlopen(f"{url}?{query}") as answer:  # noqa: S310
            return json.load(answer)

    place = f"clickhouse://{os.environ['CLICKHOUSE_HOST']}:{os.environ['CLICKHOUSE_HTTP_PORT']}"
    mart = f"dataset:{place}:dwh.mart_revenue_daily"
    nodes = {node["id"] for node in told("lineage", mart)["graph"]}
    source = f"mysql://{os.environ['MYSQL_ORDERS_HOST']}:{os.environ['MYSQL_ORDERS_PORT']}"
    assert f"dataset:{source}:orders_db.order_items" in nodes
    assert "job:tallyhouse:techmarket_nightly.transform" in nodes
    columns = {
        (item["target_field"], item["source"], item["source_field"])
        for item in told("column-lineage", mart)["items"]
    }
    assert ("revenue", f"dataset:{place}:dwh.fact_order_line", "line_total") in columns
