"""An empty table is filled without its indexes, and has the same ones afterwards."""

from collections.abc import Iterator

import psycopg
import pytest

from tallyhouse.publish import first_load
from tallyhouse.publish.first_load import indexes_afterwards

pytestmark = pytest.mark.integration

ROWS = 50
INDEXES = "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'Order Lines' ORDER BY indexname"
FILL = 'INSERT INTO ods."Order Lines" SELECT * FROM staging.lines'


@pytest.fixture
def connection(
    postgres_scratch: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    monkeypatch.setattr(first_load, "MANY_ROWS", ROWS)
    with psycopg.connect(postgres_scratch, autocommit=True) as connection:
        connection.execute(
            """
            CREATE SCHEMA ods;
            CREATE SCHEMA staging;
            CREATE TABLE ods."Order Lines" (
                "id" INTEGER CONSTRAINT "the key" PRIMARY KEY, "number" INTEGER UNIQUE, "sku" TEXT
            );
            CREATE INDEX "Of Sku" ON ods."Order Lines" ("sku" DESC) WHERE "sku" != '';
            CREATE TABLE staging.lines (LIKE ods."Order Lines");
            """
        )
        connection.execute(
            "INSERT INTO staging.lines SELECT n, n * 2, n::text FROM generate_series(1, %s) AS n", (ROWS,)
        )
        connection.execute("ANALYZE staging.lines")
        yield connection


def test_an_empty_table_has_its_indexes_again(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    before = connection.execute(INDEXES).fetchall()
    assert len(before) == 3
    with (
        connection.transaction(),
        indexes_afterwards(connection, "ods", "Order Lines", staged="lines") as bare,
    ):
        assert bare
        assert connection.execute(INDEXES).fetchall() == []
        connection.execute(FILL)
    assert connection.execute(INDEXES).fetchall() == before
    assert connection.execute('SELECT count(*) FROM ods."Order Lines"').fetchone() == (ROWS,)
    with pytest.raises(psycopg.errors.UniqueViolation):
        connection.execute('INSERT INTO ods."Order Lines" VALUES (1, 999, NULL)')


def test_a_table_with_rows_keeps_them(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    connection.execute('INSERT INTO ods."Order Lines" VALUES (0, 0, NULL)')
    before = connection.execute(INDEXES).fetchall()
    with (
        connection.transaction(),
        indexes_afterwards(connection, "ods", "Order Lines", staged="lines") as bare,
    ):
        assert not bare
        assert connection.execute(INDEXES).fetchall() == before


def test_a_few_rows_are_not_worth_it(
    connection: psycopg.Connection[tuple[object, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_load, "MANY_ROWS", ROWS + 1)
    with (
        connection.transaction(),
        indexes_afterwards(connection, "ods", "Order Lines", staged="lines") as bare,
    ):
        assert not bare


def test_a_key_that_comes_twice_leaves_everything_as_it_was(
    connection: psycopg.Connection[tuple[object, ...]],
) -> None:
    before = connection.execute(INDEXES).fetchall()
    with (
        pytest.raises(psycopg.errors.UniqueViolation),
        connection.transaction(),
        indexes_afterwards(connection, "ods", "Order Lines", staged="lines"),
    ):
        connection.execute(FILL)
        connection.execute(FILL)
    assert connection.execute(INDEXES).fetchall() == before
    assert connection.execute('SELECT count(*) FROM ods."Order Lines"').fetchone() == (0,)


def test_a_session_that_reads_the_table_is_not_waited_for(
    connection: psycopg.Connection[tuple[object, ...]], postgres_scratch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_load, "LOCK_TIMEOUT", "100ms")
    before = connection.execute(INDEXES).fetchall()
    with psycopg.connect(postgres_scratch) as reader:
        reader.execute('SELECT * FROM ods."Order Lines"')
        with (
            connection.transaction(),
            indexes_afterwards(connection, "ods", "Order Lines", staged="lines") as bare,
        ):
            assert not bare
            connection.execute(FILL)
    assert connection.execute(INDEXES).fetchall() == before
    assert connection.execute('SELECT count(*) FROM ods."Order Lines"').fetchone() == (ROWS,)
