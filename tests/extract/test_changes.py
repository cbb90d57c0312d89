"""Changes that no cursor shows are found, and a source that went back in time is not followed."""

from dataclasses import replace
from datetime import datetime, timedelta

import psycopg
import pytest
from airflow.sdk.exceptions import AirflowException

from tests.extract.nights import Nights, things
from tests.extract.oracle import row_differences

pytestmark = [pytest.mark.integration, pytest.mark.spark]

COLUMNS = {
    "id": "INTEGER",
    "name": "VARCHAR",
    "amount": "DECIMAL(12,2)",
    "note": "VARCHAR",
    "updated_at": "TIMESTAMP",
}
EVERY = pytest.mark.parametrize("nights", ["mariadb", "mysql", "postgres"], indirect=True)


def differing(nights: Nights) -> list[tuple[object, ...]]:
    with psycopg.connect(nights.warehouse) as warehouse:
        return row_differences(nights.source, warehouse.cursor(), "things", COLUMNS)


def found(manifest: object, *names: str) -> tuple[object, ...]:
    compared = manifest.compared  # type: ignore[attr-defined]
    assert compared is not None
    return tuple(compared[name] for name in names)


@EVERY
def test_rows_that_the_cursor_does_not_show_are_taken(nights: Nights) -> None:
    nights.fill(3_000)
    assert nights.run().rows == 3_000
    assert nights.run().rows == 0
    nights.source.execute("UPDATE things SET note = 'quietly' WHERE id IN (7, 1700)")
    nights.source.execute("UPDATE things SET id = 9000 WHERE id = 8")
    nights.source.execute("DELETE FROM things WHERE id = 9")
    nights.fill(1, first=5_000, at="2019-01-01 00:00:00")
    manifest = nights.run()
    assert found(manifest, "rows", "taken_again", "buckets") == (3_000, 4, 3)
    assert manifest.rows == 4
    assert not manifest.full
    assert found(manifest, "seconds")[0] > 0  # type: ignore[operator]
    assert differing(nights) == []
    lines = nights.ask(
        "SELECT left_value, right_value, parts FROM etl.ledger WHERE measure LIKE 'rows compared%' "
        f"AND run_id = '{manifest.run_id}'"
    )
    assert lines == [(3_000, 3_000, {"as taken": "2996", "taken again": "4"})]
    assert nights.run().rows == 0


def test_all_rows_are_looked_at_within_as_many_runs_as_the_contract_says(nights: Nights) -> None:
    nights.table = replace(nights.table, row_digests=3)
    nights.fill(300)
    nights.run()
    nights.source.execute("UPDATE things SET amount = amount + 1")
    slices, taken = set(), 0
    for _ in range(3):
        manifest = nights.run()
        slices.add(found(manifest, "slice")[0])
        taken += manifest.rows
        assert 50 < manifest.rows < 150
    assert (slices, taken) == ({0, 1, 2}, 300)
    assert differing(nights) == []


@pytest.mark.parametrize("nights", ["mariadb", "postgres"], indirect=True)
def test_of_a_table_without_a_cursor_only_what_differs_is_taken(nights: Nights) -> None:
    nights.table = replace(nights.table, cursor=None)
    nights.fill(100)
    assert nights.run().rows == 100
    nights.source.execute("UPDATE things SET note = '' WHERE id = 50")
    nights.source.execute("DELETE FROM things WHERE id IN (1, 2)")
    nights.fill(1, first=200)
    manifest = nights.run()
    assert (manifest.rows, manifest.full, len(manifest.deleted)) == (2, False, 1)
    assert differing(nights) == []
    assert nights.run(full_refresh=True).full


def test_what_was_taken_while_rows_were_not_compared_is_not_relied_on(nights: Nights) -> None:
    nights.fill(20)
    nights.run()
    nights.table = replace(nights.table, row_digests=None)
    nights.source.execute("UPDATE things SET note = 'x', updated_at = NOW(6) WHERE id = 3")
    nights.run()
    nights.source.execute(
        "UPDATE things SET note = NULL, updated_at = '2026-01-01 10:00:00.000003' WHERE id = 3"
    )
    nights.table = replace(nights.table, row_digests=1)
    assert nights.run().full
    assert differing(nights) == []


@EVERY
def test_a_source_that_was_restored_from_an_older_backup_is_followed_only_when_asked_to(
    nights: Nights,
) -> None:
    nights.fill(40)
    nights.source.execute("CREATE TABLE backup AS SELECT * FROM things")
    nights.source.execute("UPDATE things SET note = 'later', updated_at = CURRENT_TIMESTAMP(6) WHERE id < 15")
    nights.run()
    nights.source.execute("DELETE FROM things")
    nights.source.execute("INSERT INTO things SELECT * FROM backup")
    with pytest.raises(AirflowException, match="14 of its newest rows are gone, or older than they") as no:
        nights.extract()
    assert "start the run again with the parameter allow_deletes" in str(no.value)
    assert nights.run(allow_deletes=True).full
    assert differing(nights) == []
    assert not nights.run().full


