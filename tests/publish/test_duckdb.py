"""The DuckDB file as a target beside ClickHouse: the same runs, the same rows, in one ledger."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

import duckdb
import pytest
from psycopg.rows import dict_row

from tallyhouse.errors import TallyhouseError
from tallyhouse.ledger import Line, mart_in, shown_in, store
from tallyhouse.models import all_definitions, definition
from tallyhouse.publish import follow
from tallyhouse.publish.follow import DIFFERING
from tallyhouse.publish.target import Place, known, load
from tallyhouse.publish.targets.duckdb import Target, create
from tallyhouse.settings import Settings
from tests.publish.test_clickhouse import PIPELINE, Shop, another, lake, line, payment, shop

__all__ = ["another", "lake", "shop"]  # fixtures
pytestmark = pytest.mark.integration

BOTH = replace(PIPELINE, targets=("clickhouse", "duckdb"))


class Files:
    """A shop whose runs go to a file too."""

    def __init__(self, shop: Shop, file: Path) -> None:
        self.shop = shop
        self.file = file

    def publish(self, run_id: str, **how: bool) -> list[Line]:
        target = self.open()
        try:
            return follow.publish(self.shop.connect, "duckdb", target, self.shop.lake, BOTH, run_id, **how)
        finally:
            target.close()

    def open(self) -> Target:
        return Target.open(Place(str(self.file)), self.shop.lake, self.shop.access)

    def verify(self) -> dict[str, Decimal]:
        """Rows that differ, by model."""
        target = self.open()
        try:
            lines = follow.verify(self.shop.connect, "duckdb", target, self.shop.lake, BOTH)
        finally:
            target.close()
        return {line.table: line.right for line in lines if line.measure == DIFFERING}

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        """As an analyst reads it while nobody writes."""
        with duckdb.connect(self.file, read_only=True) as connection:
            return connection.execute(query).fetchall()

    def change(self, statement: str) -> None:
        with duckdb.connect(self.file) as connection:
            connection.execute(statement)

    def state(self) -> list[tuple[Any, ...]]:
        return self.shop.ask(
            "SELECT t.target, t.state FROM etl.run_target AS t JOIN etl.run AS r USING (run_id) "
            "ORDER BY r.published_at, t.target"
        )


@pytest.fixture
def files(shop: Shop, tmp_path: Path) -> Iterator[Files]:
    yield Files(shop, tmp_path / "below" / "warehouse.duckdb")


def two_runs(files: Files) -> str:
    shop = files.shop
    first = shop.run(
        payments=(payment(1, "1.00"), payment(2, "2.00", "EUR", status="succeeded")),
        lines=(line(1, currency="UAH", line_total="9.99", quantity=2), line(2, status="cancelled")),
    )
    shop.publish(first)
    files.publish(first)
    last = shop.run(payments=(payment(2, "2.50"), payment(3, "3.00", status="failed")), lines=(line(3),))
    shop.publish(last)
    files.publish(last)
    return last


def test_all_targets_are_found_and_hold_what_the_protocol_says() -> None:
    assert known() == ["clickhouse", "duckdb"]
    assert [load(name).title for name in known()] == ["ClickHouse", "DuckDB"]
    with pytest.raises(ValueError, match="TARGETS names 'polars'; there are: clickhouse, duckdb"):
        load("polars")


def test_commands_find_a_target_as_the_connections_file_has_it(settings: Settings) -> None:
    odd = "a: 'b' #{c} \"d\" %$"
    place = Place.of(settings.model_copy(update={"clickhouse_password": odd}), "clickhouse")
    assert (place.host, place.port) == (settings.clickhouse_host, settings.clickhouse_http_port)
    assert (place.user, place.password, place.database) == (
        settings.clickhouse_user,
        odd,
        settings.clickhouse_db,
    )
    assert odd not in repr(place)
    assert Place.of(settings, "duckdb").host == str(settings.duckdb_file)


def test_a_file_shows_what_clickhouse_shows_and_both_are_in_one_ledger(files: Files) -> None:
    last = two_runs(files)
    for table, rows in files.shop.shown().items():
        columns = ", ".join(
            f'"{name}"' for name in next(m for m in all_definitions() if m.name == table).columns
        )
        mine = files.ask(f"SELECT {columns} FROM dwh.{table}")
        assert len(mine) == len(rows), table
        numbers = [[v for v in row if isinstance(v, int | Decimal)] for row in mine]
        assert sorted(numbers) == sorted(
            [[v for v in row if isinstance(v, int | Decimal)] for row in rows]
        ), table
    with files.shop.connect() as connection:
        lines = store.read(connection, last)
    assert all(one.closed for one in lines)
    assert {one.hop for one in lines} == {hop(name) for name in BOTH.targets for hop in (shown_in, mart_in)}
    assert files.state() == [(name, "shown") for _ in range(2) for name in BOTH.targets]
    assert files.verify() == {"fact_order_line": 0, "fact_payment": 0}


def canonical(values: dict[str, Any]) -> str:
    """A row's text as the digest has it, worked out anew."""
    text = ""
    for name, value in values.items():
        kind = definition("fact_payment").columns[name].type
        if kind.startswith(("char", "varchar")):
            written = str(value).rstrip() if kind.startswith("char(") else str(value)
            text += "N" if value is None else f"{len(written.encode())}:{written}"
        elif kind == "timestamptz":
            text += "N|" if value is None else f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}|"
        elif kind.startswith("decimal"):
            text += f"{int(value.scaleb(2))}|"
        else:
            text += f"{value}|"
    return text


