"""Publishing into a ClickHouse of its own: every published run, whole, once, and proven."""

import os
import re
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, cast

import clickhouse_connect
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError
from psycopg import sql
from psycopg.rows import dict_row
from pyarrow import fs
from sqlalchemy import Connection

from tallyhouse.contracts import PipelineContract
from tallyhouse.errors import TallyhouseError
from tallyhouse.lake import Lake
from tallyhouse.ledger import Line, mart_in, store
from tallyhouse.migrate import migrate_target, migrate_warehouse
from tallyhouse.publish import follow, repair
from tallyhouse.publish.staging import table_schema
from tallyhouse.publish.target import LakeAccess
from tallyhouse.publish.targets import clickhouse
from tallyhouse.publish.targets.clickhouse import Target
from tallyhouse.runs import new_run_id
from tallyhouse.settings import ROOT, Settings
from tests.warehouse.schema import tables

pytestmark = pytest.mark.integration

MIGRATIONS = ROOT / "sql/clickhouse/migrations"
MARTS = {"fact_order_line": "mart_revenue_daily", "fact_payment": "mart_payment_conversion"}
PIPELINE = PipelineContract(
    "shop", sources=(), models=tuple(MARTS), marts=tuple(MARTS.values()), targets=("clickhouse",)
)
Row = dict[str, Any]


@pytest.fixture
def lake(settings: Settings) -> Iterator[Lake]:
    """A bucket of its own on the stack's object store, gone after the test."""
    name = f"scratch-{secrets.token_hex(4)}"
    store = fs.S3FileSystem(
        access_key=settings.minio_root_user,
        secret_key=settings.minio_root_password,
        endpoint_override=f"{settings.minio_host}:{settings.minio_port}",
        scheme="http",
        allow_bucket_creation=True,
        allow_bucket_deletion=True,
    )
    store.create_dir(name)
    try:
        yield Lake(store, name)
    finally:
        store.delete_dir(name)


class Shop:
    """A warehouse with runs that PostgreSQL shows, their increments, and a ClickHouse to bring them to."""

    def __init__(self, address: str, lake: Lake, client: Client, settings: Settings) -> None:
        self.address = address
        self.lake = lake
        self.client = client
        self.access = LakeAccess(settings.minio_url, settings.minio_root_user, settings.minio_root_password)

    def connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.address)

    def run(
        self,
        *,
        lines: tuple[Row, ...] = (),
        payments: tuple[Row, ...] = (),
        removed_lines: tuple[int, ...] = (),
    ) -> str:
        """A run that PostgreSQL shows: rows by primary key, in the warehouse and as increments."""
        run_id = new_run_id("shop", datetime.now(UTC))
        changed = {"fact_order_line": lines, "fact_payment": payments}
        with self.connect() as connection:
            for model, rows in changed.items():
                if rows:
                    written = self._write(connection, model, rows)
                    with self.lake.create(f"increment/{model}/run={run_id}/part-0.parquet") as sink:
                        pq.write_table(written, sink)
            gone = [f"{number:>036}" for number in removed_lines]
            if gone:
                connection.execute("DELETE FROM dwh.fact_order_line WHERE order_item_id = ANY(%s)", (gone,))
                with self.lake.create(f"removed/fact_order_line/run={run_id}/part-0.parquet") as sink:
                    pq.write_table(pa.table({"order_item_id": gone}), sink)
            connection.execute(
                "INSERT INTO etl.run (run_id, pipeline, dag_id, dag_run_id, status, published_at) "
                "VALUES (%s, 'shop', 'd', 'r', 'published', clock_timestamp())",
                (run_id,),
            )
        self.lake.write_json(
            f"report/shop/run={run_id}/transform.json",
            {
                "models": {model: len(rows) for model, rows in changed.items()},
                "removed": {"fact_order_line": len(removed_lines)} if removed_lines else {},
            },
        )
        return run_id

    def _write(self, connection: psycopg.Connection[Any], model: str, rows: tuple[Row, ...]) -> pa.Table:
        described = tables()[f"dwh.{model}"]
        key = described.key[0]
        whole = [described.row(row | {key: f"{row[key]:>036}"}) for row in rows]
        keys = [row[key] for row in whole]
        name = sql.Identifier("dwh", model)
        connection.execute(
            sql.SQL("DELETE FROM {} WHERE {} = ANY(%s)").format(name, sql.Identifier(key)), (keys,)
        )
        with connection.cursor(row_factory=dict_row) as cursor:
            cursor.executemany(
                sql.SQL("INSERT INTO {} VALUES ({})").format(
                    name, sql.SQL(", ").join(sql.Placeholder() * len(described.columns))
                ),
                [list(row.values()) for row in whole],
            )
            found = cursor.execute(
                sql.SQL("SELECT * FROM {} WHERE {} = ANY(%s)").format(name, sql.Identifier(key)), (keys,)
            ).fetchall()
        # CHAR(n) comes with blanks, which increments do not have.
        rows = [{n: v.rstrip() if isinstance(v, str) else v for n, v in row.items()} for row in found]
        return pa.Table.from_pylist(rows, schema=table_schema(connection, "dwh", model))

    def publish(self, run_id: str) -> list[Line]:
        target = Target(self.client, self.lake, self.access)
        return follow.publish(self.connect, "clickhouse", target, self.lake, PIPELINE, run_id)

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        with self.connect() as connection:
            return connection.execute(query).fetchall()

    def shown(self) -> dict[str, list[Any]]:
        """All that ClickHouse shows."""
        return {
            table: sorted(self.client.query(f"SELECT * FROM {table}").result_rows, key=repr)
            for table in (*PIPELINE.models, *PIPELINE.marts)
        }

    def runs(self) -> list[str]:
        return [
            row[0] for row in self.client.query("SELECT run_id FROM etl_run ORDER BY applied_at").result_rows
        ]


