"""Old databases are taken over without loss, and there is a way back; PostgreSQL, and SQLite for lineage."""

import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from services.common.migrate import Migrations
from services.pipeline_info.migrate import of_postgres, of_sqlite

# As the last version made them that numbered its own files.
BEFORE = sorted(Path(__file__).with_name("before_alembic").glob("*.sql"))
NEWEST = ("lineage_0002", "runs_0002")

# What PostgreSQL itself knows of the schema: tables, columns, keys, indexes, partitions.
CATALOGUE = (
    """SELECT c.relname, c.relkind, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
           a.attcollation::regcollation::text, pg_get_expr(d.adbin, d.adrelid)
       FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid
         LEFT JOIN pg_attrdef AS d ON (d.adrelid, d.adnum) = (a.attrelid, a.attnum)
       WHERE c.relnamespace = 'pipeline_info'::regnamespace AND c.relkind IN ('r', 'p')
         AND c.relname NOT IN ('migration', 'alembic_version') AND a.attnum > 0 AND NOT a.attisdropped
       ORDER BY 1, 3""",
    """SELECT indexdef FROM pg_indexes
       WHERE schemaname = 'pipeline_info' AND tablename NOT IN ('migration', 'alembic_version') ORDER BY 1""",
    """SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
       WHERE connamespace = 'pipeline_info'::regnamespace
         AND conrelid::regclass::text !~ 'migration|alembic_version' ORDER BY 1, 2""",
    "SELECT proname FROM pg_proc WHERE pronamespace = 'pipeline_info'::regnamespace",
)
RUN = "INSERT INTO run (id, start_utc, environment, doc) VALUES ('r', '2026-01-02T00:00:00Z', 'dev', '{}')"
OLD_GRAPH = (
    "INSERT INTO lineage_edge VALUES ('dataset:a:X', 'job:n:j', '2026-01-02T00:00:00+00:00')",
    "INSERT INTO lineage_edge VALUES ('job:n:j', 'dataset:a:y', '2026-01-03T00:00:00+00:00')",
    "INSERT INTO lineage_column VALUES"
    " ('dataset:a:y', 'c', 'dataset:a:X', 'd', 'identity', '2026-01-03T00:00:00+00:00')",
    "INSERT INTO lineage_event VALUES ('f', '2026-01-02T00:00:00+00:00', 'COMPLETE', 'r', 'job:n:j', '{}')",
)
EDGES = [("dataset:a:X", "job:n:j"), ("job:n:j", "dataset:a:y")]

type Ask = Callable[..., list[tuple[Any, ...]]]


