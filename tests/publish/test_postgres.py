"""Publishing into a warehouse of its own: all of a run or nothing of it, and never twice."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tallyhouse.contracts import PipelineContract, load_source
from tallyhouse.errors import TallyhouseError
from tallyhouse.lake import Lake, Manifest, Part, commit
from tallyhouse.ledger import Hop, store
from tallyhouse.migrate import migrate_warehouse
from tallyhouse.publish import first_load
from tallyhouse.publish.postgres import publish
from tallyhouse.runs import close_run, open_run, read_watermarks
from tallyhouse.settings import Settings

pytestmark = pytest.mark.integration

PAYMENTS = load_source("payments")
METHODS = PAYMENTS.table("payment_methods")
PIPELINE = PipelineContract("shop", (replace(PAYMENTS, tables=(METHODS,)),), models=(), marts=())
WHY = TallyhouseError("a task failed", where="run", remedy="See its log").failure(None)
T0 = datetime(2026, 1, 2, 2, 0, 0, 123456, tzinfo=UTC)


class Shop:
    """A warehouse, a lake, and runs of one table."""

    def __init__(self, address: str, lake: Lake) -> None:
        self.address = address
        self.lake = lake

    def connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.address)

    def run(self, rows: list[tuple[int, str]], *, at: datetime = T0, superseded: int = 0) -> str:
        """Opens a run and puts its raw, accepted rows and report into the lake."""
        with self.connect() as connection:
            run_id = open_run(
                connection,
                "shop",
                tables=["payment_methods"],
                dag_id="d",
                dag_run_id="r",
                logical_date=None,
                full_refresh=False,
            )
        parts = ()
        if rows:
            accepted = pa.table(
                {
                    "id": pa.array([key for key, _ in rows], pa.int16()),
                    "code": [name for _, name in rows],
                    "name": [name for _, name in rows],
                    "provider": ["є😀"] * len(rows),
                    "is_online": [True] * len(rows),
                    "is_active": [False] * len(rows),
                    "created_at": pa.array([at] * len(rows), pa.timestamp("us", "UTC")),
                    "updated_at": pa.array([at] * len(rows), pa.timestamp("us", "UTC")),
                    "_snapshot": pa.array([at] * len(rows), pa.timestamp("us", "UTC")),
                    "_run": [run_id] * len(rows),
                }
            )
            for prefix in ("accepted", "raw"):
                with self.lake.create(
                    f"{prefix}/payments/payment_methods/run={run_id}/part-0.parquet"
                ) as sink:
                    pq.write_table(accepted, sink)
            key = f"raw/payments/payment_methods/run={run_id}/part-0.parquet"
            parts = (Part(key, len(rows), sink.size, sink.sha256),)
        commit(
            self.lake,
            Manifest(
                run_id, "payments", "payment_methods", 1, METHODS.version, (), at, None,
                at - timedelta(minutes=1), len(rows), len(rows), None, {}, parts,
            ),
        )  # fmt: skip
        said = {"raw": len(rows), "accepted": len(rows), "superseded": superseded, "control_totals": {}}
        self.lake.write_json(
            f"report/shop/run={run_id}/transform.json",
            {"tables": {"payments.payment_methods": said}, "models": {}},
        )
        return run_id

    def publish(self, run_id: str) -> list[Any]:
        return publish(self.connect, self.address, self.lake, PIPELINE, run_id)

    def ask(self, query: str) -> Any:
        with self.connect() as connection:
            return connection.execute(query).fetchall()

    @property
    def watermark(self) -> datetime | None:
        with self.connect() as connection:
            return read_watermarks(connection, [METHODS])["payment_methods"]


@pytest.fixture
def shop(postgres_scratch: str, settings: Settings, tmp_path: Path) -> Shop:
    database = postgres_scratch.rpartition("/")[2]
    migrate_warehouse(settings.model_copy(update={"dwh_db": database}))
    return Shop(postgres_scratch, Lake.local(str(tmp_path)))


def test_a_run_is_published_with_its_ledger_and_watermark(shop: Shop) -> None:
    run_id = shop.run([(1, "card"), (2, "cash")])
    lines = shop.publish(run_id)
    assert [line.hop for line in lines] == [Hop.SOURCE_RAW, Hop.RAW_ACCEPTED, Hop.ACCEPTED_ODS]
    assert lines[2].parts == {"inserted": 2, "updated": 0, "unchanged": 0}
    assert shop.ask("SELECT id, code, provider, _run FROM ods.payment_methods ORDER BY id") == [
        (1, "card", "є😀", run_id),
        (2, "cash", "є😀", run_id),
    ]
    assert shop.watermark == T0 - timedelta(minutes=1)
    assert shop.ask("SELECT status FROM etl.run") == [("published",)]
    assert shop.ask("SELECT count(*) FROM information_schema.tables WHERE table_schema = 'staging'") == [(0,)]


def test_a_large_first_run_finds_the_same_and_leaves_the_same_indexes(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    indexes = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'ods' ORDER BY indexname"
    before = shop.ask(indexes)
    monkeypatch.setattr(first_load, "MANY_ROWS", 2)
    run_id = shop.run([(1, "card"), (2, "cash")])
    lines = shop.publish(run_id)
    assert lines[2].parts == {"inserted": 2, "updated": 0, "unchanged": 0}
    assert shop.ask("SELECT id FROM ods.payment_methods ORDER BY id") == [(1,), (2,)]
    assert shop.ask(indexes) == before


def test_publishing_again_is_a_no_op(shop: Shop) -> None:
    run_id = shop.run([(1, "card")])
    first = shop.publish(run_id)
    assert shop.publish(run_id) == first
    assert shop.ask("SELECT count(*) FROM etl.ledger") == [(3,)]


def test_a_ledger_that_does_not_close_publishes_nothing(shop: Shop) -> None:
    shop.publish(shop.run([(1, "card")]))
    before = shop.ask("SELECT * FROM ods.payment_methods"), shop.watermark
    run_id = shop.run([(1, "changed"), (2, "new")], at=T0 + timedelta(days=1), superseded=1)
    with pytest.raises(TallyhouseError, match=r"payments\.payment_methods: .*raw=accepted differs by 1 rows"):
        shop.publish(run_id)
    assert (shop.ask("SELECT * FROM ods.payment_methods"), shop.watermark) == before
    assert shop.ask(f"SELECT status FROM etl.run WHERE run_id = '{run_id}'") == [("running",)]
    with shop.connect() as connection:
        kept = store.read(connection, run_id)
    assert [line.closed for line in kept] == [True, False, True]
    assert shop.ask("SELECT count(*) FROM information_schema.tables WHERE table_schema = 'staging'") == [(0,)]


def test_the_overlap_that_is_read_twice_changes_nothing(shop: Shop) -> None:
    shop.publish(shop.run([(1, "card"), (2, "cash")]))
    before = shop.ask("SELECT * FROM ods.payment_methods ORDER BY id")
    lines = shop.publish(shop.run([(1, "card"), (2, "cash")]))
    assert lines[2].parts == {"inserted": 0, "updated": 0, "unchanged": 2}
    assert shop.ask("SELECT * FROM ods.payment_methods ORDER BY id") == before


def test_an_older_row_never_replaces_a_newer_one(shop: Shop) -> None:
    shop.publish(shop.run([(1, "new")], at=T0 + timedelta(days=1)))
    lines = shop.publish(shop.run([(1, "old")], at=T0))
    assert lines[2].parts["unchanged"] == 1
    assert shop.ask("SELECT code FROM ods.payment_methods") == [("new",)]
    # It was a whole table of a server whose clock went back: its next rows bear times from there on.
    assert shop.watermark == T0 - timedelta(minutes=1)


def test_an_empty_window_is_published_too(shop: Shop) -> None:
    lines = shop.publish(shop.run([]))
    assert all(line.closed and line.left == 0 for line in lines)
    assert shop.watermark == T0 - timedelta(minutes=1)


def test_a_run_left_open_by_a_death_is_taken_over_and_cannot_publish(shop: Shop) -> None:
    dead = shop.run([(1, "card")])
    heir = shop.run([(1, "card")])
    with pytest.raises(TallyhouseError, match=r"the run was superseded by shop-\S+\. Start a new run"):
        shop.publish(dead)
    shop.publish(heir)
    assert shop.ask("SELECT status FROM etl.run ORDER BY started_at") == [("failed",), ("published",)]


def test_a_failed_run_is_taken_up_again_by_clearing_its_task(shop: Shop) -> None:
    run_id = shop.run([(1, "card")])
    with shop.connect() as connection:
        assert close_run(connection, run_id, WHY) == "failed"
    shop.publish(run_id)
    assert shop.ask("SELECT status FROM etl.run") == [("published",)]


def test_closing_tells_what_became_of_the_run(shop: Shop) -> None:
    closing: Callable[[str], str]
    with shop.connect() as connection:
        closing = lambda run_id: close_run(connection, run_id, WHY)  # noqa: E731
        first, second = shop.run([(1, "card")]), None
        shop.publish(first)
        second = shop.run([])
        assert (closing(first), closing(second)) == ("published", "failed")
