"""Rows that the source no longer has are found by their keys, whatever else happens to it."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mysql.connector
import psycopg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tallyhouse.contracts import Column, ColumnType, TableContract
from tallyhouse.errors import TallyhouseError
from tallyhouse.extract import mysql as mysql_source
from tallyhouse.extract.deletes import Census, check_limit, take_census
from tallyhouse.extract.to_raw import write_batch
from tallyhouse.lake import Lake, Manifest
from tallyhouse.servers import MySqlServer

pytestmark = pytest.mark.integration

TYPES = {"shop": "smallint", "code": "varchar(40)", "updated_at": "datetime(6)"}
TABLE = TableContract(
    source="scratch",
    name="things",
    columns=tuple(Column(name, ColumnType.parse(spelled), False) for name, spelled in TYPES.items()),
    key=("shop", "code"),
    cursor="updated_at",
    pii=(),
    control_totals=(),
)
Key = tuple[int, str]
OLD, NEW = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)


@dataclass
class Stores:
    """A source and an `ods` with one table; a row of the window is one whose cursor is NEW."""

    scratch: Any
    warehouse: str
    lake: Lake

    def fill(self, source: dict[Key, datetime], ods: set[Key], deleted: set[Key] = frozenset()) -> None:  # type: ignore[assignment]
        cursor = self.scratch.cursor
        cursor.execute("DELETE FROM things")
        for (shop, code), at in source.items():
            cursor.execute("INSERT INTO things VALUES (%s, %s, %s)", (shop, code, at.replace(tzinfo=None)))
        with psycopg.connect(self.warehouse, autocommit=True) as connection:
            connection.execute("TRUNCATE ods.things")
            for keys, at in ((ods, None), (deleted, OLD)):
                for shop, code in keys:
                    connection.execute("INSERT INTO ods.things VALUES (%s, %s, %s)", (shop, code, at))

    def reader(self) -> Any:
        s = self.scratch.settings
        return mysql.connector.connect(
            host=s.mysql_orders_host,
            port=s.mysql_orders_port,
            user=s.etl_reader_user,
            password=s.etl_reader_password,
            database=self.scratch.name,
        )

    def batch(self, watermark: datetime | None, between: str | None = None) -> Manifest:
        """One batch and its census; a statement may run between the two."""
        s = self.scratch.settings
        address = MySqlServer(
            host=s.mysql_orders_host,
            port=s.mysql_orders_port,
            user=s.etl_reader_user,
            password=s.etl_reader_password,
            database=self.scratch.name,
        )

        def census(parts: list[str], at: datetime) -> Census | None:
            if between:
                self.scratch.cursor.execute(between)
            with closing(self.reader()) as source, psycopg.connect(self.warehouse) as warehouse:
                return take_census(
                    *(source, "mysql", warehouse, self.lake, TABLE, parts),
                    whole_at=at if watermark is None else None,
                )

        return write_batch(
            mysql_source.open_stream(address, TABLE, watermark),
            self.lake,
            TABLE,
            run_id="r",
            attempt=1,
            watermark=watermark,
            next_watermark=datetime(2026, 1, 3, tzinfo=UTC),
            census=census,
        )

    def deleted(self, manifest: Manifest) -> set[Key]:
        batches = self.lake.read_batches([part.key for part in manifest.deleted])
        return {(row["shop"], row["code"]) for batch in batches for row in batch.to_pylist()}


@pytest.fixture
def stores(mysql_scratch: Any, postgres_scratch: str, tmp_path: Path) -> Iterator[Stores]:
    mysql_scratch.cursor.execute(
        "CREATE TABLE things (shop smallint, code varchar(40), updated_at datetime(6) NOT NULL, "
        "PRIMARY KEY (shop, code)) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci"
    )
    with psycopg.connect(postgres_scratch, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA ods")
        connection.execute(
            "CREATE TABLE ods.things (shop smallint, code varchar(40), _deleted_at timestamptz, "
            "PRIMARY KEY (shop, code))"
        )
    yield Stores(mysql_scratch, postgres_scratch, Lake.local(str(tmp_path)))


KEYS = st.tuples(st.integers(0, 2), st.sampled_from(["a", "b", "c", "d", "є😀", "", "e|f", "1:g"]))


@hypothesis_settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    source=st.dictionaries(KEYS, st.sampled_from([OLD, NEW]), max_size=12),
    ods=st.sets(KEYS, max_size=12),
    whole=st.booleans(),
)
def test_what_ods_has_and_the_source_has_not_is_deleted(
    stores: Stores, source: dict[Key, datetime], ods: set[Key], whole: bool
) -> None:
    stores.fill(source, ods, {(7, "gone before")})
    manifest = stores.batch(None if whole else NEW)
    assert stores.deleted(manifest) == (ods - source.keys() if ods else set())
    if not ods:
        assert manifest.census is None
        return
    assert manifest.census is not None
    assert manifest.census["rows"] == len(source)
    batch = set(source) if whole else {key for key, at in source.items() if at == NEW}
    assert manifest.census["came"] == len(source.keys() - ods - batch)
    assert manifest.census["left"] == 0


def test_a_key_that_changed_its_letters_is_another_key(stores: Stores) -> None:
    """The source's collation takes both for one; `ods` would keep two live rows."""
    stores.fill({(1, "spring"): NEW}, {(1, "SPRING")})
    assert stores.deleted(stores.batch(NEW)) == {(1, "SPRING")}