def asking(dsn: str) -> Ask:
    def ask(*statements: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(dsn, options="-c search_path=pipeline_info -c timezone=UTC") as connection:
            for statement in statements:
                cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    return ask


def described(ask: Ask) -> list[list[tuple[Any, ...]]]:
    return [ask(query) for query in CATALOGUE]


def made_before(ask: Ask, numbers: int) -> None:
    """A schema as the first `numbers` files of the version before Alembic made it, with a month of runs."""
    ask(
        "CREATE SCHEMA IF NOT EXISTS pipeline_info",
        "CREATE TABLE migration (number INT PRIMARY KEY, at TIMESTAMPTZ DEFAULT now())",
        *(file.read_text() for file in BEFORE[:numbers]),
        *(f"INSERT INTO migration (number) VALUES ({number})" for number in range(1, numbers + 1)),
    )
    if numbers:
        month = "FOR VALUES FROM ('2026-01-01 00:00+00') TO ('2026-02-01 00:00+00')"
        ask(f"CREATE TABLE run_2026_01 PARTITION OF run {month}", RUN)
    if numbers in (2, 3):
        ask(*OLD_GRAPH)


@pytest.mark.parametrize("numbers", range(len(BEFORE) + 1))
def test_a_schema_of_the_version_before_is_taken_over_with_its_rows(postgres, numbers: int):
    dsn, fresh = postgres.new_database(), postgres.new_database()
    ask = asking(dsn)
    made_before(ask, numbers)
    assert of_postgres(dsn, "pipeline_info").upgrade() == NEWEST
    of_postgres(fresh, "pipeline_info").upgrade()
    if numbers:
        assert ask("SELECT id, environment FROM run") == [("r", "dev")]
        ask("ALTER TABLE run DETACH PARTITION run_2026_01", "DROP TABLE run_2026_01")
    if numbers in (2, 3):
        assert ask("SELECT source, target FROM lineage_link ORDER BY 1") == EDGES
        assert ask("SELECT fingerprint, environment FROM lineage_event") == [("f", "")]
    assert described(ask) == described(asking(fresh))


def stores(postgres: Any, folder: Path) -> dict[str, tuple[Migrations, Ask]]:
    dsn, file = postgres.new_database(), folder / "runs.lineage"

    def ask_sqlite(*statements: str) -> list[tuple[Any, ...]]:
        with sqlite3.connect(file) as db:
            for statement in statements:
                cursor = db.execute(statement)
            return cursor.fetchall()

    return {
        "postgres": (of_postgres(dsn, "pipeline_info"), asking(dsn)),
        "sqlite": (of_sqlite(file), ask_sqlite),
    }


@pytest.mark.parametrize("engine", ["postgres", "sqlite"])
def test_lineage_goes_forward_and_back_with_its_rows(postgres, tmp_path: Path, engine: str):
    migrations, ask = stores(postgres, tmp_path)[engine]
    migrations.upgrade("lineage_0001")
    ask(*OLD_GRAPH)
    assert "lineage_0002" in migrations.upgrade()
    nodes = ask("SELECT node, folded, substr(CAST(last_seen AS TEXT), 1, 10) FROM lineage_node ORDER BY 1")
    assert nodes == [
        ("dataset:a:X", "dataset:a:x", "2026-01-02"),
        ("dataset:a:y", "dataset:a:y", "2026-01-03"),
        ("job:n:j", "job:n:j", "2026-01-03"),
    ]
    # Another environment saw a column come another way, later.
    ask(
        "INSERT INTO lineage_origin SELECT 'prod', origin_key, target_key, source_key, target, target_field,"
        " source, source_field, 'sum', '2026-01-09T00:00:00+00:00', reported_at FROM lineage_origin"
    )
    migrations.downgrade("lineage_0001")
    assert ask("SELECT source, target FROM lineage_edge ORDER BY 1") == EDGES
    assert ask("SELECT source_field, how FROM lineage_column") == [("d", "sum")]
    assert ask("SELECT job FROM lineage_event") == [("job:n:j",)]
    assert "lineage_0002" in migrations.upgrade()
    assert ask("SELECT source, target FROM lineage_link ORDER BY 1") == EDGES
    assert ask("SELECT fingerprint, environment FROM lineage_event") == [("f", "")]


def test_runs_go_back_and_forth(postgres):
    dsn = postgres.new_database()
    migrations, ask = of_postgres(dsn, "pipeline_info"), asking(dsn)
    made_before(ask, 4)
    assert migrations.upgrade() == NEWEST
    before = described(ask)
    assert migrations.downgrade("runs_0001") == ("lineage_0002", "runs_0001")
    assert migrations.upgrade() == NEWEST
    assert ask("SELECT id FROM run") == [("r",)]
    assert described(ask) == before
    assert migrations.downgrade("base") == ()
    assert ask("SELECT relname FROM pg_class WHERE relnamespace = 'pipeline_info'::regnamespace") == [
        ("alembic_version",),
        ("alembic_version_pkc",),
    ]
    assert migrations.upgrade() == NEWEST


def test_a_file_of_the_version_before_is_taken_over(postgres, tmp_path: Path):
    migrations, ask = stores(postgres, tmp_path)["sqlite"]
    with sqlite3.connect(tmp_path / "runs.lineage") as db:
        db.executescript(BEFORE[1].read_text().replace(' COLLATE "C"', ""))
    ask(*OLD_GRAPH)
    assert migrations.upgrade() == ("lineage_0002",)
    assert ask("SELECT source, target FROM lineage_link ORDER BY 1") == EDGES


def test_a_name_too_long_for_the_older_index_leaves_everything_as_it_is(postgres, tmp_path: Path):
    migrations, ask = stores(postgres, tmp_path)["postgres"]
    migrations.upgrade()
    ask(
        "INSERT INTO lineage_link VALUES ('', 'k', 'l',"
        " (SELECT string_agg(md5(n::text), '') FROM generate_series(1, 1000) AS n), 'b', now(), now())"
    )
    with pytest.raises(Exception, match="index row"):
        migrations.downgrade("lineage_0001")
    assert ask("SELECT target FROM lineage_link") == [("b",)]
    assert migrations.upgrade() == NEWEST


@pytest.mark.parametrize("engine", ["postgres", "sqlite"])
def test_several_at_once(postgres, tmp_path: Path, engine: str):
    migrations, _ = stores(postgres, tmp_path)[engine]
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(lambda _: migrations.upgrade(), range(4)))) == 1
