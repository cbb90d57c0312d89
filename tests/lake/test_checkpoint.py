"""Checkpoints, and raw that goes below them: nothing that a rebuild needs is ever missing."""

import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from psycopg import sql

from tallyhouse.contracts import load_pipeline
from tallyhouse.lake import checkpoint
from tallyhouse.lake.upkeep import report
from tests.lake.conftest import KEEP, LATER, House
from tests.warehouse.schema import tables

pytestmark = pytest.mark.integration

RAW_GOES = KEEP.model_copy(update={"lake_raw_days": 30})


def fill(house: House, table: str, *rows: dict[str, Any]) -> None:
    described = tables()[table]
    names = [column.name for column in described.columns]
    for row in rows:
        house.connection.execute(
            sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
                sql.Identifier(*table.split(".")),
                sql.SQL(", ").join(map(sql.Identifier, names)),
                sql.SQL(", ").join(sql.Placeholder() * len(names)),
            ),
            list(described.row(row).values()),
        )


def shown(house: House, table: str) -> list[str]:
    """The rows of a table, as Python says them."""
    described = tables()[table]
    columns = sql.SQL(", ").join(
        sql.SQL("{}::text" if "char" in column.dbml else "{}").format(sql.Identifier(column.name))
        for column in described.columns
    )
    query = sql.SQL("SELECT {} FROM {}").format(columns, sql.Identifier(*table.split(".")))
    house.connection.execute("SET TIME ZONE 'UTC'")  # the last day of all is another one elsewhere
    rows = house.connection.execute(query).fetchall()
    return sorted(repr(tuple(map(_plain, row))) for row in rows)


def in_lake(house: House, table: str, run_id: str) -> list[str]:
    """What the manifest names of a table, read by Arrow."""
    found = []
    manifest = house.client.get_object(
        Bucket=house.bucket.name, Key=f"checkpoint/techmarket/run={run_id}/_manifest.json"
    )
    for part in json.loads(manifest["Body"].read())["tables"][table]["parts"]:
        with house.lake.filesystem.open_input_file(house.lake.path(part["key"])) as file:
            rows = pq.read_table(file).to_pylist()
        names = [column.name for column in tables()[table].columns]
        found += [tuple(_plain(row[name]) for name in names) for row in rows]
    return sorted(map(repr, found))


def _plain(value: Any) -> Any:
    return value.astimezone(UTC) if isinstance(value, datetime) else value


def test_a_checkpoint_holds_what_the_warehouse_does(house: House) -> None:
    house.run("r1", "published", days=1, pipeline="techmarket")
    fill(
        house,
        "ods.orders",
        {"id": "1", "total": Decimal("-0.05"), "created_at": "2026-01-02 03:04:05.000006+00"},
        {"id": "2", "total": Decimal("9999999999.99"), "_deleted_at": "9999-12-31 23:59:59.999999+00"},
    )
    fill(house, "ods.users", {"id": "u", "email": "є😀|N'\n", "_run": ""}, {"id": "v"})
    fill(house, "dwh.dim_customer", {"customer_key": 7, "valid_from": "0001-01-01 00:00:00+00"})
    made = checkpoint.write(house.connection, house.lake, load_pipeline("techmarket"))
    ods = {name for name, table in tables().items() if table.schema == "ods"}
    assert {name for name in made.tables if name.startswith("ods.")} <= ods
    assert {name for name in made.tables if name.startswith("dwh.")} == {
        "dwh.dim_customer",
        "dwh.dim_product",
    }
    assert (made.run_id, made.tables["ods.orders"].rows, made.tables["ods.users"].rows) == ("r1", 2, 2)
    for table in ("ods.orders", "ods.users", "ods.order_items", "dwh.dim_customer"):
        assert in_lake(house, table, "r1") == shown(house, table), table
    assert checkpoint.read(house.lake, "techmarket", "r1") == made