@pytest.fixture
def another(clickhouse: Client, clickhouse_settings: Settings) -> Callable[[], Client]:
    """Opens a client of the star schema."""
    return lambda: clickhouse_connect.get_client(
        host="127.0.0.1",
        port=clickhouse_settings.clickhouse_http_port,
        username=clickhouse_settings.clickhouse_user,
        password=clickhouse_settings.clickhouse_password,
        database="dwh",
        compress=False,
    )


@pytest.fixture
def shop(
    postgres_scratch: str, lake: Lake, settings: Settings, another: Callable[[], Client]
) -> Iterator[Shop]:
    migrate_warehouse(settings.model_copy(update={"dwh_db": postgres_scratch.rpartition("/")[2]}))
    with another() as client:
        yield Shop(postgres_scratch, lake, client, settings)


def line(key: int, **values: Any) -> Row:
    return {"order_item_id": key, "category_key": -1} | values


def payment(key: int, amount: str, currency: str = "UAH", **values: Any) -> Row:
    return {"payment_id": key, "payment_method_key": -1, "amount": amount, "currency": currency} | values


def test_rows_and_measures_of_a_run_arrive(shop: Shop) -> None:
    run_id = shop.run(
        lines=(
            line(1, quantity=2, line_total="10.50", currency="UAH", line_number=1),
            line(2, quantity=3, line_total="0.01", currency="EUR", line_number=2, category_key=404),
            line(3, quantity=5, line_total="7.00", currency=None),
        ),
        payments=(payment(1, "10.50"), payment(2, "0.01", "EUR", payment_method_key=404)),
    )
    lines = shop.publish(run_id)
    assert all(line.closed for line in lines)
    found = {(line.table, line.hop, line.measure): line.left for line in lines}
    orders = {
        m: value for (table, _, m), value in found.items() if table == "fact_order_line" and "digest" not in m
    }
    assert orders.pop("count(all rows)") == 3
    assert orders == {"rows": 3} | {
        f"sum({measure}) {currency}": Decimal(value)
        for measure, values in {
            "quantity": ("2", "3", "5"),
            "unit_price": ("1", "1", "1"),
            "discount": ("1", "1", "1"),
            "line_total": ("10.50", "0.01", "7.00"),
        }.items()
        for currency, value in zip(("UAH", "EUR", "none"), values, strict=True)
    }
    assert found["mart_payment_conversion", mart_in("clickhouse"), "attempted_amount EUR"] == Decimal("0.01")
    assert found["mart_revenue_daily", mart_in("clickhouse"), "rows"] == 3
    with shop.connect() as connection:
        assert sorted(store.read(connection, run_id), key=repr) == sorted(lines, key=repr)
    assert shop.runs() == [run_id]
    assert shop.ask("SELECT run_id FROM etl.run_target WHERE state = 'shown'") == [(run_id,)]


