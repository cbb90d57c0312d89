"""Migrations there and back on data: what a revision does not touch is as it was."""

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.exc import SQLAlchemyError

from services.common.migrate import MigrationError
from services.kaggle_data_api.migrate import migrations
from services.kaggle_data_api.settings import Settings
from tests.services.kaggle_data_api.conftest import url_of

ROOT = Path(__file__).parents[3]
REVISIONS = ["0001", "0002", "0003"]
OLDEST = "id, name, description, source_url, created_at"
CATALOGUE = (
    """SELECT table_name, column_name, data_type, character_maximum_length, is_nullable, column_default,
          collation_name, is_identity, generation_expression
     FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, ordinal_position""",
    "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'public'::regnamespace"
    " ORDER BY 1",
    "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1",
    "SELECT proname, prosrc, provolatile FROM pg_proc WHERE pronamespace = 'public'::regnamespace",
)


def run(settings: Settings, statement: str, values: object = None) -> list[tuple]:
    with psycopg.connect(url_of(settings)) as connection:
        cursor = connection.execute(statement, values)
        return cursor.fetchall() if cursor.description else []


def described(settings: Settings) -> list[list[tuple]]:
    return [run(settings, query) for query in CATALOGUE]


def fill(settings: Settings) -> list[tuple]:
    run(
        settings,
        "INSERT INTO datasets (name, description, source_url, created_at)"
        " SELECT 'Набір ' || n, CASE WHEN n % 2 = 0 THEN 'wine ' || n END, 'https://example.org/' || n,"
        " timestamptz '2026-01-01 00:00Z' + n * interval '1 hour' FROM generate_series(1, 1000) AS n",
    )
    return run(settings, f"SELECT {OLDEST} FROM datasets ORDER BY id")


def test_up_down_and_up_on_data(empty: Callable[[], Settings]):
    settings = empty()
    migrations(settings).upgrade("0001")
    rows, shapes = fill(settings), [described(settings)]
    for revision in REVISIONS[1:]:
        assert migrations(settings).upgrade(revision) == (revision,)
        shapes.append(described(settings))
        assert run(settings, f"SELECT {OLDEST} FROM datasets ORDER BY id") == rows
    assert run(settings, "SELECT count(*) FROM datasets WHERE search @@ 'wine'") == [(500,)]
    assert run(settings, "SELECT count(*) FROM datasets WHERE updated_at = created_at") == [(1000,)]
    run(settings, "UPDATE datasets SET ref = 'a/b', version = 2 WHERE id = 1")
    for revision, shape in zip(REVISIONS[-2::-1], shapes[-2::-1], strict=True):
        assert migrations(settings).downgrade("-1") == (revision,)
        assert described(settings) == shape
        assert run(settings, f"SELECT {OLDEST} FROM datasets ORDER BY id") == rows
    assert migrations(settings).upgrade() == (REVISIONS[-1],)
    assert described(settings) == shapes[-1]
    assert run(settings, f"SELECT {OLDEST} FROM datasets ORDER BY id") == rows
    assert run(settings, "SELECT count(*) FROM datasets WHERE search @@ 'wine'") == [(500,)]


def test_all_the_way_back_leaves_nothing(empty: Callable[[], Settings]):
    settings = empty()
    migrations(settings).upgrade()
    fill(settings)
    assert migrations(settings).downgrade("base") == ()
    assert run(
        settings, "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1"
    ) == [
        ("alembic_version",),
        ("alembic_version_pkc",),
    ]
    assert migrations(settings).upgrade() == (REVISIONS[-1],)


def test_again_and_from_several_at_once(empty: Callable[[], Settings]):
    settings = empty()
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda _: migrations(settings).upgrade(), range(4))) == {(REVISIONS[-1],)}
    rows = fill(settings)
    assert migrations(settings).upgrade() == (REVISIONS[-1],)
    assert run(settings, f"SELECT {OLDEST} FROM datasets ORDER BY id") == rows


def test_a_move_that_fails_changes_nothing(empty: Callable[[], Settings]):
    settings = empty()
    migrations(settings).upgrade()
    run(settings, "CREATE VIEW of_somebody AS SELECT ref FROM datasets")
    before = described(settings)
    with pytest.raises(SQLAlchemyError, match="depend"):
        migrations(settings).downgrade("-1")
    assert described(settings) == before
    assert run(settings, "SELECT version_num FROM alembic_version") == [(REVISIONS[-1],)]


def test_there_is_nothing_before_the_first(empty: Callable[[], Settings]):
    with pytest.raises(MigrationError):
        migrations(empty()).downgrade("-1")


def test_create_starts_the_next_revision(database: Settings, tmp_path: Path):
    ours = migrations(database)
    (folder,) = ours.folders
    for file in folder.glob("*.py"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    copy = replace(ours, folders=[tmp_path])
    made = copy.create("Owners of datasets!")
    assert made == tmp_path / "0004_owners_of_datasets.py"
    text = made.read_text()
    compile(text, str(made), "exec")
    assert "revision = '0004'" in text
    assert "down_revision = '0003'" in text
    assert copy.create("more").name == "0005_more.py"
    with pytest.raises(MigrationError):
        copy.create("...")
    with pytest.raises(MigrationError):
        replace(ours, folders=[tmp_path, tmp_path]).create("more")
    with pytest.raises(NotImplementedError):
        copy.upgrade()  # until somebody writes it


def test_the_commands(empty: Callable[[], Settings]):
    url = url_of(empty())

    def command(address: str, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "services.kaggle_data_api.migrate", *words],
            cwd=ROOT,
            env={"PATH": "/usr/bin:/bin", "DATABASE_URL": address},
            capture_output=True,
            text=True,
            check=False,
        )

    done = command(url, "up")
    assert (done.returncode, done.stdout, done.stderr) == (0, "datasets: at revision 0003\n", "")
    assert command(url, "down", "-1").stdout == "datasets: at revision 0002\n"
    assert command(url, "down", "base").stdout == "datasets: at revision base\n"
    away = command("postgresql://u:secretive@127.0.0.1:1/n", "up")
    assert away.returncode == 1
    assert len(away.stderr.splitlines()) == 1
    assert "PostgreSQL 127.0.0.1:1/n" in away.stderr
    assert "secretive" not in away.stderr
