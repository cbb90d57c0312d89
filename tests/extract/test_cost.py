"""What a run reads of a source follows what changed, by the server's own counters."""

import time
from datetime import datetime
from typing import Any

import psycopg
import pytest

from tallyhouse.contracts import Column, ColumnType, TableContract
from tallyhouse.extract import mysql as mysql_source
from tallyhouse.extract import postgres as postgres_source
from tallyhouse.extract.stream import SourceStream
from tallyhouse.servers import MySqlServer
from tallyhouse.settings import Settings

pytestmark = pytest.mark.integration

ROWS, CHANGED = 50_000, 500
"""One row in a hundred has changed."""
OF_THE_TABLE = 0.03
OLD, NEW = "2026-01-01 00:00:00", "2026-02-01 00:00:00"


def contract(time_type: str, dialect: str) -> TableContract:
    return TableContract(
        source="orders",
        name="things",
        columns=(
            Column("id", ColumnType.parse("int", dialect), False),
            Column("note", ColumnType.parse("varchar(40)", dialect), False),
            Column("updated_at", ColumnType.parse(time_type, dialect), False),
        ),
        key=("id",),
        cursor="updated_at",
        pii=(),
        control_totals=(),
    )


def taken(stream: SourceStream) -> int:
    assert stream.statement.digest not in (None, "0")
    return sum(batch.num_rows for batch in stream.batches)


def told(stream: SourceStream) -> int:
    """Rows that the source read for both of its queries, as the batch's manifest tells of the longer one."""
    count, rows = stream.queries
    assert (count.what, rows.what) == ("count", "rows")
    assert stream.longest_query is not None
    assert stream.longest_query["seconds"] == max(count.seconds, rows.seconds) > 0
    assert count.rows_read is not None
    assert rows.rows_read is not None
    return count.rows_read + rows.rows_read


def test_one_changed_row_in_a_hundred_costs_mysql_three_at_most(mysql_scratch: Any) -> None:
    settings: Settings = mysql_scratch.settings
    cursor = mysql_scratch.cursor
    cursor.execute(
        "CREATE TABLE things (id int PRIMARY KEY, note varchar(40) NOT NULL, "
        "updated_at datetime(6) NOT NULL, INDEX (updated_at))"
    )
    cursor.executemany(
        "INSERT INTO things VALUES (%s, 'thing', %s)",
        [(number, NEW if number % (ROWS // CHANGED) == 0 else OLD) for number in range(ROWS)],
    )
    cursor.execute("ANALYZE TABLE things")
    cursor.fetchall()

    def read() -> int:
        cursor.execute("SHOW GLOBAL STATUS LIKE 'Handler_read%'")
        # Its own reading of the status goes through other handlers than a table's rows.
        return sum(int(value) for name, value in cursor.fetchall() if name != "Handler_read_rnd_next")

    server = MySqlServer(
        settings.mysql_orders_host,
        settings.mysql_orders_port,
        settings.etl_reader_user,
        settings.etl_reader_password,
        mysql_scratch.name,
    )
    before = read()
    watermark = datetime.fromisoformat(f"{NEW}+00:00")
    stream = mysql_source.open_stream(server, contract("datetime(6)", "mysql"), watermark)
    assert taken(stream) == CHANGED
    cost = read() - before
    assert CHANGED <= cost <= ROWS * OF_THE_TABLE
    # The server counts what it reads of its own tables as well.
    assert 2 * CHANGED <= told(stream) <= cost
    stream = mysql_source.open_stream(server, contract("datetime(6)", "mysql"), None)
    assert taken(stream) == ROWS
    assert told(stream) == pytest.approx(2 * ROWS, abs=10)


def test_one_changed_row_in_a_hundred_costs_postgresql_three_at_most(postgres_scratch: str) -> None:
    with psycopg.connect(postgres_scratch, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE things (id int PRIMARY KEY, note varchar(40) NOT NULL, "
            "updated_at timestamptz NOT NULL)"
        )
        connection.execute(
            "INSERT INTO things SELECT n, 'thing', CASE WHEN n %% %s = 0 THEN %s ELSE %s END::timestamptz "
            "FROM generate_series(0, %s - 1) AS n",
            (ROWS // CHANGED, f"{NEW}+00", f"{OLD}+00", ROWS),
        )
        connection.execute("CREATE INDEX ON things (updated_at)")
        connection.execute("ANALYZE things")

        def read() -> int:
            connection.execute("SELECT pg_stat_clear_snapshot()")
            ((rows,),) = connection.execute(
                "SELECT seq_tup_read + coalesce(idx_tup_fetch, 0) FROM pg_stat_user_tables "
                "WHERE relname = 'things'"
            ).fetchall()
            return int(rows)

        connection.execute("SELECT pg_stat_force_next_flush()")
        before = read()
        watermark = datetime.fromisoformat(f"{NEW}+00:00")
        stream = postgres_source.open_stream(postgres_scratch, contract("timestamptz", "postgres"), watermark)
        assert taken(stream) == CHANGED
        deadline = time.monotonic() + 30
        while (cost := read() - before) == 0:  # a session's counters are there soon after its end
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert CHANGED <= cost <= ROWS * OF_THE_TABLE
        assert told(stream) == cost
        stream = postgres_source.open_stream(postgres_scratch, contract("timestamptz", "postgres"), None)
        assert taken(stream) == ROWS
        assert told(stream) == 2 * ROWS
