"""A table whose definition changed is noticed before a byte moves, and followed only where that is said."""

import time
from collections.abc import Callable
from dataclasses import replace
from threading import Thread
from typing import Any

import psycopg
import pytest
from airflow.sdk.exceptions import AirflowException

from tallyhouse.runs import open_run
from tests.extract.nights import Nights
from tests.extract.oracle import row_differences
from tests.extract.test_changes import COLUMNS

pytestmark = [pytest.mark.integration, pytest.mark.spark]

BOTH = pytest.mark.parametrize("nights", ["mariadb", "postgres"], indirect=True)
MODIFY = {"mysql": "MODIFY {0} {1}", "postgres": "ALTER COLUMN {0} TYPE {1} USING {0}::{1}"}
# What is done to the table, what is said, and what undoes it.
CASES = [
    (["ADD COLUMN extra int DEFAULT 10"], r"extra is new: int\S* default 10", ["DROP COLUMN extra"]),
    (["ADD COLUMN extra int"], r"extra is new: int", ["DROP COLUMN extra"]),
    (
        ["RENAME COLUMN amount TO price"],
        r"amount is gone \(renamed to price\?\)",
        ["RENAME COLUMN price TO amount"],
    ),
    ([("name", "varchar(80)")], r"name is wider: .*40\S* before, .*80\S* now", [("name", "varchar(40)")]),
    ([("amount", "decimal(8,2)")], r"amount is narrower", [("amount", "decimal(12,2)")]),
    ([("note", "date")], r"note has another type: text before, date now", [("note", "text")]),
]


def alter(nights: Nights, actions: list[Any]) -> None:
    for action in actions:
        said = action if isinstance(action, str) else MODIFY[nights.engine].format(*action)
        nights.source.execute(f"ALTER TABLE things {said}")


@BOTH
def test_a_changed_definition_stops_the_run_before_a_byte_moves(nights: Nights) -> None:
    nights.fill(5)
    nights.run()
    for actions, said, undo in CASES:
        alter(nights, actions)
        with pytest.raises(AirflowException, match=said) as raised:
            nights.extract()
        assert "since run scratch-" in str(raised.value)
        alter(nights, undo)
    alter(nights, ["ADD COLUMN extra int", "ADD COLUMN odd int"])
    nights.table = replace(nights.table, left_out=("extra",))
    with pytest.raises(AirflowException, match=r": odd is new: int\S*\. Nothing was read") as raised:
        nights.extract()
    assert "extra" not in str(raised.value)
    alter(nights, ["DROP COLUMN odd", "DROP COLUMN note"])
    nights.table = replace(nights.table, schema_changes="evolve")
    with pytest.raises(AirflowException, match="note is gone"):
        nights.extract()
    runs = {key.split("/")[3] for key in nights.lake.keys("raw/scratch/things")}
    assert len(runs) == 1, runs
    nights.source.execute("DROP TABLE things")
    with pytest.raises(AirflowException, match="no such table"):
        nights.extract()


@BOTH
def test_a_contract_that_evolves_takes_what_was_added_and_widened(nights: Nights) -> None:
    nights.table = replace(nights.table, schema_changes="evolve")
    nights.fill(20)
    nights.run()
    alter(nights, ["ADD COLUMN extra int DEFAULT 10", ("name", "varchar(80)"), ("amount", "decimal(14,4)")])
    nights.source.execute("UPDATE things SET name = REPEAT('є', 80), amount = 1.2345 WHERE id = 3")
    manifest = nights.run()
    assert (manifest.full, manifest.rows) == (True, 20)
    assert {one["name"] for one in manifest.evolved} == {"extra", "name", "amount"}
    columns = COLUMNS | {"amount": "DECIMAL(14,4)", "extra": "INTEGER"}

    def differing() -> list[tuple[Any, ...]]:
        with psycopg.connect(nights.warehouse) as warehouse:
            return row_differences(nights.source, warehouse.cursor(), "things", columns)

    assert differing() == []
    nights.source.execute("UPDATE things SET extra = 11 WHERE id = 4")
    manifest = nights.run()
    assert (manifest.full, manifest.rows, len(manifest.evolved)) == (False, 1, 3)
    assert differing() == []


@pytest.fixture
def run_id(nights: Nights) -> str:
    with psycopg.connect(nights.warehouse) as connection:
        asked: dict[str, Any] = {
            "dag_id": "d",
            "dag_run_id": "r",
            "logical_date": None,
            "full_refresh": False,
        }
        return open_run(connection, "scratch", tables=["things"], **asked)


@BOTH
def test_reading_gives_way_to_a_change_of_the_definition_and_is_void(
    nights: Nights, run_id: str, another: Callable[[], Any]
) -> None:
    """Both that wait for each other: the change for our transaction, and, without a bound, for hours."""
    nights.contract = replace(nights.contract, give_way=1)
    wide = "INSERT INTO things SELECT id + 1000, name, amount, REPEAT('x', 60000), updated_at FROM things"
    nights.fill(1_000)
    nights.source.execute(wide)
    nights.source.execute(wide.replace("+ 1000", "+ 4000"))
    waited: list[float] = []

    def change() -> None:
        began = time.monotonic()
        with another() as connection:
            connection.cursor().execute("ALTER TABLE things ADD COLUMN extra int")
        waited.append(time.monotonic() - began)

    def between() -> None:
        thread = Thread(target=change)
        thread.start()
        thread.join(60)

    nights.between = between
    with pytest.raises(AirflowException, match=r"scratch\.things in run .*definition") as raised:
        nights.take(run_id, 1)
    assert "Nothing was committed" in str(raised.value)
    assert waited, "the change still waits"
    assert waited[0] < 30
    assert not any(
        key.endswith("_manifest.json") for key in nights.lake.keys(f"raw/scratch/things/run={run_id}")
    )
    # The next try takes all of it.
    nights.between = None
    assert nights.take(run_id, 2).rows == 4_000