def test_rows_whose_source_rows_are_deleted_leave_clickhouse(shop: Shop) -> None:
    shop.publish(shop.run(lines=(line(1), line(2), line(3)), payments=(payment(1, "5.00"),)))
    shop.publish(shop.run(removed_lines=(2,)))
    assert shop.client.query("SELECT count() FROM fact_order_line").result_rows == [(2,)]
    lines = shop.publish(shop.run(lines=(line(4),), removed_lines=(1,)))
    assert shop.client.query("SELECT count() FROM fact_order_line").result_rows == [(2,)]
    assert all(one.closed for one in lines)


def test_a_run_that_died_between_the_stores_is_finished_by_the_next(shop: Shop) -> None:
    dead = shop.run(payments=(payment(1, "1.00"), payment(2, "2.00")))
    heir = shop.run(payments=(payment(2, "2.50"), payment(3, "3.00")), lines=(line(1),))
    shop.publish(heir)
    assert shop.runs() == [dead, heir]
    assert [row[-2] for row in shop.shown()["fact_payment"]] == [Decimal(n) for n in ("1", "2.5", "3")]
    assert shop.ask("SELECT count(*) FROM etl.run_target WHERE state <> 'shown'") == [(0,)]


def test_a_run_that_died_between_two_models_is_applied_again(shop: Shop) -> None:
    first = shop.run(payments=(payment(1, "1.00"),), lines=(line(1),))
    shop.publish(first)
    before = shop.shown()
    shop.client.command("TRUNCATE TABLE fact_payment__b")
    shop.client.command("TRUNCATE TABLE etl_run")
    shop.publish(first)
    assert shop.shown() == before
    assert shop.runs() == [first]


def test_an_emptied_clickhouse_is_filled_again_from_the_lake(
    shop: Shop, clickhouse_settings: Settings
) -> None:
    shop.publish(shop.run(payments=(payment(1, "1.00"), payment(2, "2.00")), lines=(line(1),)))
    last = shop.run(payments=(payment(2, "2.50"),), lines=(line(2, quantity=7),))
    shop.publish(last)
    before = shop.shown()
    shop.client.command("DROP DATABASE dwh SYNC")
    migrate_target(clickhouse_settings, "clickhouse")
    assert not any(shop.shown().values())
    shop.publish(last)
    assert shop.shown() == before


def test_publishing_twice_changes_nothing(shop: Shop) -> None:
    run_id = shop.run(payments=(payment(1, "1.00"),), lines=(line(1),))
    first = shop.publish(run_id)
    before = shop.shown(), shop.runs(), shop.ask("SELECT run_id, shown_at FROM etl.run_target")
    assert shop.publish(run_id) == first
    assert (shop.shown(), shop.runs(), shop.ask("SELECT run_id, shown_at FROM etl.run_target")) == before
    assert shop.ask("SELECT count(*) FROM etl.ledger") == [(len(first),)]