def test_a_row_has_one_digest_in_all_stores(files: Files) -> None:
    shop = files.shop
    run_id = shop.run(
        payments=(
            payment(1, "-0.00", status="їжак|:N", failure_reason=""),
            payment(2, "-123456789012.99", "EUR", failure_reason=None, settled_at=None),
            payment(
                3,
                "0.10",
                attempted_at="1900-01-01 00:00:00.000001+00",
                settled_at="2299-12-31 23:59:59.999999+00",
                business_date=date(1969, 12, 31),
                failure_reason="😀" * 64,
                customer_key=2**63 - 1,
            ),
        ),
    )
    shop.publish(run_id)
    files.publish(run_id)
    with shop.connect() as connection:
        lines = store.read(connection, run_id)
        rows = connection.cursor(row_factory=dict_row).execute("SELECT * FROM dwh.fact_payment").fetchall()
    expected = sum(int(sha256(canonical(row).encode()).hexdigest()[:15], 16) for row in rows)
    found = [
        (one.left, one.right)
        for one in lines
        if one.table == "fact_payment" and one.measure == "digest(all rows)"
    ]
    assert found == [(expected, expected)] * 2


def test_tables_are_those_of_the_definitions_with_calendar_and_unknown_members(files: Files) -> None:
    files.publish(files.shop.run())
    found = {name for (name,) in files.ask("SELECT table_name FROM information_schema.tables")}
    assert found == {model.name for model in all_definitions()} | {"etl_run"}
    ((days,),) = files.shop.ask("SELECT count(*) FROM dwh.dim_date")
    assert files.ask("SELECT count(*), min(date_key) FROM dwh.dim_date") == [(days, -1)]
    assert files.ask("SELECT customer_key, full_name FROM dwh.dim_customer") == [(-1, "Unknown")]


def test_a_row_that_somebody_altered_is_found_and_repaired(files: Files) -> None:
    last = two_runs(files)
    files.change("UPDATE dwh.fact_payment SET failure_reason = 'none of ours' WHERE amount = 3")
    assert files.verify() == {"fact_order_line": 0, "fact_payment": 2}  # ours is missing, theirs is too much
    with pytest.raises(TallyhouseError, match=r"fact_payment: .*postgres=duckdb differs by .* digest\("):
        files.publish(last)
    files.change("UPDATE dwh.fact_payment SET amount = amount + 0.01 WHERE amount = 3")
    with pytest.raises(
        TallyhouseError, match=r"fact_payment: .*postgres=duckdb differs by 0.01 sum\(amount\)"
    ):
        files.publish(last)
    assert all(one.closed for one in files.publish(last, whole=True))
    assert files.verify() == {"fact_order_line": 0, "fact_payment": 0}


def test_a_file_that_shows_nothing_yet_differs_by_all_rows(files: Files) -> None:
    files.shop.run(payments=(payment(1, "1.00"),), lines=(line(1), line(2)))
    assert files.verify() == {"fact_order_line": 2, "fact_payment": 1}


def test_a_rebuilt_warehouse_is_compared_aside_with_what_the_file_shows(files: Files) -> None:
    two_runs(files)
    shown = files.ask("SELECT * FROM dwh.mart_revenue_daily ORDER BY ALL")

    def differing() -> set[str]:
        target = files.open()
        try:
            with files.shop.connect() as rebuilt:
                lines = follow.compare_rebuilt(
                    *(files.shop.connect, rebuilt, "duckdb", target, files.shop.lake, BOTH)
                )
        finally:
            target.close()
        return {line.table for line in lines if not line.closed}

    assert differing() == set()
    files.change("UPDATE dwh.fact_order_line SET quantity = 7")
    assert differing() == {"fact_order_line"}
    assert files.ask("SELECT * FROM dwh.mart_revenue_daily ORDER BY ALL") == shown


