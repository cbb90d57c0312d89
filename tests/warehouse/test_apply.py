"""ods/apply.sql against PostgreSQL: what is new, seen later, the same or seen earlier."""

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from psycopg import sql

from tallyhouse.contracts import TableContract, load_source
from tallyhouse.models.load import source_tables
from tallyhouse.publish import sql as statements
from tests.warehouse.conftest import Insert

pytestmark = pytest.mark.integration

STAGED = "staging.a table"  # the name has to be quoted
INVENTORY = load_source("catalog").table("inventory")  # two columns in its key
PANCAKES = load_source("pancake").table("pancakes")  # no cursor


class Run:
    """Stages rows and applies them, as a publish does."""

    def __init__(self, warehouse: psycopg.Connection[Any], insert: Insert, contract: TableContract) -> None:
        self.warehouse = warehouse
        self.insert = insert
        self.contract = contract
        self.table = f"ods.{contract.name}"

    def apply(self, *rows: dict[str, Any]) -> tuple[int, int, int]:
        staged = sql.Identifier(*STAGED.split("."))
        self.warehouse.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(staged))
        self.warehouse.execute(
            sql.SQL("CREATE TABLE {} (LIKE {})").format(staged, sql.Identifier(*self.table.split(".")))
        )
        self.insert(self.table, list(rows), STAGED)
        statement = statements.render(
            "dwh/ods/apply.sql",
            staging='staging."a table"',
            table=self.contract.name,
            columns=self.contract.column_names,
            key=self.contract.key,
        )
        answer = self.warehouse.execute(statement)
        assert [column.name for column in answer.description or ()] == ["inserted", "updated", "unchanged"]
        (counts,) = answer.fetchall()
        return counts  # type: ignore[no-any-return]

    def rows(self, columns: str) -> list[tuple[Any, ...]]:
        return self.warehouse.execute(f"SELECT {columns} FROM {self.table} ORDER BY 1, 2").fetchall()


def stock(code: str, quantity: int, updated: str, snapshot: str = "01", run: str = "r1") -> dict[str, Any]:
    return {
        "product_id": "p",
        "warehouse_code": code,
        "quantity": quantity,
        "updated_at": f"2026-01-{updated} 00:00:00+00",
        "_snapshot": f"2026-01-{snapshot} 12:00:00+00",
        "_run": run,
    }


@pytest.fixture
def inventory(warehouse: psycopg.Connection[Any], insert: Insert) -> Run:
    return Run(warehouse, insert, INVENTORY)


@pytest.fixture
def pancakes(warehouse: psycopg.Connection[Any], insert: Insert) -> Run:
    return Run(warehouse, insert, PANCAKES)


@pytest.mark.parametrize("contract", source_tables().values(), ids=list(source_tables()))
def test_every_table_takes_a_row_once(
    warehouse: psycopg.Connection[Any], insert: Insert, contract: TableContract
) -> None:
    run = Run(warehouse, insert, contract)
    assert run.apply() == (0, 0, 0)
    assert run.apply({}) == (1, 0, 0)
    assert run.apply({}) == (0, 0, 1)
    assert warehouse.execute(f"SELECT count(*) FROM {run.table}").fetchone() == (1,)


def test_new_newer_same_and_older(inventory: Run) -> None:
    assert inventory.apply(*(stock(code, 1, "02", "02") for code in "abcde")) == (5, 0, 0)
    counts = inventory.apply(
        stock("a", 2, "03", "04", "r2"),  # newer
        stock("b", 1, "02", "04", "r2"),  # the same, seen again: keeps its own run
        stock("c", 2, "01", "04", "r2"),  # an earlier time of its own, but seen later
        stock("d", 2, "02", "04", "r2"),  # the same time, other values
        stock("e", 2, "03", "01", "r0"),  # seen earlier
        stock("f", 1, "02", "04", "r2"),  # new
    )
    assert counts == (1, 3, 2)
    assert inventory.rows("warehouse_code, quantity, _run") == [
        ("a", 2, "r2"),
        ("b", 1, "r1"),
        ("c", 2, "r2"),
        ("d", 2, "r2"),
        ("e", 1, "r1"),
        ("f", 1, "r2"),
    ]