@pytest.mark.parametrize(
    ("spoilt", "said", "named"),
    [
        (
            "UPDATE dwh.fact_payment SET amount = amount + 0.01",
            r"fact_payment: .*postgres=clickhouse differs by -0.01 sum\(amount\) UAH",
            "payment_id=1: differs in ClickHouse",
        ),
        (
            "UPDATE dwh.fact_payment SET currency = 'USD'",
            r"fact_payment: .*postgres=clickhouse differs by -1.00 sum\(amount\) USD",
            "payment_id=1: differs in ClickHouse",
        ),
        (
            "UPDATE dwh.fact_order_line SET quantity = quantity - 2",
            r"fact_order_line: .*postgres=clickhouse differs by 2 sum\(quantity\) none",
            "order_item_id=1: differs in ClickHouse",
        ),
        (
            "DELETE FROM dwh.fact_order_line",
            r"fact_order_line: .*postgres=clickhouse differs by 1 rows",
            "order_item_id=1: only in ClickHouse",
        ),
        # What no sum shows.
        (
            "UPDATE dwh.fact_payment SET attempted_at = attempted_at + interval '1 microsecond'",
            r"fact_payment: .*postgres=clickhouse differs by -?\d+ digest\(all rows\)",
            "payment_id=1: differs in ClickHouse",
        ),
        (
            "UPDATE dwh.fact_payment SET failure_reason = ''",
            r"fact_payment: .*postgres=clickhouse differs by -?\d+ digest\(all rows\)",
            "payment_id=1: differs in ClickHouse",
        ),
    ],
)
def test_stores_that_differ_are_told_apart(shop: Shop, spoilt: str, said: str, named: str) -> None:
    run_id = shop.run(payments=(payment(1, "1.00"),), lines=(line(1),))
    with shop.connect() as connection:
        connection.execute(spoilt)
    with pytest.raises(TallyhouseError, match=said):
        shop.publish(run_id)
    assert shop.ask("SELECT shown_at FROM etl.run_target") == [(None,)]
    ((keys,),) = shop.ask("SELECT DISTINCT keys FROM etl.ledger WHERE NOT closed")
    assert [re.sub("=0*", "=", key) for key in keys] == [named]
    assert (shop.runs(), any(shop.shown().values())) == ([], False)  # what differs is not shown


def test_all_rows_are_compared_in_turn_and_what_changed_always(shop: Shop) -> None:
    """A value that somebody altered is found by the run whose turn it is, one that changed at once."""
    many = tuple(payment(n, "1.00") for n in range(1, 9))
    shop.publish(shop.run(payments=many, lines=tuple(line(n) for n in range(1, 9))))
    compared = []
    for number in range(2):
        lines = shop.publish(
            shop.run(payments=(payment(1, f"{number}.00"),), lines=(line(1, quantity=number),))
        )
        compared.append(
            {(one.table, one.measure): one.left for one in lines if one.measure.startswith("count")}
        )
    assert compared == [
        {("fact_order_line", "count(all rows)"): 8, ("fact_payment", "count(rows changed)"): 1},
        {("fact_order_line", "count(rows changed)"): 1, ("fact_payment", "count(all rows)"): 8},
    ]
    shop.client.command(
        "ALTER TABLE fact_payment__b UPDATE failure_reason = 'x' WHERE 1 SETTINGS mutations_sync = 1"
    )
    shop.client.command(
        "ALTER TABLE fact_payment__a UPDATE failure_reason = 'x' WHERE 1 SETTINGS mutations_sync = 1"
    )
    assert all(one.closed for one in shop.publish(shop.run(lines=(line(1, quantity=7),))))
    with pytest.raises(TallyhouseError, match=r"fact_payment: .* digest\(all rows\)"):
        shop.publish(shop.run(lines=(line(1, quantity=8),)))


@pytest.mark.parametrize(
    "gone", ["increment/fact_payment/run={}/part-0.parquet", "report/shop/run={}/transform.json"]
)
def test_a_run_whose_increments_are_gone_is_copied_from_the_warehouse(shop: Shop, gone: str) -> None:
    lost = shop.run(payments=(payment(1, "1.00"), payment(2, "2.00")), lines=(line(1),))
    last = shop.run(payments=(payment(2, "3.00"),))
    shop.lake.filesystem.delete_file(shop.lake.path(gone.format(lost)))
    assert all(one.closed for one in shop.publish(last))
    assert sorted(shop.runs()) == sorted([lost, last])
    assert [row[-2] for row in shop.shown()["fact_payment"]] == [Decimal(n) for n in ("1", "3")]
    assert shop.ask("SELECT count(*) FROM etl.run_target WHERE state <> 'shown'") == [(0,)]
    assert shop.ask("SELECT count(*) FROM etl.run_state WHERE failure IS NOT NULL") == [(0,)]
    assert shop.lake.keys("repair") == []