def test_a_lost_file_is_filled_again_from_the_lake(files: Files) -> None:
    last = two_runs(files)
    before = {table: files.ask(f"SELECT * FROM dwh.{table} ORDER BY ALL") for table in files.shop.shown()}
    files.file.unlink()
    assert all(one.closed for one in files.publish(last))
    assert {table: files.ask(f"SELECT * FROM dwh.{table} ORDER BY ALL") for table in before} == before
    assert len(files.ask("SELECT run_id FROM dwh.etl_run")) == 2


def test_runs_that_the_warehouse_does_not_know_are_forgotten(files: Files) -> None:
    two_runs(files)
    files.change("INSERT INTO dwh.etl_run VALUES ('shop-20990101T000000-abcd', 'shop', now())")
    files.change("UPDATE dwh.fact_order_line SET quantity = 7")
    assert all(line.closed for line in files.publish(files.shop.run(lines=(line(9),))))
    assert files.ask("SELECT count(*), bool_or(run_id LIKE '%2099%') FROM dwh.etl_run") == [(3, False)]


def test_a_file_of_other_definitions_is_made_anew(files: Files) -> None:
    last = two_runs(files)
    files.change("ALTER TABLE dwh.dim_product DROP COLUMN brand")
    assert all(one.closed for one in files.publish(last))
    assert files.ask("SELECT brand FROM dwh.dim_product") == [("Unknown",)]
    assert len(files.ask("SELECT * FROM dwh.fact_payment")) == 3


def test_a_run_comes_in_whole_or_not_at_all_and_a_refusal_is_this_targets_alone(files: Files) -> None:
    shop = files.shop
    first = shop.run(payments=(payment(1, "1.00"),), lines=(line(1),))
    shop.publish(first)
    files.publish(first)
    # Somebody's table that does not take a line with the quantity 7; the columns are as they should be.
    created = create(next(m for m in all_definitions() if m.name == "fact_order_line"))
    files.change(
        "CREATE TABLE kept AS SELECT * FROM dwh.fact_order_line; DROP TABLE dwh.fact_order_line; "
        f"{created[:-1]}, CHECK (quantity <> 7)); INSERT INTO dwh.fact_order_line SELECT * FROM kept; "
        "DROP TABLE kept"
    )
    bad = shop.run(payments=(payment(2, "2.00"),), lines=(line(2, quantity=7),))
    with pytest.raises(TallyhouseError, match=r"fact_order_line.*: DuckDB refused its rows .*CHECK"):
        files.publish(bad)
    assert files.ask("SELECT run_id FROM dwh.etl_run") == [(first,)]
    assert files.ask("SELECT count(*) FROM dwh.fact_payment") == [(1,)]  # nor half of it
    assert all(one.closed for one in shop.publish(bad))  # the other target goes on
    assert files.state()[2:] == [("clickhouse", "shown"), ("duckdb", "failed")]
    ((missing, failure, status),) = shop.ask(
        f"SELECT missing, failure, status FROM etl.run_state WHERE run_id = '{bad}'"
    )
    assert (missing, status) == (["duckdb"], "published")
    assert (failure["task"], failure["table"]) == ("publish.duckdb", "fact_order_line")
    files.file.unlink()
    assert all(one.closed for one in files.publish(bad))
    assert files.state()[2:] == [("clickhouse", "shown"), ("duckdb", "shown")]


def test_a_file_that_somebody_holds_open_is_a_passing_trouble(files: Files) -> None:
    run_id = files.shop.run(payments=(payment(1, "1.00"),))
    files.publish(run_id)
    import multiprocessing  # noqa: PLC0415 - DuckDB's lock is between processes

    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    reader = context.Process(target=_hold, args=(str(files.file), ready, done))
    reader.start()
    try:
        assert ready.wait(60)
        with pytest.raises(duckdb.IOException, match="lock"):
            files.open()
    finally:
        done.set()
        reader.join(30)
    files.publish(run_id)


def _hold(file: str, ready: Any, done: Any) -> None:
    with duckdb.connect(file, read_only=True):
        ready.set()
        done.wait(60)
