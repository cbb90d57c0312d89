"""The warehouse built again from raw alone: the same rows, and whatever differs is named."""

from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from spark_jobs.rebuild import rebuild
from tallyhouse.contracts import load_pipeline
from tallyhouse.errors import TallyhouseError
from tallyhouse.lake import checkpoint
from tallyhouse.settings import Settings
from tests.conftest import scratch_postgres
from tests.spark_jobs.raw_batches import techmarket
from tests.spark_jobs.test_runs import (
    FIRST,
    Deleting,
    House,
    changed,
    house,  # noqa: F401 - a fixture
)

pytestmark = pytest.mark.integration


@pytest.fixture
def again(
    house: House,  # noqa: F811
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[[], House]]:
    """Rebuilds into a database of its own; returns it."""
    with scratch_postgres(settings) as other:

        def go() -> House:
            with monkeypatch.context() as environment:
                environment.setenv("LIVE_CONNINFO", house.address)
                environment.setenv("DWH_CONNINFO", other)
                rebuild("techmarket", "rebuild")
            return House(other, house.lake)

        yield go


def test_raw_alone_gives_the_same_warehouse_and_what_differs_is_named(
    house: House,  # noqa: F811
    again: Callable[[], House],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shop, rows = Deleting(house), techmarket(12)
    late = [rows["orders"].pop()]
    shop.run(rows)
    later = FIRST + timedelta(hours=3)
    shop.run(
        {
            "orders": late,
            "customers": [changed(rows["customers"][0], later, first_name="Нове ім'я")],
            "products": [changed(rows["products"][1], later, name="another")],
        }
    )
    payment = rows["payments"][0]["id"]
    refunds = [(row["id"],) for row in rows["refunds"] if row["payment_id"] == payment]
    shop.run({}, {"payments": [(payment,)], "refunds": refunds})
    before = house.lake.keys("")

    rebuilt = again()
    assert rebuilt.image() == house.image()
    orders = "SELECT id, status, total, _deleted_at FROM ods.orders ORDER BY id"
    assert rebuilt.ask(orders) == house.ask(orders)
    # Nothing of it is left in the lake but how it ended.
    assert set(house.lake.keys("")) - set(before) <= {"report/techmarket/run=rebuild/outcome/rebuild.json"}

    with house.connect() as connection:
        connection.execute("UPDATE ods.orders SET currency = 'XXX' WHERE id = %s", (rows["orders"][0]["id"],))
        connection.execute(
            "DELETE FROM dwh.fact_order_line WHERE ctid = (SELECT min(ctid) FROM dwh.fact_order_line)"
        )
    with pytest.raises(
        TallyhouseError, match=r"ods\.orders: .* 2 tables differ, the first in its digest"
    ) as caught:
        again()
    assert any(line.startswith("dwh.fact_order_line rows") for line in caught.value.sample)

    # On request the warehouse becomes what was rebuilt: rows were altered, lost, doubled, and one is new.
    with house.connect() as connection:
        connection.execute("ALTER TABLE ods.refunds DROP CONSTRAINT refunds_pkey")
        connection.execute(
            "INSERT INTO ods.refunds SELECT * FROM ods.refunds WHERE _deleted_at IS NULL LIMIT 1"
        )
        connection.execute("UPDATE dwh.fact_payment SET payment_id = 'stranger' WHERE ctid = '(0,1)'")
        untouched = connection.execute("SELECT id, xmin FROM ods.customers ORDER BY 1").fetchall()
    monkeypatch.setenv("TAKE_OVER", "True")
    again()
    monkeypatch.delenv("TAKE_OVER")
    assert house.image() == rebuilt.image()
    assert house.ask(orders) == rebuilt.ask(orders)
    assert house.ask("SELECT id, xmin FROM ods.customers ORDER BY 1") == untouched
    runs = {run for (run,) in house.ask("SELECT run_id FROM etl.run")}
    assert {run for (run,) in house.ask("SELECT DISTINCT _run FROM ods.orders")} <= runs
    assert house.ask("SELECT tablename FROM pg_tables WHERE schemaname = 'staging'") == []
    assert again().image() == house.image()

    raw = next(
        key for key in before if key.startswith("raw/orders/orders/") and key.endswith("_manifest.json")
    )
    house.lake.filesystem.delete_file(house.lake.path(raw))
    with pytest.raises(TallyhouseError, match=r"raw of run \S+ is not in the lake, and no checkpoint"):
        again()


def test_a_checkpoint_and_raw_since_give_the_same_warehouse(
    house: House,  # noqa: F811
    again: Callable[[], House],
) -> None:
    shop, rows = Deleting(house), techmarket(12)
    shop.run(rows)
    later = FIRST + timedelta(hours=3)
    customer = changed(rows["customers"][0], later, first_name="Нове ім'я")
    payment, product = rows["payments"][0]["id"], rows["products"][2]["id"]
    refunds = [(row["id"],) for row in rows["refunds"] if row["payment_id"] == payment]
    shop.run(
        {"customers": [customer]},
        {"payments": [(payment,)], "refunds": refunds, "products": [(product,)]},
    )
    with house.connect() as connection:
        held = checkpoint.write(connection, house.lake, load_pipeline("techmarket"))
    for key in house.lake.keys("raw"):
        house.lake.filesystem.delete_file(house.lake.path(key))
    rebuilt = again()  # from the checkpoint alone
    assert rebuilt.image() == house.image()

    shop.run({"customers": [changed(customer, later + timedelta(hours=1), first_name="Ще одне")]})
    before = set(house.lake.keys(""))
    rebuilt = again()
    assert rebuilt.image() == house.image()
    assert set(house.lake.keys("")) == before

    house.lake.filesystem.delete_file(house.lake.path(f"{held.place}/_manifest.json"))
    with pytest.raises(
        TallyhouseError, match=r"raw of run \S+ is not in the lake, and no checkpoint holds it"
    ):
        again()