def test_a_run_that_clickhouse_refuses_is_marked_and_later_runs_go_on(shop: Shop) -> None:
    shop.publish(shop.run(payments=(payment(1, "1.00"),)))
    for slot in "ab":
        shop.client.command(f"ALTER TABLE fact_payment__{slot} ADD CONSTRAINT no_two CHECK amount <> 2")
    bad = shop.run(payments=(payment(2, "2.00"), payment(3, "3.00")), lines=(line(1),))
    with pytest.raises(
        TallyhouseError, match=r"fact_payment in run shop-.*: ClickHouse refused its rows .*no_two"
    ):
        shop.publish(bad)
    ((failure, at),) = shop.ask(f"SELECT failure, shown_at FROM etl.run_target WHERE run_id = '{bad}'")
    assert (failure["task"], failure["table"], at) == ("publish.clickhouse", "fact_payment", None)
    assert f"make repair RUN={bad}" in failure["remedy"]
    # The next run's rows are shown all the same; its ledger says that the other's are missing.
    later = shop.run(payments=(payment(3, "3.50"), payment(4, "4.00")))
    with pytest.raises(TallyhouseError, match="ClickHouse refused its rows"):
        shop.publish(later)
    assert [row[-2] for row in shop.shown()["fact_payment"]] == [Decimal(n) for n in ("1", "3.5", "4")]
    assert shop.ask(
        f"SELECT left_value, right_value FROM etl.ledger WHERE run_id = '{later}' AND NOT closed "
        "AND table_name = 'fact_payment' AND measure = 'rows'"
    ) == [(4, 3)]
    # It was put right: the next run closes, and with it all.
    for slot in "ab":
        shop.client.command(f"ALTER TABLE fact_payment__{slot} DROP CONSTRAINT no_two")
    assert all(one.closed for one in shop.publish(shop.run(payments=(payment(5, "5.00"),))))
    shown = [row[-2] for row in shop.shown()["fact_payment"]]
    assert shown == [Decimal(n) for n in ("1", "2", "3.5", "4", "5")]
    assert shop.ask("SELECT count(*) FROM etl.run_target WHERE state <> 'shown'") == [(0,)]


def test_a_copy_leaves_out_what_clickhouse_cannot_hold_and_names_it(shop: Shop) -> None:
    """As for a warehouse that took such a day before the publish looked for it."""
    for_ever = date(9999, 12, 31)
    run_id = shop.run(payments=(payment(1, "1.00"), payment(2, "2.00", business_date=for_ever)))
    shop.lake.filesystem.delete_file(shop.lake.path(f"report/shop/run={run_id}/transform.json"))
    with pytest.raises(
        TallyhouseError, match=r"business_date has 1 values that ClickHouse cannot hold, such as 9999"
    ):
        shop.publish(run_id)
    assert [row[-2] for row in shop.shown()["fact_payment"]] == [Decimal("1")]
    right = shop.run(payments=(payment(2, "2.00"),))
    assert all(one.closed for one in shop.publish(right))
    assert shop.ask("SELECT count(*) FROM etl.run_target WHERE state <> 'shown'") == [(0,)]


def test_an_older_runs_increments_never_take_the_place_of_newer_rows(shop: Shop) -> None:
    """A run that ClickHouse lacks although it shows a later one is copied, not applied."""
    older = shop.run(payments=(payment(1, "1.00"),))
    newer = shop.run(payments=(payment(1, "2.00"),))
    shop.publish(newer)
    shop.client.command(f"ALTER TABLE etl_run DELETE WHERE run_id = '{older}' SETTINGS mutations_sync = 1")
    assert shop.runs() == [newer]
    assert all(one.closed for one in shop.publish(newer))
    assert [row[-2] for row in shop.shown()["fact_payment"]] == [Decimal("2")]
    assert sorted(shop.runs()) == sorted([older, newer])


