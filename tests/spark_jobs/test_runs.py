"""Transform and publish, run after run, against a warehouse of its own.

The reconciliation checks are the oracle: they compare each whole model with the whole of `ods` in PostgreSQL,
so a row that a run should have touched and did not shows at once.
"""

import hashlib
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from pyspark.sql import SparkSession

from spark_jobs.transform import transform
from spark_jobs.typed import BadValuesError
from tallyhouse.contracts import TableContract, load_pipeline
from tallyhouse.lake import Lake
from tallyhouse.migrate import migrate_warehouse
from tallyhouse.publish.postgres import publish
from tallyhouse.runs import open_run
from tallyhouse.settings import Settings
from tests.spark_jobs.raw_batches import pancakes, techmarket, uuid, write_batch, write_pipeline

pytestmark = pytest.mark.integration

Rows = dict[str, list[dict[str, Any]]]
FIRST = datetime(2026, 1, 1, 2, 0, tzinfo=UTC)


class House:
    """A warehouse and a lake, and runs of them."""

    def __init__(self, address: str, lake: Lake) -> None:
        self.address = address
        self.lake = lake
        self.runs = 0

    def connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.address)

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        with self.connect() as connection:
            return connection.execute(query).fetchall()

    def raw(self, rows: Rows, pipeline: str = "techmarket", at: datetime | None = None) -> str:
        with self.connect() as connection:
            run_id = open_run(
                connection,
                pipeline,
                tables=[table.name for table in load_pipeline(pipeline).tables],
                dag_id="d",
                dag_run_id="r",
                logical_date=None,
                full_refresh=False,
            )
        write_pipeline(self.lake, pipeline, run_id, rows, snapshot_at=at or self.next_snapshot())
        return run_id

    def next_snapshot(self) -> datetime:
        self.runs += 1
        return FIRST + timedelta(days=self.runs - 1)

    def run(self, rows: Rows, pipeline: str = "techmarket", at: datetime | None = None) -> dict[str, Any]:
        """One whole run; publishing raises unless every check holds."""
        run_id = self.raw(rows, pipeline, at)
        transform(pipeline, run_id)
        publish(self.connect, self.address, self.lake, load_pipeline(pipeline), run_id)
        assert self.ask("SELECT tablename FROM pg_tables WHERE schemaname = 'staging'") == []
        report: dict[str, Any] = self.lake.read_json(f"report/{pipeline}/run={run_id}/transform.json")
        return report

    def image(self) -> dict[str, list[tuple[Any, ...]]]:
        """Every row of every model."""
        models = load_pipeline("techmarket").models
        return {model: sorted(map(str, self.ask(f"SELECT * FROM dwh.{model}"))) for model in models}


@pytest.fixture
def house(
    postgres_scratch: str,
    settings: Settings,
    tmp_path: Path,
    spark: SparkSession,
    monkeypatch: pytest.MonkeyPatch,
) -> House:
    parts = urlsplit(postgres_scratch)
    migrate_warehouse(settings.model_copy(update={"dwh_db": parts.path.lstrip("/")}))
    monkeypatch.setenv("LAKE_BASE", tmp_path.as_uri())
    monkeypatch.setenv("DWH_CONNINFO", postgres_scratch)
    return House(postgres_scratch, Lake.local(str(tmp_path)))


def changed(row: dict[str, Any], at: datetime, **values: Any) -> dict[str, Any]:
    return {**deepcopy(row), **values, "updated_at": at}


def test_one_run_fills_every_model(house: House) -> None:
    # Also run where the guide has added a model: its derived checks are in this run's ledger.
    report = house.run(techmarket(8))
    assert all(report["models"].values()), report["models"]
    checked = {table for (table,) in house.ask("SELECT DISTINCT table_name FROM etl.ledger")}
    assert checked >= set(load_pipeline("techmarket").models)


