"""Why a run failed is kept in `etl.run`: the first reason, until the run is published."""

from pathlib import Path
from typing import Any

import psycopg
import pytest

from tallyhouse.errors import TallyhouseError
from tallyhouse.lake import Lake
from tallyhouse.ledger import ROWS, Hop, Line, check_closed
from tallyhouse.ledger.store import read, write_unless_published
from tallyhouse.migrate import migrate_warehouse
from tallyhouse.runs import close_run, forget_failure, mark_published, mark_shown, record_failure
from tallyhouse.settings import Settings
from tests.publish.test_postgres import Shop

pytestmark = pytest.mark.integration

REFUSED = TallyhouseError(
    "status failed in 7 rows",
    where="orders.orders in run shop-1",
    remedy="Fix it",
    table="orders.orders",
    rule="in_set(status)",
    count=7,
    sample=[f"id {n}" for n in range(9)],
).failure("check")
UNTOLD = TallyhouseError("a task ended without saying why", where="run", remedy="Read its log").failure(None)


@pytest.fixture
def shop(postgres_scratch: str, settings: Settings, tmp_path: Path) -> Shop:
    migrate_warehouse(settings.model_copy(update={"dwh_db": postgres_scratch.rpartition("/")[2]}))
    return Shop(postgres_scratch, Lake.local(str(tmp_path)))


def kept(connection: psycopg.Connection[Any], run_id: str) -> Any:
    row = connection.execute("SELECT status, failure FROM etl.run WHERE run_id = %s", (run_id,)).fetchone()
    connection.commit()
    return row


def test_the_first_reason_stays_and_a_sample_is_small(shop: Shop) -> None:
    run_id = shop.run([(1, "card")])
    with shop.connect() as connection:
        assert record_failure(connection, run_id, REFUSED)
        assert not record_failure(connection, run_id, UNTOLD | {"task": "transform"})
        assert close_run(connection, run_id, UNTOLD) == "failed"
        assert kept(connection, run_id) == ("failed", REFUSED)
    assert REFUSED["sample"] == ["id 0", "id 1", "id 2", "id 3", "id 4"]


def test_a_run_whose_tasks_said_nothing_gets_what_its_closing_knows(shop: Shop) -> None:
    run_id = shop.run([(1, "card")])
    with shop.connect() as connection:
        assert close_run(connection, run_id, UNTOLD) == "failed"
        assert kept(connection, run_id) == ("failed", UNTOLD)


def test_a_run_that_is_left_open_says_who_took_it_over(shop: Shop) -> None:
    dead = shop.run([(1, "card")])
    heir = shop.run([(1, "card")])
    with shop.connect() as connection:
        status, failure = kept(connection, dead)
    assert status == "failed"
    assert f"taken over by run {heir}" in failure["message"]


def test_a_later_try_takes_back_what_an_earlier_one_left(shop: Shop) -> None:
    run_id = shop.run([(1, "card")])
    with shop.connect() as connection:
        record_failure(connection, run_id, REFUSED)
        forget_failure(connection, run_id, "transform")
        assert kept(connection, run_id) == ("running", REFUSED)
        forget_failure(connection, run_id, "check")
        assert kept(connection, run_id) == ("running", None)


def test_publishing_clears_the_reason_and_a_run_that_all_stores_show_takes_none(shop: Shop) -> None:
    run_id = shop.run([(1, "card")])
    with shop.connect() as connection:
        record_failure(connection, run_id, REFUSED)
        shop.publish(run_id)
        assert kept(connection, run_id) == ("published", None)
        assert not record_failure(connection, run_id, REFUSED)
        # No target shows it yet; what one of them says is that one's alone.
        mark_published(connection, run_id, ["here", "there"])
        connection.commit()
        told = REFUSED | {"task": "publish.there"}
        assert record_failure(connection, run_id, told, "there")
        mark_shown(connection, "here", [run_id])
        assert not record_failure(connection, run_id, REFUSED, "here")
        found = connection.execute("SELECT status, missing, failure, shown_at FROM etl.run_state").fetchall()
        connection.commit()
        assert found == [("published", ["there"], told, None)]
        mark_shown(connection, "there", [run_id])
        found = connection.execute("SELECT missing, failure, shown_at IS NULL FROM etl.run_state").fetchall()
        connection.commit()
        assert found == [([], None, False)]
        assert not record_failure(connection, run_id, told, "there")


def test_what_a_target_owes_is_forgotten_when_it_is_switched_off(shop: Shop) -> None:
    earlier = shop.run([(1, "card")])
    with shop.connect() as connection:
        mark_published(connection, earlier, ["here", "there"])
        connection.commit()
        later = shop.run([(1, "card")])
        mark_published(connection, later, ["here"])
        found = connection.execute("SELECT run_id, target FROM etl.run_target ORDER BY run_id").fetchall()
    assert sorted(found) == sorted([(earlier, "here"), (later, "here")])


def test_a_published_run_keeps_its_lines_when_its_extraction_runs_again(shop: Shop) -> None:
    run_id = shop.run([(1, "card")])
    table = "payments.payment_methods"
    with shop.connect() as connection:
        write_unless_published(connection, run_id, [Line(table, Hop.SOURCE_RAW, ROWS, 5, 5)])
        assert [line.left for line in read(connection, run_id)] == [5]
        connection.commit()
        shop.publish(run_id)
        lines = read(connection, run_id)
        connection.commit()
        write_unless_published(connection, run_id, [Line(table, Hop.SOURCE_RAW, ROWS, 9, 9)])
        assert read(connection, run_id) == lines
        assert [line.left for line in lines if line.hop is Hop.SOURCE_RAW] == [1]


def test_an_open_ledger_is_a_reason_with_table_hop_and_difference() -> None:
    with pytest.raises(TallyhouseError) as raised:
        check_closed([Line("orders.orders", Hop.RAW_ACCEPTED, ROWS, 9, 7)], "shop-1")
    failure = raised.value.failure("publish.warehouse")
    assert (failure["table"], failure["rule"], failure["count"]) == ("orders.orders", "raw=accepted rows", -2)
    assert failure["sample"] == ["orders.orders raw=accepted rows: 9 against 7"]
    assert TallyhouseError(**raised.value.arguments()).failure("publish.warehouse") == failure