def test_the_digest_of_what_is_in_the_lake_tells_a_changed_value(house: House) -> None:
    house.run("r1", "published", pipeline="techmarket")
    fill(house, "ods.users", {"id": "u", "email": "a@b"}, {"id": "v", "email": "c@d"})
    held = checkpoint.write(house.connection, house.lake, load_pipeline("techmarket")).tables["ods.users"]
    assert checkpoint.read_back(house.lake, held.parts) == (held.rows, held.digest) == (2, held.digest)
    path = house.lake.path(held.parts[0].key)
    with house.lake.filesystem.open_input_file(path) as file:
        table = pq.read_table(file)
    place = table.schema.get_field_index("email")
    changed = pa.array(["a@b", "c@e"], table.schema.field(place).type)
    with house.lake.filesystem.open_output_stream(path) as stream:
        pq.write_table(table.set_column(place, table.schema.field(place), changed), stream)
    rows, digest = checkpoint.read_back(house.lake, held.parts)
    assert rows == 2
    assert digest != held.digest


def test_every_type_of_ods_is_digested_alike(house: House) -> None:
    house.run("r1", "published", pipeline="techmarket")
    house.connection.execute(
        'ALTER TABLE ods.users ADD COLUMN wide numeric(65,30), ADD COLUMN "full" numeric(38,20), '
        "ADD COLUMN raw bytea, ADD COLUMN day date, ADD COLUMN yes boolean, "
        "ADD COLUMN real double precision, ADD COLUMN padded char(9), ADD COLUMN long text, "
        "ADD COLUMN small smallint, ADD COLUMN big bigint"
    )
    fill(house, "ods.users", {"id": "u"}, {"id": "v"})
    house.connection.execute(
        'UPDATE ods.users SET wide = %s, "full" = %s, raw = %s, day = %s, yes = true, real = 0.1, '
        "padded = 'a ', long = %s, small = -32768, big = 9223372036854775807 WHERE id = 'u'",
        (
            Decimal("12345678901234567890123456789012345.000000000000000000000000000001"),
            Decimal("-123456789012345678.00000000000000000001"),
            b"\x00\xff" * 900,
            date(1, 1, 1),
            "є" * 2000,
        ),
    )
    # It compares with what PostgreSQL says, and raises where they differ.
    held = checkpoint.write(house.connection, house.lake, load_pipeline("techmarket")).tables["ods.users"]
    with house.lake.filesystem.open_input_file(house.lake.path(held.parts[0].key)) as file:
        (row, _) = sorted(pq.read_table(file).to_pylist(), key=lambda row: row["id"])
    assert row["wide"] == "12345678901234567890123456789012345.000000000000000000000000000001"
    assert row["full"] == Decimal("-123456789012345678.00000000000000000001")
    assert (row["raw"], row["padded"], row["real"]) == (b"\x00\xff" * 900, "a", 0.1)


def published(house: House, run_id: str, days: int) -> str:
    house.run(run_id, "published", days=days, pipeline="pancake")
    house.batch(run_id, 1, committed=False)
    return house.batch(run_id, 2)


def test_raw_goes_below_a_checkpoint_that_was_written_first(house: House) -> None:
    oldest, young, last = (published(house, f"r{days}", days) for days in (50, 2, 0))
    before = house.content()
    survey = house.upkeep(apply=False, after=timedelta(days=3), keep=RAW_GOES)
    assert house.content() == before
    assert any(
        line.endswith(f"{oldest}: published 53 days ago, and a checkpoint is written first")
        for line in report(survey, applied=False)
    )
    house.upkeep(after=timedelta(days=3), keep=RAW_GOES)
    folders = {key.rpartition("/")[0] for key in house.content()}
    # Both tries of the last run stay: it may be taken up by nobody, but the next run compares with it.
    assert folders == {young, last, last.replace("=2", "=1"), "checkpoint/pancake/run=r0"}
    # It holds the next one, too, so no other is written.
    house.upkeep(after=timedelta(days=40), keep=RAW_GOES)
    assert {key for key in house.content() if key.startswith("checkpoint/")} == {
        "checkpoint/pancake/run=r0/_manifest.json"
    }
    assert not any(key.startswith(young) for key in house.content())