class Deleting:
    """Runs in which rows are deleted, with the keys that the sources then have, digested in Python."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.keys: dict[str, set[tuple[Any, ...]]] = {}

    def run(self, rows: Rows, deleted: dict[str, list[tuple[Any, ...]]] | None = None) -> dict[str, Any]:
        house, at = self.house, self.house.next_snapshot()
        with house.connect() as connection:
            tables = load_pipeline("techmarket").tables
            run_id = open_run(
                connection,
                "techmarket",
                tables=[table.name for table in tables],
                dag_id="d",
                dag_run_id="r",
                logical_date=None,
                full_refresh=False,
            )
        for table in tables:
            gone = (deleted or {}).get(table.name, [])
            keys = self.keys.setdefault(table.name, set())
            keys |= {tuple(row[name] for name in table.key) for row in rows.get(table.name, [])}
            keys -= set(gone)
            digest = sum(
                int(hashlib.sha256(self.text(table, key).encode()).hexdigest()[:15], 16) for key in keys
            )
            census = {"at": at.isoformat(), "rows": len(keys), "digest": str(digest), "deleted": len(gone)}
            census |= {"left": 0, "left_digest": "0", "came": 0, "came_digest": "0"}
            write_batch(
                *(house.lake, table, run_id, rows.get(table.name, ())),
                snapshot_at=at,
                deleted=gone,
                census=census,
            )
        transform("techmarket", run_id)
        lines = publish(house.connect, house.address, house.lake, load_pipeline("techmarket"), run_id)
        assert all(line.closed for line in lines)
        report: dict[str, Any] = house.lake.read_json(f"report/techmarket/run={run_id}/transform.json")
        return report

    @staticmethod
    def text(table: TableContract, key: tuple[Any, ...]) -> str:
        kinds = [table.column(name).type.kind for name in table.key]
        return "".join(
            f"{len(value)}:{value}" if kind in ("char", "varchar") else f"{value}|"
            for kind, value in zip(kinds, key, strict=True)
        )


def test_deleted_rows_leave_the_facts_and_end_the_versions(house: House) -> None:
    """The checks of each model compare all of it with what is live in `ods`, in every run."""
    shop, rows = Deleting(house), techmarket(30)
    shop.run(rows)
    order = rows["orders"][0]["id"]
    items = [(row["id"],) for row in rows["order_items"] if row["order_id"] == order]
    payments = [row["id"] for row in rows["payments"] if row["order_id"] == order]
    refunds = [(row["id"],) for row in rows["refunds"] if row["payment_id"] in payments]
    customer, product = rows["orders"][5]["customer_id"], rows["order_items"][-1]["product_id"]
    report = shop.run(
        {},
        {
            "orders": [(order,)],
            "order_items": items,
            "payments": [(one,) for one in payments],
            "refunds": refunds,
            "customers": [(customer,)],
            "products": [(product,)],
            "payment_methods": [(3,)],
        },
    )
    assert report["removed"]["fact_order_line"] == len(items)
    lines = f"SELECT count(*) FROM dwh.fact_order_line WHERE order_id = '{order}'"
    assert house.ask(lines) == [(0,)]
    seen = FIRST + timedelta(days=1)
    assert house.ask(f"SELECT _deleted_at FROM ods.orders WHERE id = '{order}'") == [(seen,)]
    for versions in (
        f"dwh.dim_customer WHERE customer_id = '{customer}'",
        f"dwh.dim_product WHERE product_id = '{product}'",
    ):
        assert house.ask(f"SELECT valid_to, is_current FROM {versions}") == [(seen, False)]
    assert house.ask("SELECT count(*) FROM dwh.dim_payment_method WHERE method_id = 3") == [(0,)]

    def versions(model: str) -> dict[str, dict[str, str]]:
        """What the last run's ledger says of a dimension's versions, by measure."""
        return dict(
            house.ask(
                "SELECT DISTINCT ON (measure) measure, parts FROM etl.ledger WHERE measure LIKE "
                f"'%versions of touched members' AND table_name = '{model}' ORDER BY measure, id DESC"
            )
        )

    assert versions("dim_customer") == {
        "versions of touched members": {"before": "1", "opened": "0"},
        "current versions of touched members": {
            **{"before": "1", "opened": "0", "opened again": "0", "closed": "-1"}
        },
    }

    # Touched again without being back, an ended member stays ended.
    shop.run({"users": [row for row in rows["users"] if row["customer_id"] == customer]})
    current = f"SELECT count(*) FROM dwh.dim_customer WHERE customer_id = '{customer}' AND is_current"
    assert house.ask(current) == [(0,)]

    # Back with the very rows that they had.
    shop.run(
        {
            "customers": [row for row in rows["customers"] if row["id"] == customer],
            "products": [row for row in rows["products"] if row["id"] == product],
            "order_items": [row for row in rows["order_items"] if row["order_id"] == order],
            "orders": rows["orders"][:1],
        }
    )
    assert house.ask(lines) == [(len(items),)]
    assert house.ask(current) == [(1,)]
    assert versions("dim_customer")["versions of touched members"]["opened"] == "1"


def test_runs(house: House) -> None:
    rows = techmarket(40)
    report = house.run(rows)
    assert report["models"]["fact_order_line"] == len(rows["order_items"])
    assert report["tables"]["orders.order_items"]["control_totals"]["quantity"]["raw"] == str(
        sum(row["quantity"] for row in rows["order_items"])
    )
    first = house.image()

    # What a window reads again changes nothing, and costs no facts that nothing points at.
    report = house.run({"customers": rows["customers"][:3], "products": rows["products"][:2]})
    assert house.image() == first
    assert report["models"]["dim_customer"] == 3
    assert report["models"]["fact_order_line"] == 0

    report = house.run({})
    assert house.image() == first
    assert set(report["models"].values()) == {0}

    day = FIRST + timedelta(days=3, hours=-1)
    known, known_payment = rows["orders"][0], rows["payments"][7]
    old_customer = next(c for c in rows["customers"] if c["id"] == known["customer_id"])
    new_order = changed(
        known,
        day,
        id=uuid(8, 900),
        order_number="TM-900",
        customer_id=uuid(4, 900),
        shipping_address_id=uuid(5, 900),
        ordered_at=day + timedelta(hours=2),
    )
    item = changed(rows["order_items"][0], day, id=uuid(9, 9001), order_id=new_order["id"])
    house.run(
        {
            # A version begins; facts of before keep the old one, an order of after takes the new one.
            "customers": [
                changed(old_customer, day, segment="vip"),
                changed(rows["customers"][1], day, id=uuid(4, 900), email="new@example.com"),
            ],
            "users": [changed(rows["users"][2], day, is_verified=False)],
            "addresses": [
                changed(rows["addresses"][3], day, city="Львів"),
                changed(rows["addresses"][1], day, id=uuid(5, 900), customer_id=uuid(4, 900)),
            ],
            "categories": [changed(rows["categories"][1], day, name="Renamed")],
            "products": [changed(rows["products"][0], day, name="Renamed")],
            "product_prices": [
                changed(
                    rows["product_prices"][2], day, id=uuid(3, 900), valid_from=day, price=Decimal("1.00")
                )
            ],
            "payment_methods": [changed(rows["payment_methods"][0], day, name="Renamed")],
            "orders": [
                new_order,
                changed(
                    known,
                    day,
                    id=uuid(8, 901),
                    order_number="TM-901",
                    ordered_at=day + timedelta(hours=3),
                ),
                changed(rows["orders"][5], day, status="returned"),
            ],
            "order_items": [
                item,
                changed(
                    item, day, id=uuid(9, 9002), order_id=uuid(8, 901), product_id=rows["products"][0]["id"]
                ),
                # Their order, product and payment come a run later.
                changed(item, day, id=uuid(9, 9003), order_id=uuid(8, 902)),
                changed(item, day, id=uuid(9, 9004), line_number=2, product_id=uuid(2, 902)),
            ],
            "payments": [
                changed(known_payment, day, id=uuid(10, 902), order_id=uuid(8, 902), method_id=9),
            ],
            "refunds": [
                changed(rows["refunds"][0], day, id=uuid(11, 900), payment_id=known_payment["id"]),
                changed(rows["refunds"][0], day, id=uuid(11, 901), payment_id=uuid(10, 903)),
            ],
        }
    )
    key = "SELECT {1}_key FROM dwh.fact_{0} WHERE {0}_id = '{2}'"
    segments = house.ask(
        "SELECT f.order_id, c.segment FROM dwh.fact_order_line AS f "
        "JOIN dwh.dim_customer AS c USING (customer_key) "
        f"WHERE c.customer_id = '{old_customer['id']}' AND f.order_id IN ('{known['id']}', '{uuid(8, 901)}')"
    )
    assert set(segments) <= {(known["id"], "regular"), (uuid(8, 901), "vip")}
    assert (uuid(8, 901), "vip") in segments
    assert house.ask(
        f"SELECT count(*) FROM dwh.dim_customer WHERE customer_id = '{old_customer['id']}' AND NOT is_current"
    ) == [(1,)]
    assert house.ask(key.format("payment", "customer", uuid(10, 902))) == [(-1,)]
    assert house.ask(key.format("payment", "payment_method", uuid(10, 902))) == [(-1,)]
    assert house.ask(key.format("refund", "customer", uuid(11, 901))) == [(-1,)]
    assert house.ask(
        f"SELECT product_key, category_key FROM dwh.fact_order_line WHERE order_item_id = '{uuid(9, 9004)}'"
    ) == [(-1, -1)]
    assert house.ask("SELECT count(*) FROM dwh.fact_order_line WHERE ordered_at IS NULL") == [(1,)]

    day += timedelta(days=1)
    house.run(
        {
            "orders": [changed(known, day, id=uuid(8, 902), order_number="TM-902", ordered_at=day)],
            "products": [
                changed(rows["products"][0], day, id=uuid(2, 902), sku="S-902", category_id=uuid(1, 90))
            ],
            "payments": [changed(known_payment, day, id=uuid(10, 903))],
            "payment_methods": [changed(rows["payment_methods"][0], day, id=9, code="late")],
        }
    )
    assert house.ask(
        "SELECT count(*) FROM dwh.fact_order_line WHERE customer_key = -1 OR product_key = -1"
    ) == [(0,)]
    assert house.ask(
        "SELECT count(*) FROM dwh.fact_payment WHERE customer_key = -1 OR payment_method_key = -1"
    ) == [(0,)]
    assert house.ask("SELECT count(*) FROM dwh.fact_refund WHERE customer_key = -1") == [(0,)]
    # The category of the new product comes last of all.
    assert house.ask("SELECT count(*) FROM dwh.fact_order_line WHERE category_key = -1") == [(1,)]
    day += timedelta(days=1)
    house.run({"categories": [changed(rows["categories"][0], day, id=uuid(1, 90), slug="late")]})
    assert house.ask("SELECT count(*) FROM dwh.fact_order_line WHERE category_key = -1") == [(0,)]

    # An older snapshot that is published late takes nothing back.
    before = house.image()
    house.run({"products": rows["products"][:1], "orders": rows["orders"][5:6]}, at=FIRST)
    assert house.image() == before


def test_pancakes_come_whole_in_every_run(house: House) -> None:
    rows = pancakes(30)
    house.run(rows, "pancake")
    rows["pancakes"][4]["syrup_type"] = "honey"
    report = house.run(rows, "pancake")
    assert report["models"] == {"dim_pancake": 30, "fact_pancake_rating": 30}
    assert house.ask("SELECT syrup_type FROM dwh.dim_pancake WHERE pancake_id = 5") == [("honey",)]


def test_a_bad_value_stops_the_run(house: House) -> None:
    rows = techmarket(5)
    rows["products"][0]["launched_on"] = "0000-00-00"
    run_id = house.raw(rows)
    with pytest.raises(
        BadValuesError, match=r"catalog\.products in .*: 1 in launched_on \(such as '0000-00-00'"
    ):
        transform("techmarket", run_id)
    assert house.lake.keys("report") == []


def test_a_change_without_a_later_time_reaches_every_model(house: House) -> None:
    """As a comparison of rows finds it: the snapshot is later, the row's own time is not."""
    rows = techmarket(10)
    house.run(rows)
    at = rows["customers"][0]["updated_at"]
    house.run(
        {
            "customers": [changed(rows["customers"][0], at, segment="vip")],
            "products": [changed(rows["products"][0], at, name="Renamed")],
            "payments": [changed(rows["payments"][0], at, status="failed")],
        }
    )
    customer = rows["customers"][0]["id"]
    segments = f"SELECT segment FROM dwh.dim_customer WHERE customer_id = '{customer}' AND is_current"
    assert house.ask(segments) == [("vip",)]