def test_a_warehouse_that_was_restored_from_an_earlier_backup_is_followed(shop: Shop) -> None:
    first = shop.run(payments=(payment(1, "1.00"), payment(2, "2.00")))
    shop.publish(first)
    lost = shop.run(payments=(payment(1, "7.00"), payment(3, "3.00")))
    shop.publish(lost)
    assert shop.runs() == [first, lost]
    with shop.connect() as connection:  # as it was before the second run
        connection.execute("UPDATE dwh.fact_payment SET amount = 1 WHERE amount = 7")
        connection.execute("DELETE FROM dwh.fact_payment WHERE amount = 3")
        connection.execute("DELETE FROM etl.ledger WHERE run_id = %s", (lost,))
        connection.execute("DELETE FROM etl.run_target WHERE run_id = %s", (lost,))
        connection.execute("DELETE FROM etl.run WHERE run_id = %s", (lost,))
    last = shop.run(payments=(payment(2, "5.00"),))
    assert all(line.closed for line in shop.publish(last))
    assert shop.runs() == [first, last]
    assert sorted(row[-2] for row in shop.shown()["fact_payment"]) == [1, 5]
    # Once it follows, only what changes is brought.
    for number in (4, 5):
        lines = shop.publish(shop.run(payments=(payment(number, "4.00"),)))
    assert "count(rows changed)" in {line.measure for line in lines if line.table == "fact_payment"}


def test_a_repair_brings_back_rows_that_clickhouse_lost(
    shop: Shop,
    settings: Settings,
    clickhouse_settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_id = shop.run(payments=(payment(1, "1.00"), payment(2, "2.00")), lines=(line(1, currency="UAH"),))
    shop.publish(run_id)
    before = shop.shown()
    shop.client.command("TRUNCATE TABLE fact_payment__b")
    shop.client.command("TRUNCATE TABLE mart_revenue_daily__b")
    with pytest.raises(TallyhouseError, match="differs by -2 rows"):
        shop.publish(run_id)
    monkeypatch.setattr(
        repair,
        "load_settings",
        lambda: clickhouse_settings.model_copy(
            update={"dwh_db": shop.address.rpartition("/")[2], "lake_bucket": shop.lake.root}
        ),
    )
    monkeypatch.setattr(repair, "load_pipeline", lambda name: PIPELINE)
    monkeypatch.setattr("sys.argv", ["repair", "--run", run_id])
    assert repair.main() == 0
    assert f"{run_id}: ClickHouse shows what the warehouse shows" in capsys.readouterr().out
    assert shop.shown() == before
    monkeypatch.setattr("sys.argv", ["repair", "--run", "nope"])
    assert repair.main() == 1
    assert "run nope: the warehouse does not show this run" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["repair"])
    assert repair.main() == 0
    assert "nothing to repair" in capsys.readouterr().out


def test_a_rebuilt_warehouse_is_compared_aside_with_what_clickhouse_shows(shop: Shop) -> None:
    def compared() -> dict[str, bool]:
        target = Target(shop.client, shop.lake, shop.access)
        with shop.connect() as rebuilt:
            lines = follow.compare_rebuilt(shop.connect, rebuilt, "clickhouse", target, shop.lake, PIPELINE)
        assert {line.hop for line in lines} == {"clickhouse=rebuilt"}
        return {line.table: line.closed for line in lines if line.measure == "digest"}

    names = [*PIPELINE.models, *PIPELINE.marts]
    sale = line(1, currency="UAH", line_total="9.99", quantity=2, category_key=404)
    shop.publish(shop.run(lines=(sale,), payments=(payment(1, "1.00"),)))
    shown, runs, keys = shop.shown(), shop.runs(), shop.lake.keys("")
    tables = shop.client.query("SHOW TABLES").result_rows
    assert compared() == dict.fromkeys(names, True)
    with shop.connect() as connection:
        connection.execute("UPDATE dwh.fact_order_line SET line_total = 9.98")
    assert compared() == {
        "fact_order_line": False,
        "fact_payment": True,
        "mart_revenue_daily": False,
        "mart_payment_conversion": True,
    }
    # Nobody saw it, and nothing of it is left.
    assert (shop.shown(), shop.runs(), shop.lake.keys("")) == (shown, runs, keys)
    assert shop.client.query("SHOW TABLES").result_rows == tables
    run_id = shop.run(lines=(line(2),))
    with pytest.raises(TallyhouseError, match=f"does not show run {run_id} yet. .*make repair"):
        compared()