def test_what_leaves_and_comes_after_the_window_is_told_apart_and_kept_for_the_next_run(
    stores: Stores,
) -> None:
    stores.fill({(1, "stays"): OLD, (1, "leaves"): NEW}, {(1, "stays"), (1, "dead")})
    stores.scratch.cursor.execute("DELETE FROM things WHERE code = 'nothing'")
    manifest = stores.batch(
        NEW, "UPDATE things SET code = 'comes', updated_at = '2025-06-01' WHERE code = 'leaves'"
    )
    assert stores.deleted(manifest) == {(1, "dead")}
    assert manifest.census is not None
    assert (manifest.census["left"], manifest.census["came"], manifest.census["rows"]) == (1, 1, 2)
    # Its cursor lies before every window to come: the watermark goes back for it.
    assert manifest.watermark_to == datetime(2025, 6, 1, tzinfo=UTC)


def test_postgres_keys_are_compared_in_the_same_way(
    postgres_scratch: str, tmp_path: Path, stores: Stores
) -> None:
    stores.fill({}, {(1, "stays"), (1, "dead"), (2, "є😀")})
    with psycopg.connect(postgres_scratch, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE things (shop smallint, code varchar(40), updated_at timestamptz NOT NULL)"
        )
        for shop, code in ((1, "stays"), (2, "є😀"), (3, "comes")):
            connection.execute("INSERT INTO things VALUES (%s, %s, %s)", (shop, code, OLD))
    with psycopg.connect(postgres_scratch) as source, psycopg.connect(postgres_scratch) as warehouse:
        census = take_census(source, "postgres", warehouse, stores.lake, TABLE, [], whole_at=None)
    assert census is not None
    assert census.deleted == ((1, "dead"),)
    assert (census.rows, census.left, census.came, census.first_came) == (3, 0, 1, OLD)


def test_an_emptied_source_stops_the_run_unless_it_is_allowed(stores: Stores) -> None:
    stores.fill({}, {(1, "a"), (1, "b")})
    with closing(stores.reader()) as source, psycopg.connect(stores.warehouse) as warehouse:
        census = take_census(source, "mysql", warehouse, stores.lake, TABLE, [], whole_at=None)
    assert census is not None
    with pytest.raises(
        TallyhouseError, match=r"scratch\.things: 2 of 2 rows are no longer in the source"
    ) as raised:
        check_limit(TABLE, census, allowed=False)
    assert "allow_deletes" in str(raised.value)
    assert sorted(raised.value.sample) == ["1 a", "1 b"]
    check_limit(TABLE, census, allowed=True)


def test_the_limit_is_a_share_of_the_live_rows() -> None:
    def of(deleted: int, live: int) -> Census:
        return Census(OLD, live - deleted, 0, deleted=tuple((1, str(number)) for number in range(deleted)))

    check_limit(TABLE, of(0, 0), allowed=False)
    check_limit(TABLE, of(10, 20), allowed=False)
    check_limit(TABLE, of(200, 1000), allowed=False)
    with pytest.raises(TallyhouseError, match="201 of 1000 rows"):
        check_limit(TABLE, of(201, 1000), allowed=False)
    with pytest.raises(TallyhouseError, match="3 of 3 rows"):
        check_limit(TABLE, of(3, 3), allowed=False)
