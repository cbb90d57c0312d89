"""The migrations make the table that the generated schema makes, and take over one that is there."""

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import create_engine

from services.common.migrate import MigrationError
from services.pancake.migrate import differences, migrations
from services.pancake.settings import Settings
from tests.services.pancake.conftest import dsn_of

ROOT = Path(__file__).parents[3]
SCHEMA = (ROOT / "sql/oltp/05_pancake_schema.sql").read_text()

# What PostgreSQL itself knows of the table; names of its own making (sequence, key) included.
CATALOGUE = (
    """SELECT a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity,
          pg_get_expr(d.adbin, d.adrelid), col_description(a.attrelid, a.attnum)
     FROM pg_attribute AS a LEFT JOIN pg_attrdef AS d ON (d.adrelid, d.adnum) = (a.attrelid, a.attnum)
     WHERE a.attrelid = 'pancakes'::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum""",
    "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint"
    " WHERE conrelid = 'pancakes'::regclass ORDER BY 1",
    "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'pancakes' ORDER BY 1",
    "SELECT obj_description('pancakes'::regclass)",
    "SELECT pg_get_serial_sequence('pancakes', 'id')",
)


def migrate(settings: Settings) -> tuple[str, ...]:
    return migrations(settings).upgrade()


def described(settings: Settings) -> list[list[tuple]]:
    with psycopg.connect(dsn_of(settings)) as connection:
        return [connection.execute(query).fetchall() for query in CATALOGUE]


def run(settings: Settings, *statements: str) -> list[tuple]:
    with psycopg.connect(dsn_of(settings)) as connection:
        for statement in statements:
            cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def test_migrations_make_what_the_generated_schema_makes(empty: Callable[[], Settings]):
    generated, migrated = empty(), empty()
    run(generated, SCHEMA)
    assert migrate(migrated) == ("0001",)
    assert described(migrated) == described(generated)


def test_the_model_is_the_table(database: Settings):
    with create_engine(database.url).connect() as connection:
        assert differences(connection) == []


def test_a_table_that_is_there_is_adopted_with_its_rows(empty: Callable[[], Settings]):
    settings = empty()
    insert = "INSERT INTO pancakes (name, fluffiness_level, syrup_type) VALUES ('a', 1, 'b')"
    run(settings, SCHEMA, "CREATE TABLE of_somebody_else (x int)", insert)
    before = described(settings)
    assert migrate(settings) == ("0001",)
    assert described(settings) == before
    run(settings, insert)
    assert run(settings, "SELECT id FROM pancakes ORDER BY id") == [(1,), (2,)]
    assert run(settings, "SELECT version_num FROM alembic_version") == [("0001",)]


def test_again_and_from_several_at_once(empty: Callable[[], Settings]):
    settings = empty()
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda _: migrate(settings), range(4))) == {("0001",)}
    assert migrate(settings) == ("0001",)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("ALTER TABLE pancakes ALTER name TYPE varchar(50)", "name"),
        ("ALTER TABLE pancakes ALTER magical_factor TYPE numeric(8, 3)", "magical_factor"),
        ("ALTER TABLE pancakes DROP COLUMN taste_notes", "taste_notes"),
        ("ALTER TABLE pancakes ADD COLUMN stars int", "stars"),
        ("ALTER TABLE pancakes ALTER syrup_type DROP NOT NULL", "syrup_type"),
        ("ALTER TABLE pancakes ALTER is_buttery DROP DEFAULT", "is_buttery"),
        ("ALTER TABLE pancakes ALTER is_buttery SET DEFAULT true", "is_buttery"),
        ("ALTER TABLE pancakes ALTER created_at TYPE timestamp", "created_at"),
        ("ALTER TABLE pancakes ALTER id DROP IDENTITY", "identity"),
    ],
)
def test_a_table_of_another_shape_is_left_alone(empty: Callable[[], Settings], change: str, said: str):
    settings = empty()
    run(settings, SCHEMA, change)
    before = described(settings)
    with pytest.raises(MigrationError, match=said) as error:
        migrate(settings)
    assert "\n" not in str(error.value)
    assert described(settings) == before
    assert run(settings, "SELECT to_regclass('alembic_version')") == [(None,)]


def test_back_and_forth(empty: Callable[[], Settings]):
    settings = empty()
    migrate(settings)
    before = described(settings)
    assert migrations(settings).downgrade("base") == ()
    assert run(settings, "SELECT to_regclass('pancakes')") == [(None,)]
    assert migrate(settings) == ("0001",)
    assert described(settings) == before


def test_a_revision_that_is_not_there_is_one_line_and_changes_nothing(empty: Callable[[], Settings]):
    settings = empty()
    with pytest.raises(MigrationError, match="0815") as error:
        migrations(settings).upgrade("0815")
    assert "\n" not in str(error.value)
    assert run(settings, "SELECT to_regclass('alembic_version')") == [(None,)]


def test_the_command(empty: Callable[[], Settings]):
    settings = empty()

    def command(port: int, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "services.pancake.migrate", *arguments],
            cwd=ROOT,
            env={
                "PATH": "/usr/bin:/bin",
                "DB_HOST": "127.0.0.1",
                "DB_PORT": str(port),
                "DB_USER": "postgres",
                "DB_NAME": settings.db_name,
            },
            capture_output=True,
            text=True,
            check=False,
        )

    done = command(settings.db_port)
    assert (done.returncode, done.stdout, done.stderr) == (0, "pancakes: at revision 0001\n", "")
    assert command(settings.db_port, "down").returncode == 2  # it has to be told how far
    back = command(settings.db_port, "down", "base")
    assert (back.returncode, back.stdout, back.stderr) == (0, "pancakes: at revision base\n", "")
    away = command(1)
    assert away.returncode == 1
    assert len(away.stderr.splitlines()) == 1
    assert "PostgreSQL 127.0.0.1:1/" in away.stderr