@pytest.mark.parametrize(
    ("database", "engine"), [("Replicated", "ReplicatedMergeTree"), ("Atomic", "MergeTree")]
)
def test_tables_of_a_replicated_database_are_replicated(database: str, engine: str) -> None:
    """What is asked of the server is seen here; no cluster was at hand."""
    connection = SimpleNamespace(execute=lambda *_: SimpleNamespace(scalar=lambda: database))
    text = "".join(file.read_text() for file in sorted(MIGRATIONS.glob("*.sql")))
    assert Target.migrations is not None
    adapted = Target.migrations.adapt(cast(Connection, connection), text)
    engines = re.findall(r"ENGINE\s*=\s*(\w+)", adapted)
    assert len(engines) == len(re.findall("ENGINE", text)) > 10
    assert set(engines) == {engine}


def test_only_the_partitions_that_a_run_touches_are_written_again(shop: Shop) -> None:
    months = [date(2026, month, 1) for month in (1, 2, 3, 4)]
    shop.publish(
        shop.run(payments=tuple(payment(n, "1.00", business_date=month) for n, month in enumerate(months)))
    )
    parts = (
        "SELECT partition, groupArray(hash_of_all_files) FROM system.parts WHERE active "
        "AND table = 'fact_payment__{}' GROUP BY partition"
    )
    before = dict(shop.client.query(parts.format("b")).result_rows)
    # One row changes, one moves to another month.
    shop.publish(
        shop.run(
            payments=(
                payment(1, "2.00", business_date=months[1]),
                payment(2, "2.00", business_date=months[1]),
            )
        )
    )
    after = dict(shop.client.query(parts.format("a")).result_rows)
    assert after.keys() == {"202601", "202602", "202604"}
    assert {name for name in after if after[name] == before[name]} == {"202601", "202604"}
    assert [row[-2] for row in shop.shown()["fact_payment"]] == [Decimal(n) for n in ("1", "2", "2", "1")]


def test_readers_see_whole_runs_only(shop: Shop, another: Callable[[], Client]) -> None:
    """Of all tables at once: each run writes its number into a row of two facts, and so into two marts."""
    shop.publish(shop.run(payments=(payment(1, "0.00"),), lines=(line(1, line_total="0.00"),)))
    query = (
        "SELECT * FROM (SELECT sum(amount) FROM fact_payment) AS a, "
        "(SELECT sum(line_total) FROM fact_order_line) AS b, "
        "(SELECT sum(attempted_amount) FROM mart_payment_conversion) AS c, "
        "(SELECT sum(revenue) FROM mart_revenue_daily) AS d"
    )
    seen: list[tuple[Any, ...]] = []
    done = threading.Event()

    def read() -> None:
        with another() as client:
            while not done.is_set():
                seen.extend(client.query(query).result_rows)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(1, 13):
        amount = f"{number}.00"
        shop.publish(shop.run(payments=(payment(1, amount),), lines=(line(1, line_total=amount),)))
    done.set()
    reader.join()
    numbers = [row[0] for row in seen]
    assert all(len(set(row)) == 1 for row in seen), [row for row in seen if len(set(row)) > 1][:3]
    assert numbers == sorted(numbers)
    assert len(set(numbers)) > 6