def test_a_later_checkpoint_takes_the_place_of_an_earlier_one(house: House) -> None:
    published(house, "a", 90)
    published(house, "b", 80)
    house.upkeep(keep=RAW_GOES)
    assert {key for key in house.content() if key.startswith("checkpoint/")} == {
        "checkpoint/pancake/run=b/_manifest.json"
    }
    published(house, "c", 20)
    published(house, "d", 0)
    house.upkeep(keep=RAW_GOES)  # c is past its time, and b does not hold it
    house.upkeep(keep=RAW_GOES)
    assert {key for key in house.content() if key.startswith("checkpoint/")} == {
        "checkpoint/pancake/run=d/_manifest.json"
    }


def test_a_damaged_checkpoint_holds_nothing(house: House) -> None:
    published(house, "a", 50)
    fill(house, "ods.pancakes", {"id": 1})
    published(house, "b", 0)
    checkpoint.write(house.connection, house.lake, load_pipeline("pancake"))
    (part,) = (key for key in house.content() if key.startswith("checkpoint/") and key.endswith(".parquet"))
    house.put(part)
    survey = house.upkeep(apply=False, keep=RAW_GOES)
    assert {
        one.without_checkpoint for one in survey.leftovers if one.layer == "raw" and "=2" in one.place
    } == {"pancake"}
    house.upkeep(keep=RAW_GOES)
    held = checkpoint.read(house.lake, "pancake", "b").tables["ods.pancakes"]
    assert checkpoint.read_back(house.lake, held.parts) == (1, held.digest)


def test_raw_of_a_pipeline_that_no_checkpoint_can_hold_stays(house: House) -> None:
    house.run("e1", "published", days=300, pipeline="events")
    house.run("e2", "published", pipeline="events")
    house.run("s1", "published", days=300)
    house.run("s2", "published")
    house.batch("e1")
    house.batch("s1")
    before = house.content()
    house.upkeep(keep=RAW_GOES)
    assert house.content() == before


DAYS = st.lists(
    st.tuples(st.sampled_from(["published", "published", "failed"]), st.integers(1, 3)),
    min_size=1,
    max_size=6,
)


@hypothesis_settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(runs=DAYS, times=st.lists(st.integers(0, 90), min_size=1, max_size=3))
def test_whatever_is_swept_a_rebuild_finds_a_checkpoint_and_all_raw_since(
    house: House, runs: list[tuple[str, int]], times: list[int]
) -> None:
    house.clear()
    needed: dict[str, set[str]] = {}  # of each published run, in order: the batch that counts
    for number, (status, tries) in enumerate(runs):
        run_id = house.run(f"r{number}", status, days=10 * (len(runs) - number), pipeline="pancake")
        for attempt in range(1, tries + 1):
            folder = house.batch(run_id, attempt)
        if status == "published":
            needed[run_id] = {key for key in house.content() if key.startswith(f"{folder}/")}
    for days in sorted(times):
        house.upkeep(after=timedelta(days=days), keep=RAW_GOES)
        content = house.content()
        holds = [run for run in needed if f"checkpoint/pancake/run={run}/_manifest.json" in content]
        since = list(needed)[list(needed).index(holds[-1]) + 1 :] if holds else list(needed)
        for run_id in since:
            assert needed[run_id] <= content


def test_killed_between_the_checkpoint_and_the_removal_it_goes_on(house: House) -> None:
    published(house, "a", 50)
    published(house, "b", 0)
    checkpoint.write(house.connection, house.lake, load_pipeline("pancake"))  # and then it died
    (manifest,) = (key for key in house.content() if "run=a/attempt=2/_manifest" in key)
    house.client.delete_object(Bucket=house.bucket.name, Key=manifest)  # or here
    house.upkeep(after=LATER, keep=RAW_GOES)
    assert {key.split("/")[3] for key in house.content() if key.startswith("raw/")} == {"run=b"}
    assert {key for key in house.content() if key.startswith("checkpoint/")} == {
        "checkpoint/pancake/run=b/_manifest.json"
    }