@EVERY
def test_a_later_state_with_an_earlier_time_counts(nights: Nights) -> None:
    """Two transactions change one row: the one that began first, whose time is the earlier, commits last."""
    nights.fill(20)
    nights.run()
    nights.source.execute(
        "UPDATE things SET note = 'second', updated_at = '2026-01-03 00:00:00' WHERE id = 7"
    )
    nights.run()
    nights.source.execute("UPDATE things SET note = 'first', updated_at = '2026-01-02 00:00:00' WHERE id = 7")
    # A row that takes the key of a deleted one, and is older than that one was.
    nights.source.execute("DELETE FROM things WHERE id = 8")
    nights.source.execute("UPDATE things SET id = 8, updated_at = '2026-01-01 00:00:00' WHERE id = 9")
    manifest = nights.run()
    assert found(manifest, "taken_again") == (2,)
    assert differing(nights) == []
    assert nights.run().rows == 0


def test_what_is_seen_after_a_clock_was_set_back_counts(nights: Nights) -> None:
    nights.fill(20)
    taken = nights.run()
    nights.set_back = timedelta(hours=1)
    nights.source.execute(
        "UPDATE things SET note = 'behind', updated_at = '2026-01-03 00:00:00' WHERE id = 7"
    )
    manifest = nights.run()
    assert manifest.snapshot_at > taken.snapshot_at
    assert differing(nights) == []


@pytest.mark.parametrize("cursor", ["updated_at", None])
def test_a_source_whose_newest_rows_are_gone_is_asked_about(nights: Nights, cursor: str | None) -> None:
    nights.table = replace(nights.table, cursor=cursor, row_digests=1)
    nights.fill(100)
    nights.run()
    nights.source.execute("DELETE FROM things WHERE id > 97")
    nights.run()
    nights.source.execute("DELETE FROM things WHERE id > 86")
    with pytest.raises(AirflowException, match="11 of its newest rows are gone"):
        nights.extract()
    nights.run(allow_deletes=True)
    assert differing(nights) == []


def test_a_replica_has_to_lack_a_row_twice_and_for_as_long_as_it_can_lag(nights: Nights) -> None:
    nights.contract = replace(nights.contract, replica_lag=3600)
    nights.fill(30)
    nights.run()
    nights.source.execute("DELETE FROM things WHERE id IN (3, 4)")
    live = "SELECT count(*) FROM ods.things WHERE _deleted_at IS NULL"
    for _ in range(2):
        manifest = nights.run()
        assert (len(manifest.deleted), manifest.census and manifest.census["missing"]) == (0, 2)
        assert nights.ask(live) == [(30,)]
    # One of them arrives after all; the other one has been missing for long enough.
    nights.fill(1, first=4)
    with psycopg.connect(nights.warehouse) as warehouse:
        warehouse.execute("UPDATE etl.missing_key SET missed_at = missed_at - interval '2 hours'")
    manifest = nights.run()
    assert manifest.census is not None
    assert (manifest.census["deleted"], manifest.census["missing"]) == (1, 0)
    assert nights.ask(live) == [(29,)]
    assert nights.ask("SELECT count(*) FROM etl.missing_key") == [(0,)]


def test_keys_of_whole_seconds_are_the_same_everywhere(nights: Nights) -> None:
    """MySQL writes a time with as many decimals as its column has."""
    nights.source.execute("DROP TABLE things")
    nights.source.execute(
        "CREATE TABLE things (id int, at datetime NOT NULL, updated_at datetime(6) NOT NULL, "
        "PRIMARY KEY (id, at))"
    )
    with psycopg.connect(nights.warehouse) as warehouse:
        warehouse.execute("DROP TABLE ods.things")
    types = {"id": "int", "at": "datetime", "updated_at": "datetime(6)"}
    nights.table = things(types, key=("id", "at"), control_totals=())
    with psycopg.connect(nights.warehouse) as warehouse:
        warehouse.execute(
            "CREATE TABLE ods.things (id integer, at timestamptz, updated_at timestamptz, "
            "_snapshot timestamptz, _run text, _deleted_at timestamptz, PRIMARY KEY (id, at))"
        )
    at = datetime(2026, 1, 1)
    for n in range(5):
        nights.source.execute("INSERT INTO things VALUES (%s, %s, %s)", (n, at + timedelta(seconds=n), at))
    nights.run()
    nights.source.execute("UPDATE things SET updated_at = '2026-02-01' WHERE id = 1")
    nights.source.execute("DELETE FROM things WHERE id = 2")
    manifest = nights.run(full_refresh=True)
    assert manifest.census is not None
    assert (manifest.census["deleted"], manifest.census["left"], manifest.census["came"]) == (1, 0, 0)
    assert nights.ask("SELECT count(*) FROM ods.things WHERE _deleted_at IS NULL") == [(4,)]