def test_what_a_query_has_been_told_of_is_not_touched_while_it_is_planned(
    shop: Shop, another: Callable[[], Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clickhouse, "PLANNING_SECONDS", 60)
    shop.publish(shop.run(payments=(payment(1, "0.00"),)))

    def read() -> None:
        with another() as client:
            client.query("SELECT sleepEachRow(1) FROM numbers(15) SETTINGS max_block_size = 1")

    reader = threading.Thread(target=read)
    reader.start()
    shop.publish(shop.run(payments=(payment(1, "1.00"),)))
    assert reader.is_alive(), "what it may open is not what this one changed"
    shop.publish(shop.run(payments=(payment(1, "2.00"),)))
    assert not reader.is_alive()


@pytest.mark.parametrize("stopped", ["begin", "EXCHANGE", "INSERT INTO etl_run"])
def test_a_publish_that_wakes_after_its_successor_shows_nothing(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, stopped: str
) -> None:
    """Its connection to the warehouse, and with it the lock, was lost while it stood still."""
    shop.publish(shop.run(payments=(payment(1, "1.00"),), lines=(line(1),)))
    run_id = shop.run(payments=(payment(1, "2.00"),), lines=(line(1, quantity=5),))
    late = Target(shop.client, shop.lake, shop.access)
    models = ["fact_payment", "fact_order_line"]
    late.begin(PIPELINE)
    late.apply(run_id, models)
    later = shop.run(payments=(payment(1, "3.00"), payment(2, "2.00")))
    with shop.connect() as connection:
        connection.execute("DELETE FROM etl.run_target WHERE run_id = %s", (run_id,))

    def successor() -> None:
        shop.publish(later)

    if stopped == "begin":
        successor()
    else:
        command = shop.client.command

        def stops(statement: str, *asked: Any, **options: Any) -> Any:
            if statement.startswith(stopped):
                monkeypatch.undo()
                successor()
            return command(statement, *asked, **options)

        monkeypatch.setattr(shop.client, "command", stops)
    with pytest.raises((TallyhouseError, ClickHouseError), match=r"took over|does(n.t| not) exist"):
        late.show(PIPELINE, [run_id])
    late.abandon()
    assert [row[-2] for row in shop.shown()["fact_payment"]] == [Decimal("3"), Decimal("2")]
    assert shop.runs()[1:] == [run_id, later]  # the successor's, which brought in both
    assert all(one.closed for one in shop.publish(later))
    left = "SELECT count() FROM system.tables WHERE database = 'dwh' AND match(name, '__[^ab]|__.{2,}')"
    assert shop.client.command(left) == 0


def test_a_run_that_the_warehouse_does_not_show_is_refused(shop: Shop) -> None:
    run_id = shop.run()
    shop.ask(f"UPDATE etl.run SET status = 'failed' WHERE run_id = '{run_id}' RETURNING 1")
    with pytest.raises(TallyhouseError, match="the warehouse does not show this run"):
        shop.publish(run_id)
    assert shop.runs() == []


def test_publishes_of_a_pipeline_wait_for_one_another(shop: Shop) -> None:
    run_id = shop.run(payments=(payment(1, "1.00"),))
    publishing = threading.Thread(target=shop.publish, args=(run_id,))
    with shop.connect() as other:
        other.execute("SELECT pg_advisory_lock(hashtextextended('tallyhouse clickhouse shop', 0))")
        publishing.start()
        publishing.join(1)
        assert publishing.is_alive()
        assert shop.ask(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted "
            "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        ) == [(1,)]
    publishing.join(60)
    assert shop.ask("SELECT state = 'shown' FROM etl.run_target") == [(True,)]


HOLDER = """
import sys, time, psycopg
from tallyhouse.publish import follow
follow.SILENT_SECONDS = 3
with follow._alone(lambda: psycopg.connect(sys.argv[1]), "clickhouse shop"):
    print("held", flush=True)
    time.sleep(120)
"""


def test_a_process_that_stands_still_loses_its_place(shop: Shop) -> None:
    run_id = shop.run(payments=(payment(1, "1.00"),))
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, shop.address], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        publishing = threading.Thread(target=shop.publish, args=(run_id,))
        publishing.start()
        publishing.join(8)
        assert publishing.is_alive(), "it is heard of, so it keeps others out"
        os.kill(holder.pid, signal.SIGSTOP)
        publishing.join(60)
        assert not publishing.is_alive()
        assert shop.ask("SELECT state = 'shown' FROM etl.run_target") == [(True,)]
    finally:
        holder.kill()
        holder.wait()