def test_the_sums_of_accepted_rows_are_found_in_ods(inventory: Run) -> None:
    inventory.apply(*(stock(code, n, "02", "02") for code, n in (("a", 1), ("b", 10), ("c", 100))))
    inventory.apply(
        stock("a", 2, "03", "04"),  # newer
        stock("b", 10, "02", "04"),  # the same
        stock("c", 700, "03", "01"),  # seen earlier: ods has something else, and keeps it
        stock("d", 1000, "02", "04"),  # new
    )
    query = statements.render(
        "dwh/ods/totals.sql",
        staging='staging."a table"',
        table="inventory",
        columns=INVENTORY.column_names,
        key=INVENTORY.key,
        totals=("quantity",),
    )
    assert inventory.warehouse.execute(query).fetchall() == [(2 + 10 + 1000, 700)]
    # A row that was not applied is missed by the sum, not excused.
    inventory.warehouse.execute(
        "UPDATE ods.inventory SET quantity = 1, _snapshot = '2026-01-01' WHERE warehouse_code = 'd'"
    )
    assert inventory.warehouse.execute(query).fetchall() == [(2 + 10 + 1, 700)]


def test_null_is_a_value(pancakes: Run) -> None:
    first = {"id": 1, "taste_notes": None, "_snapshot": "2026-01-01 00:00:00+00"}
    second = {"id": 1, "taste_notes": "warm", "_snapshot": "2026-01-02 00:00:00+00"}
    third = {"id": 1, "taste_notes": None, "_snapshot": "2026-01-03 00:00:00+00"}
    assert [pancakes.apply(row) for row in (first, first, second, third)] == [
        (1, 0, 0),
        (0, 0, 1),
        (0, 1, 0),
        (0, 1, 0),
    ]


def test_what_was_seen_later_wins(pancakes: Run) -> None:
    def row(name: str, day: int) -> dict[str, Any]:
        return {"id": 1, "name": name, "_snapshot": f"2026-01-{day:02} 00:00:00+00"}

    assert pancakes.apply(row("old", 2)) == (1, 0, 0)
    assert pancakes.apply(row("older", 1)) == (0, 0, 1)
    assert pancakes.apply(row("new", 3)) == (0, 1, 0)
    assert pancakes.rows("id, name") == [(1, "new")]


def test_a_deleted_row_that_comes_back_is_revived(inventory: Run) -> None:
    inventory.apply(stock("a", 1, "02", "02"))
    inventory.warehouse.execute("UPDATE ods.inventory SET _deleted_at = '2026-01-03 12:00:00+00'")
    # An extract from before the deletion does not undo it.
    assert inventory.apply(stock("a", 1, "02", "03")) == (0, 0, 1)
    assert inventory.apply(stock("a", 1, "02", "02")) == (0, 0, 1)
    assert inventory.rows("warehouse_code, _deleted_at IS NULL") == [("a", False)]
    assert inventory.apply(stock("a", 1, "02", "04", "r4")) == (0, 1, 0)
    assert inventory.rows("warehouse_code, _deleted_at IS NULL, _run") == [("a", True, "r4")]


def test_a_key_staged_twice_does_not_go_unnoticed(inventory: Run) -> None:
    with pytest.raises(psycopg.errors.UniqueViolation), inventory.warehouse.transaction():
        inventory.apply(stock("a", 1, "02"), stock("a", 2, "02"))
    inventory.apply(stock("a", 1, "02"))
    counts = inventory.apply(stock("a", 2, "03", "02"), stock("a", 3, "04", "02"))
    assert sum(counts) != 2


BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


@given(
    # What a source showed over time: for each snapshot and key the state that was extracted.
    sightings=st.dictionaries(
        st.tuples(st.integers(0, 5), st.sampled_from("abc")), st.integers(0, 3), min_size=1, max_size=12
    ),
    ages=st.lists(st.integers(1, 28), min_size=4, max_size=4),
    data=st.data(),
)
@hypothesis_settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_the_last_state_seen_stays_whatever_is_published_again(
    inventory: Run, sightings: dict[tuple[int, str], int], ages: list[int], data: st.DataObject
) -> None:
    """Whatever time a state itself bears."""
    rows = {
        (snapshot, code): {
            **stock(code, 100 + state, f"{ages[state]:02}"),
            "_snapshot": BEGIN + timedelta(days=snapshot),
        }
        for (snapshot, code), state in sightings.items()
    }
    expected = {code: 100 + state for (_, code), state in sorted(sightings.items())}
    inventory.warehouse.execute("TRUNCATE ods.inventory")
    again = data.draw(st.permutations(list(rows)))
    for one in [*sorted(rows), *again]:
        assert sum(inventory.apply(rows[one])) == 1
    assert dict(inventory.rows("warehouse_code, quantity")) == expected
